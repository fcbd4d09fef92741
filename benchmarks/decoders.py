"""Recurrent decoders beside their textbook forms, of equal weights and equal outputs, on one thread.

Sizes of Show, Attend and Tell: 7 x 7 places of 2,048 channels, 512 units, 10,000 words, 20 words a caption.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks import Figure, timed
from lightning_modules.blocks.decoding import beam_search, repeat_rows
from lightning_modules.models.soft_attention import Config, Decoder

IMAGES, PLACES, CHANNELS, HIDDEN, WORDS, LENGTH, BEAM = 32, 49, 2048, 512, 10_000, 20, 5
TEXTBOOK_IMAGES = 4
BEGIN, END = 1, 2
TOLERANCE = 1e-4


def measure() -> list[Figure]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [_attention_step(), _fused(), *_beams()]
    finally:
        torch.set_num_threads(threads)


def _decoder() -> tuple[Decoder, Tensor]:
    torch.manual_seed(0)
    config = Config(embedding_channels=HIDDEN, hidden_channels=HIDDEN, attention_channels=HIDDEN, dropout=0.0)
    decoder = Decoder(config, feature_channels=CHANNELS, vocabulary_size=WORDS)
    nn.init.normal_(decoder.vocabulary.weight, std=0.5)  # words differ by more than rounding does
    return decoder, torch.rand(IMAGES, PLACES, CHANNELS)


def _attention_step() -> Figure:
    decoder, features = _decoder()
    tokens = torch.randint(3, WORDS, (IMAGES, LENGTH))
    ours, logits = timed(lambda: _trained(decoder, lambda: _hoisted(decoder, features, tokens)), repeats=2)
    loop, plain = timed(lambda: _trained(decoder, lambda: _all_in_the_loop(decoder, features, tokens)), repeats=2)
    assert torch.allclose(logits, plain, atol=TOLERANCE * plain.abs().max().item())
    return Figure(
        what=f"training step of the attention LSTM, {IMAGES} captions of {LENGTH} words",
        value=ours,
        beside="keys, word gates and vocabulary inside the time loop",
        other=loop,
        goal="ratio >= 2.5",
    )


def _trained(module: nn.Module, forward: Callable[[], Tensor]) -> Tensor:
    module.zero_grad()
    logits = forward()
    logits.square().mean().backward()
    return logits.detach()


def _hoisted(decoder: Decoder, features: Tensor, tokens: Tensor) -> Tensor:
    memory, state = decoder.start(features)
    return decoder(memory, state, tokens)[0]


def _all_in_the_loop(decoder: Decoder, features: Tensor, tokens: Tensor) -> Tensor:
    """Everything a step needs is computed in that step, one layer after the other, as tutorials write it."""
    state: tuple[Tensor, ...] = decoder.start(features)[1]
    logits = []
    for word in tokens.unbind(dim=1):
        memory = (features, decoder.attention.keys(features))
        step_logits, state, _ = decoder.step(memory, state, word)
        logits.append(step_logits)
    return torch.stack(logits, dim=1)


def _fused() -> Figure:
    torch.manual_seed(0)
    lstm = nn.LSTM(HIDDEN, HIDDEN, batch_first=True)
    cell = nn.LSTMCell(HIDDEN, HIDDEN)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in lstm.state_dict().items()})
    words = torch.randn(IMAGES, LENGTH, HIDDEN)

    def looped() -> Tensor:
        state = (torch.zeros(IMAGES, HIDDEN), torch.zeros(IMAGES, HIDDEN))
        hidden = []
        for word in words.unbind(dim=1):
            state = cell(word, state)
            hidden.append(state[0])
        return torch.stack(hidden, dim=1)

    ours, out = timed(lambda: _trained(lstm, lambda: lstm(words)[0]), repeats=7)
    loop, plain = timed(lambda: _trained(cell, looped), repeats=7)
    assert torch.allclose(out, plain, atol=TOLERANCE)
    return Figure(
        what=f"training step of nn.LSTM (questions), {IMAGES} x {LENGTH} words, {HIDDEN} units",
        value=ours,
        beside="a loop over nn.LSTMCell",
        other=loop,
    )


def _beams() -> list[Figure]:
    decoder, features = _decoder()
    decoder.eval()
    batched, all_at_once = timed(lambda: _search(decoder, features), repeats=2)
    singly, one_by_one = timed(lambda: torch.cat([_search(decoder, image[None]) for image in features]))
    few = features[:TEXTBOOK_IMAGES]
    textbook, hypotheses = timed(lambda: torch.stack([_textbook(decoder, image[None]) for image in few]))
    assert torch.equal(all_at_once, one_by_one)
    assert torch.equal(all_at_once[:TEXTBOOK_IMAGES], hypotheses)
    what = f"beam search of {BEAM}, {LENGTH} words, {IMAGES} images at once, an image"
    return [
        Figure(what=what, value=batched / IMAGES, beside=beside, other=other, goal=goal)
        for beside, other, goal in (
            ("an image at a time", singly / IMAGES, "ratio >= 3.8"),
            ("a hypothesis at a time (textbook)", textbook / TEXTBOOK_IMAGES, "ratio >= 12"),
        )
    ]


@torch.no_grad()
def _search(decoder: Decoder, features: Tensor) -> Tensor:
    once, state = decoder.start(features)
    memory = repeat_rows(once, BEAM)
    return beam_search(
        lambda tokens, state: decoder.step(memory, state, tokens),
        repeat_rows(state, BEAM),
        num_inputs=len(features),
        beam_size=BEAM,
        max_length=LENGTH,
        begin=BEGIN,
        end=END,
        banned=(END,),  # all captions have the full length, so all searches do the same number of steps
    ).tokens


@torch.no_grad()
def _textbook(decoder: Decoder, image: Tensor) -> Tensor:
    """Each hypothesis is a list of words that is extended alone; the keys are computed again for every step."""
    beam: list[tuple[float, list[int], tuple[Tensor, ...]]] = [(0.0, [BEGIN], decoder.start(image)[1])]
    for _ in range(LENGTH):
        extended = []
        for log_prob, words, state in beam:
            memory = (image, decoder.attention.keys(image))
            logits, after, _ = decoder.step(memory, state, torch.tensor(words[-1:]))
            log_probs = torch.log_softmax(logits[0], dim=-1)
            log_probs[END] = -torch.inf
            values, best = log_probs.topk(BEAM)
            extended += [
                (log_prob + value, [*words, word], after)
                for value, word in zip(values.tolist(), best.tolist(), strict=True)
            ]
        beam = sorted(extended, key=lambda hypothesis: -hypothesis[0])[:BEAM]
    return torch.tensor(beam[0][1][1:])
