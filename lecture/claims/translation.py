"""Translation: what one vector loses, what attention and a reversed source give back (rows S09 to S11)."""

from __future__ import annotations

from lightning_modules.reports._plots import Plot
from pipeline.measuring.claims import Claim, Results, Row

TITLE = "Sequence to sequence: one vector, and attention"
INTRODUCTION = (
    "English sentences of 4 to 25 tokens and their French, made so that hardly a word can be guessed from the others. "
    "French turns a noun and its adjectives around, and articles, adjectives and participles follow a gender that "
    "English does not show. Which word says what is known, and no sentence is both learnt from and asked for."
)
SEEDS = ("a", "b", "c")
BINS = ("1-5", "6-10", "11-15", "16-25")
_SYSTEMS = {
    "additive": "attention",
    "vector": "one vector",
    "reversed": "one vector, reversed",
}
_SCORES = {"additive": "v · tanh(W s + U h)", "general": "s · W h", "dot": "s · h"}


def claims(results: Results) -> list[Claim]:
    return [_bottleneck(results), _reversal(results), _alignment(results), _scores(results)]


def _runs(system: str) -> list[str]:
    return [f"translate_{system}_{seed}" for seed in SEEDS]


def _by_length(results: Results, system: str, control: str = "") -> list[Row]:
    return [
        results.row(f"{_SYSTEMS[system]}, source of {bin_} tokens", _runs(system), f"BLEU/length {bin_}", control)
        for bin_ in BINS
    ]


def _figure(name: str, title: str, rows: dict[str, list[Row]], constant: float | None) -> Plot:
    points = [
        (system, bin_, row.value) for system, found in rows.items() for bin_, row in zip(BINS, found, strict=True)
    ]
    if constant is not None:
        points += [("one sentence for all", bin_, constant) for bin_ in BINS]
    longest = {bin_: int(bin_.partition("-")[2]) for bin_ in BINS}
    return Plot(
        name=name, kind="curve", columns=("system", "source tokens, at most", "BLEU"),
        rows=[(system, longest[bin_], value) for system, bin_, value in points],
        x="source tokens, at most", y="BLEU", series="system", title=title,
    )  # fmt: skip


def _bottleneck(results: Results) -> Claim:
    overall = {s: results.row(f"{_SYSTEMS[s]}, all sentences", _runs(s), "BLEU") for s in _SYSTEMS}
    constant = overall["additive"].measured[0].constant
    rows = {system: _by_length(results, system) for system in overall}
    # Of the two that have one vector the better one decides.
    looks, vector, forward = ([row.value for row in rows[system]] for system in ("additive", "reversed", "vector"))
    none = [results.row(f"attention switched off, {bin_} tokens", _runs("none"), f"BLEU/length {bin_}")
            for bin_ in BINS]  # fmt: skip
    shown = {_SYSTEMS[system]: found for system, found in rows.items()} | {"attention off": none}
    return Claim(
        name="one-vector-is-a-bottleneck",
        says="One vector is too little for a long sentence; attention translates long sentences as well as short ones",
        slides=("S09", "S10"),
        holds=looks[0] - looks[-1] <= 5 and vector[0] - vector[-1] >= 30,
        because=f"From sources of at most 5 tokens to those of 16 to 25, BLEU goes from {looks[0]:.1f} to "
        f"{looks[-1]:.1f} with attention, and from {vector[0]:.1f} to {vector[-1]:.1f} through one vector of the "
        f"reversed source, from {forward[0]:.1f} to {forward[-1]:.1f} through one of the source as it is. "
        f"The same model as with attention, but for that it is switched off: from {none[0].value:.1f} to "
        f"{none[-1].value:.1f}.",
        figure=_figure("bleu_by_length", "BLEU by the length of the source (median of 3 seeds)", shown, constant),
        rows=[*overall.values(), *(row for found in (*rows.values(), none) for row in found)],
        note="sacreBLEU on plain text. The lowest line writes the one sentence that scores best for all.",
    )


def _reversal(results: Results) -> Claim:
    control = "forward: the same model, the source as it is"
    overall = {
        system: results.row(f"{_SYSTEMS[system]}, all sentences", _runs(system), "BLEU", control)
        for system in ("reversed", "vector")
    }
    rows = {system: _by_length(results, system, control) for system in overall}
    perplexity = {
        system: results.row(f"{_SYSTEMS[system]}, perplexity", _runs(system), "perplexity") for system in overall
    }
    gain = overall["reversed"].value - overall["vector"].value
    worst = min(number.value for number in overall["reversed"].measured)
    best = max(number.value for number in overall["vector"].measured)
    return Claim(
        name="reversing-the-source-helps",
        says="Without attention it helps to read the source from its end",
        slides=("S09",),
        holds=gain > 0 and worst > best,
        because=f"BLEU {overall['vector'].value:.1f} forward, {overall['reversed'].value:.1f} reversed (worst seed of "
        f"the one {worst:.1f}, best of the other {best:.1f}); perplexity {perplexity['vector'].value:.2f} and "
        f"{perplexity['reversed'].value:.2f}.",
        figure=_figure(
            "reversed", "BLEU by the length of the source (median of 3 seeds)",
            {_SYSTEMS[system]: found for system, found in rows.items()}, overall["vector"].measured[0].constant,
        ),
        rows=[*overall.values(), *perplexity.values()],
        note="By length these are the numbers of the claim above. Sutskever et al. report 25.9 and 30.6 BLEU, "
        "perplexity 5.8 and 4.7, English to French.",
    )  # fmt: skip


def _alignment(results: Results) -> Claim:
    runs = _runs("additive")
    found = results.row("strongest source word of each target word", runs, "AER", "same place in both sentences")
    near = results.row(
        "the same, one source place beside counts", runs, "AER_within_1", "same place, one beside counts"
    )
    constant = found.measured[0].constant
    assert constant is not None
    cells = [
        (cell["target"], cell["source"], float(cell["weight"]), int(cell["marked"]))
        for cell in results.table(runs[0], "attention")
    ]
    return Claim(
        name="attention-is-alignment",
        says="Attention finds which word says what, though nobody told it",
        slides=("S10", "S11"),
        holds=found.value <= 0.25 and found.value < constant / 2,
        because=f"Alignment error rate {found.value:.2f} ({near.value:.2f} where the word beside counts); "
        f"linking the words that stand at the same place has {constant:.2f}.",
        figure=Plot(
            name="attention", kind="heat", columns=("target", "source", "weight", "marked"), rows=cells,
            x="source", y="target", title="The lecture's sentence; framed: which word says what",
        ),
        rows=[found, near],
        note="0 is best. The sentence is not in the training data. French articles follow the noun's gender, so that "
        "attention goes to the noun where the frame is at the article: no mistake of the translation.",
    )  # fmt: skip


def _scores(results: Results) -> Claim:
    runs = {score: _runs(score) for score in _SCORES}
    rows = {score: results.row(f"{_SCORES[score]}, BLEU", names, "BLEU") for score, names in runs.items()}
    errors = {score: results.row(f"{_SCORES[score]}, AER", names, "AER") for score, names in runs.items()}
    values = [row.value for row in rows.values()]
    told = ", ".join(f"{score} {rows[score].value:.1f} (AER {errors[score].value:.2f})" for score in rows)
    return Claim(
        name="any-score-will-do",
        says="How a source word is scored matters little: a sum, a product, a product with a matrix between",
        slides=("S10",),
        holds=max(values) - min(values) <= 5,
        because=f"BLEU: {told}.",
        figure=Plot(
            name="scores", kind="bar", columns=("score", "BLEU"),
            rows=[(_SCORES[score], row.value) for score, row in rows.items()], x="score", y="BLEU",
            title="BLEU by the way a source word is scored (median of 3 seeds)",
        ),
        rows=[*rows.values(), *errors.values()],
    )  # fmt: skip
