"""Sequences whose first symbol is asked for at their end."""

import pytest

from contracts.errors import ConfigError
from pipeline.ingest.worlds._output import SplitSizes
from pipeline.ingest.worlds.recall import ASKS, Config, generate, sequence

CONFIG = Config(num_records=SplitSizes(train=60, val=30), lag=4, val_lags=(1, 7, 2))


def test_the_label_is_the_first_symbol_and_the_lag_lies_between_it_and_the_question(tmp_path):
    generate(tmp_path, CONFIG, lambda _: None)
    symbols = set()
    for split, lags in (("train", (4,)), ("val", CONFIG.val_lags)):
        lines = (tmp_path / f"{split}.txt").read_text().splitlines()
        assert len(lines) == getattr(CONFIG.num_records, split)
        for i, line in enumerate(lines):
            label, symbol, *fillers, last = line.split()
            assert label == f"__label__{symbol}" and last == ASKS
            assert len(fillers) == lags[i % len(lags)] - 1 and all(filler[0] == "f" for filler in fillers)
            symbols.add(symbol)
    assert symbols == {f"s{i}" for i in range(8)}


def test_a_sequence_depends_on_seed_split_and_number_alone():
    more = Config(num_records=SplitSizes(train=9, val=9), lag=4, val_lags=(1, 7, 2))
    assert sequence(CONFIG, "train", 5) == sequence(more, "train", 5)
    others = {sequence(Config(seed=seed, lag=20), split, 5) for seed in (1, 2) for split in ("train", "val")}
    assert len(others) == 4


@pytest.mark.parametrize("settings", [{"lag": 0}, {"val_lags": (3, 0)}, {"num_symbols": 1}])
def test_what_makes_no_task_is_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        Config(**settings)
