"""Generated sentences in fastText's format, without their last word, which is the class: near and far context.

Layout under the root: `train.txt` and `val.txt`, a line each.

- near: `__label__sky the clouds are in the`: the noun decides, three words before the end.
- far: `__label__french i grew up in france it rained loved spain .. i speak fluent`: the country decides, `gap`
  words before the end. What lies between is filler, which names other countries: they must not be taken for it.

The gap is the number of steps from the word that decides to the last one that is read. One gap to train on: with
several the short ones are a curriculum (see `recall.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from contracts.ranges import SEED, SHARE, Range, check_ranges
from pipeline.ingest.worlds._output import SplitSizes, image_rng

PLACES = {
    "clouds": "sky", "ships": "harbor", "cows": "meadow", "books": "library",
    "cars": "garage", "fish": "river", "trees": "forest", "cakes": "oven",
}  # fmt: skip
LANGUAGES = {
    "france": "french", "germany": "german", "spain": "spanish", "italy": "italian",
    "japan": "japanese", "china": "chinese", "russia": "russian", "greece": "greek",
}  # fmt: skip
NEAR = "the {} are in the"
FAR = "i grew up in {} {} i speak fluent"
NEAR_TOKENS = 5
TOKENS_BESIDE_GAP = 5  # "i grew up in", and the word that decides
_TAIL = 3  # "i speak fluent"
# By their number of words; {} is a country.
_CLAUSES = {2: ("it rained", "we danced", "loved {}", "left {}"), 3: ("then it snowed", "we saw {}", "dad liked {}")}
_STREAMS = {"train": 22, "val": 23}
_GAP = Range(_TAIL + 2, 1000)


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    Attributes:
        num_records: sentences of each split.
        gap: words from the country to the end, of every far training sentence: 5 or more.
        val_gaps: of the far validation sentences, in equal shares with the near ones; none: as in training.
        near_share: of the training sentences that are near ones.
    """

    seed: int = 1
    num_records: SplitSizes = field(default=SplitSizes(train=2000, val=800))
    gap: int = 10
    val_gaps: tuple[int, ...] = ()
    near_share: float = 0.25

    def __post_init__(self) -> None:
        check_ranges(self, seed=SEED, gap=_GAP, val_gaps=_GAP, near_share=SHARE)


def generate(root: Path, config: Config, progress: Callable[[int], None]) -> None:
    """Write both splits under `root`; `progress` is called with the number of sentences done since the last call."""
    for split in _STREAMS:
        count = getattr(config.num_records, split)
        lines = (sentence(config, split, index) for index in range(count))
        (root / f"{split}.txt").write_text("".join(f"{line}\n" for line in lines))
        progress(count)


def sentence(config: Config, split: str, index: int) -> str:
    """The `index`-th line of a split."""
    rng = image_rng(config.seed, _STREAMS[split], index)
    if split == "val" and config.val_gaps:
        gap = (0, *config.val_gaps)[index % (1 + len(config.val_gaps))]
    else:
        gap = 0 if rng.random() < config.near_share else config.gap
    chosen = list((LANGUAGES if gap else PLACES).items())[rng.integers(8)]
    text = FAR.format(chosen[0], _filler(gap - _TAIL, rng)) if gap else NEAR.format(chosen[0])
    return f"__label__{chosen[1]} {text}"


def _filler(words: int, rng: np.random.Generator) -> str:
    """So many words, at least 2, in whole clauses."""
    sizes: list[int] = []
    while words:
        sizes.append(2 if words in (2, 4) or (words != 3 and rng.random() < 0.5) else 3)
        words -= sizes[-1]
    countries = list(LANGUAGES)
    clauses = (_CLAUSES[size][rng.integers(len(_CLAUSES[size]))] for size in sizes)
    return " ".join(clause.format(countries[rng.integers(8)]) for clause in clauses)
