"""Measurements that need no training, made when a page of claims is written: what an output hangs on, how a gradient
fares on its way back, and what one step of a training does with it. float64, seeded: equal code gives equal numbers.

Shapes: H hidden units, T steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_modules.blocks.wirings import Wired, Wiring

HIDDEN, INPUTS, STEPS, DRAWS = 64, 32, 40, 20
_READ = 4  # steps that the probed wirings read, and write


@dataclass(frozen=True, kw_only=True)
class Dependence:
    """What each output of a wiring hangs on.

    Attributes:
        inputs: names of what is read and written, in order: x1, x2 .., y1, y2 .. (what was written before).
        size: (T, len(inputs)) float64, the norm of each output's Jacobian by each input: exactly 0 where the output
            does not hang on it.
        padding: the largest difference between what a row of a padded batch gets and what it gets alone.
    """

    inputs: tuple[str, ...]
    size: Tensor
    padding: float


def dependence(wiring: Wiring) -> Dependence:
    """Measured by autograd in a small LSTM."""
    torch.manual_seed(0)
    network = Wired(wiring, 3, 5, out_channels=2).double()
    read = 1 if wiring in ("one_one", "one_many") else _READ
    num_written = {"one_many": _READ - 1, "encode_decode": _READ}.get(wiring)
    steps = torch.randn(3, read, 3, dtype=torch.float64)
    names = [f"x{s + 1}" for s in range(read)]
    inputs: tuple[Tensor, ...] = (steps[:1],)
    written = None
    if num_written is not None:
        written = torch.randn(3, num_written, 3, dtype=torch.float64)
        inputs = (steps[:1], written[:1])
        names += [*(["begin"] if wiring == "encode_decode" else []), *(f"y{t + 1}" for t in range(_READ - 1))]

    def outputs(*parts: Tensor) -> Tensor:
        return network(parts[0], [read], *(parts[1:] or (None,)), num_written and [num_written])[0]  # type: ignore[no-any-return]

    jacobians = torch.autograd.functional.jacobian(outputs, inputs)  # each (T, O, 1, steps, channels)
    size = torch.cat([j[:, :, 0].square().sum(dim=(1, 3)).sqrt() for j in jacobians], dim=1)
    return Dependence(inputs=tuple(names), size=size, padding=_padding(network, steps, written))


@torch.no_grad()
def _padding(network: Wired, steps: Tensor, written: Tensor | None) -> float:
    lengths = [steps.shape[1], 1, max(1, steps.shape[1] - 1)]
    before = None if written is None else [written.shape[1], 1, 2]
    together = network(steps, lengths, written, before)
    differences = [0.0]
    for n, length in enumerate(lengths):
        if written is None or before is None:
            alone = network(steps[n : n + 1, :length], [length])[0]
        else:
            alone = network(steps[n : n + 1, :length], [length], written[n : n + 1, : before[n]], [before[n]])[0]
        differences.append(float((together[n, : len(alone)] - alone).abs().max()))
    return max(differences)


@dataclass(frozen=True, kw_only=True)
class Decay:
    """How the gradient of the last state fares on its way back.

    Attributes:
        log_norms: of k = 0..STEPS, the mean over draws of log ||dL/d(h, c)_{T-k}||, less that of k = 0.
        log_bound: mean log of the largest singular value of W_hh, of an Elman network: k times as much is the most
            that `log_norms[k]` can be, as the slope of tanh is at most 1.
    """

    log_norms: Sequence[float]
    log_bound: float | None

    @property
    def factor(self) -> float:
        """What a step back multiplies the norm with: exp of the slope over all steps."""
        return math.exp(self.log_norms[-1] / (len(self.log_norms) - 1))


def gradient_decay(
    cell: Literal["elman", "lstm"],
    *,
    orthogonal: bool = False,
    gain: float = 1.0,
    forget_bias: float = 0.0,
    input_scale: float = 1.0,
) -> Decay:
    """Of networks at their start, without biases but the forget gate's, that read N(0, `input_scale`^2); L is a random
    projection of the last state. Torch's uniform start, W_hh orthogonal or times `gain`."""
    generator = torch.Generator().manual_seed(0)
    sums = torch.zeros(STEPS + 1, dtype=torch.float64)
    bounds = []
    for draw in range(DRAWS):
        torch.manual_seed(draw)
        step = (nn.LSTMCell if cell == "lstm" else nn.RNNCell)(INPUTS, HIDDEN, dtype=torch.float64)
        with torch.no_grad():
            if orthogonal:
                nn.init.orthogonal_(step.weight_hh)
            step.weight_hh.mul_(gain)
            step.bias_hh.zero_()
            step.bias_ih.zero_()
            if cell == "lstm":
                step.bias_ih[HIDDEN : 2 * HIDDEN] = forget_bias  # torch's order is i, f, g, o; one of its two biases
            else:
                bounds.append(float(torch.linalg.matrix_norm(step.weight_hh, 2).log()))
        inputs = torch.randn(2 * STEPS, 1, INPUTS, dtype=torch.float64, generator=generator) * input_scale
        weights = torch.randn(HIDDEN, dtype=torch.float64, generator=generator)
        sums += _norms_back(step, inputs, weights).log()
    return Decay(
        log_norms=((sums - sums[0]) / DRAWS).tolist(), log_bound=sum(bounds) / DRAWS if cell == "elman" else None
    )


def _norms_back(step: nn.Module, inputs: Tensor, weights: Tensor) -> Tensor:
    """(STEPS + 1,): norm of the gradient of `weights . h_T` by the whole state k steps earlier."""
    zeros = torch.zeros(1, HIDDEN, dtype=torch.float64)
    states: list[tuple[Tensor, ...]] = [(zeros, zeros) if isinstance(step, nn.LSTMCell) else (zeros,)]
    for value in inputs:
        state = tuple(part.requires_grad_() for part in states[-1])
        states.append(step(value, state) if len(state) == 2 else (step(value, state[0]),))
    seen = states[-1 - STEPS :]
    loss = (states[-1][0] * weights).sum()
    gradients = torch.autograd.grad(loss, [part for state in seen for part in state], allow_unused=True)
    size = len(seen[0])
    norms = []
    for k in range(STEPS + 1):
        parts = [g for g in gradients[(STEPS - k) * size : (STEPS - k + 1) * size] if g is not None]
        norms.append(torch.cat([g.flatten() for g in parts]).norm())
    return torch.stack(norms)


def clipped_steps(
    *, gain: float, clip: float = 1.0, rate: float = 0.1, num_networks: int = 40
) -> dict[str, list[tuple[float, float]]]:
    """One step of gradient descent of Elman networks at their start, W_hh times `gain`, with and without clipping.

    Each reads `STEPS` inputs N(0, 1) of its own batch of 16, and its last state is to say which of 8 classes the first
    input was drawn for.

    Returns:
        "not clipped" and "clipped to <clip>": of each network the norm of its gradient over all weights, before any
        clipping, and by how much the step changes the loss of the same batch.
    """
    found: dict[str, list[tuple[float, float]]] = {"not clipped": [], f"clipped to {clip:g}": []}
    for seed in range(num_networks):
        for name, limit in zip(found, (math.inf, clip), strict=True):
            torch.manual_seed(seed)
            network = Wired("many_one", HIDDEN, HIDDEN, out_channels=8, cell="elman").double()
            with torch.no_grad():
                network.reader.rnn.get_parameter("weight_hh_l0").mul_(gain)
            inputs = torch.randn(16, STEPS, HIDDEN, dtype=torch.float64)
            classes = torch.arange(16) % 8
            inputs[range(16), 0, classes] += 3.0

            def loss(network: Wired = network, inputs: Tensor = inputs, classes: Tensor = classes) -> Tensor:
                return nn.functional.cross_entropy(network(inputs, [STEPS] * 16)[:, 0], classes)

            before = loss()
            before.backward()
            norm = float(nn.utils.clip_grad_norm_(network.parameters(), limit))
            with torch.no_grad():
                for parameter in network.parameters():
                    assert parameter.grad is not None
                    parameter.sub_(rate * parameter.grad)
                found[name].append((norm, float(loss()) - float(before)))
    return found
