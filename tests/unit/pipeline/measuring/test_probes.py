"""Probes against values that were worked out and measured elsewhere, in numpy."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_modules.blocks.wirings import WIRINGS
from pipeline.measuring import probes
from pipeline.measuring.masks import Mask, Masks, draw_masks
from pipeline.measuring.probes import clipped_steps, dependence, gradient_decay


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "DRAWS", 8)


# The 40th root of what was left after 40 steps back, measured once in numpy.
FACTORS = [
    ({"cell": "elman"}, 0.481),
    ({"cell": "elman", "orthogonal": True}, 0.792),
    ({"cell": "elman", "orthogonal": True, "input_scale": 0.1}, 0.946),
    ({"cell": "elman", "gain": 3.0}, 1.058),
    ({"cell": "lstm"}, 0.606),
    ({"cell": "lstm", "forget_bias": 1.0}, 0.792),
    ({"cell": "lstm", "forget_bias": 2.0}, 0.923),
    ({"cell": "lstm", "forget_bias": 3.0}, 0.976),
]


@pytest.mark.parametrize(("settings", "factor"), FACTORS)
def test_the_factor_of_a_step_back(settings, factor):
    assert gradient_decay(**settings).factor == pytest.approx(factor, abs=0.04)


@pytest.mark.parametrize("settings", [{}, {"orthogonal": True}, {"gain": 3.0}])
def test_the_largest_singular_value_bounds_an_elman_networks_gradient(settings):
    decay = gradient_decay("elman", **settings)
    assert decay.log_bound is not None
    assert all(norm <= k * decay.log_bound + 1e-9 for k, norm in enumerate(decay.log_norms))
    if settings == {"orthogonal": True}:
        assert decay.log_bound == pytest.approx(0, abs=1e-12)
    assert gradient_decay("lstm").log_bound is None


def test_a_linear_network_reaches_the_bound():
    """Without input h stays 0, where tanh has slope 1: an orthogonal matrix keeps every norm."""
    decay = gradient_decay("elman", orthogonal=True, input_scale=0.0)
    assert decay.log_norms == pytest.approx([0.0] * 41, abs=1e-12) and decay.factor == pytest.approx(1)


@pytest.mark.parametrize("wiring", WIRINGS)
def test_masks_have_exact_zeros_and_padding_changes_nothing(wiring):
    found = dependence(wiring)
    assert found.size.shape[1] == len(found.inputs) and found.padding < 1e-12
    unseen = {"one_one": 0, "one_many": 6, "many_one": 0, "encode_decode": 6, "aligned": 6}
    assert int((found.size == 0).sum()) == unseen[wiring]
    assert float(found.size[found.size > 0].min()) > 1e-9, "what it sees moves it"


def test_a_step_along_an_exploded_gradient_and_along_a_clipped_one():
    steps = clipped_steps(gain=3.0, num_networks=4)
    assert list(steps) == ["not clipped", "clipped to 1"]
    free, clipped = steps.values()
    assert [norm for norm, _ in free] == pytest.approx([norm for norm, _ in clipped]), "the same networks"
    assert max(abs(change) for _, change in clipped) < max(abs(change) for _, change in free)
    short = clipped_steps(gain=3.0, clip=math.inf, num_networks=4)
    assert list(short.values())[1] == free, "a limit that none reaches changes nothing"


def test_a_mask_is_white_exactly_where_nothing_hangs():
    figure = draw_masks(
        Masks(name="m", title="t", masks=[Mask(title="a", inputs=["x1", "x2"], size=torch.eye(2).numpy())] * 2)
    )
    first = figure.axes[0]
    shade = first.images[0].get_array()
    assert shade[0, 1] == shade[1, 0] == 0 and shade[0, 0] > 0.3
    assert [text.get_text() for text in first.texts] == ["1.00", "1.00"] and len(figure.axes) == 2
