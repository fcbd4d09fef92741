"""Every model is built from its spec and called as its family's protocol says: a new model needs no line here, a new
family an example of its spec and a call."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import pytest
import torch

from lightning_modules.base.families import (
    AnswererSpec,
    CaptionerSpec,
    ClassifierSpec,
    ClipCaptionerSpec,
    DetectorSpec,
    FrameClassifierSpec,
    InstanceSegmenterSpec,
    PointerSpec,
    RegionDetectorSpec,
    SegmenterSpec,
    SequenceClassifierSpec,
    Spec,
    TellerSpec,
    TextReaderSpec,
    TranslatorSpec,
)
from pipeline.settings import discover

B, SIDE = 2, 64
IMAGES = torch.arange(B * 3 * SIDE * SIDE).reshape(B, 3, SIDE, SIDE).remainder(251).to(torch.uint8)
OBJECTS = {"num_foreground_classes": 3, "image_size": SIDE}
EXAMPLES: dict[type[Spec], Spec] = {
    ClassifierSpec: ClassifierSpec(num_classes=5),
    SegmenterSpec: SegmenterSpec(num_classes=4),
    DetectorSpec: DetectorSpec(**OBJECTS),
    InstanceSegmenterSpec: InstanceSegmenterSpec(**OBJECTS),
    RegionDetectorSpec: RegionDetectorSpec(**OBJECTS),
    CaptionerSpec: CaptionerSpec(vocabulary_size=11),
    AnswererSpec: AnswererSpec(vocabulary_size=11, num_answers=7),
    TellerSpec: TellerSpec(vocabulary_size=11, score="loglik"),
    PointerSpec: PointerSpec(vocabulary_size=11),
    SequenceClassifierSpec: SequenceClassifierSpec(vocabulary_size=11, num_classes=5),
    TranslatorSpec: TranslatorSpec(source_vocabulary_size=11, target_vocabulary_size=13),
    TextReaderSpec: TextReaderSpec(vocabulary_size=11, alignment="attention", image_size=(SIDE, SIDE)),
    FrameClassifierSpec: FrameClassifierSpec(num_classes=5),
    ClipCaptionerSpec: ClipCaptionerSpec(vocabulary_size=11),
}


def built(name: str) -> tuple[torch.nn.Module, Spec]:
    module = discover.load("model", name, where="test")
    spec = EXAMPLES[module.Model.spec_class]
    torch.manual_seed(0)
    return module.Model(module.Config(), spec), spec


def parameters(function: Any) -> list[tuple[str, Any, bool]]:
    """Name, kind, and whether it may be left out."""
    found = inspect.signature(function).parameters.values()
    return [(p.name, p.kind, p.default is not p.empty) for p in found]


@pytest.mark.parametrize("name", discover.names("model"))
def test_a_model_has_its_protocols_methods(name):
    cls = discover.load("model", name, where="test").Model
    protocol = cls.spec_class.protocol
    methods = [n for n, m in vars(protocol).items() if inspect.isfunction(m) and (n == "__call__" or n[0] != "_")]
    assert methods
    for method in methods:
        own = getattr(cls, "forward" if method == "__call__" else method)
        assert parameters(own) == parameters(getattr(protocol, method)), f"{name}.{method}"


def classify(model: Any, spec: ClassifierSpec) -> None:
    assert is_float(model(IMAGES), B, spec.num_classes)


def segment(model: Any, spec: SegmenterSpec) -> None:
    assert is_float(model(IMAGES[..., :50, :33]), B, spec.num_classes, 50, 33)


def detect_in_regions(model: Any, spec: RegionDetectorSpec) -> None:
    regions = [torch.tensor([[4.0, 4, 44, 44], [30, 20, 64, 60], [0, 0, 64, 64]]), torch.zeros(0, 4)]
    detect(lambda images, *given, **named: model(images, regions, *given, **named), spec)


def detect(model: Any, spec: DetectorSpec | InstanceSegmenterSpec | RegionDetectorSpec) -> None:
    masks = torch.zeros(1, SIDE, SIDE, dtype=torch.uint8)
    masks[:, 8:40, 8:40] = 1
    target = {"boxes": torch.tensor([[8.0, 8, 40, 40]]), "labels": torch.tensor([2]), "ignored": torch.zeros(0, 4)}
    none = {name: value[:0] for name, value in {**target, "masks": masks}.items()}
    losses, found = model(IMAGES, [{**target, "masks": masks}, none], sizes=[(SIDE, SIDE), (40, SIDE)], detect=True)
    assert losses and all(is_float(loss) for loss in losses.values())
    assert len(found) == B
    for one in found:
        count = len(one["scores"])
        assert is_float(one["boxes"], count, 4) and is_float(one["scores"], count)
        assert one["labels"].dtype == torch.int64
        assert bool(((one["labels"] >= 1) & (one["labels"] <= spec.num_foreground_classes)).all())
        assert torch.equal(one["scores"], one["scores"].sort(descending=True).values)
        assert ("masks" in one) == isinstance(spec, InstanceSegmenterSpec)
    assert model(IMAGES)[0] == {} and model(IMAGES)[1] == []


def caption(model: Any, spec: CaptionerSpec) -> None:
    tokens = torch.tensor([[3, 4, 0], [5, 6, 7], [8, 9, 10]])
    features = model.encode(IMAGES)
    logits, attention = model.decode(features, tokens, torch.tensor([0, 0, 1]))
    places = features.shape[-2] * features.shape[-1]
    assert is_float(logits, 3, 3, spec.vocabulary_size) and is_float(attention, 3, 3, places)
    memory, state = model.start(features)
    assert all(len(part) == B for part in (*memory, *state))
    logits, state, attention = model.step(memory, state, tokens[:B, 0])
    assert is_float(logits, B, spec.vocabulary_size) and is_float(attention, B, places)
    assert all(len(part) == B for part in state)


def answer(model: Any, spec: AnswererSpec) -> None:
    questions, images = torch.tensor([[3, 4, 5], [6, 0, 0], [7, 8, 0]]), torch.tensor([0, 1, 1])
    assert is_float(model(IMAGES, questions, [3, 1, 2], images), 3, spec.num_answers)


def tell(model: Any, spec: TellerSpec) -> None:
    questions, images = torch.tensor([[3, 4, 5], [6, 0, 0]]), torch.tensor([0, 1])
    answers, of = torch.tensor([[7, 8], [9, 0], [10, 3]]), torch.tensor([0, 0, 1])
    scores = model(IMAGES, questions, [3, 1], images, answers, [2, 1, 2], of)
    assert is_float(scores, 3, 2) and bool((scores <= 0).all()) and float(scores[1, 1]) == 0


def point(model: Any, spec: PointerSpec) -> None:
    questions, images = torch.tensor([[3, 4, 5], [6, 0, 0]]), torch.tensor([0, 1])
    boxes = torch.tensor([[8.0, 8, 40, 40], [0, 0, 9, 60], [1, 2, 3, 4]])
    assert is_float(model(IMAGES, questions, [3, 1], images, boxes, torch.tensor([0, 0, 1])), 3)


def classify_text(model: Any, spec: SequenceClassifierSpec) -> None:
    tokens = torch.tensor([[3, 4, 5], [6, 0, 0]])
    logits = model(tokens, [3, 1])
    assert is_float(logits, B, spec.num_classes)
    torch.testing.assert_close(model(tokens[1:, :1], [1]), logits[1:], msg="padding changes nothing")
    gates = model.gates(tokens, [3, 1])
    assert gates is None or (is_float(gates, B, 2, 3, 3) and bool(((gates > 0) & (gates < 1)).all()))


def translate(model: Any, spec: TranslatorSpec) -> None:
    sources, targets = torch.tensor([[4, 5, 6, 3], [7, 3, 0, 0]]), torch.tensor([[2, 4, 12], [2, 5, 0]])
    memory, state = model.encode(sources, [4, 2])
    assert all(len(part) == B for part in (*memory, *state))
    logits, attention = model.decode(memory, state, targets)
    places = attention.shape[2]
    assert (
        places in (0, 4) and is_float(logits, 2, 3, spec.target_vocabulary_size) and is_float(attention, 2, 3, places)
    )
    assert not attention[1, :, 2:].any(), "padding is not looked at"
    alone, _ = model.decode(*model.encode(sources[1:, :2], [2]), targets[1:])
    torch.testing.assert_close(alone, logits[1:], msg="padding changes nothing")
    for t in range(targets.shape[1]):
        one, state, weights = model.step(memory, state, targets[:, t])
        torch.testing.assert_close(one, logits[:, t], msg="a step at a time it says the same")
        torch.testing.assert_close(weights, attention[:, t])


def read_text(model: Any, spec: TextReaderSpec) -> None:
    features = model.encode(IMAGES)
    tokens = torch.tensor([[2, 4, 5], [2, 6, 7]])
    memory, state = model.start(features)
    logits, attention = model.decode(memory, state, tokens)
    assert is_float(logits, B, 3, spec.vocabulary_size) and is_float(attention, B, 3, features.shape[1])
    for t in range(tokens.shape[1]):
        one, state, weights = model.step(memory, state, tokens[:, t])
        torch.testing.assert_close(one, logits[:, t], msg="a step at a time it says the same")
        torch.testing.assert_close(weights, attention[:, t])


def clips(model: Any) -> torch.Tensor:
    """Features (2, 3, D) of clips of three frames and one."""
    frames = torch.cat([IMAGES, IMAGES.flip(0)])
    features = model.encode(frames)
    assert is_float(features, 4, features.shape[1])
    return torch.stack([features[:3], torch.cat([features[3:], torch.full_like(features[:2], 9.0)])])


def classify_frames(model: Any, spec: FrameClassifierSpec) -> None:
    features = clips(model)
    logits = model.classify(features, [3, 1])
    assert is_float(logits, B, 3, spec.num_classes)
    torch.testing.assert_close(model.classify(features[1:, :1], [1])[0, 0], logits[1, 0], msg="padding changes nothing")


def caption_clip(model: Any, spec: ClipCaptionerSpec) -> None:
    tokens = torch.tensor([[3, 4, 0], [5, 6, 7], [8, 9, 10]])
    features = clips(model)
    logits = model.decode(features, [3, 1], tokens, torch.tensor([0, 0, 1]))
    assert is_float(logits, 3, 3, spec.vocabulary_size)
    memory, state = model.start(features, [3, 1])
    assert all(len(part) == B for part in (*memory, *state))
    stepped, state = model.step(memory, state, tokens[::2, 0])
    torch.testing.assert_close(stepped, logits[::2, 0], msg="a step at a time is all steps at once")
    assert all(len(part) == B for part in state)
    alone = model.decode(features[1:, :1], [1], tokens[2:], torch.tensor([0]))
    torch.testing.assert_close(alone[0], logits[2], msg="padding changes nothing")


CALLS: dict[type[Spec], Any] = {
    ClassifierSpec: classify,
    SegmenterSpec: segment,
    DetectorSpec: detect,
    InstanceSegmenterSpec: detect,
    RegionDetectorSpec: detect_in_regions,
    CaptionerSpec: caption,
    AnswererSpec: answer,
    TellerSpec: tell,
    PointerSpec: point,
    SequenceClassifierSpec: classify_text,
    TranslatorSpec: translate,
    TextReaderSpec: read_text,
    FrameClassifierSpec: classify_frames,
    ClipCaptionerSpec: caption_clip,
}


def is_float(x: torch.Tensor, *shape: int) -> bool:
    return x.dtype == torch.float32 and x.shape == shape and bool(torch.isfinite(x).all())


@pytest.mark.parametrize("name", discover.names("model"))
def test_a_model_is_built_from_its_spec_and_does_what_the_protocol_says(name):
    model, spec = built(name)
    with torch.inference_mode():
        CALLS[type(spec)](model.eval(), spec)


def test_every_family_is_tested_here():
    assert EXAMPLES.keys() == CALLS.keys() == set(Spec.__subclasses__())


def test_what_settings_need_imports_no_torch():
    for module in ("families", "optimizer"):
        code = f"import sys, lightning_modules.base.{module}; sys.exit('torch' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0, module
