"""Recurrent networks: what an Elman network forgets, and what an LSTM keeps (rows S05 to S08 of the lecture)."""

from __future__ import annotations

import math

import torch
from torch import nn

from lightning_modules.reports._plots import Plot
from pipeline.measuring.claims import Claim, Results

TITLE = "Recurrent networks: vanishing gradients and memory"
INTRODUCTION = (
    "A symbol, then filler, then the question which symbol it was. Each network is trained on one lag alone, the "
    "number of steps from the symbol to the question, and asked at lags from 2 to 60. With mixed lags in training the "
    "short ones are a curriculum from which every cell learns the long ones, and the claims below would not show."
)
LAGS = (5, 10)
ASKED = (2, 5, 10, 20, 40, 60)
SEEDS = ("a", "b", "c")
CHANCE = 1 / 8
_CELLS = {"elman": "Elman", "orthogonal": "Elman, orthogonal start", "lstm": "LSTM, forget bias 1"}
_STEPS, _HIDDEN, _DRAWS = 40, 64, 20


def claims(results: Results) -> list[Claim]:
    return [_vanishing(), _by_lag(results), _stored(results)]


def _runs(cell: str, lag: int) -> list[str]:
    return [f"recall_{cell}_{lag}_{seed}" for seed in SEEDS]


def _score(lag: int) -> str:
    return f"top1/length {lag + 1}"  # tokens: the symbol, the filler, the question


def _by_lag(results: Results) -> Claim:
    """Trained and asked at the same lag."""
    rows = {
        (cell, lag): results.row(f"{_CELLS[cell]}, lag {lag}", _runs(cell, lag), _score(lag), "chance 0.125")
        for cell in ("elman", "lstm")
        for lag in LAGS
    }
    elman, lstm = rows["elman", 10].value, rows["lstm", 10].value
    short = rows["elman", 5].value
    points = [(_CELLS[cell], lag, row.value) for (cell, lag), row in rows.items()]
    points += [("chance", lag, CHANCE) for lag in LAGS]
    return Claim(
        name="memory-by-lag",
        says="An Elman network loses a symbol within ten steps, where an LSTM still has it",
        slides=("S06", "S08"),
        holds=short > 0.9 and elman < 0.5 and lstm > 0.9,
        because=f"At lag 5 the Elman network is right in {short:.0%} of the sequences, at lag 10 in {elman:.0%}; the "
        f"LSTM in {lstm:.0%}. Guessing gives 12.5 %.",
        figure=Plot(
            name="memory_by_lag", kind="curve", columns=("cell", "lag in steps", "share that is right"), rows=points,
            x="lag in steps", y="share that is right", series="cell", title="Trained and asked at one lag (median)",
        ),
        rows=list(rows.values()),
    )  # fmt: skip


def _stored(results: Results) -> Claim:
    """Trained at lag 10, asked at others."""
    points, rows, others = [], [], {}
    for cell, title in _CELLS.items():
        for lag in ASKED:
            row = results.row(f"{title}, asked at lag {lag}", _runs(cell, 10), _score(lag), "chance 0.125")
            points.append((title, lag, row.value))
            if lag != 10:
                others.setdefault(cell, []).append(row.value)
            rows.append(row)
    points += [("chance", lag, CHANCE) for lag in ASKED]
    lstm, orthogonal = min(others["lstm"]), max(others["orthogonal"])
    return Claim(
        name="stores-or-counts",
        says="Only the LSTM stores the symbol: it answers at lags that it was never trained on",
        slides=("S07", "S08"),
        holds=lstm > 0.9 and orthogonal < 0.75,
        because=f"Trained at lag 10, the LSTM is right in {lstm:.0%} or more at every other lag; an Elman network that "
        f"starts from an orthogonal matrix answers at lag 10, too, and elsewhere in {orthogonal:.0%} at best: it "
        "counts the steps.",
        figure=Plot(
            name="stores_or_counts", kind="curve", columns=("cell", "lag in steps", "share that is right"), rows=points,
            x="lag in steps", y="share that is right", series="cell", title="Trained at lag 10 (median of 3)",
        ),
        rows=rows,
    )  # fmt: skip


def _vanishing() -> Claim:
    """Needs no training: gradients at the start."""
    curves = {
        "Elman": gradient_norms("elman"),
        "Elman, orthogonal start": gradient_norms("orthogonal"),
        "LSTM, forget bias 0": gradient_norms("lstm", forget_bias=0.0),
        "LSTM, forget bias 1": gradient_norms("lstm", forget_bias=1.0),
        "LSTM, forget bias 2": gradient_norms("lstm", forget_bias=2.0),
    }
    factors = {name: math.exp(norms[-1] / (len(norms) - 1)) for name, norms in curves.items()}
    told = ", ".join(f"{factor:.2f} ({name})" for name, factor in factors.items())
    return Claim(
        name="vanishing-gradient",
        says="Gradients of early steps vanish; a cell whose forget gate is open mitigates that",
        slides=("S05", "S06", "S08"),
        holds=factors["Elman"] < 0.6 < factors["LSTM, forget bias 1"] and factors["LSTM, forget bias 2"] > 0.9,
        because=f"Each step back multiplies the gradient by {told}.",
        figure=Plot(
            name="vanishing_gradient", kind="curve", columns=("cell", "steps back", "log10 of the gradient's norm"),
            rows=[(name, k, norm / math.log(10)) for name, norms in curves.items() for k, norm in enumerate(norms)],
            x="steps back", y="log10 of the gradient's norm", series="cell", title="At the start, inputs N(0, 1)",
        ),
        note="An LSTM with torch's own start (forget bias 0) loses its gradient faster than an Elman network with an "
        "orthogonal one. Exploding gradients are another matter, which clipping answers.",
    )  # fmt: skip


def gradient_norms(cell: str, *, forget_bias: float = 0.0) -> list[float]:
    """Mean log-norm of the gradient of the last state's random projection with respect to the state k steps earlier,
    less that of k = 0; k = 0.._STEPS. float64, seeded."""
    generator = torch.Generator().manual_seed(0)
    sums = torch.zeros(_STEPS + 1, dtype=torch.float64)
    for draw in range(_DRAWS):
        torch.manual_seed(draw)
        step = (nn.LSTMCell if cell == "lstm" else nn.RNNCell)(_HIDDEN, _HIDDEN, dtype=torch.float64)
        if cell == "orthogonal":
            nn.init.orthogonal_(step.weight_hh)
        with torch.no_grad():
            step.bias_hh.zero_()
            step.bias_ih.zero_()
            if cell == "lstm":
                step.bias_ih[_HIDDEN : 2 * _HIDDEN] = forget_bias  # torch's order is i, f, g, o; one of its two biases
        inputs = torch.randn(2 * _STEPS, 1, _HIDDEN, dtype=torch.float64, generator=generator)
        zeros = torch.zeros(1, _HIDDEN, dtype=torch.float64)
        states = [(zeros, zeros) if cell == "lstm" else (zeros,)]
        for value in inputs:
            state = tuple(part.requires_grad_() for part in states[-1])
            states.append(step(value, state) if cell == "lstm" else (step(value, state[0]),))
        seen = states[-1 - _STEPS :]
        weights = torch.randn(_HIDDEN, dtype=torch.float64, generator=generator)
        loss = (states[-1][0] * weights).sum()
        gradients = torch.autograd.grad(loss, [part for state in seen for part in state], allow_unused=True)
        size = len(seen[0])
        for k in range(_STEPS + 1):
            parts = [g for g in gradients[(_STEPS - k) * size : (_STEPS - k + 1) * size] if g is not None]
            sums[k] += torch.cat([g.flatten() for g in parts]).norm().log()
    return ((sums - sums[0]) / _DRAWS).tolist()
