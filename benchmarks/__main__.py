"""Run all benchmarks, or those named: a table on stderr, JSON on stdout.

python -m benchmarks [NAME ...]
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import Figure


def main() -> None:
    names = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))
    here = [name for name in names if name != "gpu"]  # which has a target of its own
    parser = argparse.ArgumentParser(description="How fast things are, beside what people would use otherwise.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of: {', '.join(names)} (default: all but gpu)")
    chosen = parser.parse_args().names or here
    unknown = [name for name in chosen if name not in names]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(names)}")
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as training workers have it
    console = Console(stderr=True)
    document = {
        "machine": {"cores": os.cpu_count(), "processor": platform.machine(), "python": platform.python_version()}
    }
    for name in chosen:
        with console.status(f"{name} .."):
            figures = importlib.import_module(f"benchmarks.{name}").measure()
        console.print(_table(name, figures))
        document[name] = [asdict(figure) | {"ratio": figure.ratio} for figure in figures]
    json.dump(document, sys.stdout, indent=1)
    print()


def _table(name: str, figures: list[Figure]) -> Table:
    table = Table(title=name, title_justify="left")
    for column in ("what", "measured", "beside", "other", "ratio", "goal"):
        table.add_column(column, justify="right" if column in ("measured", "other", "ratio") else "left")
    for f in figures:
        other = "" if f.other is None else f"{f.other:.3g} {f.unit}"
        ratio = "" if f.ratio is None else f"{f.ratio:.2f} x"
        table.add_row(f.what, f"{f.value:.3g} {f.unit}", f.beside, other, ratio, f.goal)
    return table


if __name__ == "__main__":
    main()
