"""The table of systems in docs/systems.md against what was measured: metrics/ and lecture/metrics/."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROW = re.compile(
    r"\| `(?P<run>\w+)` \| (?P<metric>[^|]+) \| (?P<value>[\d.]+) \((?P<low>[\d.]+) to (?P<high>[\d.]+)\) \|"
)


def test_each_number_of_the_table_is_the_measured_one(root: Path) -> None:
    rows = [
        found.groupdict() for found in map(ROW.search, (root / "docs/systems.md").read_text().splitlines()) if found
    ]
    assert len(rows) > 10
    for row in rows:
        path = next(p for p in (root / "metrics", root / "lecture/metrics") if (p / f"{row['run']}.json").is_file())
        measured = json.loads((path / f"{row['run']}.json").read_text())
        assert row["metric"] == measured["metric"], row
        for name in ("value", "low", "high"):
            decimals = len(row[name].partition(".")[2])
            assert row[name] == f"{measured[name]:.{decimals}f}", (row, measured)
