"""Many to one: a recurrent network reads tokens, and its last state gives the class.

Elman: h_t = tanh(W_hh h_{t-1} + W_xh x_t) (Elman, Cognitive Science 14(2), 1990). LSTM with a forget gate: Hochreiter
and Schmidhuber, Neural Computation 9(8), 1997; Gers et al., Neural Computation 12(10), 2000.

Shapes: tokens (B, T) int64 -> logits (B, C) float32. B sequences of at most T tokens, H hidden units, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from contracts.errors import ConfigError
from contracts.ranges import COUNT, Range, check_ranges
from lightning_modules.base.families import SequenceClassifierSpec
from lightning_modules.blocks.language import RecurrentEncoder
from lightning_modules.blocks.recurrent import set_forget_bias


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    Attributes:
        hidden: H. embedding: of a token.
        forget_bias: of an LSTM's forget gate at the start; None: as torch draws it, about 0.
        orthogonal: W_hh (each gate's, in an LSTM) starts as an orthogonal matrix instead of torch's uniform one.
    """

    cell: Literal["elman", "lstm"] = "lstm"
    hidden: int = 48
    embedding: int = 32
    forget_bias: float | None = None
    orthogonal: bool = False

    def __post_init__(self) -> None:
        check_ranges(self, hidden=COUNT, embedding=COUNT)
        if self.forget_bias is not None:
            check_ranges(self, forget_bias=Range(-10, 10))
            if self.cell == "elman":
                raise ConfigError("an Elman network has no forget gate", value=self.forget_bias, where="forget_bias")


class Model(nn.Module):
    spec_class = SequenceClassifierSpec

    def __init__(self, config: Config, spec: SequenceClassifierSpec):
        super().__init__()
        self.embed = nn.Embedding(spec.vocabulary_size, config.embedding, padding_idx=0)
        self.encoder = RecurrentEncoder(config.embedding, config.hidden, cell=config.cell)
        self.classify = nn.Linear(config.hidden, spec.num_classes)
        rnn = self.encoder.rnn
        if config.orthogonal:
            for gate in rnn.get_parameter("weight_hh_l0").detach().split(config.hidden):
                nn.init.orthogonal_(gate)
        if config.forget_bias is not None:
            assert isinstance(rnn, nn.LSTM)
            set_forget_bias(rnn, config.forget_bias)

    def forward(self, tokens: Tensor, lengths: Sequence[int]) -> Tensor:
        _, state = self.encoder(self.embed(tokens), lengths)
        return self.classify(state[0][:, -1]).float()
