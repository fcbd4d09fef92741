"""The params.yaml of a new project: settings on a line each, why beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.ingest.presets import Setting
from pipeline.settings.parse import one_line

_WIDTH = 42  # of a line's value, before its comment
_LONG = 50  # a longer value has its comment above
_QUARANTINED = "largest share of records that may be unusable; they are listed in data/quarantine"


def params_text(document: Mapping[str, Any]) -> str:
    """Text of `document`, in which values may be `Setting`s."""
    dataset = document["datasets"]["data"]
    beside = {key: value for key, value in dataset.items() if key not in ("origin", "input")}
    name, run = next(iter(document["runs"].items()))
    return _PARAMS.format(
        input=one_line({"input": dataset["input"]})[1:-1],
        beside=_lines({**beside, "max_quarantined": Setting(0.01, _QUARANTINED)}, 4),
        shards=_lines(document["shards"], 2),
        train=_lines(document["train"], 2),
        name=name,
        task=_lines(run["task"], 6),
        model=_lines(run["model"], 6),
    )


def plain(value: Any) -> Any:
    """`value` with what is in its `Setting`s."""
    if isinstance(value, Setting):
        return plain(value.value)
    if isinstance(value, Mapping):
        return {key: plain(below) for key, below in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _lines(section: Mapping[str, Any], indent: int) -> str:
    lines = []
    for key, value in section.items():
        reason = value.reason if isinstance(value, Setting) else ""
        text = f"{' ' * indent}{key}: {one_line(plain(value))}"
        if reason and len(text) > _LONG:
            lines += [f"{' ' * indent}# {reason}", text]
        else:
            lines.append(f"{text:<{_WIDTH}}  # {reason}" if reason else text)
    return "\n".join(lines)


_PARAMS = """\
# Every knob of this project that differs from the defaults. `sightline check` tells every mistake at once;
# `sightline repro` runs what a change makes necessary. Values were chosen by what lies in the data; why stands beside.

datasets:
  data:
    origin: local
    {input}
{beside}

shards:
{shards}

train:  # every run's defaults; a run's own `train` is laid over them
{train}

runs:  # a run = data set + task + model; others are further entries
  {name}:
    dataset: data
    task:
{task}
    model:
{model}

cluster:
  engine: local  # ray: two workers, all GPUs, or a cluster that RAY_ADDRESS names

registry:
  gates: {{}}  # run name -> least value of its metric that may become champion
"""
