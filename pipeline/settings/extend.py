"""A run more in params.yaml, which goes on where another one ended: `sightline extend RUN --epochs N`."""

from __future__ import annotations

import copy
from typing import Any

from contracts.errors import ConfigError
from contracts.names import NAME_RULE, is_name
from pipeline.settings.params import FILE, Params, load_params
from pipeline.settings.params_edit import write_values
from pipeline.settings.parse import Problems, raise_if
from pipeline.system.project import Project


def extend(project: Project, name: str, epochs: int, new: str) -> None:
    """Write the run `new`: run `name` with `epochs` more, begun from its last state.

    Raises:
        ConfigError: there is no such run, `new` is there already, or the run cannot be extended.
    """
    params = load_params(project.root)
    run = params.run(name)
    if not is_name(new) or new in params.document["runs"]:
        what = "there is a run of this name already" if new in params.document["runs"] else "not a name for a run"
        raise ConfigError(what, value=new, where="--name", allowed=NAME_RULE)
    entry: dict[str, Any] = copy.deepcopy(params.document["runs"][name])
    entry["init"] = {"from": name, "extend": True}
    entry["train"] = {**(entry.get("train") or {}), "max_epochs": run.train.max_epochs + epochs}
    problems: Problems = []
    Params({**params.document, "runs": {**params.document["runs"], new: entry}}).read_run(new, problems)
    raise_if(problems, f"run {new} as it would be")
    write_values(project.root / FILE, {("runs", new): entry})
    told = f"run {new} extends {name} to {entry['train']['max_epochs']} epochs"
    print(f"{FILE}: {told}; now: sightline repro register@{new}")
