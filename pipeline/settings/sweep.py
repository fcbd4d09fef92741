"""A sweep's file -> `Sweep`: which settings of a run are tried with which values, and how. Every mistake at once.

run: detection_faster_rcnn
num_trials: 20
space:
  train.optimizer.lr: {loguniform: [1e-4, 1e-2]}
  task.image_size: {choice: [128, 192, 256]}
  model.hidden: {int: [32, 512], log: true}
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from contracts.errors import ConfigError
from contracts.names import NAME_RULE, is_name
from contracts.ranges import AMOUNT, COUNT, POSITIVE, SEED, Range, check_ranges
from pipeline.settings.document import read_document, shown
from pipeline.settings.params import BESIDE, Params, Run
from pipeline.settings.parse import Problems, merged, nearest, parse, raise_if
from pipeline.settings.sections import ORDER

SECTIONS = ("task", "model", "train", "loader")  # of a run, whose settings may be tried
_NUMBERS = ("uniform", "loguniform", "int")
_DIGITS = 4  # of a drawn number: as many as a person would write


@dataclass(frozen=True, kw_only=True)
class AshaConfig:
    """Asynchronous successive halving (1810.05934) by epochs: a trial that is not among the best 1/`reduction_factor`
    of those that came as far ends early, after `grace_epochs`, `grace_epochs` * `reduction_factor`, ... epochs."""

    name: Literal["asha"] = "asha"
    grace_epochs: int = 1
    reduction_factor: int = 3

    def __post_init__(self) -> None:
        check_ranges(self, grace_epochs=COUNT, reduction_factor=Range(2))


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """The file.

    Attributes:
        run: of params.yaml, whose settings are tried.
        space: dotted setting of that run -> one of `{uniform: [low, high]}`, `{loguniform: [low, high]}`,
            `{int: [low, high]}` (with `log: true`: by its logarithm) and `{choice: [values]}`.
        num_trials: how many settings are tried.
        metric: of validation, whose value at the best checkpoint counts; null: what chooses the checkpoint.
        mode: whether more or less of `metric` is better.
        scheduler: what ends trials early; null: nothing.
        seed: of the sampler.
        concurrent: trials at once; null: as many as there is room for.
        time_limit_s: then running trials are stopped, and go on at the next call; null: none.
        keep: trials whose weights are kept, the best ones.
    """

    run: str
    space: dict[str, dict[str, Any]]
    num_trials: int = 20
    metric: str | None = None
    mode: Literal["max", "min"] | None = None
    scheduler: AshaConfig | None = field(default_factory=AshaConfig)
    seed: int = 0
    concurrent: int | None = None
    time_limit_s: float | None = None
    keep: int = 3

    def __post_init__(self) -> None:
        check_ranges(self, num_trials=COUNT, seed=SEED, concurrent=COUNT, time_limit_s=POSITIVE, keep=AMOUNT)
        if (self.metric is None) != (self.mode is None):
            raise ConfigError("metric and mode belong together", value=(self.metric, self.mode), allowed="both or none")


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """The values of one setting: numbers from `low` to `high`, or `choices`."""

    kind: Literal["uniform", "loguniform", "int", "choice"]
    low: float = 0
    high: float = 0
    log: bool = False
    choices: tuple[Any, ...] = ()

    @property
    def ends(self) -> tuple[Any, ...]:
        """What the run's own rules are asked about before anything runs."""
        return self.choices if self.kind == "choice" else (self.low, self.high)

    def value(self, drawn: float) -> Any:
        """The setting of what a sampler drew: a number, or the place of a choice. Numbers are cut to four digits."""
        if self.kind == "choice":
            return self.choices[int(drawn)]
        if self.kind == "int":
            return int(drawn)
        return min(max(float(f"{drawn:.{_DIGITS}g}"), self.low), self.high)

    def drawn(self, value: Any) -> float:
        """The inverse of `value`."""
        return self.choices.index(value) if self.kind == "choice" else value


@dataclass(frozen=True)
class Sweep:
    """A sweep's file, checked against the run. `name` is the file's."""

    name: str
    config: SweepConfig
    space: dict[str, Dimension]
    params: Params
    metric: str
    mode: Literal["max", "min"]

    def with_settings(self, settings: Mapping[str, Any]) -> Params:
        """params.yaml with these settings of the run, by dotted name."""
        return _with_settings(self.params, self.config.run, settings)

    def resolved(self, settings: Mapping[str, Any], problems: Problems) -> Run | None:
        """The run with these settings; None where they contradict each other, which `problems` then tell."""
        return self.with_settings(settings).read_run(self.config.run, problems)

    @property
    def first(self) -> dict[str, Any]:
        """One point of the space, always the same: what stands in the file for the tried settings does not count."""
        return {name: dimension.ends[0] for name, dimension in self.space.items()}

    @property
    def question(self) -> dict[str, Any]:
        """What must stay as it is while a sweep goes on: trials of another question are no answer to this one."""
        space = {name: asdict(one) | {"choices": list(one.choices)} for name, one in self.space.items()}
        return {"run": self.config.run, "metric": self.metric, "mode": self.mode, "space": space}


def read_sweep(path: Path, params: Params) -> Sweep:
    """Read and check a sweep's file.

    Raises:
        ConfigError: it cannot be read, or tells every mistake in it: unknown keys, runs and settings, values that the
            run does not take.
    """
    name = path.stem
    if not is_name(name):
        raise ConfigError("a sweep has the name of its file", value=name, where=str(path), allowed=NAME_RULE)
    document, found = read_document(path)
    problems: Problems = list(found)
    config = parse(SweepConfig, document, name, problems)
    given = document.get("space")
    space = _space(given, problems) if isinstance(given, Mapping) else {}
    run_name = document.get("run")
    run = None
    if isinstance(run_name, str):
        if run_name in params.document["runs"]:
            run = params.read_run(run_name, problems)
        else:
            known = sorted(params.document["runs"])
            problems.append(f"run: no such run in params.yaml (is {shown(run_name)}); {nearest(run_name, known)}")
    if run is not None:
        problems += _strange(space, run, params)
    raise_if([text.removeprefix(f"{name}.") for text in problems], path.name)
    assert config is not None and run is not None
    metric, mode = (config.metric, config.mode) if config.metric and config.mode else judged_by(run)
    return Sweep(name, config, space, params, metric, mode)


def judged_by(run: Run) -> tuple[str, Any]:
    """What chooses the checkpoint of a run, and whether more or less of it is better."""
    from pipeline.settings import discover

    task = discover.load("task", run.task_name, where="task").Task
    return run.train.monitor or task.metric, run.train.monitor_mode or task.metric_mode


def _space(section: Mapping[str, Any], problems: Problems) -> dict[str, Dimension]:
    if not section:
        problems.append("space: is empty; it needs a setting, such as train.optimizer.lr: {loguniform: [1e-4, 1e-2]}")
    found = {}
    for name, entry in section.items():
        dimension = _dimension(f"space.{name}", entry, problems)
        if dimension is not None:
            found[name] = dimension
    return found


def _dimension(where: str, entry: Any, problems: Problems) -> Dimension | None:
    kinds = (*_NUMBERS, "choice")
    if not isinstance(entry, Mapping):
        return None  # told already, as of every section
    problems += [
        f"{where}.{key}: unknown key; {nearest(key, (*kinds, 'log'))}" for key in entry if key not in (*kinds, "log")
    ]
    given = [kind for kind in kinds if kind in entry]
    if len(given) != 1:
        if entry.keys() <= {*kinds, "log"}:
            problems.append(f"{where}: must have one of {', '.join(kinds)} (has {', '.join(given) or 'none'})")
        return None
    kind, values, log = given[0], entry[given[0]], entry.get("log", given[0] == "loguniform")
    if "log" in entry and (kind != "int" or not isinstance(log, bool)):
        problems.append(
            f"{where}.log: is true or false, beside `int` alone; `loguniform` is `uniform` by its logarithm"
        )
        return None
    if kind == "choice":
        if not isinstance(values, list) or not values or any(one in values[:i] for i, one in enumerate(values)):
            problems.append(f"{where}.choice: must be a list of values, each once (is {shown(values)})")
            return None
        return Dimension(kind="choice", choices=tuple(values))
    return _numbers(f"{where}.{kind}", kind, values, log, problems)


def _numbers(where: str, kind: Any, values: Any, log: bool, problems: Problems) -> Dimension | None:
    whole = kind == "int"
    fits = int if whole else (int, float)
    if (
        not isinstance(values, list)
        or len(values) != 2
        or not all(isinstance(one, fits) and not isinstance(one, bool) and math.isfinite(one) for one in values)
    ):
        problems.append(f"{where}: must be two {'whole ' * whole}numbers, [lowest, highest] (is {shown(values)})")
        return None
    low, high = values if whole else map(float, values)
    if low >= high:
        problems.append(f"{where}: the first must be less than the second (is {shown(values)})")
        return None
    if log and low <= 0:
        problems.append(f"{where}: must be more than 0 to have a logarithm (is {shown(values)})")
        return None
    return Dimension(kind=kind, low=low, high=high, log=log)


def _strange(space: Mapping[str, Dimension], run: Run, params: Params) -> Problems:
    """Settings that the run has not, that change no weights, and values that it does not take."""
    problems: Problems = []
    known = {name: value for section in SECTIONS for name, value in _names(section, run.to_dict()[section])}
    for name, dimension in space.items():
        section, _, key = name.partition(".")
        if name not in known:
            problems.append(f"space.{name}: no such setting of run {run.name}; {_meant(name, known)}")
            continue
        if (section == "train" and key in BESIDE) or (section == "loader" and key.partition(".")[0] not in ORDER):
            problems.append(f"space.{name}: no weight depends on it: every trial would be the same")
            continue
        for value in dimension.ends:
            found: Problems = []
            _with_settings(params, run.name, {name: value}).read_run(run.name, found)
            problems += [f"space.{name}: {text}" for text in found]
    return problems


def _meant(name: str, known: Mapping[str, Any]) -> str:
    said = nearest(name, sorted(known))
    if said.startswith("did"):
        return said
    below = [one for one in known if one.partition(".")[0] == name.partition(".")[0]]
    return f"settings of it: {', '.join(below)}" if below else f"settings begin with {', '.join(SECTIONS)}"


def _names(prefix: str, section: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Dotted name and value of every setting, sections of several settings too."""
    for key, value in section.items():
        yield f"{prefix}.{key}", value
        if isinstance(value, Mapping):
            yield from _names(f"{prefix}.{key}", value)


def _with_settings(params: Params, run: str, settings: Mapping[str, Any]) -> Params:
    document = dict(params.document)
    entry = document["runs"][run]
    for name, value in settings.items():
        *path, last = name.split(".")
        below: dict[str, Any] = {last: value}
        for key in reversed(path):
            below = {key: below}
        entry = _laid(entry, below)
    document["runs"] = {**document["runs"], run: entry}
    return Params(document, params.file)


def _laid(entry: Mapping[str, Any], below: Mapping[str, Any]) -> dict[str, Any]:
    """`below` over `entry`, in which a section may be null."""
    return merged({key: {} if value is None and key in below else value for key, value in entry.items()}, below)
