"""Connectionist temporal classification (Graves et al., ICML 2006): a label at each step, or a blank.

Shapes: B inputs, T steps, V tokens, one of which is the blank, U tokens of the longest text.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Path(NamedTuple):
    """What the best path of an input spells.

    Attributes:
        tokens: those that are left of it.
        steps: where each of them begins.
        log_prob: of the whole path, which is less than that of the text: other paths spell it, too.
    """

    tokens: list[int]
    steps: list[int]
    log_prob: float


def ctc_losses(logits: Tensor, texts: Tensor, lengths: Tensor, *, blank: int) -> Tensor:
    """Negative log-likelihood of each text, (B,) float32; 0, without gradient, of one that has no room in T steps (two
    equal tokens in a row need a blank between them).

    Args:
        logits: (B, T, V). texts: (B, U) int64 without blanks, padded at the end. lengths: (B,) int64, of each text.
    """
    log_probs = torch.log_softmax(logits.float(), dim=-1).transpose(0, 1)
    num_steps = torch.full((logits.shape[0],), logits.shape[1], dtype=torch.int64)
    return F.ctc_loss(
        log_probs, texts, num_steps, lengths, blank=blank, reduction="none", zero_infinity=True
    )  # fmt: skip


@torch.no_grad()
def best_paths(logits: Tensor, *, blank: int, banned: tuple[int, ...] = ()) -> list[Path]:
    """The likeliest token at each step, equal ones in a row taken for one, blanks left out.

    Args:
        logits: (B, T, V). banned: tokens that are never written.
    """
    log_probs = torch.log_softmax(logits.float(), dim=-1)
    log_probs[..., list(banned)] = -torch.inf
    best, tokens = log_probs.max(dim=-1)
    before = F.pad(tokens, (1, 0), value=blank)[:, :-1]
    begins = (tokens != blank) & (tokens != before)
    rows = zip(tokens.tolist(), begins.tolist(), best.sum(dim=1).tolist(), strict=True)
    out = []
    for row, first, log_prob in rows:
        steps = [i for i, is_first in enumerate(first) if is_first]
        out.append(Path([row[i] for i in steps], steps, log_prob))
    return out
