"""Text recognition: attention reads two scripts, each in its own direction (row S12)."""

from __future__ import annotations

from lightning_modules.reports._plots import Plot
from pipeline.measuring.claims import Claim, Results, Row

TITLE = "Reading words in two scripts"
INTRODUCTION = (
    "Pictures of made-up words, half of them in Arabic letters, which are joined and run from right to left. No word "
    "can be guessed from half of it, and none that is asked for was learnt from. A CNN and LSTMs in both directions "
    "turn a picture into 16 columns; a decoder writes letter after letter and looks at the columns before each."
)
SEEDS = ("a", "b", "c")
SCRIPTS = ("Latin", "Arabic")
_ALONE = {"Latin": "latin", "Arabic": "arabic"}


def claims(results: Results) -> list[Claim]:
    return [_reads(results), _walks(results), _together(results)]


def _runs(system: str) -> list[str]:
    return [f"read_{system}_{seed}" for seed in SEEDS]


def _accuracy(results: Results, what: str, system: str, script: str, control: str = "") -> Row:
    return results.row(f"{what}, {script}", _runs(system), f"word_accuracy/{script}", control)


def _bars(name: str, title: str, rows: list[Row]) -> Plot:
    columns = ("system", "words read right")
    return Plot(
        name=name, kind="bar", columns=columns, rows=[(row.what, row.value) for row in rows], x=columns[0],
        y=columns[1], title=title,
    )  # fmt: skip


def _reads(results: Results) -> Claim:
    control = "the most frequent of all words: 0.01"
    attention = [_accuracy(results, "attention", "attention", script, control) for script in SCRIPTS]
    ctc = [_accuracy(results, "CTC", "ctc", script, control) for script in SCRIPTS]
    errors = [
        results.row(f"attention, {script}: character errors", _runs("attention"), f"CER/{script}") for script in SCRIPTS
    ]
    latin, arabic = (row.value for row in attention)
    return Claim(
        name="attention-reads-both-scripts",
        says="One model with attention reads words in Arabic and in Latin letters",
        slides=("S12",),
        holds=min(latin, arabic) > 0.6,
        because=f"It reads {latin:.1%} of the Latin words and {arabic:.1%} of the Arabic ones without a mistake; CTC "
        f"on the same columns {ctc[0].value:.1%} and {ctc[1].value:.1%}.",
        figure=_bars("words_read", "Words read without a mistake (median of 3 seeds)", [*attention, *ctc]),
        rows=[*attention, *ctc, *errors],
        note="The decoder with attention writes Arabic as it is read, from the right. CTC names columns from left to "
        "right, so its labels are turned around for Arabic, and what it says is turned back.",
    )


def _walks(results: Results) -> Claim:
    rows = [
        results.row(f"{script}: words over which attention goes left", _runs("attention"), f"walks_left/{script}")
        for script in SCRIPTS
    ]  # fmt: skip
    latin, arabic = (row.value for row in rows)
    table = results.table(_runs("attention")[0], "walk")
    columns = ("part of the text", "place in the picture", "script")
    points = [(float(row[columns[0]]), float(row[columns[1]]), row[columns[2]]) for row in table]
    shown = [(x, y, script) for x, y, script in points if script in SCRIPTS]
    return Claim(
        name="attention-walks-as-one-reads",
        says="Attention walks over the word as one reads: to the right for Latin, to the left for Arabic",
        slides=("S12",),
        holds=arabic >= 0.95 and latin <= 0.05,
        because=f"Over {arabic:.1%} of the Arabic words and {latin:.1%} of the Latin ones it goes from right to left.",
        figure=Plot(
            name="walk", kind="curve", columns=columns, rows=shown, x=columns[0], y=columns[1], series="script",
            title="The mean column while a word is written: 0 left, 1 right",
        ),
        rows=rows,
        note="Nobody told it: both scripts have the same decoder, and labels are in the order of reading.",
        pictures={
            f"A word in {script} letters: a row a character, white where it looked": results.picture(
                _runs("attention")[0], f"images-val-word_{number:06d}"
            )
            for number, script in enumerate(SCRIPTS, start=1)
        },
    )  # fmt: skip


def _together(results: Results) -> Claim:
    both = [_accuracy(results, "both", "attention", script) for script in SCRIPTS]
    alone = [_accuracy(results, "alone", _ALONE[script], script) for script in SCRIPTS]
    gaps = [own.value - shared.value for own, shared in zip(alone, both, strict=True)]
    return Claim(
        name="two-scripts-in-one-model",
        says="A second script costs a model little",
        slides=("S12",),
        holds=max(gaps) <= 0.05,
        because=f"Against the one model for both, a model of one script alone reads {100 * gaps[0]:+.1f} points of the "
        f"Latin words and {100 * gaps[1]:+.1f} points of the Arabic ones.",
        figure=_bars("scripts", "Words read without a mistake (median of 3 seeds)", [*both, *alone]),
        rows=[*both, *alone],
        note="Each model of one script saw 8,000 words as often as the one for both saw its 16,000: half the steps. "
        "Three seeds of each.",
    )
