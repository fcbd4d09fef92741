"""Batched beam search against a textbook one that follows one hypothesis at a time; drawing; scoring."""

import itertools

import pytest
import torch

from lightning_modules.blocks.decoding import _drawn, beam_search, repeat_rows, sample, score, select_rows
from lightning_modules.blocks.recurrent import LSTMState

BEGIN, END, NUM_WORDS, HIDDEN = 2, 3, 7, 5


def _toy(seed):
    """A random recurrent net: `step` for rows, and the start state of 4 inputs."""
    generator = torch.Generator().manual_seed(seed)
    embed, recur = torch.randn(NUM_WORDS, HIDDEN, generator=generator), torch.randn(HIDDEN, HIDDEN, generator=generator)
    out = 2 * torch.randn(HIDDEN, NUM_WORDS, generator=generator)

    def step(tokens, state):
        hidden = torch.tanh(embed[tokens] + state[0] @ recur)
        return hidden @ out, (hidden,), hidden

    return step, torch.randn(4, HIDDEN, generator=generator)


def _textbook(step, start, *, beam_size, max_length, banned, length_power):
    """(tokens, log p, kept) of one input; hypotheses are (tokens, log p, state, kept, ended)."""
    beam = [([], 0.0, (start[None],), [], False)]
    for _ in range(max_length):
        candidates = []
        for tokens, log_prob, state, kept, ended in beam:
            if ended:
                candidates.append((tokens, log_prob, state, kept, True))
                continue
            logits, after, keep = step(torch.tensor([tokens[-1] if tokens else BEGIN]), state)
            for word, value in enumerate(torch.log_softmax(logits[0], -1).tolist()):
                if word not in banned:
                    candidates.append(([*tokens, word], log_prob + value, after, [*kept, keep[0]], word == END))
        beam = sorted(candidates, key=lambda c: -c[1])[:beam_size]
        if all(c[4] for c in beam):
            break
    tokens, log_prob, _, kept, _ = max(beam, key=lambda c: c[1] / len(c[0]) ** length_power)
    return tokens, log_prob, torch.stack(kept)


@pytest.mark.parametrize(("beam_size", "length_power"), [*itertools.product((1, 2, 3, 5), (0.0, 0.7, 1.0))])
def test_equals_textbook_search(beam_size, length_power):
    for seed in range(6):
        step, start = _toy(seed)
        options = {"max_length": 6, "banned": (0, 1, BEGIN), "length_power": length_power}
        decoded = beam_search(
            step,
            repeat_rows((start,), beam_size),
            num_inputs=4,
            beam_size=beam_size,
            begin=BEGIN,
            end=END,
            **options,
        )
        for i in range(4):
            tokens, log_prob, kept = _textbook(step, start[i], beam_size=beam_size, **options)
            length = int(decoded.lengths[i])
            assert decoded.tokens[i, :length].tolist() == tokens
            assert set(decoded.tokens[i, length:].tolist()) <= {END}
            assert float(decoded.log_probs[i]) == pytest.approx(log_prob, abs=1e-4)
            torch.testing.assert_close(decoded.kept[i, :length], kept, atol=1e-5, rtol=1e-5)


def test_a_beam_of_one_is_greedy():
    step, start = _toy(11)
    decoded = beam_search(step, (start,), num_inputs=4, beam_size=1, max_length=6, begin=BEGIN, end=END)
    tokens, state = torch.full((4,), BEGIN), (start,)
    for t in range(decoded.tokens.shape[1]):
        logits, state, _ = step(tokens, state)
        tokens = logits.argmax(1)
        going_on = decoded.lengths > t
        assert going_on.any()
        assert decoded.tokens[going_on, t].tolist() == tokens[going_on].tolist()


def test_the_whole_tree_in_the_beam_finds_the_most_likely_sentence():
    step, start = _toy(5)
    beam_size, max_length = 400, 3
    decoded = beam_search(
        step,
        repeat_rows((start,), beam_size),
        num_inputs=4,
        beam_size=beam_size,
        max_length=max_length,
        begin=BEGIN,
        end=END,
    )
    for i in range(4):
        best = -torch.inf
        for sentence in itertools.product(range(NUM_WORDS), repeat=max_length):
            log_prob, state, previous = 0.0, (start[i][None],), BEGIN
            for word in sentence:
                logits, state, _ = step(torch.tensor([previous]), state)
                log_prob += float(torch.log_softmax(logits[0], -1)[word])
                previous = word
                if word == END:
                    break
            best = max(best, log_prob)
        assert float(decoded.log_probs[i]) == pytest.approx(best, abs=1e-4)


def test_length_power_prefers_longer_sentences():
    step, start = _toy(2)
    lengths = [
        beam_search(
            step,
            repeat_rows((start,), 5),
            num_inputs=4,
            beam_size=5,
            max_length=8,
            begin=BEGIN,
            end=END,
            length_power=power,
        ).lengths.sum()
        for power in (0.0, 3.0)
    ]
    assert lengths[1] > lengths[0]


def test_banned_tokens_are_never_written():
    step, start = _toy(0)
    decoded = beam_search(
        step,
        repeat_rows((start,), 3),
        num_inputs=4,
        beam_size=3,
        max_length=9,
        begin=BEGIN,
        end=END,
        banned=(0, 1, 2, 5),
    )
    assert not {0, 1, 2, 5} & set(decoded.tokens.flatten().tolist())


def test_each_input_has_its_own_longest_text():
    step, start = _toy(1)
    options = {"beam_size": 3, "begin": BEGIN, "end": END, "banned": (0, 1, 2), "length_power": 1.0}
    limits = torch.tensor([1, 5, 2, 8])
    together = beam_search(step, repeat_rows((start,), 3), num_inputs=4, max_length=limits, **options)
    assert len(set(together.lengths.tolist())) > 2
    for i, limit in enumerate(limits.tolist()):
        alone = beam_search(step, repeat_rows((start[i : i + 1],), 3), num_inputs=1, max_length=limit, **options)
        length = int(alone.lengths[0])
        assert int(together.lengths[i]) == length <= limit
        assert together.tokens[i, :length].tolist() == alone.tokens[0, :length].tolist()
        assert set(together.tokens[i, length:].tolist()) <= {END}
        torch.testing.assert_close(together.log_probs[i], alone.log_probs[0])


def test_the_state_may_be_one_of_each_layer():
    """The same net with its state as nested and named tuples, and with a part that the next step does not change."""
    plain, start = _toy(3)

    def nested_step(tokens, state):
        (lower, (upper,)) = state
        torch.testing.assert_close(lower.hidden[:, 0], 10 * upper[:, 0])  # rows moved together
        logits, (hidden,), kept = plain(tokens, (upper,))
        return logits, (LSTMState(10 * hidden, lower.cell), (hidden,)), kept

    options = {"num_inputs": 4, "beam_size": 3, "max_length": 6, "begin": BEGIN, "end": END, "banned": (0, 1, 2)}
    nested = repeat_rows((LSTMState(10 * start, start), (start,)), 3)
    assert isinstance(select_rows(nested, torch.tensor([0]))[0], LSTMState)
    one = beam_search(plain, repeat_rows((start,), 3), **options)
    other = beam_search(nested_step, nested, **options)
    assert one.tokens.tolist() == other.tokens.tolist()
    torch.testing.assert_close(one.log_probs, other.log_probs)


def _fixed(probs):
    """A decoder that gives these probabilities at every step."""

    def step(tokens, state):
        return torch.tensor(probs).log().expand(len(tokens), -1), state, tokens

    return step


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [(0.5, (0.6667, 0.1667, 0.1667)), (1.0, (0.5, 0.25, 0.25)), (2.0, (0.4142, 0.2929, 0.2929))],
)
def test_temperature_sharpens_and_flattens(temperature, expected):
    n = 20_000
    drawn = sample(
        _fixed([0.5, 0.25, 0.25]),
        (torch.zeros(n, 1),),
        temperature=temperature,
        generator=torch.Generator().manual_seed(0),
        num_inputs=n,
        max_length=1,
        begin=0,
        end=2,
    )
    shares = torch.bincount(drawn.tokens[:, 0], minlength=3) / n
    torch.testing.assert_close(shares, torch.tensor(expected), atol=0.012, rtol=0)
    assert drawn.log_probs.exp().unique().tolist() == pytest.approx(
        [0.25, 0.5]
    )  # the model's, whatever the temperature


@pytest.mark.parametrize(("uniform", "token"), [(0.0, 1), (0.49, 1), (0.51, 3), (1 - 2**-53, 3)])
def test_a_number_draws_the_token_at_its_place_and_none_that_cannot_be(uniform, token):
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]], dtype=torch.float64)
    assert _drawn(logits, torch.tensor([[uniform]], dtype=torch.float64)).tolist() == [token]


def _draw(step, start, seed, **options):
    base = {"temperature": 1.0, "num_inputs": 4, "max_length": 7, "begin": BEGIN, "end": END}
    return sample(step, (start,), generator=torch.Generator().manual_seed(seed), **{**base, **options})


def test_draws_are_the_seeds_and_cold_ones_are_greedy():
    step, start = _toy(4)
    one, same, other = _draw(step, start, 0), _draw(step, start, 0), _draw(step, start, 1)
    assert one.tokens.tolist() == same.tokens.tolist() != other.tokens.tolist()
    greedy = beam_search(step, (start,), num_inputs=4, beam_size=1, max_length=7, begin=BEGIN, end=END)
    cold = _draw(step, start, 0, temperature=1e-4)
    assert cold.tokens.tolist() == greedy.tokens.tolist()
    assert cold.lengths.tolist() == greedy.lengths.tolist()
    torch.testing.assert_close(cold.log_probs, greedy.log_probs)
    torch.testing.assert_close(cold.kept, greedy.kept)


def test_draws_keep_to_what_may_be_written_and_to_each_inputs_length():
    step, start = _toy(0)
    limits = torch.tensor([1, 2, 3, 9])
    for seed in range(5):
        drawn = _draw(step, start, seed, banned=(0, 1, 2, 5), max_length=limits, temperature=3.0)
        assert not {0, 1, 2, 5} & set(drawn.tokens.flatten().tolist())
        assert (drawn.lengths <= limits).all()
        for row, length in zip(drawn.tokens.tolist(), drawn.lengths.tolist(), strict=True):
            assert END not in row[: length - 1] and set(row[length:]) <= {END}


def test_scores_are_those_of_the_search_and_flow_back():
    step, start = _toy(6)
    found = beam_search(step, repeat_rows((start,), 3), num_inputs=4, beam_size=3, max_length=6, begin=BEGIN, end=END)
    start.requires_grad_()
    values = score(step, (start,), found.tokens, found.lengths, begin=BEGIN)
    torch.testing.assert_close(values.sum(dim=1), found.log_probs)
    behind = torch.arange(values.shape[1]) >= found.lengths.unsqueeze(1)
    assert (values[behind] == 0).all() and (values[~behind] < 0).all()
    assert torch.autograd.grad(values.sum(), start)[0].abs().sum() > 0
    drawn = _draw(step, start.detach(), 3)
    rescored = score(step, (start.detach(),), drawn.tokens, drawn.lengths, begin=BEGIN)
    torch.testing.assert_close(rescored.sum(dim=1), drawn.log_probs)
