"""Questions on pictures: how often one must look, and what candidates give away (rows S18 to S20 of the lecture)."""

from __future__ import annotations

from lightning_modules.reports._plots import Plot
from pipeline.measuring.claims import Claim, Results, Row

TITLE = "Questions on pictures: attention in two looks, and Visual7W"
INTRODUCTION = (
    "Pictures of four to six shapes in the places of a grid. Open questions need no look at one place (is there a "
    "circle?), one (what color is it?) or two (what is left of the red circle?). In multiple choice the three wrong "
    "candidates are of the kind of the right one and true of other things of the same picture, so that neither the "
    "question nor the picture alone tells which is right."
)
SEEDS = ("a", "b", "c")
LOOKS = {"vqa_mean": 0, "vqa_one": 1, "vqa_two": 2}
KINDS = {
    "existence": "is there",
    "color": "what color",
    "shape": "what shape",
    "what is beside": "what is",
}
_SYSTEMS = {0: "mean over all places", 1: "one look", 2: "two looks"}
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
    return [_looks(results), _telling(results), _pointing(results)]


def _runs(name: str) -> list[str]:
    return [f"{name}_{seed}" for seed in SEEDS]


def _looks(results: Results) -> Claim:
    rows: dict[tuple[str, int], Row] = {}
    for kind, name in KINDS.items():
        for run, looks in LOOKS.items():
            what = f"{kind}, {_SYSTEMS[looks]}"
            rows[kind, looks] = results.row(what, _runs(run), f"perQuestionType/{name}", _constant(results, run))
    value = {key: row.value for key, row in rows.items()}
    beside = "what is beside"
    gain = value[beside, 2] - value[beside, 0]
    even = value["existence", 2] - value["existence", 0]
    second = value[beside, 2] - value[beside, 1]
    return Claim(
        name="two-looks",
        says="A question in two steps needs attention; whether something is there can be told from the mean",
        slides=("S18",),
        holds=gain > 10 and abs(even) < 5,
        because=f"Asked what is beside something, two looks are right in {value[beside, 2]:.0f} % of the questions and "
        f"the mean over all places in {value[beside, 0]:.0f} %, {gain:.0f} points less; asked whether something is "
        f"there, they differ by {abs(even):.1f} points.",
        figure=Plot(
            name="two_looks", kind="curve", columns=("question", "looks", "accuracy in %"),
            rows=[(kind, looks, value[kind, looks]) for kind, looks in rows],
            x="looks", y="accuracy in %", series="question",
            title="VQA accuracy by the number of looks; 0 is the mean over all places (median of 3 seeds)",
        ),
        rows=list(rows.values()),
        note=f"The second look adds {second:+.0f} points to the first one on these questions: a place of the feature "
        "map already has something of its neighbors in it, which convolutions have put there. The score of a place is "
        "linear, as in the paper; the released code takes its tanh, and no place of 14 x 14 could have more than "
        "3.65 % of the weight.",
    )  # fmt: skip


def _constant(results: Results, run: str) -> str:
    """The most frequent answer's accuracy over all kinds."""
    constant = results.measured(f"{run}_a", "overall").constant
    return "" if constant is None else f"most frequent answer {constant:.0f}"


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
            x="question's first word", y="accuracy", title="Four texts to choose from (median of 3 seeds)",
        ),
        rows=[*overall.values(), *by_word.values()],
        note="The CNN begins as that of two looks, which learnt from open questions on the pictures of training: where "
        "it begins at random, 500 steps teach the LSTM nothing. "
        "The candidate is chosen that the LSTM would most likely write, by the mean over its tokens. Equally "
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
            x="what it has", y="accuracy", title="Four boxes to choose from (median of 3 seeds)",
        ),
        rows=[*overall.values(), strict],
        note="A model that knows nothing of the boxes scores all four alike: it is right in a quarter by the seed that "
        "decides ties, and never if ties count as wrong. In the released code such a tie counts as right.",
    )  # fmt: skip
