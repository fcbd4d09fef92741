"""params.yaml -> typed sections. Every mistake of a section is told at once, before any work.

Data stages read `datasets`, `shards` and `cluster` and never import torch. `load_run` also checks the task's and the
model's own sections, which needs their modules; `sightline check` does so for every run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from contracts.errors import ConfigError
from contracts.names import NAME_RULE, is_name
from pipeline.settings import discover
from pipeline.settings.code import starting_digest
from pipeline.settings.document import read_document, shown
from pipeline.settings.parse import Problems, merged, nearest, parse, raise_if
from pipeline.settings.sections import ORDER, DatasetConfig, LoaderConfig
from pipeline.settings.train_config import SOURCES, InitConfig, TrainConfig, train_section
from pipeline.system.disk import file_sha256

# Of `train`: what happens beside the steps.
BESIDE = {
    "num_pictures",
    "log_every_steps",
    "checkpoint_every_steps",
    "checkpoint_every_s",
    "eval_batch_size",
    "ledger",
    "keep_state",
}
# Of `train`, what a run that extends another may have otherwise: the others are in the state that it goes on from.
_REPLANNED = {
    "max_epochs",
    "gradient_clip_norm",
    "validate_every_epochs",
    "micro_batch_size",
}
_SCHEDULE = {"schedule", "warmup_fraction", "final_lr_fraction", "milestones", "factor", "patience"}
NAMED = ("datasets", "runs")  # their keys are names
SECTIONS = ("datasets", "runs", "train", "shards", "loader", "cluster", "tracking", "registry")
FILE = "params.yaml"
T = TypeVar("T")
_NO_DATASETS = ("datasets: must", "datasets: missing")  # then no run can name one, and that is told once


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run, resolved: `task` and `model` hold every setting of the part, defaults filled in, as plain values."""

    name: str
    dataset: str
    task_name: str
    task: dict[str, Any]
    model_name: str
    model: dict[str, Any]
    train: TrainConfig
    loader: LoaderConfig
    init: InitConfig | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values: what is stored in a checkpoint and sent to workers."""
        return {**dataclasses.asdict(self), "init": None if self.init is None else self.init.to_dict()}

    def weight_settings(self) -> dict[str, Any]:
        """What weights depend on: not how data is read, nor what is drawn, noted and saved meanwhile."""
        plain = self.to_dict()
        loader = plain.pop("loader")
        plain["train"] = {key: value for key, value in plain["train"].items() if key not in BESIDE}
        return {**plain, **{key: loader[key] for key in ORDER}}


class Params:
    """The parsed file. Sections are checked when asked for, so that a data stage need not import torch.

    `document` holds what has the right shape: sections, data sets and runs that are mappings. What has not, names
    that are none and `mistakes` of the file itself are told by `check`, and by `load_params` before any work.
    """

    def __init__(self, document: Mapping[str, Any], file: str = FILE, mistakes: Sequence[str] = ()):
        self.file = file
        self.mistakes: Problems = list(mistakes)
        self.document = {
            key: self._entries(key, section) if key in NAMED else section
            for key, section in self._sections(document).items()
        }
        self.mistakes += [f"{key}: missing" for key in NAMED if key not in document]

    def _sections(self, document: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        sections: dict[str, Mapping[str, Any]] = {key: {} for key in NAMED}
        for key, section in document.items():
            if key not in SECTIONS:
                self.mistakes.append(f"{key}: unknown section; {nearest(key, SECTIONS)}")
            elif isinstance(section, Mapping) or (section is None and key not in NAMED):
                sections[key] = section or {}
            else:
                self.mistakes.append(f"{key}: must be a mapping (is {shown(section)})")
        return sections

    def _entries(self, key: str, section: Mapping[str, Any]) -> dict[str, Any]:
        """Data sets or runs. A name that is none becomes a path and shell text: nothing may run with it."""
        for name, entry in section.items():
            if not is_name(name):
                self.mistakes.append(f"{key}: {shown(name)} is not a valid name; allowed: {NAME_RULE}")
            if not isinstance(entry, Mapping):
                self.mistakes.append(f"{key}.{name}: must be a mapping (is {shown(entry)})")
        return dict(section)

    def section(self, cls: type[T], key: str) -> T:
        """The section `key` as `cls`, defaults where it is absent."""
        problems: Problems = []
        value = parse(cls, self.document.get(key), key, problems)
        raise_if(problems, self.file)
        assert value is not None
        return value

    def dataset(self, name: str) -> DatasetConfig:
        """The data set `name` with its sources' and its world's settings checked."""
        self.require("datasets", name)
        problems: Problems = []
        config = self.read_dataset(name, problems)
        raise_if(problems, self.file)
        assert config is not None
        return config

    def read_dataset(self, name: str, problems: Problems) -> DatasetConfig | None:
        """As `dataset`, but mistakes are appended to `problems`."""
        where, entry = f"datasets.{name}", self.document["datasets"][name]
        if not isinstance(entry, Mapping):
            problems.append(f"{where}: must be a mapping (is {shown(entry)})")
            return None
        sources, world = entry.get("sources"), entry.get("world")
        if isinstance(sources, Mapping):
            named = entry.get("splits")
            sources = {source: _with_names(source, part, named) for source, part in sources.items()}
            entry = {**entry, "sources": sources}
            for source, section in sources.items():
                self._part("source", source, section, f"{where}.sources.{source}", problems)
        if isinstance(world, Mapping):
            self._named_part("world", world, f"{where}.world", problems)
        return parse(DatasetConfig, entry, where, problems)

    def part_config(self, kind: str, section: Mapping[str, Any], where: str) -> Any:
        """The Config of the component that `section` names."""
        problems: Problems = []
        _, config = self._named_part(kind, section, where, problems)
        raise_if(problems, self.file)
        return config

    def run_dataset(self, name: str) -> str:
        """The data set of the run `name`, without importing what the run's task and model need."""
        self.require("runs", name)
        entry = self.document["runs"][name]
        dataset = entry.get("dataset") if isinstance(entry, Mapping) else None
        self.require("datasets", str(dataset))
        return str(dataset)

    def run(self, name: str) -> Run:
        """The run `name` with its task's and model's settings checked. Imports torch."""
        self.require("runs", name)
        problems: Problems = []
        run = self.read_run(name, problems)
        raise_if(problems, self.file)
        assert run is not None
        return run

    def read_run(self, name: str, problems: Problems) -> Run | None:
        """As `run`, but mistakes are appended to `problems`."""
        where, entry, before = f"runs.{name}", self.document["runs"][name], len(problems)
        if not isinstance(entry, Mapping):
            problems.append(f"{where}: must be a mapping (is {shown(entry)})")
            return None
        known = ("dataset", "init", "loader", "model", "task", "train")
        problems += [f"{where}.{key}: unknown key; {nearest(key, known, 'known keys')}" for key in entry.keys() - known]
        dataset, datasets = entry.get("dataset"), list(self.document["datasets"])
        if dataset not in datasets and not any(m.startswith(_NO_DATASETS) for m in self.mistakes):
            problems.append(f"{where}.dataset: no such data set (is {shown(dataset)}); {nearest(dataset, datasets)}")
        train = self._with_shared(TrainConfig, "train", entry, where, problems)
        loader = self._with_shared(LoaderConfig, "loader", entry, where, problems)
        task_name, task = self._named_part("task", entry.get("task"), f"{where}.task", problems)
        model_name, model = self._named_part("model", entry.get("model"), f"{where}.model", problems)
        problems += unfit(task_name, model_name, f"{where}.model")
        init = None
        if entry.get("init") is not None:
            init = parse(InitConfig, entry["init"], f"{where}.init", problems)
            problems += self._no_start(name)
        if len(problems) > before:
            return None
        assert train is not None and loader is not None
        run = Run(
            name=name,
            dataset=str(dataset),
            task_name=task_name,
            task=dataclasses.asdict(task),
            model_name=model_name,
            model=dataclasses.asdict(model),
            train=train,
            loader=loader,
            init=init,
        )
        if init is not None and init.extend:
            problems += self._no_extension(run, self.read_run(init.source, []))
        return run if len(problems) == before else None

    def starts(self) -> dict[str, str]:
        """Run -> the run that it starts from, of those that do; of a file without mistakes."""
        named = {name: entry.get("init") for name, entry in self.document["runs"].items() if isinstance(entry, Mapping)}
        given = {name: init["from"] for name, init in named.items() if isinstance(init, Mapping) and "from" in init}
        return {name: source for name, source in given.items() if source in self.document["runs"]}

    def is_extended(self, name: str) -> bool:
        """Whether another run goes on from the last state of run `name`."""
        inits = (entry.get("init") for entry in self.document["runs"].values() if isinstance(entry, Mapping))
        return any(i.get("from") == name and i.get("extend") is True for i in inits if isinstance(i, Mapping))

    def _no_extension(self, run: Run, other: Run | None) -> Problems:
        """Why `run` cannot go on where `other` ended; nothing where that has mistakes of its own."""
        if other is None:
            return []
        where = f"runs.{run.name}"
        here, there = (_extended_alike(one) for one in (run, other))
        found = [f"{where}.{key}: must be as that of run {other.name}, which it extends" for key in here
                 if here[key] != there[key]]  # fmt: skip
        if run.train.stages or other.train.stages:
            found.append(f"{where}.train.stages: a training with stages cannot be extended, and none with another one")
        elif run.train.max_epochs <= other.train.max_epochs:
            said = f"more than the {other.train.max_epochs} of run {other.name} (is {run.train.max_epochs})"
            found.append(f"{where}.train.max_epochs: must be {said}")
        return found

    def train_settings(self, name: str) -> dict[str, Any]:
        """All settings that the weights of run `name` depend on, with those of the run that it starts from."""
        run = self.run(name)
        settings = run.weight_settings()
        if run.init is not None:
            settings["starting_code"] = starting_digest()
        if run.init is not None and run.init.kind == "file" and (path := Path(run.init.source)).is_file():
            settings["starts_from"] = {"sha256": file_sha256(path)}
        if run.init is not None and run.init.run is not None:
            other = self.run(run.init.run)
            settings["starts_from"] = {
                "run": self.train_settings(other.name),
                "dataset": self.document["datasets"][other.dataset],
                "shards": self.document.get("shards"),
                "task": discover.digest("task", other.task_name),
                "model": discover.digest("model", other.model_name),
            }
        return settings

    def _no_start(self, name: str) -> Problems:
        """What is wrong with the runs that run `name` starts from, one after the other."""
        runs, chain = self.document["runs"], [name]
        while True:
            entry = runs[chain[-1]]
            init = entry.get("init") if isinstance(entry, Mapping) else None
            other = init.get("from") if isinstance(init, Mapping) else None
            if not isinstance(other, str) or InitConfig(source=other).run is None:
                return []
            if other not in runs:
                others = [run for run in runs if run != name]
                said = f"{nearest(other, others, 'runs')}; allowed: {SOURCES}"
                return [f"runs.{chain[-1]}.init.from: no such run (is {shown(other)}); {said}"]
            if other in chain:
                return [f"runs.{name}.init.from: it would start from itself: {' <- '.join([*chain, other])}"]
            chain.append(other)

    def require(self, section: Literal["datasets", "runs"], name: str) -> None:
        """Raise ConfigError unless `name` is one of the data sets or runs: all that a stage may be asked for."""
        known = sorted(filter(is_name, self.document[section]))
        if name not in known:
            what = {"datasets": "data set", "runs": "run"}[section]
            raise ConfigError(
                f"no such {what}",
                value=name,
                where=f"{self.file}: {section}",
                allowed=", ".join(known) or "none is there yet",
                fix=nearest(name, known) if nearest(name, known).startswith("did") else "",
            )

    def _with_shared(
        self, cls: type[T], key: str, entry: Mapping[str, Any], where: str, problems: Problems
    ) -> T | None:
        """A run's own section over the shared one of the same name. What stands in the shared one is told there."""
        own = {} if entry.get(key) is None else entry[key]
        if not isinstance(own, Mapping):
            problems.append(f"{where}.{key}: must be a mapping (is {shown(own)})")
            return None

        def at(keys: Sequence[str]) -> str:
            section: Any = own
            for part in keys:
                if not isinstance(section, Mapping):
                    break
                if part not in section:
                    return ".".join([key, *keys])
                section = section[part]
            return ".".join([f"{where}.{key}" if own else key, *keys])

        lay = train_section if cls is TrainConfig else merged
        return parse(cls, lay(self.document.get(key, {}), own), at, problems)

    def _named_part(self, kind: str, section: Any, where: str, problems: Problems) -> tuple[str, Any]:
        """Name and Config of the component that `section` names."""
        if not isinstance(section, Mapping):
            problems.append(f"{where}: must be a mapping with a name (is {shown(section)})")
            return "", None
        rest = {key: value for key, value in section.items() if key != "name"}
        return str(section.get("name")), self._part(kind, section.get("name"), rest, where, problems)

    def _part(self, kind: str, name: Any, section: Any, where: str, problems: Problems) -> Any:
        """A component's Config. The class sits in the module, or on its `Task` class."""
        known = discover.names(kind)
        if name not in known:
            what = f"unknown {kind} (is {shown(name)})" if name is not None else f"the name of a {kind} is missing"
            problems.append(f"{where}: {what}; {nearest(name, known)}")
            return None
        module = discover.load(kind, name, where=where)
        owner = module.Task if kind == "task" else module
        return parse(owner.Config, section, where, problems)


def _with_names(source: str, section: Any, splits: Any) -> Any:
    """A source's section with the data set's names of splits, as its `splits`, or as its `train`, `val` and `test`."""
    section = {} if section is None else section
    if not isinstance(splits, Mapping) or not isinstance(section, Mapping) or source not in discover.names("source"):
        return section
    fields = {f.name for f in dataclasses.fields(discover.load("source", source, where="sources").Config)}
    splits = {split: names for split, names in splits.items() if names}  # an empty one is the data set's mistake
    names = splits if "splits" not in fields and splits.keys() <= fields else {"splits": splits}
    return {**names, **section}


def _extended_alike(run: Run) -> dict[str, Any]:
    """What a run that extends another must have as that has it, by dotted key."""
    train = {f"train.{k}": v for k, v in dataclasses.asdict(run.train).items() if k not in BESIDE | _REPLANNED}
    optimizer = train.pop("train.optimizer")
    train |= {f"train.optimizer.{k}": v for k, v in optimizer.items() if k not in _SCHEDULE}
    is_plateau = optimizer["schedule"] == "plateau"  # it has a state that no other has, its settings in it
    train["train.optimizer.schedule"] = is_plateau
    train |= {f"train.optimizer.{k}": optimizer[k] for k in ("factor", "patience") if is_plateau}
    parts = {"dataset": run.dataset, "task": (run.task_name, run.task), "model": (run.model_name, run.model)}
    return parts | train | {f"loader.{key}": getattr(run.loader, key) for key in ORDER}


def unfit(task: str, model: str, where: str) -> Problems:
    """Why this model cannot do this task, where both exist."""
    tasks, models = discover.names("task"), discover.names("model")
    if task not in tasks or model not in models:
        return []

    def taken(name: str) -> type:
        return discover.load("model", name, where=where).Model.spec_class

    def made(name: str) -> type:
        return discover.load("task", name, where=where).Task.spec_class

    if taken(model) is made(task):
        return []
    said = f"task {task} gives its model {made(task).__name__}, and {model} takes {taken(model).__name__}"
    fitting_models = ", ".join(name for name in models if taken(name) is made(task)) or "none"
    fitting_tasks = ", ".join(name for name in tasks if made(name) is taken(model)) or "none"
    return [f"{where}: {said}; models that fit {task}: {fitting_models}; tasks that fit {model}: {fitting_tasks}"]


def read_params(root: Path) -> Params:
    """Read `root`/params.yaml; what is wrong with it stands in the result's `mistakes`.

    Raises:
        ConfigError: the file is missing or is no YAML mapping.
    """
    document, mistakes = read_document(root / FILE)
    return Params(document, FILE, mistakes)


def load_params(root: Path) -> Params:
    """Read `root`/params.yaml for work with it.

    Raises:
        ConfigError: the file is missing or is no YAML mapping; unknown sections, sections of the wrong kind; names of
            data sets and runs that are none. What the sections hold is checked when they are asked for.
    """
    params = read_params(root)
    raise_if(params.mistakes, params.file)
    return params
