"""Recurrent cells written out, one step at a time, and the gates of torch's LSTM.

These show what a recurrent net does; they equal torch's fused layers, which are many times faster and what models
train. Train with `nn.LSTM` and look at its gates by `lstm_gates`, which costs one matrix product for all steps.

Shapes: N rows, T steps, I input channels, H hidden units. All tensors have their rows first.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn


class LSTMState(NamedTuple):
    """`hidden` and `cell`, each (N, H)."""

    hidden: Tensor
    cell: Tensor


class Gates(NamedTuple):
    """What an LSTM did, each (N, H) of one step or (N, T, H) of all: how much it let in, kept and let out, in (0, 1),
    the candidate that it let in, in (-1, 1), and the cell that came of it."""

    input: Tensor
    forget: Tensor
    output: Tensor
    candidate: Tensor
    cell: Tensor


class ElmanCell(nn.Module):
    """`h_t = tanh(W_hh h_{t-1} + W_xh x_t + b)` (Elman 1990). The state is h (N, H).

    H (H + I) weights, and H more with a bias. Initial weights are `nn.RNN`'s, uniform in +-1 / sqrt(H).
    """

    def __init__(self, channels: int, hidden: int, *, bias: bool = False):
        super().__init__()
        self.hidden_channels = hidden
        self.from_input = nn.Linear(channels, hidden, bias=bias)
        self.from_hidden = nn.Linear(hidden, hidden, bias=False)
        _uniform(self, hidden)

    def start(self, rows: int) -> Tensor:
        """Zeros (rows, H)."""
        return self.from_hidden.weight.new_zeros(rows, self.hidden_channels)

    def forward(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """(N, I) and h_{t-1} (N, H) -> output h_t (N, H), which also is the next state."""
        hidden = torch.tanh(self.from_hidden(state) + self.from_input(inputs))
        return hidden, hidden

    @classmethod
    def of(cls, rnn: nn.RNN) -> ElmanCell:
        """The cell with the weights of a layer of torch's, which has two biases that only ever add up."""
        assert isinstance(rnn, nn.RNN) and rnn.nonlinearity == "tanh"
        from_input, from_hidden, bias = _weights(rnn)
        cell = cls(rnn.input_size, rnn.hidden_size, bias=rnn.bias)
        with torch.no_grad():
            cell.from_input.weight.copy_(from_input)
            cell.from_hidden.weight.copy_(from_hidden)
            if rnn.bias:
                cell.from_input.bias.copy_(bias)
        return cell


class LSTMCell(nn.Module):
    """`i, f, o, g = (s, s, s, tanh)(W (h_{t-1}; x_t) + b)`, s the sigmoid; `c_t = f c_{t-1} + i g`; `h_t = o tanh c_t`.

    Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000, without peepholes. The rows of W are in the
    order i, f, o, g, its columns those of (h; x); torch's rows are in the order i, f, g, o. 4 H (H + I) weights, and
    4 H more with a bias. Initial weights are `nn.LSTM`'s, uniform in +-1 / sqrt(H).
    """

    def __init__(self, channels: int, hidden: int, *, bias: bool = False):
        super().__init__()
        self.hidden_channels = hidden
        self.gates = nn.Linear(hidden + channels, 4 * hidden, bias=bias)
        _uniform(self, hidden)

    def start(self, rows: int) -> LSTMState:
        """Zeros, each (rows, H)."""
        zeros = self.gates.weight.new_zeros(rows, self.hidden_channels)
        return LSTMState(zeros, zeros)

    def forward(self, inputs: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """(N, I) and the state before -> output h_t (N, H) and the next state."""
        gates = self.look(inputs, state)
        hidden = gates.output * torch.tanh(gates.cell)
        return hidden, LSTMState(hidden, gates.cell)

    def look(self, inputs: Tensor, state: LSTMState) -> Gates:
        """The gates (N, H) of one step."""
        hidden, cell = state
        i, f, o, g = self.gates(torch.cat([hidden, inputs], dim=1)).chunk(4, dim=1)
        i, f, o, g = torch.sigmoid(i), torch.sigmoid(f), torch.sigmoid(o), torch.tanh(g)
        return Gates(i, f, o, g, f * cell + i * g)

    @classmethod
    def of(cls, lstm: nn.LSTM) -> LSTMCell:
        """The cell with the weights of a layer of torch's, which has two biases that only ever add up."""
        assert isinstance(lstm, nn.LSTM) and not lstm.proj_size
        from_input, from_hidden, bias = _weights(lstm)
        cell = cls(lstm.input_size, lstm.hidden_size, bias=lstm.bias)
        with torch.no_grad():
            cell.gates.weight.copy_(_lecture_order(torch.cat([from_hidden, from_input], dim=1)))
            if lstm.bias:
                cell.gates.bias.copy_(_lecture_order(bias))
        return cell


State = TypeVar("State")
Stack = TypeVar("Stack", bound=nn.RNNBase)


def unroll(cell: nn.Module, steps: Tensor, state: State) -> tuple[Tensor, State]:
    """Run a cell over (N, T, I) from `state` (`cell.start(N)`) on: outputs (N, T, H) and the last state."""
    outputs = []
    for inputs in steps.unbind(dim=1):
        output, state = cell(inputs, state)
        outputs.append(output)
    return torch.stack(outputs, dim=1), state


def lstm_gates(lstm: nn.LSTM, steps: Tensor, outputs: Tensor, state: LSTMState | None = None) -> Gates:
    """The gates (N, T, H) behind the outputs of a layer of torch's, in float32 and with gradients.

    All that a gate reads, x_t and h_{t-1}, lies in the inputs and the outputs, so all steps are computed at once; only
    the cell is added up step by step. A stack of layers is asked layer by layer, the outputs of one being the steps of
    the next.

    Args:
        lstm: one layer, one direction, `batch_first`.
        steps: (N, T, I), what it read.
        outputs: (N, T, H), what it gave for them.
        state: before the first step; None: zeros.
    """
    assert lstm.batch_first and not lstm.proj_size
    from_input, from_hidden, bias = _weights(lstm)
    first = torch.zeros_like(outputs[:, 0]) if state is None else state.hidden
    before = torch.cat([first.unsqueeze(1), outputs[:, :-1]], dim=1)  # h_{t-1} at place t
    with torch.autocast(steps.device.type, enabled=False):
        raw = steps.float() @ from_input.T + before.float() @ from_hidden.T + bias
        i, f, g, o = raw.chunk(4, dim=-1)  # torch's order
        i, f, g, o = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
        cell = torch.zeros_like(i[:, 0]) if state is None else state.cell
        cells = []
        for forget, let_in in zip(f.unbind(dim=1), (i * g).unbind(dim=1), strict=True):
            cell = forget * cell + let_in
            cells.append(cell)
    return Gates(i, f, o, g, torch.stack(cells, dim=1))


@torch.no_grad()
def layers_of(rnn: Stack) -> list[Stack]:
    """Each layer of a stack as a layer by itself, with copies of its weights: each reads what the one below gives, so
    that one after the other they are the stack (without its dropout)."""
    assert not rnn.bidirectional and not rnn.proj_size
    layers = []
    for index, weights in enumerate(rnn.all_weights):
        channels = rnn.hidden_size if index else rnn.input_size
        # Without numbers at first: drawing weights that are replaced would move the generator, so that looking at gates
        # would change a training.
        layer = type(rnn)(
            channels, rnn.hidden_size, bias=rnn.bias, batch_first=rnn.batch_first, device="meta", dtype=weights[0].dtype
        ).to_empty(device=weights[0].device)
        for own, weight in zip(layer.parameters(), weights, strict=True):
            own.copy_(weight)
        layers.append(layer)
    return layers


@torch.no_grad()
def set_forget_bias(lstm: nn.LSTM, value: float) -> None:
    """Let every layer's forget gates begin with this bias, in place: 0, torch's mean, keeps half of the cell a step.

    Torch has two biases that add up. `value` is put into one and 0 into the other: into both it would count twice.
    """
    assert lstm.bias, "a layer without biases has none to set"
    hidden = lstm.hidden_size
    for name, parameter in lstm.named_parameters():
        if name.startswith("bias_"):
            parameter[hidden : 2 * hidden] = value if name.startswith("bias_ih") else 0.0  # rows: i, f, g, o


def _lecture_order(rows: Tensor) -> Tensor:
    """Torch's rows i, f, g, o in the order i, f, o, g."""
    i, f, g, o = rows.chunk(4)
    return torch.cat([i, f, o, g])


def _weights(rnn: nn.RNNBase) -> tuple[Tensor, Tensor, Tensor]:
    """Of the one layer: (G, I), (G, H), and the sum of both biases (G,), or 0; G is H for an RNN, 4H for an LSTM."""
    assert rnn.num_layers == 1 and not rnn.bidirectional, "one layer of one direction"
    from_input, from_hidden, *biases = rnn.all_weights[0]
    return from_input, from_hidden, sum(biases, torch.zeros_like(from_hidden[:, 0]))


def _uniform(module: nn.Module, hidden: int) -> None:
    for parameter in module.parameters():
        nn.init.uniform_(parameter, -(hidden**-0.5), hidden**-0.5)
