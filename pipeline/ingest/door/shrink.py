"""Large images -> smaller JPEGs, so that every epoch reads and decodes fewer bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import simplejpeg


@dataclass(frozen=True, slots=True, kw_only=True)
class Shrink:
    """Images whose shorter side has more than `short_side` pixels become JPEGs of that short side, of `quality`, 4:2:0.

    The longer side is rounded to the nearest pixel (halves to even). Pixels are averages over the area that they cover,
    so nothing aliases. Grey images stay grey. Equal files give equal bytes.
    """

    short_side: int
    quality: int

    def applies(self, size: tuple[int, int]) -> bool:
        return min(size) > self.short_side

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(width, height) -> that of the smaller image."""
        scale = self.short_side / min(size)
        return round(size[0] * scale), round(size[1] * scale)

    def jpeg(self, data: bytes, size: tuple[int, int], *, is_grey: bool) -> bytes:
        """A JPEG of (width, height) `size` made smaller.

        It is decoded at the least eighth that has enough pixels, which reads all bits and makes fewer pixels.

        Raises:
            ValueError: `data` has a flaw.
        """
        width, height = self.size(size)
        colours = "gray" if is_grey else "rgb"
        pixels = simplejpeg.decode_jpeg(data, colours, min_width=width, min_height=height, strict=True)
        return self._encoded(pixels, (width, height))

    def pixels(self, pixels: np.ndarray) -> bytes:
        """(H, W, 3) or (H, W) uint8 -> a smaller JPEG."""
        return self._encoded(pixels, self.size((pixels.shape[1], pixels.shape[0])))

    def _encoded(self, pixels: np.ndarray, size: tuple[int, int]) -> bytes:
        import cv2  # here: it takes longer to import than the rest of the stage, and only this needs it

        smaller = np.atleast_3d(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))
        if smaller.shape[2] == 1:
            return simplejpeg.encode_jpeg(smaller, self.quality, "gray", "gray")
        return simplejpeg.encode_jpeg(smaller, self.quality, "rgb", "420")
