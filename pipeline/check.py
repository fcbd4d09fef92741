"""Check every section of params.yaml at once, before any work: `python -m pipeline.check`.

The first stage of dvc.yaml, which all others depend on: a name that is a path or shell text goes no further.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from contracts.errors import SightlineError
from pipeline.guard import guard_process
from pipeline.params import (
    ClusterConfig,
    LoaderConfig,
    Params,
    RegistryConfig,
    ShardsConfig,
    TrackingConfig,
    read_params,
)
from pipeline.project import Project, write_json
from pipeline.settings import Problems, nearest, parse, raise_if
from pipeline.train_config import TrainConfig


def check(params: Params) -> None:
    """Raise one ConfigError that tells every mistake of every section."""
    found: Problems = []
    document = params.document
    for name in document["datasets"]:
        params.read_dataset(name, found)
    for name in document["runs"]:
        params.read_run(name, found)
    if not document["runs"]:  # otherwise they are read with each run
        parse(TrainConfig, document.get("train"), "train", found)
        parse(LoaderConfig, document.get("loader"), "loader", found)
    for cls, key in ((ShardsConfig, "shards"), (ClusterConfig, "cluster"), (TrackingConfig, "tracking")):
        parse(cls, document.get(key), key, found)
    registry = parse(RegistryConfig, document.get("registry"), "registry", found)
    runs = list(document["runs"])
    for name in registry.gates if registry else ():
        if name not in runs:
            found.append(f"registry.gates.{name}: no such run; {nearest(name, runs)}")
    told = {mistake.partition(": ")[0] for mistake in params.mistakes}
    raise_if([*params.mistakes, *(one for one in found if one.partition(": ")[0] not in told)], params.file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="file to write when all is well: the output of DVC's stage")
    out = parser.parse_args().out
    try:
        guard_process()
        params = read_params(Project.here().root)
        check(params)
    except SightlineError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    counts = f"{len(params.document['datasets'])} data sets, {len(params.document['runs'])} runs"
    print(f"params.yaml: {counts}, no mistakes")
    if out is not None:
        write_json(out, {"checked": True})  # always the same, so that no stage runs again because of it


if __name__ == "__main__":
    main()
