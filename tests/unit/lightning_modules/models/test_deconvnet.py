"""DeconvNet: the paper's sizes and number of weights, switches, sides of any length, weights of VGG-16."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from contracts.errors import ConfigError
from lightning_modules.base.families import SegmenterSpec
from lightning_modules.models import deconvnet
from lightning_modules.models.deconvnet import VGG16, Config, Encoder, Model, load_vgg16, unpool

SPEC = SegmenterSpec(num_classes=3)
TINY = {"widths": (6, 8), "convs": (1, 2), "fc_channels": 16, "fc_size": 2}  # sides of 5 px or more


def random_images(*size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def paper() -> Model:
    """Without memory."""
    with torch.device("meta"):
        return Model(Config(**VGG16), SegmenterSpec(num_classes=21)).eval()


def count(*parts: nn.Module) -> int:
    return sum(parameter.numel() for part in parts for parameter in part.parameters())


def test_number_of_weights(paper):
    norms = [module for module in paper.modules() if isinstance(module, _BatchNorm)]
    encoder_norms = [m for part in (paper.backbone, paper.fc) for m in part.modules() if isinstance(m, _BatchNorm)]
    assert count(paper) == 251_805_653
    assert len(norms) == 29 and count(*norms) == 33_408
    assert count(paper.backbone, paper.fc) - count(*encoder_norms) == 134_260_544, "VGG-16 without its last layer"


def test_the_papers_sizes_at_each_layer(paper):
    x, switches = paper.backbone(torch.zeros(1, 3, 224, 224, device="meta"))
    assert x.shape == (1, 512, 7, 7)
    assert [size[0] for _, size in switches] == [224, 112, 56, 28, 14]
    x = paper.fc(x)
    assert x.shape == (1, 4096, 1, 1)
    x = paper.fc_deconvolution(x)
    assert x.shape == (1, 512, 7, 7)
    sizes = []
    for stage, places in zip(paper.decoder, reversed(switches), strict=True):
        x = unpool(x, places)
        for layer in stage:
            x = layer(x)
            if isinstance(layer, nn.ConvTranspose2d):
                sizes.append((x.shape[1], x.shape[2]))
    channels = (512, 512, 512, 512, 512, 256, 256, 256, 128, 128, 64, 64, 64)
    assert sizes == list(zip(channels, [14] * 3 + [28] * 3 + [56] * 3 + [112] * 2 + [224] * 2, strict=True))


def test_where_weights_start():
    """The decoder's from N(0, 0.01), those that would be VGG-16's as its own do without pretraining."""
    torch.manual_seed(0)
    model = Model(Config(), SPEC)
    decoder = [model.fc_deconvolution[0].weight, *(stage[0].weight for stage in model.decoder), model.scores.weight]
    assert torch.cat([weight.flatten() for weight in decoder]).std().item() == pytest.approx(0.01, rel=0.02)
    last, fc6 = model.backbone.stages[4][3].weight, model.fc[0].weight
    assert last.std().item() == pytest.approx((2 / (9 * 160)) ** 0.5, rel=0.02)
    assert fc6.std().item() == pytest.approx((2 / (16 * 256)) ** 0.5, rel=0.02)
    assert not any(p.any() for name, p in model.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_values_go_back_to_where_the_maximum_was(memory_format):
    encoder = Encoder((8,), (1,), "batch").eval()
    encoder.stages[0] = nn.Identity()  # type: ignore[assignment]  # pools what it is given
    x = torch.tensor(
        [
            [1.0, 2.0, 7.0, 7.0, 0.0],
            [4.0, 3.0, 7.0, 7.0, 5.0],
            [9.0, 8.0, 1.0, 6.0, 3.0],
        ]
    )
    pooled, [switches] = encoder(x.expand(1, 8, 3, 5).to(memory_format=memory_format))
    expected_pool = torch.tensor([[4.0, 7.0, 5.0], [9.0, 6.0, 3.0]])  # borders are pooled, too
    torch.testing.assert_close(pooled, expected_pool.expand(1, 8, 2, 3))
    expected = torch.tensor(
        [
            [0.0, 0.0, 20.0, 0.0, 0.0],  # of four equal ones the first in row order
            [10.0, 0.0, 0.0, 0.0, 30.0],
            [40.0, 0.0, 0.0, 50.0, 60.0],
        ]
    )
    values = torch.tensor([[10.0, 20.0, 30.0], [40.0, 50.0, 60.0]])
    out = unpool(values.expand(1, 8, 2, 3).to(memory_format=memory_format), switches)
    torch.testing.assert_close(out, expected.expand(1, 8, 3, 5))


def test_a_transposed_convolution_of_stride_1_is_a_convolution_with_flipped_weights():
    layer = Model(Config(**TINY), SPEC).decoder[0][0]
    assert isinstance(layer, nn.ConvTranspose2d)
    x = torch.randn(2, 8, 5, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(layer(x), F.conv2d(x, layer.weight.flip(2, 3).transpose(0, 1), layer.bias, padding=1))


@pytest.mark.parametrize(("settings", "size"), [({}, (97, 131)), ({}, (128, 128)), (TINY, (5, 6)), (TINY, (31, 18))])
def test_sides_of_any_length(settings, size):
    torch.manual_seed(0)
    model = Model(Config(**settings), SPEC).eval()
    images = random_images(*size)
    with torch.no_grad():
        logits = model(images)
        assert logits.shape == (2, 3, *size) and torch.isfinite(logits).all()
        images[..., -1, -1] = 255 - images[..., -1, -1]
        assert not torch.equal(model(images), logits), "the last row and column are looked at"


@pytest.mark.parametrize("settings", [{}, TINY])
def test_smaller_images_are_padded_with_the_mean_colour(settings):
    config = Config(**settings)
    model = Model(config, SPEC).eval()
    least = config.min_side
    assert least == (97 if not settings else 5)
    images = random_images(least + 8, least - 2)
    with torch.no_grad():
        logits = model(images)
        normal = torch.nn.functional.pad(model.pixel_norm(images), (0, 2))
        model.pixel_norm = torch.nn.Identity()
        torch.testing.assert_close(logits, model(normal)[..., : least - 2])


def test_larger_images_are_what_the_network_sees_on_each_square():
    """fc6 as a convolution: a cell of its map is that of the square alone."""
    model = Model(Config(**TINY), SPEC).eval()
    x = torch.randn(1, 8, 2, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = model.fc(x)
        assert whole.shape == (1, 16, 1, 4)
        torch.testing.assert_close(whole[..., 2:3], model.fc(x[..., 2:4]))


def test_weights_of_vgg_give_its_features_and_fc7():
    vgg = torchvision.models.vgg
    torch.manual_seed(0)
    theirs = vgg.VGG(vgg.make_layers([6, "M", 8, 8, "M"], batch_norm=True), num_classes=5, init_weights=False).eval()  # type: ignore[list-item]
    theirs.classifier[0], theirs.classifier[3] = nn.Linear(8 * 2 * 2, 16), nn.Linear(16, 16)
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    model = Model(Config(**TINY), SPEC).eval()
    weights = {k: v for k, v in theirs.state_dict().items() if not k.endswith("num_batches_tracked")}  # as the file
    load_vgg16(model, weights)
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        features = model.backbone(x)[0]
        torch.testing.assert_close(features, theirs.features(x))
        fc6 = model.fc[0](features)
        torch.testing.assert_close(fc6.flatten(1), theirs.classifier[0](theirs.features(x).flatten(1)))
        torch.testing.assert_close(model.fc[3](fc6).flatten(1), theirs.classifier[3](fc6.flatten(1)))


def test_pretrained_takes_torchvisions_vgg16_with_norms(monkeypatch):
    with torch.device("meta"):  # every copy of a wrong shape would fail
        weights = torchvision.models.vgg16_bn(weights=None).state_dict()
        asked, copied = [], []
        monkeypatch.setattr(deconvnet, "_state_dict", lambda name, found: asked.append((name, found)) or weights)
        monkeypatch.setattr(deconvnet, "load_vgg16", lambda *given: copied.append(given) or load_vgg16(*given))
        model = Model(Config(**VGG16, pretrained=True), SPEC)
    assert asked == [("vgg16_bn", torchvision.models.VGG16_BN_Weights.DEFAULT)]
    assert [given[0] for given in copied] == [model] and copied[0][1] is weights


@pytest.mark.parametrize(("norm", "fc_size"), [("batch", 4), ("sync", 4), ("group", 2)])
def test_learns_a_batch(norm, fc_size):
    """Batch norms with one cell in the middle: two values a channel there, and of one image a single one. Group norm
    leaves of a single cell hardly more than signs."""
    torch.manual_seed(0)
    model = Model(Config(widths=(12, 16), convs=(1, 2), fc_channels=32, fc_size=fc_size, norm=norm), SPEC)
    labels = torch.randint(0, 3, (2, 2, 2)).repeat_interleave(8, dim=1).repeat_interleave(8, dim=2)
    images = (60 * labels[:, None] + torch.randint(0, 60, (2, 3, 16, 16))).byte()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for step in range(50):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        first = model.backbone.stages[0][0].weight.grad
        assert step or (first is not None and first.abs().sum() > 0), "the first layer learns"
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.9 and losses[-1] < 0.3, losses[::10]
    assert torch.isfinite(model.train()(images[:1])).all()


def test_logits_are_float32_under_autocast():
    model = Model(Config(**TINY), SPEC)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(random_images(16, 16)).dtype == torch.float32


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"widths": (), "convs": ()}, "every level needs its width"),
        ({"widths": (8, 16)}, "as many numbers in convs as in widths"),
        ({"fc_size": 0, "convs": (1, 1, 0, 2, 2)}, r"convs must be 1 or more .*\n.*fc_size must be 1 or more"),
        ({"norm": "frozen"}, "allowed: batch, sync, group"),
        ({"pretrained": True}, r"allowed: widths: \(64, 128, 256, 512, 512\)"),
        ({**VGG16, "pretrained": True, "norm": "group"}, "pretrained weights belong to batch norms"),
    ],
)
def test_settings_that_make_no_network(settings, said):
    with pytest.raises(ConfigError, match=said):
        Config(**settings)
