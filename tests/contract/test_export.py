"""Every model is exported to ONNX and says there what it says here, or there is a sentence why not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_modules.base.families import Spec
from pipeline.predicting import graphs
from pipeline.predicting.graphs._family import family_name, family_of
from pipeline.predicting.graphs._parts import exportable
from pipeline.predicting.graphs._refused import FAMILIES, MODELS, reason_for
from pipeline.predicting.graphs._writing import quiet, write_graphs
from pipeline.predicting.parity import Exported, Twice
from pipeline.settings import discover
from tests.contract.test_families import IMAGES, SIDE, built

# Each family by one model, or more where parts are exported in other ways; each takes seconds, so not by all.
TRIED = {
    "classifier": ["image_classifier"],
    "segmenter": ["fcn"],
    "detector": ["faster_rcnn", "ssd"],
    "region_detector": ["fast_rcnn"],
    "captioner": ["soft_attention"],
    "answerer": ["lstm_vqa"],
    "pointer": ["region_pointer"],
    "sequence_classifier": ["recurrent_classifier"],
    "translator": ["attention_translator"],
    "text_reader": ["word_reader"],
    "frame_classifier": ["lrcn"],
    "clip_captioner": ["s2vt"],
}
LARGEST = 2e-3  # absolute; boxes are in pixels
IMAGES_3 = torch.cat([IMAGES, IMAGES[:1].flip(-1)])  # another number than graphs are made with
QUESTIONS = (torch.tensor([[3, 4, 5, 6, 7], [6, 0, 0, 0, 0]]), [5, 1], torch.tensor([1, 0]))


def detect(model: Any) -> None:
    model(IMAGES_3, sizes=[(SIDE, SIDE), (40, SIDE), (SIDE, 30)], detect=True)


def detect_in_regions(model: Any) -> None:
    regions = [torch.tensor([[4.0, 4, 44, 44], [30, 20, 64, 60], [0, 0, 64, 64]]), torch.zeros(0, 4)]
    model(IMAGES, regions, sizes=[(SIDE, SIDE), (40, SIDE)], detect=True)


def write(model: Any, memory: Any, state: Any, rows: int) -> None:
    for t in range(3):
        _, state, *_ = model.step(memory, state, torch.arange(rows) % 4 + t)


def caption(model: Any) -> None:
    write(model, *model.start(model.encode(IMAGES_3)), 3)


def translate(model: Any) -> None:
    write(
        model, *model.encode(torch.tensor([[4, 5, 6, 7, 8, 3], [7, 3, 0, 0, 0, 0], [9, 9, 3, 0, 0, 0]]), [6, 2, 3]), 3
    )


def point(model: Any) -> None:
    boxes = torch.tensor([[8.0, 8, 40, 40], [0, 0, 9, 60], [1, 2, 3, 4]])
    model(IMAGES, *QUESTIONS, boxes, torch.tensor([0, 0, 1]))


def clips(model: Any) -> tuple[torch.Tensor, list[int]]:
    features = model.encode(torch.cat([IMAGES_3, IMAGES]))
    return torch.stack([features[:4], torch.cat([features[4:], torch.zeros_like(features[:3])])]), [4, 1]


ASKS: dict[str, Any] = {
    "classifier": lambda model: model(IMAGES_3),
    "segmenter": lambda model: model(IMAGES_3),
    "detector": detect,
    "region_detector": detect_in_regions,
    "captioner": caption,
    "answerer": lambda model: model(IMAGES, *QUESTIONS),
    "pointer": point,
    "sequence_classifier": lambda model: model(torch.tensor([[3, 4, 5, 6, 7], [6, 0, 0, 0, 0]]), [5, 1]),
    "translator": translate,
    "text_reader": caption,
    "frame_classifier": lambda model: model.classify(*clips(model)),
    "clip_captioner": lambda model: write(model, *model.start(*clips(model)), 2),
}


def family_of_model(name: str) -> str:
    return family_name(discover.load("model", name, where="test").Model.spec_class.protocol)


def differences(name: str, folder: Path) -> dict[str, float]:
    """Of a model with random weights, whose norms have seen some images: new ones hide that they are read wrongly."""
    model, spec = built(name)
    family = family_of(type(spec).protocol)
    assert family is not None
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    ready = exportable(model.eval())
    with quiet():
        made = family.graphs(ready, (SIDE, SIDE))
    sessions = write_graphs(made, ready, folder)
    twice = Twice(model, Exported(family=family, stand=family.Stand(sessions), sessions=sessions, graphs=made))
    with torch.inference_mode():
        ASKS[family_name(type(spec).protocol)](twice)
    return twice.differences


@pytest.mark.parametrize("name", [name for names in TRIED.values() for name in names])
def test_a_model_says_in_onnx_what_it_says_in_torch(name, tmp_path):
    found = differences(name, tmp_path)
    assert found, "nothing was compared"
    assert max(found.values()) < LARGEST, found


@pytest.mark.parametrize("name", discover.names("model"))
def test_a_model_has_a_graph_or_a_reason(name):
    spec_class = discover.load("model", name, where="test").Model.spec_class
    reason = reason_for(name, spec_class)
    assert reason is None or len(reason.split()) > 5
    assert (reason is None) == (name not in MODELS and family_name(spec_class.protocol) not in FAMILIES), reason


def test_every_family_is_exported_or_refused_and_tried_here():
    names = {family_name(spec.protocol) for spec in Spec.__subclasses__()}
    files = {path.stem for path in Path(graphs.__path__[0]).glob("[!_]*.py")}
    assert files | FAMILIES.keys() == names and not files & FAMILIES.keys()
    assert TRIED.keys() == ASKS.keys() == files
    assert {family: [family_of_model(name) for name in tried] for family, tried in TRIED.items()} == {
        family: [family] * len(tried) for family, tried in TRIED.items()
    }
    assert MODELS.keys() <= set(discover.names("model"))


def test_every_task_makes_a_spec_of_a_family_that_is_known():
    for name in discover.names("task"):
        spec_class = discover.load("task", name, where="test").Task.spec_class
        family = family_name(spec_class.protocol)
        assert family in FAMILIES or family_of(spec_class.protocol) is not None, name


def test_reasons_are_sentences_in_the_documentation(root):
    page = re.sub(r"\s+", " ", (root / "docs/export.md").read_text())
    for reason in (*MODELS.values(), *FAMILIES.values()):
        assert reason in page
