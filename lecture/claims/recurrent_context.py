"""The lecture's two sentences: near context and far context, and what the gates do in between (rows S05 to S08)."""

from __future__ import annotations

from statistics import median

from lightning_modules.reports._plots import Plot
from pipeline.measuring.claims import Claim, Results, Row

TITLE = "Near and far context: the sky above the clouds, and French after France"
INTRODUCTION = (
    "The last word of a sentence. Near: “the clouds are in the … sky”, decided three words before the end. Far: “i "
    "grew up in france … i speak fluent … french”, with filler in between that names other countries (“we saw spain”). "
    "A network is trained on near sentences and on far ones of one gap, the words from the country to the end."
)
GAPS = (10, 20)
SEEDS = ("a", "b", "c")
CELLS = {"elman": "Elman", "lstm": "LSTM, forget bias 1"}
CHANCE = 1 / 8  # of the words that can stand there
_NEAR_GAP = 3
_COUNTRY, _TAIL = 5, 3  # place of the country, counted from 1; words after the filler


def claims(results: Results) -> list[Claim]:
    return [_by_gap(results), _gates(results)]


def _runs(cell: str, gap: int) -> list[str]:
    return [f"sentences_{cell}_{gap}_{seed}" for seed in SEEDS]


def _far(gap: int) -> str:
    return f"top1/length {gap + _COUNTRY}"


def _by_gap(results: Results) -> Claim:
    rows, points = {}, []
    for cell, title in CELLS.items():
        rows[cell, _NEAR_GAP] = results.row(f"{title}, near", _runs(cell, 20), "top1/length 5", "chance 0.125")
        for gap in GAPS:
            rows[cell, gap] = results.row(f"{title}, far, gap {gap}", _runs(cell, gap), _far(gap), "chance 0.125")
        points += [(title, gap, rows[cell, gap].value) for gap in (_NEAR_GAP, *GAPS)]
    points += [("chance", gap, CHANCE) for gap in (_NEAR_GAP, *GAPS)]
    near = min(rows[cell, _NEAR_GAP].value for cell in CELLS)
    elman, lstm = rows["elman", 20].value, rows["lstm", 20].value
    return Claim(
        name="near-and-far-context",
        says="Near context needs no memory to speak of; far context is lost by an Elman network and kept by an LSTM",
        slides=("S05", "S06", "S07"),
        holds=near > 0.95 and elman < 0.6 and lstm > 0.95,
        because=f"“sky” is found by both in {near:.0%} or more of near sentences. “french”, 20 words after “france”, "
        f"by the Elman network in {elman:.0%}, by the LSTM in {lstm:.0%}; at 10 words by the Elman network in "
        f"{rows['elman', 10].value:.0%}. Guessing one of the eight words gives 12.5 %.",
        figure=Plot(
            name="near_and_far", kind="curve", columns=("cell", "gap in words", "share that is right"), rows=points,
            x="gap in words", y="share that is right", series="cell",
            title="The last word (median of 3 seeds); gap 3: near",
        ),
        rows=list(rows.values()),
        note="Seeds decide more than cells here: over 20 words the three Elman networks find "
        f"{_seeds(rows['elman', 20])} and the three LSTMs {_seeds(rows['lstm', 20])}. At gaps of 30 and 40 neither "
        "learns it in these 608 steps.",
    )  # fmt: skip


def _seeds(row: Row) -> str:
    return ", ".join(f"{measured.value:.0%}" for measured in row.measured)


def _gates(results: Results) -> Claim:
    """Means over the far sentences of gap 20, of the networks trained on it."""
    traces = [_trace(results, run) for run in _runs("lstm", 20)]
    names = list(traces[0])
    mean = {name: [median(values) for values in zip(*(t[name] for t in traces), strict=True)] for name in names}
    between = slice(_COUNTRY, 20 + _COUNTRY - _TAIL)  # the filler
    kept = median(min(t["forget, units of the answer"][between]) for t in traces)
    every = median(sum(t["forget, all units"][between]) / (20 - _TAIL) for t in traces)
    written = median(t["input, units of the answer"][_COUNTRY - 1] for t in traces)
    ignored = median(max(t["input, units of the answer"][between]) for t in traces)
    shown = [name for name in names if name.endswith("units of the answer") or name == "forget, all units"]
    return Claim(
        name="forget-gate",
        says="The forget gate decides what is discarded: between country and language it stays open and keeps the cell",
        slides=("S07", "S08"),
        holds=kept > 0.9 and kept > every,
        because=f"From “france” to “i speak fluent” the forget gate of the units that give the answer is {kept:.2f} or "
        f"more at each word; over all units it is {every:.2f} in the mean. The input gate lets in {written:.2f} of the "
        f"country and {ignored:.2f} at most of the filler.",
        figure=Plot(
            name="gates", kind="curve", columns=("gate", "word", "how far open"),
            rows=[(name, place + 1, value) for name in shown for place, value in enumerate(mean[name])],
            x="word", y="how far open", series="gate",
            title="Gates of the LSTM at each word, gap 20: the country is word 5 (median of 3 seeds)",
        ),
        rows=[results.row("LSTM, far, gap 20", _runs("lstm", 20), _far(20), "chance 0.125")],
        note="A unit weighs what it says for the chosen word: what it adds to that word's score above the others'.",
    )  # fmt: skip


def _trace(results: Results, run: str) -> dict[str, list[float]]:
    """How far each gate was open at each word of the longest sentences, from the run's report."""
    trace: dict[str, list[float]] = {}
    for row in results.table(run, "gates"):
        trace.setdefault(row["gate"], []).append(float(row["how far open"]))
    return trace
