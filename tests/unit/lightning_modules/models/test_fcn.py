"""FCN: variants, bilinear up-convolution, odd sizes."""

import pytest
import torch
from torch.nn import functional as F

from lightning_modules.base.families import SegmenterSpec
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
    model = Model(Config(variant=variant), SegmenterSpec(num_classes=4)).eval()
    assert list(model.skip_scores) == skips
    with torch.no_grad():
        for size in ((64, 96), (50, 71)):
            logits = model(torch.zeros(1, 3, *size, dtype=torch.uint8))
            assert logits.shape == (1, 4, *size) and logits.dtype == torch.float32


@pytest.mark.parametrize("backbone", ["vgg16", "convnext_tiny", "resnet18"])
def test_every_backbone_at_sizes_that_32_does_not_divide(backbone):
    """vgg16 is the paper's own; its maps and convnext's round down, and 500 px has 15.6 cells of c5."""
    torch.manual_seed(0)
    model = Model(Config(backbone=backbone, head_channels=16), SegmenterSpec(num_classes=4)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for size in ((500, 500), (100, 100), (33, 64)):
            images = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8, generator=generator)
            logits = model(images)
            assert logits.shape == (1, 4, *size) and torch.isfinite(logits).all()
            changed = images.clone()
            changed[..., -1, -1] = 255 - changed[..., -1, -1]
            assert not torch.equal(model(changed), logits), "the last row and column are looked at"


def test_skips_start_silent():
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    fine = Model(Config(variant="8s"), SegmenterSpec(num_classes=3)).eval()
    with torch.no_grad():
        before = fine(images)
        fine.skip_scores["c3"].bias += 1.0
        after = fine(images)
    torch.testing.assert_close(after[..., 8:-8, 8:-8], before[..., 8:-8, 8:-8] + 1.0)
    assert not fine.skip_scores["c4"].weight.any()


def test_logits_are_float32_under_autocast():
    model = Model(Config(), SegmenterSpec(num_classes=3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(torch.zeros(2, 3, 64, 64, dtype=torch.uint8)).dtype == torch.float32
