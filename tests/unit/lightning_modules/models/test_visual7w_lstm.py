"""Visual7W's LSTM: candidates are scored as if each were alone, and what the controls cannot see changes nothing."""

from __future__ import annotations

import pytest
import torch

from contracts.text import END
from lightning_modules.base.families import TellerSpec
from lightning_modules.models.visual7w_lstm import Config, Model

V = 13
IMAGES = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
QUESTIONS, LENGTHS, OF = torch.tensor([[4, 5, 6], [8, 0, 0]]), [3, 1], torch.tensor([0, 1])
ANSWERS = torch.tensor([[7, 8, END], [9, END, 0], [10, END, 0], [11, 12, END]])
ANSWER_LENGTHS, ANSWER_OF = [3, 2, 2, 3], torch.tensor([0, 0, 1, 1])


def small(score: str = "loglik", **settings) -> Model:
    torch.manual_seed(0)
    config = Config(embedding_channels=8, hidden_channels=12, attention_channels=6, context_channels=5, **settings)
    return Model(config, TellerSpec(vocabulary_size=V, score=score)).eval()


def ask(model: Model, images=IMAGES, questions=QUESTIONS, order=(0, 1, 2, 3)) -> torch.Tensor:
    rows = list(order)
    lengths = [ANSWER_LENGTHS[row] for row in rows]
    return model(images, questions, LENGTHS, OF, ANSWERS[rows], lengths, ANSWER_OF[rows])


def test_log_likelihoods_are_those_of_a_distribution() -> None:
    """All texts of one token: the first token's probabilities sum to 1; nothing counts behind an answer's end."""
    model = small()
    answers = torch.arange(V).unsqueeze(1)
    found = model(
        IMAGES[:1], QUESTIONS[:1], [3], torch.tensor([0]), answers, [1] * V, torch.zeros(V, dtype=torch.int64)
    )
    torch.testing.assert_close(found.exp().sum(), torch.tensor(1.0))
    scores = ask(model)
    assert scores.shape == (4, 3) and scores.dtype == torch.float32
    assert (scores[[1, 2], 2] == 0).all() and (scores[:, :2] < 0).all()


@pytest.mark.parametrize("score", ["loglik", "match"])
def test_permuting_candidates_permutes_scores(score: str) -> None:
    model = small(score)
    order = [3, 0, 2, 1]
    torch.testing.assert_close(ask(model, order=order), ask(model)[order], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("score", ["loglik", "match"])
def test_a_candidate_is_scored_as_if_it_were_alone(score: str) -> None:
    model = small(score)
    together = ask(model)
    for row in range(4):
        q, length = int(ANSWER_OF[row]), ANSWER_LENGTHS[row]
        alone = model(
            IMAGES[q : q + 1], QUESTIONS[q : q + 1, : LENGTHS[q]], LENGTHS[q : q + 1], torch.tensor([0]),
            ANSWERS[row : row + 1, :length], [length], torch.tensor([0]),
        )  # fmt: skip
        expected = together[row, :length] if score == "loglik" else together[row : row + 1]
        torch.testing.assert_close(alone.flatten(), expected, atol=1e-5, rtol=1e-5)


def test_a_blind_model_sees_what_it_is_blind_to_in_no_way() -> None:
    other_images, other_questions = IMAGES.flip(0), QUESTIONS.flip(0)
    assert not torch.allclose(ask(small()), ask(small(), images=other_images), atol=1e-5)
    assert not torch.allclose(ask(small()), ask(small(), questions=other_questions), atol=1e-5)
    blind = small(blind_to="image")
    assert torch.equal(ask(blind), ask(blind, images=other_images))
    assert not torch.allclose(ask(blind), ask(blind, questions=other_questions), atol=1e-5)
    blind = small(blind_to="question")
    assert torch.equal(ask(blind), ask(blind, questions=other_questions))
    assert not torch.allclose(ask(blind), ask(blind, images=other_images), atol=1e-5)


def test_gradients_reach_all_of_it_under_autocast() -> None:
    model = small().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = ask(model)
    assert scores.dtype == torch.float32
    scores.sum().backward()
    assert all(p.grad is not None for n, p in model.named_parameters() if "backbone.stages.3" not in n)
