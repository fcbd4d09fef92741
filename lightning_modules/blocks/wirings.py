"""The five wirings of a recurrent network, as one module: what it reads, when, and at which steps it gives something.

| wiring | reads | gives | such as |
| --- | --- | --- | --- |
| `one_one` | one vector | one | a class of an image |
| `one_many` | one vector, then what was written | T | a caption |
| `many_one` | S vectors | one | the action of some frames |
| `encode_decode` | S vectors, and only then what was written | T | a translation |
| `aligned` | S vectors | one for each | a label for each frame |

All steps of a network share its weights. The cells are torch's fused layers, which equal those of `recurrent.py`.

Shapes: N rows, S steps that are read, T steps that are written, C input channels, E channels of what was written, H
hidden units, L layers, R directions, O output channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lightning_modules.blocks.language import Cell, RecurrentEncoder

Wiring = Literal["one_one", "one_many", "many_one", "encode_decode", "aligned"]
WIRINGS: tuple[Wiring, ...] = get_args(Wiring)
WRITERS = ("one_many", "encode_decode")  # those that go on from what they wrote
State = tuple[Tensor, ...]


class Wired(nn.Module):
    """A recurrent network in one of the five wirings, with a linear layer on top: `y_t = W_hy h_t + b`.

    Rows may be of different lengths: each gets what it would get alone. What is given behind a row's end means nothing.

    Attributes:
        reader: what reads; of `one_many` the only network, which writes as well.
        writer: of `encode_decode`: begins with the state in which the reader ended, all of its layers.
        head: (R) H -> O.
    """

    def __init__(
        self,
        wiring: Wiring,
        channels: int,
        hidden: int,
        *,
        out_channels: int,
        written_channels: int | None = None,
        cell: Cell = "lstm",
        layers: int = 1,
        dropout: float = 0.0,
        bidirectional: bool = False,
    ):
        """`written_channels` is E, by default C, as `one_many` must have it: one network reads both. `dropout` is
        between layers. `bidirectional`: the reader sees a sequence from both ends, which who writes on the way cannot.
        """
        super().__init__()
        assert wiring in WIRINGS, wiring
        assert not (bidirectional and wiring in ("one_one", "one_many")), "there is no other end to read from"
        assert wiring == "encode_decode" or written_channels in (None, channels), "one network reads one kind of vector"
        self.wiring = wiring
        self.reader = RecurrentEncoder(
            channels, hidden, layers=layers, cell=cell, bidirectional=bidirectional, dropout=dropout
        )
        width = self.reader.out_channels
        if wiring == "encode_decode":
            self.writer = RecurrentEncoder(
                written_channels or channels, width, layers=layers, cell=cell, dropout=dropout
            )
        self.head = nn.Linear(width, out_channels)

    def forward(
        self,
        steps: Tensor,
        lengths: Sequence[int],
        written: Tensor | None = None,
        written_lengths: Sequence[int] | None = None,
    ) -> Tensor:
        """Outputs (N, T, O): T is 1 of `one_one` and `many_one`, S of `aligned`.

        Args:
            steps: (N, S, C); S is 1 of `one_one` and `one_many`.
            lengths: steps of each row, N numbers, all at least 1.
            written: what stands before each output, of `one_many` (N, T - 1, C), as the first comes from the one vector
                alone, of `encode_decode` (N, T, E), the first for what stands before a text. In training the truth,
                one step late ("teacher forcing").
            written_lengths: of each row's part of it: of `one_many` at least 0, of `encode_decode` at least 1.
        """
        assert (written is not None) == (written_lengths is not None) == (self.wiring in WRITERS)
        assert steps.shape[1] == 1 or self.wiring not in ("one_one", "one_many"), "it reads one vector"
        if self.wiring == "one_many":
            assert written is not None and written_lengths is not None
            outputs, _ = self.reader(torch.cat([steps, written], dim=1), [1 + length for length in written_lengths])
        elif self.wiring == "encode_decode":
            assert written is not None and written_lengths is not None
            outputs = _go_on(self.writer.rnn, written, written_lengths, self.reader(steps, lengths)[1])
        else:
            outputs, state = self.reader(steps, lengths)
            if self.wiring != "aligned":
                outputs = state[0][:, -1:]  # the top layer's: forwards after the last step, backwards after the first
        return self.head(outputs)  # type: ignore[no-any-return]

    # one step at a time: as `decoding.Step` asks, which brings the tokens' embedding

    def start(self, steps: Tensor, lengths: Sequence[int]) -> tuple[Tensor, State]:
        """Read, before anything is written: the first output of `one_many` (N, O), and the state, each (N, L, RH)."""
        outputs, state = self.reader(steps, lengths)
        return self.head(outputs[:, 0]), state

    def step(self, written: Tensor, state: State) -> tuple[Tensor, State]:
        """The output (N, O) after `written` (N, C or E), and the next state."""
        assert self.wiring in WRITERS, f"{self.wiring} writes nothing that it goes on from"
        rnn = (self.writer if self.wiring == "encode_decode" else self.reader).rnn
        outputs, last = rnn(written.unsqueeze(1), _torchs(state))
        parts = last if isinstance(last, tuple) else (last,)
        return self.head(outputs[:, 0]), tuple(part.transpose(0, 1) for part in parts)


def _torchs(state: State) -> Tensor | State:
    """Rows first -> layers first, as torch's layers have it."""
    parts = tuple(part.transpose(0, 1).contiguous() for part in state)
    return parts if len(parts) > 1 else parts[0]


def _go_on(rnn: nn.RNNBase, steps: Tensor, lengths: Sequence[int], state: State) -> Tensor:
    """Outputs (N, T, H) of a layer that begins in `state`, 0 behind a row's end."""
    packed = pack_padded_sequence(steps, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    outputs, _ = rnn(packed, _torchs(state))
    return pad_packed_sequence(outputs, batch_first=True, total_length=steps.shape[1])[0]
