"""`make gpu-check` runs on a processor as it does on a GPU, but for memory; a machine without one is told so."""

from __future__ import annotations

import pytest
import torch

from benchmarks import gpu


def test_every_figure_is_there_and_has_what_it_is_beside():
    small = gpu.Check(
        architecture="fasterrcnn_mobilenet_v3_large_320_fpn",
        image_size=64,
        batch=1,
        steps=3,
        warm=1,
        loader_processes=1,
    )
    figures = gpu.figures(small, torch.device("cpu"))
    assert [figure.unit for figure in figures] == ["ms", "ms", "ms", "/s"]
    assert all(figure.value > 0 and figure.other and figure.other > 0 for figure in figures)
    assert "32-true" in figures[0].what and "mixed" in figures[1].what


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_machine_without_a_gpu_is_told():
    with pytest.raises(SystemExit, match="no GPU here"):
        gpu.measure()
