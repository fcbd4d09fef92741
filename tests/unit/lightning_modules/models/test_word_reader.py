"""The four stages of 1904.01906: published sizes, what each does, and that steps are as teacher forcing."""

import numpy as np
import pytest
import torch
from torch import nn

from contracts.errors import ConfigError
from contracts.text import BEGIN
from lightning_modules.base.families import TextReaderSpec
from lightning_modules.blocks.ctc import best_paths, ctc_losses
from lightning_modules.blocks.line_features import line_features
from lightning_modules.blocks.rectify import ThinPlateSpline
from lightning_modules.models.word_reader import Config, Model


def spec(alignment="attention", size=(32, 100), words=38):
    return TextReaderSpec(vocabulary_size=words, alignment=alignment, image_size=size)


def count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def test_trba_has_the_paper_s_weights():
    model = Model(Config(rectify=True, features="resnet", channels=256), spec())
    decoder = (model.attention, model.query, model.cell, model.vocabulary)
    parts = [count(part) for part in (model.rectify, model.features, model.sequence)] + [count(*decoder)]
    assert parts == [1_692_392, 44_263_904, 2_892_288, 706_598]
    assert count(model) == 49_555_182, "1904.01906, table 1: 49.6 M"


def test_crnn_has_the_weights_of_its_parts():
    features, sequence, labels = 5_549_824, 2_892_288, 256 * 37 + 37
    assert count(Model(Config(features="vgg", channels=256), spec("ctc", words=37))) == features + sequence + labels


@pytest.mark.parametrize(("name", "width", "expected"), [("small", 96, 24), ("vgg", 100, 24), ("resnet", 100, 26)])
def test_columns_of_each_network(name, width, expected):
    network, channels = line_features(name)
    assert network(torch.zeros(1, 1, 32, width)).shape == (1, channels, 1, expected)


def test_rectification_begins_as_the_picture_itself():
    torch.manual_seed(0)
    spline = ThinPlateSpline(1, (32, 100)).eval()
    picture = torch.rand(2, 1, 32, 100)
    # `align_corners` puts the corners' centers where the edges are: half a pixel at each end.
    middle = (slice(None), slice(None), slice(2, -2), slice(4, -4))
    smooth = nn.functional.avg_pool2d(picture, 5, 1, 2)
    assert (spline(smooth) - smooth)[middle].abs().max() < 0.1
    with torch.no_grad():
        spline.points.bias += 0.2 * torch.tensor([1.0, 0.0]).repeat(20)  # all points to the right
    moved = spline(smooth)
    np.testing.assert_allclose(moved[..., 8:-20].detach(), smooth[..., 18:-10].detach(), atol=0.1)
    assert (moved - smooth).abs().max() > 0.1


@pytest.mark.parametrize("layers", [0, 2])
def test_a_step_after_another_is_as_the_whole_text_at_once(layers):
    torch.manual_seed(0)
    model = Model(Config(channels=8, layers=layers), spec(size=(32, 96), words=9)).eval()
    features = model.encode(torch.randint(0, 256, (3, 3, 32, 96), dtype=torch.uint8))
    assert features.shape == (3, 24, 8 if layers else 128)
    memory, state = model.start(features)
    tokens = torch.tensor([[BEGIN, 4, 5], [BEGIN, 6, 6], [BEGIN, 7, 4]])
    logits, attention = model.decode(memory, state, tokens)
    assert logits.shape == (3, 3, 9) and attention.shape == (3, 3, 24)
    torch.testing.assert_close(attention.sum(dim=2), torch.ones(3, 3))
    for i in range(3):
        one, state, weights = model.step(memory, state, tokens[:, i])
        torch.testing.assert_close(one, logits[:, i])
        torch.testing.assert_close(weights, attention[:, i])
    changed = model.decode(*model.start(features), torch.tensor([[BEGIN, 8, 5], [BEGIN, 6, 6], [BEGIN, 7, 4]]))[0]
    torch.testing.assert_close(changed[0, 0], logits[0, 0])
    assert not torch.allclose(changed[0, 1], logits[0, 1]), "what was written before is read"


def test_ctc_counts_all_paths_and_reads_the_best_one():
    probs = torch.tensor([[[0.6, 0.4], [0.3, 0.7]]])  # blank and "a" at two steps
    losses = ctc_losses(probs.log(), torch.tensor([[1]]), torch.tensor([1]), blank=0)
    assert float((-losses).exp()) == pytest.approx(0.6 * 0.7 + 0.4 * 0.3 + 0.4 * 0.7), "-a, a-, aa"
    no_room = ctc_losses(probs.log(), torch.tensor([[1, 1]]), torch.tensor([2]), blank=0)
    assert float(no_room) == 0, "two equal tokens need a blank between them"
    steps = torch.tensor([[3, 3, 0, 3, 2, 2, 0, 0]])
    (path,) = best_paths(nn.functional.one_hot(steps, 4) * 9.0, blank=0)
    assert (path.tokens, path.steps) == ([3, 3, 2], [0, 3, 4])
    (allowed,) = best_paths(nn.functional.one_hot(steps, 4) * 9.0, blank=0, banned=(2,))
    assert allowed.tokens == [3, 3]


def test_ctc_has_columns_and_no_decoder():
    model = Model(Config(channels=8), spec("ctc", (32, 96), 9)).eval()
    assert model.columns(model.encode(torch.zeros(2, 3, 32, 96, dtype=torch.uint8))).shape == (2, 24, 9)
    assert not hasattr(model, "cell")


def test_settings_that_cannot_be_are_told():
    with pytest.raises(ConfigError, match="half of the points"):
        Config(num_points=7)
