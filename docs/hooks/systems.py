"""The numbers of docs/systems.md from what was measured: `python -m docs.hooks.systems` after `make repro` and `make
lecture` writes them anew. Of several seeds of one system (`name_a`, `name_b`, ...) the one in the middle
stands there, of two the lower one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "docs/systems.md"
ROW = re.compile(
    r"\| `(?P<run>\w+)` \| (?P<metric>[^|]+) \| (?P<value>[\d.]+) \((?P<low>[\d.]+) to (?P<high>[\d.]+)\) \| "
    r"(?P<constant>[\d.]+) \|"
)
_SEED = re.compile(r"_[a-z]$")


def measured() -> dict[str, dict[str, Any]]:
    """What each run of both projects scored."""
    paths = [path for folder in ("metrics", "lecture/metrics") for path in sorted((ROOT / folder).glob("*.json"))]
    return {path.stem: json.loads(path.read_text()) for path in paths}


def middle(run: str, scores: Mapping[str, Mapping[str, Any]]) -> str:
    """Of the runs that differ from this one in their seed alone, the one with the median score."""
    family = _SEED.sub("", run)
    seeds = [name for name in scores if _SEED.search(name) and _SEED.sub("", name) == family] or [run]
    return sorted(seeds, key=lambda name: scores[name]["value"])[(len(seeds) - 1) // 2]


def renewed(line: str, scores: Mapping[str, Mapping[str, Any]]) -> str:
    """A line of the table with the numbers of today, with as many decimals as it had."""
    if (row := ROW.search(line)) is None:
        return line
    run = middle(row["run"], scores)
    score = scores[run]

    def text(name: str) -> str:
        return f"{score[name]:.{len(row[name].partition('.')[2])}f}"

    numbers = f"{text('value')} ({text('low')} to {text('high')}) | {text('constant')}"
    return f"{line[: row.start()]}| `{run}` | {score['metric']} | {numbers} |{line[row.end() :]}"


if __name__ == "__main__":
    found = measured()
    TABLE.write_text("\n".join(renewed(line, found) for line in TABLE.read_text().split("\n")))
