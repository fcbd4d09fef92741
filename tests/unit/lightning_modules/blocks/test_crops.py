"""The warp by hand, on ramps, whose bilinear values are known everywhere."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from lightning_modules.blocks.crops import contents, crop_regions, grow, warp
from lightning_modules.blocks.pixels import PixelNorm


def ramp(height: int = 20, width: int = 30) -> torch.Tensor:
    """A pixel's center is at half: red says x, green says y, blue is 1."""
    x, y = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width), torch.ones(height, width)])


def test_the_box_itself_is_all_but_the_padding():
    """227 / (227 - 2 * 16) = 1.164: of a box of 195 px 16 px more at each side."""
    box = torch.tensor([[100.0, 200, 295, 395]])
    torch.testing.assert_close(grow(box, 227, 16), torch.tensor([[84.0, 184, 311, 411]]))
    flat = torch.tensor([[0.0, 0, 40, 10]])
    torch.testing.assert_close(grow(flat, 48, 4), torch.tensor([[-4.0, -1, 44, 11]]))
    assert torch.equal(grow(flat, 48, 0), flat)


def test_a_crop_of_whole_pixels_is_the_picture():
    image = ramp()
    assert torch.equal(warp(image, torch.tensor([[5.0, 3, 13, 11]]), 8)[0], image[:, 3:11, 5:13])


def test_a_ramp_is_stretched_each_way_by_itself():
    """16 x 4 px to 8 x 8: every second x between two pixels, y by halves."""
    crop = warp(ramp(), torch.tensor([[6.0, 8, 22, 12]]), 8)[0]
    torch.testing.assert_close(crop[0, 3], 7.0 + 2 * torch.arange(8))
    torch.testing.assert_close(crop[1, :, 3], 8.25 + 0.5 * torch.arange(8))
    larger = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    theirs = F.interpolate(larger, (12, 12), mode="bilinear", align_corners=False)
    torch.testing.assert_close(warp(larger[0], torch.tensor([[0.0, 0, 4, 4]]), 12), theirs)


def test_it_does_not_smooth_what_it_shrinks():
    """Stripes of one pixel shrunk three times: values of single pixels, where smoothing would give a third."""
    stripes = torch.zeros(3, 24, 24)
    stripes[:, :, 1::3] = 1
    assert torch.equal(warp(stripes, torch.tensor([[0.0, 0, 24, 24]]), 8), torch.ones(1, 3, 8, 8))


def test_outside_the_picture_is_the_mean_color():
    crop = warp(ramp(), torch.tensor([[-4.0, -4, 4, 4]]), 8)[0]
    assert torch.equal(crop[:, 4:, 4:], ramp()[:, :4, :4])
    assert not crop[:, :3].any() and not crop[:, :, :3].any()
    assert torch.equal(crop[:, 3:4, 4:], crop[:, 4:5, 4:]), "half a pixel beside it the last pixel counts"
    far = warp(ramp(), torch.tensor([[26.0, 16, 34, 24]]), 8)[0]
    assert torch.equal(far[2, :5, :5], torch.ones(5, 5)) and far[2].sum() == 25


def test_the_letterbox_counts_as_outside():
    """A white picture in a black letterbox: black would be far from the mean."""
    norm = PixelNorm()
    images = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    images[:, :, :10, :16] = 255
    crop = crop_regions(contents(norm, images, [(10, 16)]), [torch.tensor([[0.0, 0, 16, 16]])], size=16, padding=0)[0]
    white = norm(images)[0, :, 0, 0]
    assert torch.equal(crop[:, :10], white[:, None, None].expand(3, 10, 16)) and not crop[:, 11:].any()


def test_images_of_several_sizes_and_without_regions():
    norm = PixelNorm()
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (3, h, 12), dtype=torch.uint8, generator=generator) for h in (8, 10, 12)]
    regions = [torch.tensor([[0.0, 0, 8, 8]]), torch.zeros(0, 4), torch.tensor([[4.0, 4, 12, 12], [0, 0, 12, 12]])]
    pictures = contents(norm, images, [(8, 12), (10, 12), (12, 12)])
    crops = crop_regions(pictures, regions, size=8, padding=0)
    assert crops.shape == (3, 3, 8, 8) and crops.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(crops[0], norm(images[0][None])[0, :, :, :8])
    torch.testing.assert_close(crops[1], norm(images[2][None])[0, :, 4:, 4:])
    assert crop_regions(pictures, [torch.zeros(0, 4)] * 3, size=8, padding=0).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_coordinates_are_exact_under_autocast(dtype):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        crop = warp(ramp(8, 600).to(dtype), torch.tensor([[501.0, 0, 509, 8]]), 8)
    assert crop.dtype == torch.float32 and crop[0, 2, 0].std() == 0
    torch.testing.assert_close(crop[0, 0, 0], ramp(8, 600).to(dtype)[0, 0, 501:509].float())
