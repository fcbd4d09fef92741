"""Batched beam search against a textbook one that follows one hypothesis at a time."""

import itertools

import pytest
import torch

from lightning_modules.blocks.decoding import beam_search, repeat_rows

BOS, EOS, NUM_WORDS, HIDDEN = 2, 3, 7, 5


def _toy(seed):
    """A random recurrent net: `step` for rows, and the start state of 4 images."""
    generator = torch.Generator().manual_seed(seed)
    embed, recur = torch.randn(NUM_WORDS, HIDDEN, generator=generator), torch.randn(HIDDEN, HIDDEN, generator=generator)
    out = 2 * torch.randn(HIDDEN, NUM_WORDS, generator=generator)

    def step(tokens, state):
        hidden = torch.tanh(embed[tokens] + state[0] @ recur)
        return hidden @ out, (hidden,), hidden

    return step, torch.randn(4, HIDDEN, generator=generator)


def _textbook(step, start, *, beam_size, max_length, banned, length_power):
    """(tokens, log p, kept) of one image; hypotheses are (tokens, log p, state, kept, ended)."""
    beam = [([], 0.0, (start[None],), [], False)]
    for _ in range(max_length):
        candidates = []
        for tokens, log_prob, state, kept, ended in beam:
            if ended:
                candidates.append((tokens, log_prob, state, kept, True))
                continue
            logits, after, keep = step(torch.tensor([tokens[-1] if tokens else BOS]), state)
            for word, value in enumerate(torch.log_softmax(logits[0], -1).tolist()):
                if word not in banned:
                    candidates.append(([*tokens, word], log_prob + value, after, [*kept, keep[0]], word == EOS))
        beam = sorted(candidates, key=lambda c: -c[1])[:beam_size]
        if all(c[4] for c in beam):
            break
    tokens, log_prob, _, kept, _ = max(beam, key=lambda c: c[1] / len(c[0]) ** length_power)
    return tokens, log_prob, torch.stack(kept)


@pytest.mark.parametrize(("beam_size", "length_power"), [*itertools.product((1, 2, 3, 5), (0.0, 0.7, 1.0))])
def test_equals_textbook_search(beam_size, length_power):
    for seed in range(6):
        step, start = _toy(seed)
        options = {"max_length": 6, "banned": (0, 1, BOS), "length_power": length_power}
        decoded = beam_search(
            step,
            repeat_rows((start,), beam_size),
            num_images=4,
            beam_size=beam_size,
            bos=BOS,
            eos=EOS,
            **options,
        )
        for i in range(4):
            tokens, log_prob, kept = _textbook(step, start[i], beam_size=beam_size, **options)
            length = int(decoded.lengths[i])
            assert decoded.tokens[i, :length].tolist() == tokens
            assert set(decoded.tokens[i, length:].tolist()) <= {EOS}
            assert float(decoded.log_probs[i]) == pytest.approx(log_prob, abs=1e-4)
            torch.testing.assert_close(decoded.kept[i, :length], kept, atol=1e-5, rtol=1e-5)


def test_a_beam_of_one_is_greedy():
    step, start = _toy(11)
    decoded = beam_search(step, (start,), num_images=4, beam_size=1, max_length=6, bos=BOS, eos=EOS)
    tokens, state = torch.full((4,), BOS), (start,)
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
        num_images=4,
        beam_size=beam_size,
        max_length=max_length,
        bos=BOS,
        eos=EOS,
    )
    for i in range(4):
        best = -torch.inf
        for sentence in itertools.product(range(NUM_WORDS), repeat=max_length):
            log_prob, state, previous = 0.0, (start[i][None],), BOS
            for word in sentence:
                logits, state, _ = step(torch.tensor([previous]), state)
                log_prob += float(torch.log_softmax(logits[0], -1)[word])
                previous = word
                if word == EOS:
                    break
            best = max(best, log_prob)
        assert float(decoded.log_probs[i]) == pytest.approx(best, abs=1e-4)


def test_length_power_prefers_longer_sentences():
    step, start = _toy(2)
    lengths = [
        beam_search(
            step,
            repeat_rows((start,), 5),
            num_images=4,
            beam_size=5,
            max_length=8,
            bos=BOS,
            eos=EOS,
            length_power=power,
        ).lengths.sum()
        for power in (0.0, 3.0)
    ]
    assert lengths[1] > lengths[0]


def test_banned_tokens_are_never_written():
    step, start = _toy(0)
    decoded = beam_search(
        step, repeat_rows((start,), 3), num_images=4, beam_size=3, max_length=9, bos=BOS, eos=EOS, banned=(0, 1, 2, 5)
    )
    assert not {0, 1, 2, 5} & set(decoded.tokens.flatten().tolist())
