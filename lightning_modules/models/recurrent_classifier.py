"""Many to one: a recurrent network reads tokens, and its last state gives the class.

Elman: h_t = tanh(W_hh h_{t-1} + W_xh x_t) (Elman, Cognitive Science 14(2), 1990). LSTM with a forget gate: Hochreiter
and Schmidhuber, Neural Computation 9(8), 1997; Gers et al., Neural Computation 12(10), 2000.

Shapes: tokens (B, T) int64, lengths (B,) int64 -> logits (B, C) float32. B sequences of T tokens, H cells, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from contracts.errors import ConfigError
from contracts.ranges import COUNT, Range, check_ranges
from lightning_modules.base.families import Family


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    Attributes:
        cell: elman or lstm.
        hidden_size: H. embedding_size: of a token.
        forget_bias: of an LSTM's forget gate at the start, in one of torch's two biases; an Elman network has none.
        orthogonal: W_hh starts as an orthogonal matrix (each gate's, in an LSTM) instead of torch's uniform start.
    """

    cell: Literal["elman", "lstm"] = "lstm"
    hidden_size: int = 48
    embedding_size: int = 32
    forget_bias: float | None = None
    orthogonal: bool = False

    def __post_init__(self) -> None:
        check_ranges(self, hidden_size=COUNT, embedding_size=COUNT)
        if self.forget_bias is not None:
            check_ranges(self, forget_bias=Range(-10, 10))
            if self.cell == "elman":
                raise ConfigError("an Elman network has no forget gate", value=self.forget_bias, where="forget_bias")


class Model(nn.Module):
    family: ClassVar[Family] = "sequence classifier"

    def __init__(self, config: Config, *, vocabulary_size: int, num_classes: int):
        super().__init__()
        size = config.hidden_size
        self.embed = nn.Embedding(vocabulary_size, config.embedding_size, padding_idx=0)
        cells: type[nn.RNNBase] = nn.LSTM if config.cell == "lstm" else nn.RNN
        self.recurrent = cells(config.embedding_size, size, batch_first=True)  # type: ignore[call-arg, arg-type]
        self.classify = nn.Linear(size, num_classes)
        with torch.no_grad():
            if config.orthogonal:
                for gate in self.recurrent.weight_hh_l0.split(size):
                    nn.init.orthogonal_(gate)
            if config.forget_bias is not None:  # torch's order is i, f, g, o
                self.recurrent.bias_ih_l0[size : 2 * size] = config.forget_bias
                self.recurrent.bias_hh_l0[size : 2 * size] = 0.0

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Padding after a sequence changes nothing: its last state is the one at its own length."""
        packed = pack_padded_sequence(self.embed(tokens), lengths.cpu(), batch_first=True, enforce_sorted=False)
        _, state = self.recurrent(packed)
        last = state[0] if isinstance(state, tuple) else state
        return self.classify(last[-1].float())
