"""What may change at random in training: the `augment` section of a task. Nothing here imports a library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from contracts.errors import ConfigError
from contracts.ranges import SHARE, Range, RangeError, check_ranges
from lightning_modules.augment.named import check_transforms

ResizeMode = Literal["stretch", "letterbox", "cover", "line"]


def _check_interval(config: object, name: str) -> None:
    low, high = getattr(config, name)
    if low > high:
        raise RangeError(
            f"{name} must be two numbers, the smaller first (is {[low, high]})",
            {name: ([low, high], "two numbers, the smaller first")},
        )


@dataclass(frozen=True, kw_only=True)
class RandomCrop:
    """Inception's crop (1409.4842, section 6): a rectangle of random area and aspect inside of the image.

    Attributes:
        area: least and largest share of the image's area.
        ratio: least and largest width / height in the image's pixels, drawn evenly by logarithm.
    """

    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (0.75, 1.3333)

    def __post_init__(self) -> None:
        check_ranges(self, area=Range(0, 1, open_low=True), ratio=Range(0.01, 100))
        for name in ("area", "ratio"):
            _check_interval(self, name)


@dataclass(frozen=True, kw_only=True)
class ObjectCrop:
    """SSD's crop (1512.02325, section 2.2): a rectangle that has at least so much IoU with one of the objects.

    Of the objects whose center lies in it, what shows is learnt; what shows of others is ignored (`min_visibility`).

    Attributes:
        min_ious: one of these is drawn: 0 is any rectangle, 1 the whole image. If `trials` rectangles all miss it, the
            next one is drawn from those left, which is what the authors' code does.
        side: least and largest share of the width and of the height, drawn apart.
        ratio: least and largest width / height.
    """

    min_ious: tuple[float, ...] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
    side: tuple[float, float] = (0.3, 1.0)
    ratio: tuple[float, float] = (0.5, 2.0)
    trials: int = 50

    def __post_init__(self) -> None:
        positive = Range(0, 1, open_low=True)
        check_ranges(self, min_ious=SHARE, side=positive, ratio=Range(0.01, 100), trials=Range(1, 1000))
        for name in ("side", "ratio"):
            _check_interval(self, name)
        if not self.min_ious:
            said = "one number or more, such as [0, 0.5, 1]"
            raise RangeError(f"min_ious must be {said}", {"min_ious": ([], said)})


@dataclass(frozen=True, kw_only=True)
class ZoomOut:
    """SSD's expansion (1512.02325, section 3.6): the image somewhere on a larger canvas of the mean color.

    Attributes:
        probability: of doing so; otherwise the canvas is the image.
        largest: the canvas's sides, of the image's; drawn from 1 on.
    """

    probability: float = 0.5
    largest: float = 4.0

    def __post_init__(self) -> None:
        check_ranges(self, probability=SHARE, largest=Range(1, 16))


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random changes in training. Each number is a limit (0: off) except the two flips, which are probabilities.

    Attributes:
        horizontal_flip, vertical_flip: probability. Keep at 0 where the text speaks of left and right.
        crop: largest fraction of the width or height cut off at each side, below 0.5.
        random_crop: a rectangle of random area and aspect, for classification; null: none.
        object_crop: a rectangle that overlaps with an object, for detection; null: none.
        zoom_out: the image on a larger canvas, before a crop; null: never.
        scale: zoom by a factor in [1 - scale, 1 + scale], below 1.
        shift: move by up to this fraction of the size.
        rotate: degrees.
        brightness_contrast: brightness by up to this fraction of the full range, contrast by a factor of 1 +- it.
        hue: degrees of the color circle, to 180; color words become wrong above about 10.
        saturation: distance from grey by a factor of 1 +- it.
        min_visibility: an object with less than this fraction of its box left is neither learnt nor background.
        albumentations: any transforms of albumentations 2.0.8 by their names and settings, such as
            `{name: GaussianBlur, p: 0.2}`, in this order after all of the above; each draws from a seed of its own.
    """

    horizontal_flip: float = 0.0
    vertical_flip: float = 0.0
    crop: float = 0.0
    random_crop: RandomCrop | None = None
    object_crop: ObjectCrop | None = None
    zoom_out: ZoomOut | None = None
    scale: float = 0.0
    shift: float = 0.0
    rotate: float = 0.0
    brightness_contrast: float = 0.1
    hue: float = 0.0
    saturation: float = 0.0
    min_visibility: float = 0.1
    albumentations: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        limits = {"crop": 0.5, "scale": 1.0, "rotate": 180.0, "hue": 180.0}
        others = {"albumentations", "random_crop", "object_crop", "zoom_out"}
        names = self.__dataclass_fields__.keys() - others
        check_ranges(self, **{n: Range(0, limits.get(n, 1.0), open_high=n in ("crop", "scale")) for n in sorted(names)})
        crops = [name for name in ("crop", "random_crop", "object_crop") if getattr(self, name)]
        if len(crops) > 1:
            raise ConfigError(
                "more than one kind of crop", value=crops, where="augment",
                allowed="one of crop, random_crop and object_crop", fix="set the others to 0 or null",
            )  # fmt: skip
        check_transforms(self.albumentations)
