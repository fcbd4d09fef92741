"""The process that asks a registered model starts early, and never stays."""

from __future__ import annotations

import psutil
import pytest

from pipeline.tracking import probe


def test_an_early_process_that_is_not_asked_ends_with_its_block():
    with probe.early():
        ((process, folder),) = probe._waiting
        assert psutil.Process(process.pid).is_running() and folder.is_dir()
    assert process.poll() is not None and not folder.exists() and not probe._waiting


def test_it_ends_when_whoever_would_ask_has_died():
    with probe._process() as (process, _):
        process.stdin.close()  # as the system does for a process that was killed
        assert process.wait(120) == 0


def test_the_early_process_is_asked_once_and_tells_why_a_model_cannot_be_used(tmp_path):
    (tmp_path / "MLmodel").write_text("flavors: {}\n")
    with probe.early():
        ((early, _),) = probe._waiting
        with pytest.raises(RuntimeError, match=r"\w"):
            probe.probe(tmp_path, {"image": b"image"})
        assert early.returncode not in (None, 0) and not probe._waiting
