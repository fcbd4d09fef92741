"""Check every section of params.yaml at once, before any work: `python -m pipeline.check`."""

from __future__ import annotations

import sys
from collections.abc import Callable

from contracts.errors import ConfigError, SightlineError
from pipeline.guard import guard_process
from pipeline.params import ClusterConfig, Params, RegistryConfig, ShardsConfig, TrackingConfig, load_params
from pipeline.project import Project


def check(params: Params) -> None:
    """Raise one ConfigError that tells every mistake of every section."""
    texts: list[str] = []
    jobs: list[Callable[[], object]] = [
        *(lambda n=name: params.dataset(n) for name in params.document["datasets"]),
        *(lambda n=name: params.run(n) for name in params.document["runs"]),
        lambda: params.section(ShardsConfig, "shards"),
        lambda: params.section(ClusterConfig, "cluster"),
        lambda: params.section(TrackingConfig, "tracking"),
        lambda: params.section(RegistryConfig, "registry"),
    ]
    for job in jobs:
        try:
            job()
        except ConfigError as error:
            texts.append(str(error))
    gates = params.document.get("registry", {}).get("gates", {}) if not texts else {}
    texts += [f"registry.gates.{name}: no such run" for name in gates if name not in params.document["runs"]]
    if texts:
        raise ConfigError("\n".join(dict.fromkeys(texts)))


def main() -> None:
    try:
        guard_process()
        params = load_params(Project.here().root)
        check(params)
    except SightlineError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print(
        f"params.yaml: {len(params.document['datasets'])} data sets, {len(params.document['runs'])} runs, no mistakes"
    )


if __name__ == "__main__":
    main()
