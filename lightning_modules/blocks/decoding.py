"""Writing with any step-by-step decoder: beam search (a beam of one is greedy), drawing at random, and scoring texts.

Shapes: B inputs (images, sentences), k beams, N = B * k rows (the beams of an input lie next to each other), V tokens,
T steps.

A decoder is a `Step`. Its state is whatever it needs to go on: a tensor, or tuples of them in any depth (named ones
too), such as (h, c) for each layer. All that is asked of it is that each tensor's first dimension are the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

State: TypeAlias = "Tensor | tuple[State, ...]"
# (tokens (N,), state with N rows) -> (logits (N, V), next state, what to keep of this step (N, ...))
Step = Callable[[Tensor, Any], tuple[Tensor, Any, Tensor]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """One text for each input.

    Attributes:
        tokens: (B, T) int64, without the token that begins a text; the one that ends it from its end on.
        lengths: (B,) int64, tokens that count, the ending one included where the text has ended.
        log_probs: (B,) float32, sum of the tokens' log-likelihoods, not normalised by length.
        kept: (B, T, ...) what `step` gave for each token.
    """

    tokens: Tensor
    lengths: Tensor
    log_probs: Tensor
    kept: Tensor


def map_rows(state: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The state with `change` done to each of its tensors."""
    if isinstance(state, Tensor):
        return change(state)
    parts = [map_rows(part, change) for part in state]
    return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)


def repeat_rows(state: Any, times: int) -> Any:
    """Each tensor's rows `times` times, side by side: one input's row becomes the rows of its beams."""
    return map_rows(state, lambda t: t.repeat_interleave(times, dim=0))


def select_rows(state: Any, rows: Tensor) -> Any:
    """The state of `rows`, (M,) int64."""
    return map_rows(state, lambda t: t.index_select(0, rows))


@torch.no_grad()
def beam_search(
    step: Step,
    state: Any,
    *,
    num_inputs: int,
    beam_size: int,
    max_length: int | Tensor,
    begin: int,
    end: int,
    banned: Sequence[int] = (),
    length_power: float = 0.0,
) -> Decoded:
    """All inputs and all beams in one batch.

    At every step the `beam_size` best of all extensions and of the hypotheses that have already ended are kept, by
    summed log-likelihood. At the end the hypothesis with the largest `log p / length ** length_power` is taken,
    `length` counting the ending token; 0 means no length normalisation. One that reaches `max_length` counts as it is.

    Args:
        step: the decoder. Rows of `state` only move inside their input, so what is constant for an input is not in it.
        state: tensors of `num_inputs * beam_size` rows (`repeat_rows`).
        max_length: tokens at most, the ending one included: at least 1, for all or, (B,) int64, for each input.
        begin, end: the tokens that stand before a text and close it.
        banned: tokens never to be written, such as padding and the unknown word.
        length_power: 0 or more.
    """
    device = next(_tensors(state)).device
    longest = _longest(max_length, num_inputs, device)
    first_row = torch.arange(num_inputs, device=device).unsqueeze(1) * beam_size  # (B, 1)
    tokens = torch.full((num_inputs * beam_size,), begin, dtype=torch.int64, device=device)
    # All beams start alike; only the first of an input may be extended, or the beam would hold copies.
    log_probs = torch.full((num_inputs, beam_size), -torch.inf, device=device)
    log_probs[:, 0] = 0.0
    ended = torch.zeros((num_inputs, beam_size), dtype=torch.bool, device=device)
    lengths = torch.zeros((num_inputs, beam_size), dtype=torch.int64, device=device)
    written: list[Tensor] = []
    parents: list[Tensor] = []
    kept: list[Tensor] = []
    for t in range(1, int(longest.max()) + 1):
        logits, state, keep = step(tokens, state)
        extension = _extension(logits, ended, banned, end)
        log_probs, index = (log_probs.unsqueeze(-1) + extension).flatten(1).topk(beam_size, dim=1)
        parent, token = index // extension.shape[-1], index % extension.shape[-1]  # (B, k)
        before = ended.gather(1, parent)
        lengths = lengths.gather(1, parent) + ~before
        ended = before | (token == end) | (longest <= t).unsqueeze(1)
        written.append(token)
        parents.append(parent)
        kept.append(keep)
        tokens = token.flatten()
        state = select_rows(state, (first_row + parent).flatten())
        if bool(ended.all()):
            break
    best = (log_probs / lengths.float() ** length_power).argmax(dim=1, keepdim=True)  # (B, 1)
    return Decoded(
        tokens=torch.stack(_trace(written, parents, best), dim=1),
        lengths=lengths.gather(1, best).squeeze(1),
        log_probs=log_probs.gather(1, best).squeeze(1),
        kept=torch.stack(_trace_kept(kept, parents, best, first_row), dim=1),
    )


@torch.no_grad()
def sample(
    step: Step,
    state: Any,
    *,
    temperature: float,
    generator: torch.Generator,
    num_inputs: int,
    max_length: int | Tensor,
    begin: int,
    end: int,
    banned: Sequence[int] = (),
) -> Decoded:
    """One text drawn for each input, token by token with probability in proportion to `p ** (1 / temperature)`.

    A temperature of 1 draws from the model, a lower one nearer to its best guess, a higher one nearer to chance.
    `log_probs` are the model's own, at temperature 1, so that they can be compared with those of `beam_search`.

    Args:
        temperature: above 0.
        generator: on any device: the numbers come from it, then move, so a CPU's gives the same draws everywhere.
        state: tensors of `num_inputs` rows.

    The other arguments are those of `beam_search`.
    """
    assert temperature > 0, "towards 0 drawing becomes greedy search: ask beam_search for a beam of one"
    device = next(_tensors(state)).device
    longest = _longest(max_length, num_inputs, device)
    tokens = torch.full((num_inputs,), begin, dtype=torch.int64, device=device)
    total = torch.zeros(num_inputs, device=device)
    ended = torch.zeros((num_inputs, 1), dtype=torch.bool, device=device)
    lengths = torch.zeros(num_inputs, dtype=torch.int64, device=device)
    written: list[Tensor] = []
    kept: list[Tensor] = []
    for t in range(1, int(longest.max()) + 1):
        logits, state, keep = step(tokens, state)
        extension = _extension(logits, ended, banned, end).squeeze(1)  # (B, V)
        uniform = torch.rand((num_inputs, 1), generator=generator, device=generator.device, dtype=torch.float64)
        tokens = _drawn(extension.double() / temperature, uniform.to(device))
        total += extension.gather(1, tokens.unsqueeze(1)).squeeze(1)
        lengths += ~ended.squeeze(1)
        ended = ended | (tokens == end).unsqueeze(1) | (longest <= t).unsqueeze(1)
        written.append(tokens)
        kept.append(keep)
        if bool(ended.all()):
            break
    return Decoded(tokens=torch.stack(written, dim=1), lengths=lengths, log_probs=total, kept=torch.stack(kept, dim=1))


def score(step: Step, state: Any, texts: Tensor, lengths: Tensor, *, begin: int) -> Tensor:
    """Log-likelihood of each token of given texts (N, T), the decoder reading the text itself: (N, T) float32.

    0 behind a text's end, so the sum over T is the text's own. Gradients flow. To compare C candidates for each input,
    give it `repeat_rows(state, C)`.

    Args:
        state: tensors of N rows.
        texts: (N, T) int64 without the token that begins a text, with the one that ends it where that is to count.
        lengths: (N,) int64, tokens that count.
    """
    inputs = torch.cat([torch.full_like(texts[:, :1], begin), texts[:, :-1]], dim=1)
    values = []
    for tokens, targets in zip(inputs.unbind(dim=1), texts.unbind(dim=1), strict=True):
        logits, state, _ = step(tokens, state)
        values.append(torch.log_softmax(logits.float(), dim=-1).gather(1, targets.unsqueeze(1)).squeeze(1))
    counts = torch.arange(texts.shape[1], device=texts.device) < lengths.unsqueeze(1)
    return torch.stack(values, dim=1).where(counts, 0.0)


def _drawn(logits: Tensor, uniform: Tensor) -> Tensor:
    """The token (B,) at which the summed probabilities of (B, V) pass a number in [0, 1), (B, 1), both float64.

    Torch's own draws differ by device. One of probability 0 is never drawn, not by a 0 either.
    """
    reached = torch.softmax(logits, dim=1).cumsum(dim=1)
    return torch.searchsorted(reached, uniform * reached[:, -1:], right=True).squeeze(1)


def _tensors(state: Any) -> Iterator[Tensor]:
    if isinstance(state, Tensor):
        yield state
    else:
        for part in state:
            yield from _tensors(part)


def _longest(max_length: int | Tensor, num_inputs: int, device: torch.device) -> Tensor:
    """(B,) int64."""
    if isinstance(max_length, Tensor):
        return max_length.to(device)
    return torch.full((num_inputs,), max_length, device=device)


def _extension(logits: Tensor, ended: Tensor, banned: Sequence[int], end: int) -> Tensor:
    """(B, k, V): what each token adds to the log-likelihood of each hypothesis; an ended one stays as it is."""
    extension = torch.log_softmax(logits.float(), dim=-1).view(*ended.shape, -1)
    extension[..., list(banned)] = -torch.inf
    extension.masked_fill_(ended.unsqueeze(-1), -torch.inf)
    extension[..., end] = torch.where(ended, 0.0, extension[..., end])
    return extension


def _trace(written: list[Tensor], parents: list[Tensor], best: Tensor) -> list[Tensor]:
    """The tokens (B,) of the chosen hypotheses, from the first step to the last."""
    out: list[Tensor] = []
    beam = best
    for token, parent in zip(reversed(written), reversed(parents), strict=True):
        out.append(token.gather(1, beam).squeeze(1))
        beam = parent.gather(1, beam)
    return out[::-1]


def _trace_kept(kept: list[Tensor], parents: list[Tensor], best: Tensor, first_row: Tensor) -> list[Tensor]:
    """What the steps gave (B, ...) for the chosen hypotheses: it lies at the parent's row, that made the token."""
    out: list[Tensor] = []
    beam = best
    for keep, parent in zip(reversed(kept), reversed(parents), strict=True):
        beam = parent.gather(1, beam)
        out.append(keep.index_select(0, (first_row + beam).flatten()))
    return out[::-1]
