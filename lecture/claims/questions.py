"""Questions on pictures: what candidates give away (rows S19 and S20 of the lecture)."""

from __future__ import annotations

from lightning_modules.reports._plots import Plot
from pipeline.measuring.claims import Claim, Results

TITLE = "Questions on pictures: Visual7W"
INTRODUCTION = (
    "Pictures of four to six shapes in the places of a grid. Open questions need no look at one place (is there a "
    "circle?), one (what color is it?) or two (what is left of the red circle?). In multiple choice the three wrong "
    "candidates are of the kind of the right one and true of other things of the same picture, so that neither the "
    "question nor the picture alone tells which is right."
)
SEEDS = ("a",)  # one each as yet
_TOLD = {
    "telling": "picture and question",
    "telling_no_picture": "question alone",
    "telling_no_question": "picture alone",
}
_POINTED = {
    "pointing": "boxes and question",
    "pointing_no_picture": "question alone",
    "pointing_no_question": "boxes alone",
}
WORDS = ("what", "where", "who", "how")
CHANCE = "chance 0.25"


def claims(results: Results) -> list[Claim]:
    return [_telling(results), _pointing(results)]


def _runs(name: str) -> list[str]:
    return [f"{name}_{seed}" for seed in SEEDS]


def _telling(results: Results) -> Claim:
    overall = {run: results.row(what, _runs(run), "overall", CHANCE) for run, what in _TOLD.items()}
    by_word = {
        (run, word): results.row(f"{word}: {what}", _runs(run), word, CHANCE)
        for word in WORDS
        for run, what in _TOLD.items()
    }
    full, question, picture = (row.value for row in overall.values())
    points = [(f"all: {what}", overall[run].value) for run, what in _TOLD.items()]
    points += [(row.what, row.value) for row in by_word.values()]
    return Claim(
        name="telling",
        says="Which of four texts is right takes the picture and the question; either alone does not tell",
        slides=("S19", "S20"),
        holds=full > 0.75 and abs(question - 0.25) <= 0.08 and picture < 0.5,
        because=f"With both, {full:.0%} of the candidates chosen are right; with the question alone {question:.0%}, "
        f"with the picture alone {picture:.0%}. Guessing gives 25 %.",
        figure=Plot(
            name="telling", kind="bar", columns=("question's first word", "accuracy"), rows=points,
            x="question's first word", y="accuracy", title="Four texts to choose from (one seed)",
        ),
        rows=[*overall.values(), *by_word.values()],
        note="The candidate is chosen that the LSTM would most likely write, by the mean over its tokens. Equally "
        "likely ones are decided by a seed of the question's number, since the right one has no place of its own.",
    )  # fmt: skip


def _pointing(results: Results) -> Claim:
    overall = {run: results.row(what, _runs(run), "overall", CHANCE) for run, what in _POINTED.items()}
    full, question, boxes = (row.value for row in overall.values())
    strict = results.row("question alone, ties wrong", _runs("pointing_no_picture"), "overall, ties wrong", CHANCE)
    return Claim(
        name="pointing",
        says="A question can be answered by pointing at a region",
        slides=("S20",),
        holds=full > 0.8 and abs(question - 0.25) <= 0.08 and boxes < 0.5,
        because=f"Of four boxes the right one is chosen in {full:.0%} of the questions; with nothing known of the "
        f"boxes in {question:.0%}, without the question in {boxes:.0%}.",
        figure=Plot(
            name="pointing", kind="bar", columns=("what it has", "accuracy"),
            rows=[(row.what, row.value) for row in overall.values()],
            x="what it has", y="accuracy", title="Four boxes to choose from (one seed)",
        ),
        rows=[*overall.values(), strict],
        note="A model that knows nothing of the boxes scores all four alike: it is right in a quarter by the seed that "
        "decides ties, and never if ties count as wrong. In the released code such a tie counts as right.",
    )  # fmt: skip
