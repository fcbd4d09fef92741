"""Generated sequences in fastText's format: which symbol came first? What lies between it and the question is filler.

Layout under the root: `train.txt` and `val.txt`, a line each: `__label__s3 s3 f12 f7 ... f1 what`. The first token is
one of the symbols, the last asks for it; the lag is the number of steps from the one to the other. A network that
answers has carried the symbol over as many steps (Hochreiter and Schmidhuber, Neural Computation 9(8), 1997, sec. 5).

One lag to train on: with mixed lags the short ones are a curriculum, and every cell learns the long ones from them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from contracts.ranges import SEED, Range, check_ranges
from pipeline.ingest.worlds._output import SplitSizes, image_rng

ASKS = "what"
_STREAMS = {"train": 20, "val": 21}
_LAG = Range(1, 1000)


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    Attributes:
        num_records: sequences of each split.
        lag: of every training sequence.
        val_lags: of the validation sequences, in equal shares; none: `lag` alone.
        num_symbols: that can be asked for. num_fillers: that stand between.
    """

    seed: int = 1
    num_records: SplitSizes = field(default=SplitSizes(train=2000, val=800))
    lag: int = 10
    val_lags: tuple[int, ...] = ()
    num_symbols: int = 8
    num_fillers: int = 16

    def __post_init__(self) -> None:
        several = Range(2, 1000)
        check_ranges(self, seed=SEED, lag=_LAG, val_lags=_LAG, num_symbols=several, num_fillers=Range(1, 1000))


def generate(root: Path, config: Config, progress: Callable[[int], None]) -> None:
    """Write both splits under `root`; `progress` is called with the number of sequences done since the last call."""
    for split in _STREAMS:
        count = getattr(config.num_records, split)
        lines = (sequence(config, split, index) for index in range(count))
        (root / f"{split}.txt").write_text("".join(f"{line}\n" for line in lines))
        progress(count)


def sequence(config: Config, split: str, index: int) -> str:
    """The `index`-th line of a split."""
    rng = image_rng(config.seed, _STREAMS[split], index)
    lags = config.val_lags if split == "val" and config.val_lags else (config.lag,)
    symbol = f"s{rng.integers(config.num_symbols)}"
    fillers = [f"f{number}" for number in rng.integers(config.num_fillers, size=lags[index % len(lags)] - 1)]
    return " ".join([f"__label__{symbol}", symbol, *fillers, ASKS])
