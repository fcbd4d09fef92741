"""REINFORCE over places: unbiased by enumeration, its baseline, its entropy, and soft attention as its limit."""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import asdict, replace

import pytest
import torch

from contracts.errors import ConfigError
from lightning_modules.base.exploring import Explored, Explorer
from lightning_modules.base.families import CaptionerSpec
from lightning_modules.blocks.hard_looks import RewardBaseline, draw_places, entropies, pick
from lightning_modules.models import hard_attention, soft_attention
from lightning_modules.models.hard_attention import Config, Model

V, T = 7, 2
SMALL = Config(
    embedding_channels=6, hidden_channels=8, attention_channels=5, dropout=0.0, soft_probability=0.0,
    reinforce_weight=1.0, entropy_weight=0.0,
)  # fmt: skip
TOKENS, TARGETS = torch.tensor([[2, 5]]), torch.tensor([[5, 3]])


def made(config: Config = SMALL) -> Model:
    torch.manual_seed(0)
    model = Model(config, CaptionerSpec(vocabulary_size=V)).eval()
    with torch.no_grad():
        model.decoder.attention.score.weight.mul_(2)  # so that places differ
    return model


def grid(places: int = 3) -> torch.Tensor:
    """(1, D, 1, L)"""
    return 3 * torch.randn(1, 160, 1, places, generator=torch.Generator().manual_seed(1))


def forced(model: Model, places: tuple[int, ...], features: torch.Tensor) -> Explored:
    """As `explore`, with these places in place of drawn ones."""
    memory, state = model.start(features)
    looks = [lambda _w, _e, g, s=s: pick(g, torch.tensor([s])) for s in places]
    logits, attention = model.decoder(memory, state, TOKENS, looks)
    return model.surrogate(logits, attention, TARGETS, torch.tensor([places]), torch.tensor([True]))


def log_likelihood(explored: Explored) -> torch.Tensor:
    """With its gradient."""
    return torch.log_softmax(explored.logits, -1).gather(2, TARGETS[..., None]).sum()


def probability(explored: Explored, places: tuple[int, ...]) -> torch.Tensor:
    return explored.attention[0, range(T), places].prod()


def gradients(loss: torch.Tensor, model: Model) -> torch.Tensor:
    found = torch.autograd.grad(loss, list(model.decoder.parameters()), allow_unused=True)
    return torch.cat(
        [
            (torch.zeros_like(p) if g is None else g).flatten()
            for g, p in zip(found, model.decoder.parameters(), strict=True)
        ]
    )


SEQUENCES = list(itertools.product(range(3), repeat=T))


def exact(model: Model, features: torch.Tensor) -> torch.Tensor:
    """Autograd of sum_s p(s) log p(y|s) over all nine sequences of places."""
    total = sum(probability(e, s) * log_likelihood(e) for s in SEQUENCES for e in [forced(model, s, features)])
    return gradients(total, model)


def estimates(model: Model, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Probability (9,) of each sequence, and the estimator's gradient (9, P) there."""
    probs, found = [], []
    for places in SEQUENCES:
        explored = forced(model, places, features)
        probs.append(probability(explored, places).detach())
        found.append(gradients(log_likelihood(explored) - explored.reinforce.sum(), model))
    return torch.stack(probs), torch.stack(found)


@pytest.mark.parametrize("baseline", [0.0, -3.7])
def test_the_estimator_is_unbiased_whatever_the_baseline(monkeypatch, baseline):
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # all of it in float64
    model, features = made(), grid()
    model.double()
    model.baseline.value.fill_(baseline)
    probs, found = estimates(model, features.double())
    assert found.dtype == torch.float64
    assert probs.sum().item() == pytest.approx(1, abs=1e-12) and probs.max() < 0.9, "none is sure"
    expected = exact(model, features.double())
    scale = expected.abs().max()
    torch.testing.assert_close((probs[:, None] * found).sum(0) / scale, expected / scale, atol=1e-9, rtol=0)
    model.reinforce_weight = 0.0
    assert ((probs[:, None] * estimates(model, features.double())[1]).sum(0) - expected).abs().max() > 0.01 * scale


def test_a_baseline_takes_variance_away():
    model, features = made(), grid()
    variances = []
    for baseline in (0.0, 1.0):
        probs, _ = estimates(model, features)
        rewards = torch.stack([forced(model, s, features).rewards[0] for s in SEQUENCES])
        model.baseline.value.fill_(baseline * float(probs @ rewards))
        probs, found = estimates(model, features)
        mean = (probs[:, None] * found).sum(0)
        variances.append(float((probs[:, None] * (found - mean) ** 2).sum()))
    assert variances[1] < 0.5 * variances[0], variances


def test_two_places_by_hand():
    """J = p_1 R_1 + p_2 R_2 with p = softmax(e): dJ/de_1 = p_1 p_2 (R_1 - R_2); the draws' mean is that."""
    e, rewards = torch.tensor([[0.3, -0.4]], requires_grad=True), (-1.5, -4.0)
    model = made()
    alpha = torch.softmax(e, 1)
    p1, p2 = alpha[0].tolist()
    total = torch.zeros(())
    for place, reward in enumerate(rewards):
        logits = torch.zeros(1, 1, V)
        logits[0, 0, 5] = math.log(math.exp(reward) * (V - 1) / (1 - math.exp(reward)))  # log p(5) is the reward
        explored = model.surrogate(
            logits, alpha[:, None], torch.tensor([[5]]), torch.tensor([[place]]), torch.tensor([True])
        )
        assert explored.rewards.item() == pytest.approx(reward, abs=1e-5)
        total = total - alpha[0, place].detach() * explored.reinforce.sum()
    (gradient,) = torch.autograd.grad(total, e)
    assert gradient[0].tolist() == pytest.approx([p1 * p2 * 2.5, -p1 * p2 * 2.5], abs=1e-5)


def test_entropy_pulls_towards_looking_everywhere():
    """Its gradient is zero at the uniform distribution, and lowers the largest score elsewhere."""
    flat, peaked = torch.zeros(1, 4, requires_grad=True), torch.tensor([[2.0, 0, 0, 0]], requires_grad=True)
    assert entropies(torch.softmax(flat, 1)).item() == pytest.approx(math.log(4))
    (gradient,) = torch.autograd.grad(entropies(torch.softmax(flat, 1)).sum(), flat)
    torch.testing.assert_close(gradient, torch.zeros(1, 4), atol=1e-6, rtol=0)
    model = made(replace(SMALL, entropy_weight=0.5))
    explored = model.surrogate(
        torch.zeros(1, 1, V), torch.softmax(peaked, 1)[:, None], torch.tensor([[5]]), torch.tensor([[0]]),
        torch.tensor([False]),
    )  # fmt: skip
    (gradient,) = torch.autograd.grad(explored.entropy.sum(), peaked)
    assert gradient[0, 0] > 0 and explored.entropy.item() < 0, "what is minimised falls with the score"
    zero = torch.tensor([[1.0, 0.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(entropies(zero).sum(), zero)
    assert bool(gradient.isfinite().all())


def test_without_draws_it_is_soft_attention():
    config = replace(SMALL, soft_probability=1.0, reinforce_weight=0.0)
    hard = made(config)
    shared = {name: value for name, value in asdict(config).items() if hasattr(soft_attention.Config(), name)}
    soft = soft_attention.Model(soft_attention.Config(**shared), CaptionerSpec(vocabulary_size=V)).eval()
    soft.load_state_dict({k: v for k, v in hard.state_dict().items() if not k.startswith("baseline")})
    features = torch.cat([grid(), grid().flip(3)])
    where, tokens = torch.tensor([0, 1, 1]), torch.tensor([[2, 5, 4], [2, 6, 0], [2, 4, 4]])
    targets = torch.tensor([[5, 4, 3], [6, 3, 0], [4, 4, 3]])
    draws = torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
    explored = hard.explore(features, tokens, targets, where, draws)
    logits, attention = soft.decode(features, tokens, where)
    assert torch.equal(explored.logits, logits) and torch.equal(explored.attention, attention)
    assert not explored.reinforce.any() and not explored.is_drawn.any()
    (explored.logits.logsumexp(-1).sum() + explored.reinforce.sum()).backward()
    logits.logsumexp(-1).sum().backward()
    for (name, p), q in zip(hard.decoder.named_parameters(), soft.decoder.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad), name


def test_padding_changes_nothing_and_rewards_are_of_the_caption_alone():
    model, features = made(replace(SMALL, entropy_weight=0.1)), grid()
    draws = torch.rand(1, 6, generator=torch.Generator().manual_seed(2))
    short = model.explore(features, TOKENS, TARGETS, torch.tensor([0]), draws)
    padded = model.explore(
        features, torch.tensor([[2, 5, 0, 0]]), torch.tensor([[5, 3, 0, 0]]), torch.tensor([0]), draws
    )
    for name in ("reinforce", "entropy", "rewards"):
        torch.testing.assert_close(getattr(short, name), getattr(padded, name))
    assert short.rewards.item() == pytest.approx(log_likelihood(short).item(), abs=1e-6)
    assert not short.rewards.requires_grad


def test_draws_follow_their_numbers():
    weights = torch.tensor([[0.2, 0.0, 0.5, 0.3]]).repeat(10_000, 1)
    uniform = (torch.arange(10_000) + 0.5) / 10_000
    assert draw_places(weights, uniform).bincount(minlength=4).tolist() == [2000, 0, 5000, 3000]
    assert draw_places(weights[:1], torch.zeros(1)).item() == 0
    assert draw_places(torch.tensor([[0.0, 1.0]]), torch.zeros(1)).item() == 1, "never one of weight 0"
    assert draw_places(weights[:1], torch.tensor([1 - 2**-24])).item() == 3


def test_a_caption_reads_soft_or_drawn_as_its_own_coin_says():
    model, features = made(replace(SMALL, soft_probability=0.5)), grid()
    draws = torch.tensor([[0.49, 0.1, 0.1], [0.5, 0.1, 0.1]])
    two = [t.repeat(2, 1) for t in (TOKENS, TARGETS)]
    explored = model.explore(features, *two, torch.tensor([0, 0]), draws)
    assert explored.is_drawn.tolist() == [False, True]
    assert explored.reinforce[0] == 0 != explored.reinforce[1]


def test_what_is_looked_at_outside_training():
    model, features = made(), grid()
    where = torch.tensor([0])
    assert isinstance(model, Explorer) and not isinstance(
        soft_attention.Model(soft_attention.Config(), CaptionerSpec(vocabulary_size=V)), Explorer
    )
    soft = [model.decode(features, TOKENS, where)[0] for _ in range(2)]
    assert torch.equal(*soft), "nothing is drawn"
    with model.looking("argmax"):
        most = model.decode(features, TOKENS, where)[0]
        memory, state = model.start(features)
        torch.testing.assert_close(model.step(memory, state, TOKENS[:, 0])[0], most[:, 0])
    first = int(model.decode(features, TOKENS, where)[1][0, 0].argmax())
    only = pick(memory[0], torch.tensor([first]))
    with model.looking("expected"):
        torch.testing.assert_close(
            model.decoder.step(memory, state, TOKENS[:, 0], lambda *_: only)[0], most[:, 0]
        )  # fmt: skip
    many = features.expand(40, -1, -1, -1)
    drawn = []
    for _ in range(2):
        with model.looking("sample"):
            drawn.append(model.decode(many, TOKENS.repeat(40, 1), torch.arange(40))[0])
    assert torch.equal(*drawn), "the same draws each time"
    found = {tuple(round(logit, 4) for logit in row[0].tolist()) for row in drawn[0]}
    assert len(found) == 3, "each place is read by some"
    copy.deepcopy(model)
    assert torch.equal(model.decode(features, TOKENS, where)[0], soft[0])


def test_a_way_to_look_is_named_once():
    with pytest.raises(ConfigError, match="a way to look is named twice"):
        hard_attention.Config(also_look=("sample", "expected"))
    hard_attention.Config(also_look=("sample", "argmax"))


def test_the_baseline_moves_once_a_step():
    """b <- 0.9 b + 0.1 mean, of all captions of the step, in one part or in three, one of them a stand-in's."""
    rewards = torch.tensor([-4.0, -6.0, -11.0])
    whole, parts = RewardBaseline(), RewardBaseline()
    whole.add(rewards, num_images=2, num_step_images=2)
    assert whole.value.item() == pytest.approx(-0.7)
    parts.add(rewards[:2], num_images=1, num_step_images=2)
    assert parts.value == 0
    parts.add(rewards[:0], num_images=0, num_step_images=2)
    parts.add(rewards[2:], num_images=1, num_step_images=2)
    assert parts.value == whole.value and not parts.pending.any()
    whole.add(rewards[:0], num_images=2, num_step_images=2)
    assert whole.value.item() == pytest.approx(-0.7), "no caption was drawn"
    again = RewardBaseline()
    again.load_state_dict(parts.state_dict())
    assert again.value == parts.value


def test_the_baseline_is_in_the_checkpoint():
    assert {"baseline.value", "baseline.pending"} <= made().state_dict().keys()
