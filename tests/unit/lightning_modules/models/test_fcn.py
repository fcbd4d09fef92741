"""FCN: variants, bilinear up-convolution, odd sizes."""

import pytest
import torch
from torch.nn import functional as F

from lightning_modules.models.fcn import Config, Model, bilinear_upsampling


@pytest.mark.parametrize("stride", [2, 8, 16, 32])
def test_upsampling_starts_as_bilinear_interpolation(stride):
    x = torch.randn(1, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    out = bilinear_upsampling(3, stride)(x).detach()
    expected = F.interpolate(x, scale_factor=stride, mode="bilinear", align_corners=False)
    assert out.shape == expected.shape
    inner = (..., slice(stride, -stride), slice(stride, -stride))  # borders: zeros outside against repeated edges
    torch.testing.assert_close(out[inner], expected[inner])


@pytest.mark.parametrize(("variant", "skips"), [("32s", []), ("16s", ["c4"]), ("8s", ["c4", "c3"])])
def test_variants_give_logits_of_the_images_size(variant, skips):
    model = Model(Config(variant=variant), num_classes=4).eval()
    assert list(model.skip_scores) == skips
    with torch.no_grad():
        for size in ((64, 96), (50, 71)):
            logits = model(torch.zeros(1, 3, *size, dtype=torch.uint8))
            assert logits.shape == (1, 4, *size) and logits.dtype == torch.float32


def test_skips_start_silent():
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    fine = Model(Config(variant="8s"), num_classes=3).eval()
    with torch.no_grad():
        before = fine(images)
        fine.skip_scores["c3"].bias += 1.0
        after = fine(images)
    torch.testing.assert_close(after[..., 8:-8, 8:-8], before[..., 8:-8, 8:-8] + 1.0)
    assert not fine.skip_scores["c4"].weight.any()


def test_logits_are_float32_under_autocast():
    model = Model(Config(), num_classes=3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(torch.zeros(2, 3, 64, 64, dtype=torch.uint8)).dtype == torch.float32
