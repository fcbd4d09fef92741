"""Settings of pictures, training, networks and texts by the statistics of the data."""

from __future__ import annotations

import math

from pipeline.ingest.presets.case import GPU, OF_OBJECTS, Case, Rule, Setting, percent, up
from pipeline.ingest.statistics import Pictures

_SMALLEST_PX = 11  # an object's side below which a map of stride 8 has hardly a cell of it
_STEPS = 24  # of an epoch, at least: steps teach, not the pictures in one
_EPOCHS = 3, 60  # at least and at most
_VALIDATIONS = 8
_FEW = 100
_OFTEN = 25
# What a picture costs to learn, of what it costs a detector; where it is not said, a quarter.
_COSTS = {
    "detection": 1.0, "instances": 1.5, "region_detection": 1.0, "segmentation": 0.4, "region_segmentation": 4.0,
    "text_recognition": 0.1,
}  # fmt: skip
# Their words, or classes, speak of left and right, and of colors: `mirror` exchanges both.
_MIRRORED = ("action", "captioning", "frame_classification", "pointing", "telling", "video_captioning", "vqa")
_COST_OF_A_TEXT = 0.02
_STORED = (160, 256, 320, 480, 640, 800, 1080, 1440, 2160)


# how large pictures are, learnt and stored


def image_size(case: Case) -> Setting | None:
    pictures, objects, machine = case.found.pictures, case.found.objects, case.machine
    if pictures is None:
        return None
    if case.task == "region_segmentation":
        return Setting(224 if case.machine is GPU else 64, "px of a crop, of which a picture has many")
    whole = max(32, up(pictures.long_px.median, 32))
    if case.task in OF_OBJECTS and objects is not None:
        wanted = max(machine.usual_px, up(_SMALLEST_PX / objects.smallest_side, 32))
        size = min(wanted, whole, machine.most_px)
        name = objects.smallest if len(objects.smallest) < 30 else f"{objects.smallest[:27]}..."
        said = f"px; {name}, the smallest class, has {percent(objects.smallest_side)} of the longer side:"
        more = f"; {min(wanted, whole)} finds more" if min(wanted, whole) > size else ""
        return Setting(size, f"{said} {objects.smallest_side * size:.0f} px{more}")
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
    if case.task == "text_recognition":  # squeezed, not cut
        return None
    if pictures is None or max(pictures.aspect.high, 1 / pictures.aspect.low) < 2:
        return None
    if pictures.aspect.low > 2 or pictures.aspect.high < 0.5:  # all of them are long: nothing is to be cut off
        return None
    most = max(pictures.aspect.high, 1 / pictures.aspect.low)
    return Setting("cover", f"some are {most:.1f} times as long as wide: cut to a square, not squeezed")


def image_width(case: Case) -> Setting | None:
    pictures = case.found.pictures
    if pictures is None:
        return None
    aspect = pictures.aspect.median
    width = min(1024, max(96, up(32 * aspect, 32)))
    return Setting(width, f"px, 32 high; half of the pictures are at most {aspect:.1f} times as wide as high")


def short_side(case: Case) -> Setting | None:
    pictures = case.found.pictures
    if pictures is None or case.task == "region_segmentation":  # what is cut out of it is small
        return None
    enough = next((px for px in _STORED if px >= 1.25 * case.size), _STORED[-1])
    if pictures.short_px.median < 1.5 * enough:
        return None
    said = f"they are {_sizes(pictures)}, {case.size} are learnt"
    return Setting(enough, f"px; stored as JPEGs of this short side: {said}")


def max_megapixels(case: Case) -> Setting | None:
    pictures = case.found.pictures
    if pictures is None or pictures.largest_megapixels < 40:
        return None
    return Setting(
        min(178, up(1.5 * pictures.largest_megapixels, 10)),
        f"the largest of those looked at has {pictures.largest_megapixels:.0f}",
    )


def samples(case: Case) -> Setting | None:
    weight = min(case.found.pictures.median_bytes, 200_000) if case.found.pictures else 1_000
    by_bytes = 2 ** round(math.log2(max(16.0, min(4096.0, 64 * 2**20 / max(1.0, weight)))))
    few = up(case.found.num_records / 4, 8)  # a shard each for some workers, and something to shuffle
    return Setting(min(by_bytes, max(8, few)), "records of a tar: about 64 MiB, or a quarter of a small set")


# how long, and in what steps


def batch_size(case: Case) -> Setting | None:
    most = case.machine.most_batch if case.sees else 32
    wanted = most
    least = 8 if case.found.num_records >= 64 else 4  # batch norms see that many
    while wanted > least and case.found.num_records / wanted < _STEPS:
        wanted //= 2
    why = "pictures a step" if case.sees else "texts a step"
    return Setting(
        wanted, why if wanted == most else f"{why}: not more, since {case.found.num_records} records make few steps"
    )


def _schedule(case: Case) -> tuple[int, int]:
    """Epochs, and after how many each is validated: at most `_VALIDATIONS` times, the last epoch among them."""
    each = _COSTS.get(case.task, 0.25) * (case.size / 128) ** 2 if case.sees else _COST_OF_A_TEXT
    epochs = case.machine.work / each / max(1, case.found.num_records)
    epochs = max(_EPOCHS[0], min(_EPOCHS[1], round(epochs)))
    every = math.ceil(epochs / _VALIDATIONS)
    return up(epochs, every), every


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
    rate = (5e-4 if pretrained else 2e-3) * math.sqrt(min(1.0, case.batch / 8))
    rounded = float(f"{rate:.1g}")
    return Setting(
        {"lr": rounded}, f"of AdamW, {'pretrained' if pretrained else 'from scratch'}, at {case.batch} a step"
    )


# what is drawn at random


def augment(case: Case) -> Setting | None:
    """By how often each picture is seen: much that is drawn must be seen often to be of use."""
    if not case.sees or case.task == "text_recognition":  # its own changes nothing that is written
        return None
    epochs = int(case.of("train.max_epochs", 10))
    is_often = epochs >= _OFTEN
    values = {"scale": 0.2, "shift": 0.1, "brightness_contrast": 0.2} if is_often else {"scale": 0.1, "shift": 0.05}
    if case.task in _MIRRORED:
        values["rotate"] = 5.0
    else:
        values = {"horizontal_flip": 0.5, **values, **({"saturation": 0.2} if is_often else {})}
    said = f"seen {epochs} times each: {'much' if is_often else 'little'} is drawn"
    flips = "for letters horizontal_flip: 0, where up is like down vertical_flip: 0.5"
    return Setting(values, f"{said}; {flips}" if "horizontal_flip" in values else said)


# the network


def backbone(case: Case) -> Setting | None:
    if not case.sees:
        return None
    for name in ("resnet50", "resnet18") if case.machine is GPU else ("resnet18",):
        if name in case.weights:
            return Setting(name, "its pretrained weights lie on this machine")
    if case.machine is GPU and case.found.num_records >= 5_000:
        return Setting("resnet18", "from scratch; with a network, pretrained: true needs fewer pictures")
    return Setting("small", "from scratch; with a network, backbone: resnet18 and pretrained: true need fewer pictures")


def pretrained(case: Case) -> Setting | None:
    return Setting(True, "ImageNet's weights") if case.of("model.backbone", "") in case.weights else None


def norm(case: Case) -> Setting | None:
    if case.task in OF_OBJECTS and case.of("model.pretrained", False):
        return Setting("frozen", "the pretrained statistics stay: few pictures a step")
    return None


# texts


def longest(kind: str, least: int, most: int) -> Rule:
    def rule(case: Case) -> Setting | None:
        spread = case.found.words.get(kind)
        if spread is None:
            return None
        number = min(most, max(least, up(spread.high * 1.1 + 1, 4)))
        return Setting(number, f"words: 95 of 100 {kind} have at most {spread.high:.0f}")

    return rule


def max_characters(case: Case) -> Setting | None:
    spread = case.found.words.get("transcripts")
    if spread is None:
        return None
    number = min(400, max(10, up(spread.high * 1.1 + 1, 5)))
    return Setting(number, f"characters: 95 of 100 texts have at most {spread.high:.0f}")


def rare(kind: str) -> Rule:
    def rule(case: Case) -> Setting | None:
        number = case.found.num_texts.get(kind, 0)
        if not number:
            return None
        value = 1 if number < 1_000 else 2 if number < 50_000 else 5
        return Setting(value, f"rarer words are unknown ones; there are {number} {kind}")

    return rule


def dropout(case: Case) -> Setting | None:
    if case.task != "translation" or case.found.num_records >= 1_000_000:
        return None
    return Setting(0.3, f"{case.found.num_records} sentence pairs are soon learnt by heart")


def num_answers(case: Case) -> Setting | None:
    known = case.found.num_answers
    return Setting(min(3000, max(2, known)), f"{known} answers are given more than once") if known else None


def label_smoothing(case: Case) -> Setting | None:
    return Setting(0.1, f"{case.found.num_classes} classes") if case.found.num_classes >= 100 else None
