"""Settings that suit a data set: statistics of its training records -> values, each with its reason in plain words.

`RULES` is the table, from top to bottom; a rule sees what those above it chose, and gives None where it has nothing to
say. A rule counts where the task's or the model's Config has the setting. Figures without a name are explained beside
them; what a machine can bear stands in `CPU` and `GPU`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pipeline.ingest.statistics import Objects, Pictures, Statistics


class Setting(NamedTuple):
    """A value, and why; `reason` becomes the comment beside it."""

    value: Any
    reason: str


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a training may take. `work` is how many pictures of 128 x 128 pixels a detector learns from over a whole
    training, each as often as it comes: two or three minutes of two cores."""

    name: str
    most_px: int  # of image_size
    usual_px: int  # where nothing asks for more
    mask_px: int  # for label masks: borders are much of what is measured
    work: float
    most_batch: int


CPU = Machine(name="a CPU", most_px=320, usual_px=128, mask_px=192, work=6_000, most_batch=16)
GPU = Machine(name="a GPU", most_px=800, usual_px=224, mask_px=448, work=600_000, most_batch=64)


@dataclass(frozen=True, kw_only=True)
class Case:
    """What a rule may look at. `chosen` are the settings so far; `weights` the backbones whose pretrained weights lie
    on this machine."""

    found: Statistics
    task: str
    machine: Machine
    weights: tuple[str, ...]
    chosen: Mapping[str, Setting]

    def of(self, path: str, default: Any) -> Any:
        return self.chosen[path].value if path in self.chosen else default

    @property
    def size(self) -> int:
        return int(self.of("task.image_size", self.machine.usual_px))

    @property
    def batch(self) -> int:
        return int(self.of("train.batch_size", self.machine.most_batch))

    @property
    def sees(self) -> bool:
        return self.found.pictures is not None


Rule = Callable[[Case], Setting | None]
_SMALLEST_PX = 11  # an object's side below which a map of stride 8 has hardly a cell of it
_CELL = 0.75  # of a cell of the finest map that the smallest objects must have,
_CELLS_OF_ONE = 2.5  # and as many it has where a coarser map would do
_CELLS = 5  # a map's cell sees so many of its strides of the picture, and as much an object should not pass
_HEAD_CELLS = 5  # of a map that a box is pooled from, to 7 x 7 places; with fewer they are all alike
_STEPS = 24  # of an epoch, at least: steps teach, not the pictures in one
_STEP = 1.6  # between two anchors' sides: an object is off by a factor of 1.27 at most, which is an IoU of 0.62
_EPOCHS = 3, 60  # at least and at most
_VALIDATIONS = 8
_FEW = 100
# What a picture costs to learn, of what it costs a detector; where it is not said, a quarter.
_COSTS = {"detection": 1.0, "instances": 1.5, "segmentation": 0.4}
_COST_OF_A_TEXT = 0.02
_STRIDES = {"c2": 4, "c3": 8, "c4": 16, "c5": 32}
_STORED = (320, 480, 640, 800, 1080, 1440, 2160)


def _up(value: float, multiple: int) -> int:
    return max(1, math.ceil(value / multiple - 1e-9)) * multiple


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


# how large pictures are, learnt and stored


def image_size(case: Case) -> Setting | None:
    pictures, objects, machine = case.found.pictures, case.found.objects, case.machine
    if pictures is None:
        return None
    whole = max(32, _up(pictures.long_px.median, 32))
    if case.task in ("detection", "instances") and objects is not None:
        wanted = _up(_SMALLEST_PX / objects.smallest_side, 32)
        size = max(32, min(wanted if wanted > machine.usual_px else machine.usual_px, whole, machine.most_px))
        px = objects.smallest_side * size
        small = "" if wanted <= size else (
            f"; larger finds more: {min(wanted, whole)} px for {_SMALLEST_PX} px of an object" if wanted <= whole or whole > size
            else "; the pictures have no more pixels"
        )
        name = objects.smallest if len(objects.smallest) < 30 else f"{objects.smallest[:27]}..."
        return Setting(size, f"px; {name}, the smallest class, is {_percent(objects.smallest_side)} of a picture's longer side: {px:.0f} px{small}")
    usual = machine.mask_px if case.task == "segmentation" else machine.usual_px
    more = f"; more is finer and takes {machine.name} longer" if usual < whole else ""
    return Setting(min(usual, whole), f"px; the pictures are {_sizes(pictures)}{more}")


def _sizes(pictures: Pictures) -> str:
    long, short = pictures.long_px, pictures.short_px
    if long.low == long.high and short.low == short.high:
        return f"{long.median:.0f} x {short.median:.0f}"
    return f"{short.low:.0f} to {long.high:.0f} px, mostly {long.median:.0f} x {short.median:.0f}"


def resize(case: Case) -> Setting | None:
    pictures = case.found.pictures
    if pictures is None or max(pictures.aspect.high, 1 / pictures.aspect.low) < 2:
        return None
    if pictures.aspect.low > 2 or pictures.aspect.high < 0.5:  # all of them are long: nothing is to be cut off
        return None
    return Setting("cover", f"some are {max(pictures.aspect.high, 1 / pictures.aspect.low):.1f} times as long as wide: cut to a square, not squeezed")


def short_side(case: Case) -> Setting | None:
    pictures = case.found.pictures
    if pictures is None:
        return None
    enough = next((px for px in _STORED if px >= 1.25 * case.size), _STORED[-1])
    if pictures.short_px.median < 1.5 * enough:
        return None
    return Setting(enough, f"px; larger pictures are stored as JPEGs of this short side: they are {_sizes(pictures)}, {case.size} are learnt")


def max_megapixels(case: Case) -> Setting | None:
    pictures = case.found.pictures
    if pictures is None or pictures.largest_megapixels < 40:
        return None
    return Setting(min(178, _up(1.5 * pictures.largest_megapixels, 10)), f"the largest of those looked at has {pictures.largest_megapixels:.0f}")


def samples(case: Case) -> Setting | None:
    weight = min(case.found.pictures.median_bytes, 200_000) if case.found.pictures else 1_000
    by_bytes = 2 ** round(math.log2(max(16.0, min(4096.0, 64 * 2**20 / max(1.0, weight)))))
    few = _up(case.found.num_records / 4, 8)  # a shard each for some workers, and something to shuffle
    return Setting(min(by_bytes, max(8, few)), "records of a tar: about 64 MiB, or a quarter of a small set")


# how long, and in what steps


def batch_size(case: Case) -> Setting | None:
    most = case.machine.most_batch if case.sees else 32
    wanted = most
    while wanted > 4 and case.found.num_records / wanted < _STEPS:
        wanted //= 2
    why = "pictures a step" if case.sees else "texts a step"
    return Setting(wanted, why if wanted == most else f"{why}: few, for {case.found.num_records} records make few steps")


def _schedule(case: Case) -> tuple[int, int]:
    """Epochs, and after how many each is validated: at most `_VALIDATIONS` times, the last epoch among them."""
    each = _COSTS.get(case.task, 0.25) * (case.size / 128) ** 2 if case.sees else _COST_OF_A_TEXT
    epochs = case.machine.work / each / max(1, case.found.num_records)
    epochs = max(_EPOCHS[0], min(_EPOCHS[1], round(epochs)))
    every = math.ceil(epochs / _VALIDATIONS)
    return _up(epochs, every), every


def max_epochs(case: Case) -> Setting | None:
    number = max(1, case.found.num_records)
    epochs, _ = _schedule(case)
    what, more = "pictures" if case.sees else "texts", "" if case.found.is_all else " and more"
    said = f"over {number}{more} {what}: {epochs * math.ceil(number / case.batch)} steps"
    if epochs == _EPOCHS[0]:
        said += f"; more learns more, and {case.machine.name} takes long over so many"
    if number < _FEW:
        said += f"; so few {what} teach little, add some"
    return Setting(epochs, said)


def validate_every(case: Case) -> Setting | None:
    _, every = _schedule(case)
    return Setting(every, f"epochs; the best of {_schedule(case)[0] // every} is kept") if every > 1 else None


def learning_rate(case: Case) -> Setting | None:
    pretrained = bool(case.of("model.pretrained", False))
    rate = (5e-4 if pretrained else 2e-3) * math.sqrt(min(1.0, case.batch / 16))
    rounded = float(f"{rate:.1g}")
    return Setting({"lr": rounded}, f"of AdamW, {'pretrained' if pretrained else 'from scratch'}, at {case.batch} a step")


# what is drawn at random


def augment(case: Case) -> Setting | None:
    if not case.sees:
        return None
    few = case.found.num_records < 2_000
    common = {"scale": 0.2, "shift": 0.1, "brightness_contrast": 0.2} if few else {"scale": 0.1, "shift": 0.05}
    if case.task in ("detection", "instances", "segmentation", "classification"):
        values = {"horizontal_flip": 0.5, **common}
    else:
        values = {**common, "rotate": 5.0}  # texts speak of left and right: `mirror` flips both
    if few and case.task not in ("captioning", "vqa"):
        values["saturation"] = 0.2
    said = "few pictures: much is drawn" if few else "many pictures: little is drawn"
    return Setting(values, f"{said}; vertical_flip: 0.5 as well where up and down are alike, 0 for letters")


# the network


def backbone(case: Case) -> Setting | None:
    if not case.sees:
        return None
    for name in ("resnet50", "resnet18") if case.machine is GPU else ("resnet18",):
        if name in case.weights:
            return Setting(name, "its pretrained weights lie on this machine")
    if case.machine is GPU and case.found.num_records >= 5_000:
        return Setting("resnet18", "from scratch; with a network, pretrained: true needs fewer pictures")
    return Setting("small", f"from scratch; with a network, backbone: resnet18 and pretrained: true need fewer pictures")


def pretrained(case: Case) -> Setting | None:
    return Setting(True, "ImageNet's weights") if case.of("model.backbone", "") in case.weights else None


def norm(case: Case) -> Setting | None:
    if case.task in ("detection", "instances") and case.of("model.pretrained", False):
        return Setting("frozen", "the pretrained statistics stay: few pictures a step")
    return None


# detectors: shares of image_size, as in the model's Config


def anchors(case: Case) -> Setting | None:
    objects = case.found.objects
    if objects is None:
        return None
    least = min(objects.sides.low, objects.smallest_side)
    low, high = math.log(max(1e-3, least)), math.log(max(objects.sides.high, least * 1.01))
    number = max(1, math.ceil((high - low) / math.log(_STEP) - 0.2))
    levels = len(case.of("model.levels", ["c3"]))
    number = min(_up(number, levels), 12)
    sides = [math.exp(low + (high - low) * (i + 0.5) / number) for i in range(number)]
    return Setting([float(f"{side:.2g}") for side in sides], f"sides, as shares of image_size: objects have {_percent(objects.sides.low)} to {_percent(objects.sides.high)}")


def levels(case: Case) -> Setting | None:
    objects = case.found.objects
    if objects is None:
        return None
    least = max(1.0, min(objects.sides.low, objects.smallest_side) * case.size)
    most = objects.sides.high * case.size
    names = list(_STRIDES)
    finest = 0 if least < _CELL * _STRIDES["c3"] else 1 if least < _CELLS_OF_ONE * _STRIDES["c4"] else 2
    coarsest = next((i for i, name in enumerate(names) if _STRIDES[name] * _CELLS >= most), len(names) - 1)
    chosen = names[finest : max(finest, coarsest) + 1]
    return Setting(chosen, f"maps of stride {', '.join(str(_STRIDES[name]) for name in chosen)}: objects are {least:.0f} to {most:.0f} px")


def head_levels(case: Case) -> Setting | None:
    chosen = case.of("model.levels", [])
    if len(chosen) < 2 or 0.28 * case.size / 16 >= _HEAD_CELLS:  # 0.28: CANONICAL_SIDE of blocks/detectors.py
        return None
    return Setting(chosen[:1], f"of the coarser maps, an object of {case.size} px pictures has too few cells")


def aspect_ratios(case: Case) -> Setting | None:
    objects = case.found.objects
    if objects is None:
        return None
    low, high = math.log(objects.ratios.low), math.log(max(objects.ratios.high, objects.ratios.low * 1.01))
    number = max(1, min(5, round((high - low) / math.log(2.2))))
    values = [math.exp(low + (high - low) * (i + 0.5) / number) for i in range(number)]
    if number == 1 and 0.75 < values[0] < 1.33:
        return None
    return Setting([float(f"{value:.2g}") for value in values], f"height / width: objects have {objects.ratios.low:.2g} to {objects.ratios.high:.2g}")


def _crowd(objects: Objects) -> int:
    return math.ceil(objects.per_image.high)


def proposals(of_objects: int, least: int, most: int, reason: str) -> Rule:
    def rule(case: Case) -> Setting | None:
        if case.found.objects is None:
            return None
        number = min(most, _up(of_objects * _crowd(case.found.objects), 50))
        return Setting(number, f"{reason}; pictures have up to {_crowd(case.found.objects)} objects") if number > least else None

    return rule


def roi_batch(case: Case) -> Setting | None:
    objects = case.found.objects
    number = min(256, _up(4 * _crowd(objects), 32)) if objects else 32
    return Setting(number, "proposals learnt a picture, a quarter of them objects") if number > 32 else None


def max_detections(case: Case) -> Setting | None:
    objects = case.found.objects
    number = min(1000, _up(2 * objects.most_per_image, 50)) if objects else 100
    return Setting(number, f"a picture has {objects.most_per_image} objects") if objects and number > 100 else None


# texts


def longest(kind: str, most: int) -> Rule:
    def rule(case: Case) -> Setting | None:
        spread = case.found.words.get(kind)
        if spread is None:
            return None
        number = min(most, _up(spread.high * 1.1 + 1, 4))
        return Setting(number, f"words: 95 of 100 {kind} have at most {spread.high:.0f}")

    return rule


def rare(kind: str) -> Rule:
    def rule(case: Case) -> Setting | None:
        number = case.found.num_texts.get(kind, 0)
        if not number:
            return None
        value = 1 if number < 1_000 else 2 if number < 50_000 else 5
        return Setting(value, f"rarer words are unknown ones; there are {number} {kind}")

    return rule


def num_answers(case: Case) -> Setting | None:
    known = case.found.num_answers
    return Setting(min(3000, max(2, known)), f"{known} answers are given more than once") if known else None


def label_smoothing(case: Case) -> Setting | None:
    return Setting(0.1, f"{case.found.num_classes} classes") if case.found.num_classes >= 100 else None


_OBJECT_TASKS = ("detection", "instances")

RULES: tuple[tuple[str, Rule], ...] = (
    # the task
    ("task.image_size", image_size),
    ("task.resize", resize),
    ("task.label_smoothing", label_smoothing),
    ("task.max_words", longest("captions", 60)),
    ("task.max_words", longest("questions", 60)),
    ("task.max_tokens", longest("texts", 1000)),
    ("task.min_word_count", rare("captions")),
    ("task.min_word_count", rare("questions")),
    ("task.min_token_count", rare("texts")),
    ("task.num_answers", num_answers),
    ("task.augment", augment),
    # the model
    ("model.backbone", backbone),
    ("model.pretrained", pretrained),
    ("model.norm", norm),
    ("model.levels", levels),
    ("model.head_levels", head_levels),
    ("model.anchors", anchors),
    ("model.aspect_ratios", aspect_ratios),
    ("model.rpn_pre_nms_train", proposals(8, 200, 2000, "before suppression")),
    ("model.rpn_pre_nms_eval", proposals(8, 200, 1000, "before suppression")),
    ("model.rpn_post_nms_train", proposals(8, 100, 2000, "proposals that are kept")),
    ("model.rpn_post_nms_eval", proposals(4, 50, 1000, "proposals that are kept")),
    ("model.roi_batch", roi_batch),
    ("model.max_detections", max_detections),
    # training
    ("train.batch_size", batch_size),
    ("train.max_epochs", max_epochs),
    ("train.validate_every_epochs", validate_every),
    ("train.optimizer", learning_rate),
    # storage
    ("shards.samples", samples),
    ("shards.short_side", short_side),
    ("shards.max_megapixels", max_megapixels),
)


def presets(
    found: Statistics, task: str, known: Mapping[str, set[str]], machine: Machine, weights: tuple[str, ...] = ()
) -> dict[str, Setting]:
    """Settings by their paths (`task.image_size`, `train.max_epochs`, ..).

    Args:
        known: the settings that `task` and `model` have, by their names.
        weights: backbones whose pretrained weights are at hand.
    """
    chosen: dict[str, Setting] = {}
    for path, rule in RULES:
        section, _, key = path.partition(".")
        if section in known and key not in known[section]:
            continue
        setting = rule(Case(found=found, task=task, machine=machine, weights=weights, chosen=chosen))
        if setting is not None:
            chosen[path] = setting
    return chosen
