"""Many to one: a recurrent network reads tokens, and its last state gives the class.

Elman: h_t = tanh(W_hh h_{t-1} + W_xh x_t) (Elman, Cognitive Science 14(2), 1990). LSTM with a forget gate: Hochreiter
and Schmidhuber, Neural Computation 9(8), 1997; Gers et al., Neural Computation 12(10), 2000. Of several layers each
reads the states of the one below (1409.2329).

Shapes: tokens (B, T) int64 -> logits (B, C) float32. B sequences of at most T tokens, H hidden units, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from contracts.errors import ConfigError
from contracts.ranges import COUNT, POSITIVE, Range, check_ranges
from lightning_modules.base.families import SequenceClassifierSpec
from lightning_modules.blocks.recurrent import layers_of, lstm_gates, set_forget_bias
from lightning_modules.blocks.wirings import Wired


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    Attributes:
        hidden: H. embedding: of a token. layers: each reads the one below. dropout: between layers.
        forget_bias: of an LSTM's forget gate at the start; None: as torch draws it, about 0.
        orthogonal: W_hh (each gate's, in an LSTM) starts as an orthogonal matrix instead of torch's uniform one.
        recurrent_gain: what W_hh is multiplied with at the start. Above 1.7 or so an Elman network's gradient grows on
            its way back.
    """

    cell: Literal["elman", "lstm"] = "lstm"
    hidden: int = 48
    embedding: int = 32
    layers: int = 1
    dropout: float = 0.0
    forget_bias: float | None = None
    orthogonal: bool = False
    recurrent_gain: float = 1.0

    def __post_init__(self) -> None:
        check_ranges(
            self, hidden=COUNT, embedding=COUNT, layers=COUNT, dropout=Range(0, 1, open_high=True),
            recurrent_gain=POSITIVE, forget_bias=Range(-10, 10),
        )  # fmt: skip
        if self.forget_bias is not None and self.cell == "elman":
            raise ConfigError("an Elman network has no forget gate", value=self.forget_bias, where="forget_bias")
        if self.dropout and self.layers == 1:
            raise ConfigError(
                "dropout is between layers, of which there is one", value=self.dropout, where="dropout",
                allowed="0 with layers: 1", fix="set layers: 2, or leave dropout out",
            )  # fmt: skip


class Model(nn.Module):
    spec_class = SequenceClassifierSpec

    def __init__(self, config: Config, spec: SequenceClassifierSpec):
        super().__init__()
        self.embed = nn.Embedding(spec.vocabulary_size, config.embedding, padding_idx=0)
        self.network = Wired(
            "many_one", config.embedding, config.hidden, out_channels=spec.num_classes, cell=config.cell,
            layers=config.layers, dropout=config.dropout,
        )  # fmt: skip
        rnn = self.network.reader.rnn
        with torch.no_grad():
            for name, weight in rnn.named_parameters():
                if name.startswith("weight_hh"):
                    for gate in weight.split(config.hidden) if config.orthogonal else ():
                        nn.init.orthogonal_(gate)
                    weight.mul_(config.recurrent_gain)
        if config.forget_bias is not None:
            assert isinstance(rnn, nn.LSTM)
            set_forget_bias(rnn, config.forget_bias)

    def forward(self, tokens: Tensor, lengths: Sequence[int]) -> Tensor:
        return self.network(self.embed(tokens), lengths)[:, 0].float()  # type: ignore[no-any-return]

    @torch.no_grad()
    def gates(self, tokens: Tensor, lengths: Sequence[int]) -> Tensor | None:
        """Of an LSTM's top layer. A unit weighs what it says for the class: `max(0, (W_c - mean W) h_T)`."""
        rnn = self.network.reader.rnn
        if not isinstance(rnn, nn.LSTM):
            return None
        outputs = self.embed(tokens)
        for layer in layers_of(rnn):
            steps, outputs = outputs, layer(outputs)[0]
        found = lstm_gates(layer, steps, outputs)
        last = outputs[torch.arange(len(outputs), device=outputs.device), torch.tensor(lengths) - 1]  # (B, H)
        weights = self.network.head.weight
        best = self.network.head(last).argmax(dim=1)
        said = ((weights[best] - weights.mean(dim=0)) * last).clamp(min=0).float()
        shares = said / said.sum(dim=1, keepdim=True).clamp(min=1e-12)
        gates = torch.stack([found.input, found.forget, found.output], dim=1)  # (B, 3, T, H)
        return torch.stack([torch.einsum("bgth,bh->bgt", gates, shares), gates.mean(dim=-1)], dim=1)
