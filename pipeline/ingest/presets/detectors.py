"""Settings of detectors by the objects of the data: shares are of image_size, as in the models' Config."""

from __future__ import annotations

import math

from pipeline.ingest.presets.case import Case, Rule, Setting, percent, up
from pipeline.ingest.statistics import Objects

_CELL = 0.75  # of a cell of the finest map that the smallest objects must have,
_CELLS_OF_ONE = 2.5  # and as many it has where a coarser map would do
_CELLS = 5  # a map's cell sees so many of its strides of the picture, and as much an object should not pass
_HEAD_CELLS = 5  # of a map that a box is pooled from, to 7 x 7 places; with fewer they are all alike
_STEP = 1.6  # between two anchors' sides: an object is off by a factor of 1.27 at most, which is an IoU of 0.62
_PHOTOGRAPH_PX = 300  # Selective Search's settings are for pictures of 500 px
_STRIDES = {"c2": 4, "c3": 8, "c4": 16, "c5": 32}


def anchors(case: Case) -> Setting | None:
    objects = case.found.objects
    if objects is None:
        return None
    least = min(objects.sides.low, objects.smallest_side)
    low, high = math.log(max(1e-3, least)), math.log(max(objects.sides.high, least * 1.01))
    number = max(1, math.ceil((high - low) / math.log(_STEP) - 0.2))
    levels = len(case.of("model.levels", ["c3"]))
    number = min(up(number, levels), 12)
    sides = [math.exp(low + (high - low) * (i + 0.5) / number) for i in range(number)]
    return Setting(
        [float(f"{side:.2g}") for side in sides],
        f"sides, as shares of image_size: objects have {percent(objects.sides.low)} to {percent(objects.sides.high)}",
    )


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
    return Setting(
        chosen,
        f"maps of stride {', '.join(str(_STRIDES[name]) for name in chosen)}: objects are {least:.0f} to {most:.0f} px",
    )


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
    return Setting(
        [float(f"{value:.2g}") for value in values],
        f"height / width: objects have {objects.ratios.low:.2g} to {objects.ratios.high:.2g}",
    )


def search(case: Case) -> Setting | None:
    pictures = case.found.pictures
    if pictures is None:
        return None
    if pictures.long_px.median >= _PHOTOGRAPH_PX:
        return Setting({"mode": "fast"}, "Selective Search with the published settings, which are for photographs")
    return Setting(
        {"mode": "fast", "scales": [25, 50], "min_side": 8},
        f"Selective Search, finer than for photographs: the pictures have about {pictures.long_px.median:.0f} px",
    )


def _crowd(objects: Objects) -> int:
    return math.ceil(objects.per_image.high)


def proposals(of_objects: int, least: int, most: int, reason: str) -> Rule:
    def rule(case: Case) -> Setting | None:
        if case.found.objects is None:
            return None
        number = min(most, up(of_objects * _crowd(case.found.objects), 50))
        return (
            Setting(number, f"{reason}; pictures have up to {_crowd(case.found.objects)} objects")
            if number > least
            else None
        )

    return rule


def roi_batch(case: Case) -> Setting | None:
    objects = case.found.objects
    number = min(256, up(4 * _crowd(objects), 32)) if objects else 32
    return Setting(number, "proposals learnt a picture, a quarter of them objects") if number > 32 else None


def max_detections(case: Case) -> Setting | None:
    objects = case.found.objects
    number = min(1000, up(2 * objects.most_per_image, 50)) if objects else 100
    return Setting(number, f"a picture has {objects.most_per_image} objects") if objects and number > 100 else None
