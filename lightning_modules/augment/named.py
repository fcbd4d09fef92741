"""albumentations' transforms by name: which there are, whether their settings are right, and making them.

The library takes a second to import, beside torch's own: it is asked only where its answer is needed.
"""

from __future__ import annotations

import difflib
import os
import warnings
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from contracts.errors import ConfigError

# Settings whose ranges are known: of these alone, nothing has to be imported to tell that they are right. A test holds
# the limits to the library.
_SHARE = (0.0, 1.0)
_KNOWN: dict[str, dict[str, tuple[float, float]]] = {
    "CLAHE": {"p": _SHARE},
    "ColorJitter": dict.fromkeys(("brightness", "contrast", "saturation", "p"), _SHARE) | {"hue": (0.0, 0.5)},
    "GaussianBlur": {"p": _SHARE},
    "GaussNoise": {"p": _SHARE},
    "HorizontalFlip": {"p": _SHARE},
    "HueSaturationValue": dict.fromkeys(("hue_shift_limit", "sat_shift_limit", "val_shift_limit"), (0.0, 255.0))
    | {"p": _SHARE},
    "ImageCompression": {"p": _SHARE},
    "RandomBrightnessContrast": dict.fromkeys(("brightness_limit", "contrast_limit", "p"), _SHARE),
    "RandomGamma": {"p": _SHARE},
    "ToGray": {"p": _SHARE},
    "VerticalFlip": {"p": _SHARE},
}

# What a record and one pass of a loader do not have.
_REFUSED = {
    "ConstrainedCoarseDropout": "classes of boxes or masks, which do not travel with the pixels",
    "FDA": "other images to take the style from",
    "HistogramMatching": "other images to take the colors from",
    "Lambda": "functions, which params.yaml cannot hold",
    "Mosaic": "other images to put beside this one",
    "OverlayElements": "other images to lay over this one",
    "PixelDistributionAdaptation": "other images to take the colors from",
    "RandomCropNearBBox": "one chosen box of each image (`cropping_bbox`)",
    "TextImage": "a text for each image",
    "ToRGB": "images of one channel: these have three",
}

# They look at a mask of the image: a semantic one, or where its objects are.
NEEDS_MASK = frozenset({"CropNonEmptyMaskIfExists", "MaskDropout"})

_PROBE = 128  # pixels of the side that a transform is tried on


def check_transforms(sections: Sequence[Mapping[str, Any]]) -> None:
    """Tell what is wrong with these transforms, without any image of the user's.

    Raises:
        ConfigError: a name that is none, a setting that is wrong, or what cannot be done with it.
    """
    if all(_is_known(section) for section in sections):
        return
    for i, transform in enumerate(make_transforms(sections)):
        _probe(transform, sections[i], f"augment.albumentations.{i}")


def make_transforms(sections: Sequence[Mapping[str, Any]]) -> list[Any]:
    """albumentations' transforms of these names and settings.

    Raises:
        ConfigError: as `check_transforms`, but for what shows only when they run.
    """
    return [_make(_library(), dict(section), f"augment.albumentations.{i}") for i, section in enumerate(sections)]


def _library() -> ModuleType:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # importing it asks the network for its newest version
    import albumentations

    return albumentations


def _is_known(section: Mapping[str, Any]) -> bool:
    limits = _KNOWN.get(str(section.get("name")))
    if limits is None:
        return False
    rest = {key: value for key, value in section.items() if key != "name"}
    return all(
        key in limits and type(value) in (int, float) and limits[key][0] <= value <= limits[key][1]
        for key, value in rest.items()
    )


def _make(library: ModuleType, settings: dict[str, Any], where: str) -> Any:
    name = settings.pop("name", None)
    kind: Any = getattr(library, str(name), None)
    bases = (library.ImageOnlyTransform, library.DualTransform)
    if not (isinstance(kind, type) and issubclass(kind, bases) and kind not in bases):
        raise ConfigError(
            "no transform of albumentations", value=name, where=f"{where}.name", **_choices(library, str(name), bases)
        )
    if name in _REFUSED or issubclass(kind, library.Transform3D):
        needs = _REFUSED.get(str(name), "volumes of three dimensions")
        raise ConfigError(
            f"{name} needs {needs}", value=name, where=f"{where}.name", allowed="transforms of one image alone",
            fix="take the entry out",
        )  # fmt: skip
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            transform = kind(**settings)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"wrong settings of {name}", value=settings, where=where, allowed=str(error)) from error
    # An unknown setting is only a warning there; others advise another transform.
    if unknown := [str(one.message) for one in told if "not valid for" in str(one.message)]:
        known = sorted({"p", *type(transform).InitSchema.model_fields} - {"strict"})
        raise ConfigError(f"wrong settings of {name}: {unknown[0]}", where=where, allowed=", ".join(known))
    return transform


def _choices(library: ModuleType, name: str, bases: tuple[type, ...]) -> dict[str, str]:
    """What there is in place of `name`, as parts of an error."""
    kinds = {key: getattr(library, key) for key in dir(library)}
    names = sorted(
        key
        for key, kind in kinds.items()
        if isinstance(kind, type) and issubclass(kind, bases) and kind not in (*bases, library.Transform3D)
        if key not in _REFUSED
    )
    near = difflib.get_close_matches(name, names, n=3)
    if near:
        return {"fix": "did you mean " + " or ".join(map(repr, near)) + "?"}
    return {"allowed": ", ".join(names), "fix": "compositions such as OneOf are lists of their own: name transforms"}


def _probe(transform: Any, section: Mapping[str, Any], where: str) -> None:
    """Whether it makes an image of an image, tried on a grey one."""
    name = section["name"]
    image = np.full((_PROBE, _PROBE, 3), 128, np.uint8)
    # Also on two frames: some transforms move these differently.
    data = {"image": image, "images": np.stack([image, image])}
    if name in NEEDS_MASK:
        data["mask"] = np.ones((_PROBE, _PROBE), np.uint8)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            transform.set_random_seed(0)
            out = transform(**data, bboxes=np.zeros((0, 5), np.float32), force_apply=True)["image"]
    except Exception as error:
        if type(error).__name__ == "CropSizeError":
            return  # a crop larger than the probe, of images that may be larger, too
        raise ConfigError(
            f"{name} fails on a grey image", value=f"{type(error).__name__}: {error}"[:300], where=where,
            fix="give it other settings, or take the entry out",
        ) from error  # fmt: skip
    if not isinstance(out, np.ndarray) or out.dtype != np.uint8 or out.shape[2:] != (3,):
        told = f"{getattr(out, 'dtype', type(out).__name__)} {tuple(out.shape)}"
        raise ConfigError(
            f"{name} makes no image of 8 bits and three colors", value=told, where=where,
            allowed="transforms that give what they take", fix="models normalize their input themselves",
        )  # fmt: skip
