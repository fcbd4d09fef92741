"""The table of systems in docs/systems.md against what was measured: metrics/ and lecture/metrics/."""

from __future__ import annotations

from docs.hooks.systems import ROW, TABLE, measured, renewed


def test_each_number_of_the_table_is_the_measured_one() -> None:
    """And of three seeds the one in the middle: else `python -m docs.hooks.systems`."""
    lines, scores = TABLE.read_text().split("\n"), measured()
    assert sum(ROW.search(line) is not None for line in lines) > 10
    assert lines == [renewed(line, scores) for line in lines]
