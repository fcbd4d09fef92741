"""Recurrent networks: how they are wired, what an Elman network forgets, what an LSTM keeps (rows S01 to S08)."""

from __future__ import annotations

import math
from statistics import median

import torch

from lightning_modules.blocks.wirings import WIRINGS, Wiring
from lightning_modules.reports._plots import Plot
from pipeline.measuring.claims import Claim, Results
from pipeline.measuring.masks import Mask, Masks
from pipeline.measuring.probes import Decay, Dependence, clipped_steps, dependence, gradient_decay

TITLE = "Recurrent networks: wirings, vanishing gradients and memory"
INTRODUCTION = (
    "First what needs no training: which output hangs on which input, and how gradients fare. Then a symbol, filler, "
    "and the question which symbol it was. Each network is trained on one lag alone, the "
    "number of steps from the symbol to the question, and asked at lags from 2 to 60. With mixed lags in training the "
    "short ones are a curriculum from which every cell learns the long ones, and the claims below would not show."
)
LAGS = (5, 10, 20)
ASKED = (2, 5, 10, 20, 40, 60)
SEEDS = ("a", "b", "c")
CHANCE = 1 / 8
_CELLS = {"elman": "Elman", "orthogonal": "Elman, orthogonal start", "lstm": "LSTM, forget bias 1"}
_WIRINGS: dict[Wiring, str] = {
    "one_one": "one to one", "one_many": "one to many", "many_one": "many to one",
    "encode_decode": "many to many, by a code", "aligned": "many to many, aligned",
}  # fmt: skip


def claims(results: Results) -> list[Claim]:
    return [_wirings(), _vanishing(), _exploding(), _by_lag(results), _stored(results)]


# what needs no training


def _expected(wiring: Wiring, mask: Dependence) -> torch.Tensor:
    """What the wiring says that an output hangs on: all that is read, and what was written before; of the aligned one
    what was read so far."""
    outputs, inputs = mask.size.shape
    every = torch.ones(outputs, inputs, dtype=torch.bool)
    if wiring in ("one_many", "aligned"):
        return every.tril()
    if wiring == "encode_decode":
        return torch.cat([every[:, :outputs], every[:, :outputs].tril()], dim=1)
    return every


def _wirings() -> Claim:
    found = {wiring: dependence(wiring) for wiring in WIRINGS}
    right = [torch.equal(mask.size > 0, _expected(wiring, mask)) for wiring, mask in found.items()]
    padding = max(mask.padding for mask in found.values())
    return Claim(
        name="wirings",
        says="One recurrent network can be wired in five ways, which differ by what an output hangs on",
        slides=("S01", "S02", "S03", "S04"),
        holds=all(right) and padding < 1e-12,
        because=f"In {sum(right)} of {len(right)} wirings each output hangs on exactly the inputs that it should, by "
        f"its Jacobian in a small LSTM; what it should not see has a derivative of exactly 0. Rows of a padded batch "
        f"get what each gets alone (largest difference {padding:.0e}).",
        figure=Masks(
            name="wirings", title="Norm of an output's Jacobian (rows) by an input (columns); white: exactly 0",
            masks=[
                Mask(title=_WIRINGS[wiring], inputs=mask.inputs, size=mask.size.numpy())
                for wiring, mask in found.items()
            ],
        ),
        note="x: what is read; begin, y: what stands before an output, where a network goes on from what it wrote. All "
        "five are one module, lightning_modules/blocks/wirings.py; such networks label texts, write captions, "
        "recognize actions, translate and label frames.",
    )  # fmt: skip


def _curve_rows(curves: dict[str, Decay]) -> list[tuple[str, int, float]]:
    return [(name, k, norm / math.log(10)) for name, decay in curves.items() for k, norm in enumerate(decay.log_norms)]


def _vanishing() -> Claim:
    curves = {
        "Elman": gradient_decay("elman"),
        "Elman, orthogonal": gradient_decay("elman", orthogonal=True),
        "LSTM, forget bias 0": gradient_decay("lstm"),
        "LSTM, forget bias 1": gradient_decay("lstm", forget_bias=1.0),
        "LSTM, forget bias 2": gradient_decay("lstm", forget_bias=2.0),
    }
    bound = curves["Elman"].log_bound
    assert bound is not None
    factors = {name: decay.factor for name, decay in curves.items()}
    told = ", ".join(f"{factor:.2f} ({name})" for name, factor in factors.items())
    rows = [*_curve_rows(curves), *(("bound for Elman", k, k * bound / math.log(10)) for k in range(41))]
    return Claim(
        name="vanishing-gradient",
        says="Gradients of early steps vanish; a cell whose forget gate is open mitigates that",
        slides=("S05", "S06", "S08"),
        holds=factors["Elman"] < 0.6 < factors["LSTM, forget bias 1"] and factors["LSTM, forget bias 2"] > 0.9,
        because=f"Each step back multiplies the gradient by {told}.",
        figure=Plot(
            name="vanishing_gradient", kind="curve", columns=("cell", "steps back", "log10 of the gradient's norm"),
            rows=rows, x="steps back", y="log10 of the gradient's norm", series="cell",
            title="At the start, inputs N(0, 1); mean of 20 networks",
        ),
        note=f"The bound is k times the log of W_hh's largest singular value, {math.exp(bound):.2f} here: above 1, so "
        "it promises nothing, and what makes the gradient vanish is the slope of tanh. An LSTM with torch's own start "
        "(forget bias 0) loses its gradient faster than an Elman network with an orthogonal one.",
    )  # fmt: skip


def _exploding() -> Claim:
    start, tripled = gradient_decay("elman"), gradient_decay("elman", gain=3.0)
    steps = clipped_steps(gain=3.0)
    worse = {name: sum(change > 0 for _, change in found) / len(found) for name, found in steps.items()}
    free, clipped = worse["not clipped"], worse["clipped to 1"]
    norms = [norm for norm, _ in steps["not clipped"]]
    return Claim(
        name="exploding-gradient",
        says="Exploding gradients are another matter, which clipping answers",
        slides=("S06", "S08"),
        holds=tripled.factor > 1 > start.factor and free > 0.5 and clipped < 0.2,
        because=f"With W_hh three times as large each step back multiplies the gradient by {tripled.factor:.2f} in "
        f"place of {start.factor:.2f}; over 40 steps its norm is {median(norms):.0f} in the median network, up to "
        f"{max(norms):.0f}. One step of gradient descent (rate 0.1) along it makes the loss of the same batch worse in "
        f"{free:.0%} of {len(norms)} networks, along the gradient clipped to norm 1 in {clipped:.0%}.",
        figure=Plot(
            name="exploding_gradient", kind="curve",
            columns=("gradient", "log10 of the gradient's norm", "change of the loss"),
            rows=[
                (name, math.log10(norm), change) for name, found in steps.items() for norm, change in sorted(found)
            ],
            x="log10 of the gradient's norm", y="change of the loss", series="gradient",
            title="One step of gradient descent, W_hh three times as large",
        ),
        note="Clipping shortens a gradient that is too long. It does not lengthen one that has vanished, and an LSTM's "
        "gate does not shorten one: two troubles, two answers. `train.gradient_clip_norm` is 1 unless a run says "
        "otherwise.",
    )  # fmt: skip


# recall, trained


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
    wide = results.row("Elman, 110 units, lag 20", _runs("wide", 20), _score(20), "chance 0.125")
    short, long = rows["elman", 5].value, max(rows["elman", 20].value, wide.value)
    lstm = min(rows["lstm", lag].value for lag in LAGS)
    points = [(_CELLS[cell], lag, row.value) for (cell, lag), row in rows.items()]
    points += [("Elman, 110 units", 20, wide.value), *(("chance", lag, CHANCE) for lag in LAGS)]
    return Claim(
        name="memory-by-lag",
        says="An Elman network loses a symbol within ten to twenty steps, where an LSTM still has it",
        slides=("S06", "S08"),
        holds=short > 0.9 and rows["elman", 10].value < 0.5 and long < 0.25 and lstm > 0.99,
        because=f"An Elman network is right in {short:.0%} of sequences at lag 5, in {rows['elman', 10].value:.0%} "
        f"at lag 10 and in {rows['elman', 20].value:.0%} at lag 20; with as many weights as the LSTM (110 units) in "
        f"{wide.value:.0%} there. The LSTM is right in {lstm:.0%} or more at each. Guessing gives 12.5 %.",
        figure=Plot(
            name="memory_by_lag", kind="curve", columns=("cell", "lag in steps", "share that is right"), rows=points,
            x="lag in steps", y="share that is right", series="cell", title="Trained and asked at one lag (median)",
        ),
        rows=[*rows.values(), wide],
        note="48 units each but for the one that says otherwise: at equal units an LSTM has four times the weights.",
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
