"""Beam search for any recurrent decoder; a beam of one is greedy search.

Shapes: B images, k beams, N = B * k rows (the beams of an image lie next to each other), V words, T steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

State = tuple[Tensor, ...]
# (tokens (N,), state with N rows) -> (logits (N, V), next state, what to keep of this step (N, ...))
Step = Callable[[Tensor, State], tuple[Tensor, State, Tensor]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """The best hypothesis of each image.

    Attributes:
        tokens: (B, T) int64, without `<bos>`; `<eos>` from the end of a hypothesis on.
        lengths: (B,) int64, tokens that count, `<eos>` included where the hypothesis has ended.
        log_probs: (B,) float32, sum of the tokens' log-likelihoods, not normalised.
        kept: (B, T, ...) what `step` gave for each token.
    """

    tokens: Tensor
    lengths: Tensor
    log_probs: Tensor
    kept: Tensor


def repeat_rows(tensors: State, times: int) -> State:
    """Each tensor's rows `times` times, side by side: one image's row becomes the rows of its beams."""
    return tuple(t.repeat_interleave(times, dim=0) for t in tensors)


@torch.no_grad()
def beam_search(
    step: Step,
    state: State,
    *,
    num_images: int,
    beam_size: int,
    max_length: int,
    bos: int,
    eos: int,
    banned: Sequence[int] = (),
    length_power: float = 0.0,
) -> Decoded:
    """All images and all beams in one batch.

    At every step the `beam_size` best of all extensions and of the hypotheses that have already ended are kept, by
    summed log-likelihood. At the end the hypothesis with the largest `log p / length ** length_power` is taken,
    `length` counting `<eos>`; 0 means no length normalisation. One that reaches `max_length` is taken as it is.

    Args:
        step: the decoder. Rows of `state` only move inside their image, so what is constant for an image is not in it.
        state: tensors of `num_images * beam_size` rows (`repeat_rows`).
        max_length: tokens at most, `<eos>` included.
        banned: tokens never to be written, such as `<pad>`, `<unk>` and `<bos>`.
        length_power: 0 or more.
    """
    device = state[0].device
    rows = num_images * beam_size
    first_row = torch.arange(num_images, device=device).unsqueeze(1) * beam_size  # (B, 1)
    tokens = torch.full((rows,), bos, dtype=torch.int64, device=device)
    # All beams start alike; only the first of an image may be extended, or the beam would hold copies.
    log_probs = torch.full((num_images, beam_size), -torch.inf, device=device)
    log_probs[:, 0] = 0.0
    ended = torch.zeros((num_images, beam_size), dtype=torch.bool, device=device)
    lengths = torch.zeros((num_images, beam_size), dtype=torch.int64, device=device)
    written: list[Tensor] = []
    parents: list[Tensor] = []
    kept: list[Tensor] = []
    for _ in range(max_length):
        logits, state, keep = step(tokens, state)
        extension = _extension(logits, ended, banned, eos)
        log_probs, index = (log_probs.unsqueeze(-1) + extension).flatten(1).topk(beam_size, dim=1)
        parent, token = index // extension.shape[-1], index % extension.shape[-1]  # (B, k)
        before = ended.gather(1, parent)
        lengths = lengths.gather(1, parent) + ~before
        ended = before | (token == eos)
        written.append(token)
        parents.append(parent)
        kept.append(keep)
        tokens = token.flatten()
        state = tuple(t.index_select(0, (first_row + parent).flatten()) for t in state)
        if bool(ended.all()):
            break
    best = (log_probs / lengths.float() ** length_power).argmax(dim=1, keepdim=True)  # (B, 1)
    return Decoded(
        tokens=torch.stack(_trace(written, parents, best), dim=1),
        lengths=lengths.gather(1, best).squeeze(1),
        log_probs=log_probs.gather(1, best).squeeze(1),
        kept=torch.stack(_trace_kept(kept, parents, best, first_row), dim=1),
    )


def _extension(logits: Tensor, ended: Tensor, banned: Sequence[int], eos: int) -> Tensor:
    """(B, k, V): what each token adds to the log-likelihood of each hypothesis; an ended one stays as it is."""
    extension = torch.log_softmax(logits.float(), dim=-1).view(*ended.shape, -1)
    extension[..., list(banned)] = -torch.inf
    extension.masked_fill_(ended.unsqueeze(-1), -torch.inf)
    extension[..., eos] = torch.where(ended, 0.0, extension[..., eos])
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
