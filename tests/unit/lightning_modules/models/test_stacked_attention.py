"""Stacked attention: the paper's equations, its size, and the released code's mistake."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_modules.base.families import AnswererSpec, Looker
from lightning_modules.blocks.attention import attend
from lightning_modules.models.lstm_vqa import Config as LSTMConfig
from lightning_modules.models.lstm_vqa import Model as LSTMModel
from lightning_modules.models.stacked_attention import Config, Hop, Model

SPEC = AnswererSpec(vocabulary_size=11, num_answers=7)
IMAGES = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
QUESTIONS, LENGTHS, OF = torch.tensor([[4, 5, 6], [8, 0, 0], [9, 10, 0]]), [3, 1, 2], torch.tensor([0, 1, 1])
BOUND = math.exp(2) / (math.exp(2) + 195)  # of a place of 14 x 14 whose score is a tanh


def small(hops: int) -> Model:
    torch.manual_seed(0)
    return Model(Config(embedding_channels=8, hidden_channels=12, attention_channels=6, hops=hops), SPEC).eval()


@pytest.mark.parametrize("hops", [0, 1, 2, 3])
def test_each_hop_looks_once_and_weights_are_shares(hops: int) -> None:
    logits, maps = small(hops).look(IMAGES, QUESTIONS, LENGTHS, OF)
    assert logits.shape == (3, 7) and maps.shape == (3, hops, 4, 4)
    torch.testing.assert_close(maps.sum((2, 3)), torch.ones(3, hops))


def test_a_hop_is_the_papers_equation() -> None:
    torch.manual_seed(1)
    hop, u, v = Hop(4, 3), torch.randn(2, 4), torch.randn(2, 5, 4)
    w_i, b = hop.attention.key.weight, hop.attention.key.bias
    h = torch.tanh(v @ w_i.T + (u @ hop.query.weight.T + b).unsqueeze(1))
    p = torch.softmax((h @ hop.attention.score.weight.T).squeeze(-1), dim=1)
    after, weights = hop(u, v)
    torch.testing.assert_close(weights, p)
    torch.testing.assert_close(after, u + (p.unsqueeze(-1) * v).sum(1))


def test_hops_do_not_share_weights() -> None:
    model = small(2)
    names = [name for name, _ in model.named_parameters() if name.startswith("hops")]
    assert len(names) == 2 * len(list(Hop(12, 6).parameters()))
    _, maps = model.look(IMAGES, QUESTIONS, LENGTHS, OF)
    assert not torch.allclose(maps[:, 0], maps[:, 1])


def test_a_place_may_have_all_the_weight() -> None:
    """With the released code's tanh on the score no place of 196 has more than 3.65 %."""
    assert pytest.approx(0.0365, abs=5e-5) == BOUND
    torch.manual_seed(0)
    hop, u, v = Hop(8, 16), torch.randn(1, 8), torch.randn(1, 196, 8)
    with torch.no_grad():
        hop.attention.score.weight *= 50
    _, weights = hop(u, v)
    assert weights.max() > 0.9
    scores = torch.log(weights)
    _, bounded = attend(torch.tanh(scores - scores.mean()), v)
    assert bounded.max() <= BOUND + 1e-6
    # The bound is reached where one place is far above all others.
    scores = torch.full((1, 196), -50.0)
    scores[0, 7] = 50.0
    torch.testing.assert_close(attend(torch.tanh(scores), v)[1].max(), torch.tensor(BOUND))


def test_the_full_size_has_the_parameters_of_the_paper() -> None:
    """16,769,938 of the released code with 13,746 words (LSTM 1024, embedding 500, attention 512, two hops, 1000
    answers). Without what changes no function: a second bias in each hop's sum, and one of each score, which softmax
    takes out. Torch's LSTM has a second bias of 4 x 1024."""
    config = Config(
        backbone="vgg16", features="c5", hops=2, embedding_channels=500, hidden_channels=1024,
        attention_channels=512, dropout=0.5,
    )  # fmt: skip
    model = Model(config, AnswererSpec(vocabulary_size=13_746, num_answers=1000))
    parts = {name: p.numel() for name, p in model.named_parameters() if not name.startswith("backbone")}
    assert sum(parts.values()) == 16_769_938 - 2 * 512 - 2 * 1 + 4 * 1024
    assert parts["question.rnn.bias_hh_l0"] == 4 * 1024


def test_no_hop_is_the_mean_of_all_places() -> None:
    """The control moves no weight: mirrored images, whose places are others, give the same answer if the maps do."""
    model = small(0)
    model.backbone = _Maps()
    grid = torch.arange(3.0 * 160 * 4 * 4).reshape(3, 160, 4, 4)[:2] / 5000
    model.backbone.maps = grid
    expected = model(IMAGES, QUESTIONS, LENGTHS, OF)
    model.backbone.maps = grid.flip(2, 3)
    torch.testing.assert_close(model(IMAGES, QUESTIONS, LENGTHS, OF), expected)


class _Maps(torch.nn.Module):
    maps: torch.Tensor

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"c4": self.maps}


def test_only_a_model_that_looks_says_so() -> None:
    assert isinstance(small(1), Looker)
    config = LSTMConfig(embedding_channels=8, hidden_channels=8, fused_channels=8)
    assert not isinstance(LSTMModel(config, SPEC), Looker)


def test_padding_and_other_questions_change_nothing() -> None:
    model = small(2)
    together = model(IMAGES, QUESTIONS, LENGTHS, OF)
    alone = model(IMAGES[1:], QUESTIONS[1:2, :1], [1], torch.tensor([0]))
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(IMAGES, QUESTIONS, LENGTHS, OF).dtype == torch.float32
