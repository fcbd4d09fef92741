"""params.yaml -> typed sections. Every mistake of a section is told at once, before any work.

Data stages read `datasets`, `shards` and `cluster` and never import torch. `load_run` also checks the task's and the
model's own sections, which needs their modules; `python -m pipeline.check` does so for every run.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from contracts.errors import ConfigError
from contracts.names import NAME_RULE, is_name
from contracts.ranges import AMOUNT, COUNT, POSITIVE, SHARE, Range, RangeError, check_ranges
from pipeline import discover
from pipeline.archives import DownloadConfig
from pipeline.document import read_document, shown
from pipeline.settings import Problems, merged, nearest, parse, raise_if
from pipeline.train_config import TrainConfig
from pipeline.uris import check_tracking_uri

NAMED = ("datasets", "runs")  # their keys are names
SECTIONS = ("datasets", "runs", "train", "shards", "loader", "cluster", "tracking", "registry")
FILE = "params.yaml"
T = TypeVar("T")
_NO_DATASETS = ("datasets: must", "datasets: missing")  # then no run can name one, and that is told once


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """Where a data set comes from and who reads it.

    `input` is what its content depends on, and a DVC dependency: the generator's file, pipeline/download.py, or, for
    `origin: local`, the user's folder, which is read where it lies. `sources` maps a file of pipeline/sources to its
    settings. `max_quarantined` is the largest share of records, and of annotations, that may be unusable.
    `follow_links` allows images and masks that are links to files outside the data set's folder.
    """

    origin: Literal["generated", "download", "local"]
    input: str
    sources: dict[str, dict[str, Any]]
    world: dict[str, Any] | None = None
    download: DownloadConfig | None = None
    max_quarantined: float = 0.01
    follow_links: bool = False

    def __post_init__(self) -> None:
        given = {
            origin for origin, value in (("generated", self.world), ("download", self.download)) if value is not None
        }
        if given != {self.origin} - {"local"}:
            raise ConfigError(
                f"origin: {self.origin} does not go with these keys",
                value=sorted({"generated": "world", "download": "download"}[origin] for origin in given),
                allowed="generated: `world`; download: `download`; local: only `input`, the folder",
            )
        if not self.sources:
            raise ConfigError("sources is empty", allowed=", ".join(discover.names("source")))
        if not self.input.strip():
            raise ConfigError("input is empty", allowed="what the data depends on: a file or folder")
        check_ranges(self, max_quarantined=SHARE)


@dataclass(frozen=True, kw_only=True)
class ShardsConfig:
    """How records become tars. `samples` counts source records of one shard: quarantined ones leave a shard smaller.

    With `short_side`, an image whose shorter side has more pixels is stored as a JPEG of that short side and `quality`
    (4:2:0): fewer bits to read and decode in every epoch. Annotations stay those of the original. Others keep their
    bytes. An image or mask whose header announces more than `max_megapixels` million pixels is refused before it is
    decoded. `store` is the url of a folder in an object store, which then holds the tars in place of data/shards.
    Credentials are the environment's matter.
    """

    samples: int = 128
    short_side: int | None = None
    quality: int = 90
    max_megapixels: float = 50
    store: str | None = None

    def __post_init__(self) -> None:
        check_ranges(
            self,
            samples=COUNT,
            short_side=Range(32),
            quality=Range(1, 100),
            max_megapixels=Range(0, 178, open_low=True),  # 178 is Pillow's own limit
        )
        if self.store is not None and not re.fullmatch(r"file:///.+|(?!file:)\w+://[^/@?]+(/[^?]*)?", self.store):
            raise ConfigError(
                "store is no url of a folder", value=self.store, allowed="s3://bucket/prefix, file:///folder, or null"
            )


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """How a training worker reads. `window`: shards that are shuffled together; memory and open files grow with it.

    `cache_gib` limits the shards of an object store that a machine keeps; it should hold two windows.
    """

    num_workers: int = 0
    prefetch: int = 2
    start_method: Literal["fork", "forkserver", "spawn"] = "forkserver"
    window: int = 16
    cache_gib: float = 50.0

    def __post_init__(self) -> None:
        check_ranges(self, num_workers=AMOUNT, prefetch=COUNT, window=COUNT, cache_gib=POSITIVE)


@dataclass(frozen=True, kw_only=True)
class WorkerRange:
    """Elastic training: as many workers as there is room for."""

    min: int
    max: int

    def __post_init__(self) -> None:
        check_ranges(self, min=COUNT, max=COUNT)
        if self.min > self.max:
            raise ConfigError("not a range of workers", value=(self.min, self.max), allowed="1 <= min <= max")


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """Where work runs. `address` or RAY_ADDRESS joins a running Ray cluster; neither starts one on this machine.

    `num_workers` training workers of `cpus_per_worker` CPUs each, and one GPU each where `use_gpu` says so ("auto":
    if the cluster has any). `{min: 1, max: 8}` takes what there is, goes on with fewer when workers are lost, and looks
    for room for more every `resize_every_s`; the global batch stays. `engine: local` runs everything in this process,
    without Ray. `state_store` is the url of a folder that training states are copied to, and fetched from when the
    state folder is gone. A worker that does not answer for `collective_timeout_s` is given up; the longest scoring of a
    validation on one worker must fit into it.
    """

    engine: Literal["ray", "local"] = "ray"
    address: str | None = None
    num_workers: int | WorkerRange = 2
    resize_every_s: float = 60.0
    state_store: str | None = None
    cpus_per_worker: int = 1
    use_gpu: Literal["auto", "yes", "no"] = "auto"
    max_failures: int = 2
    collective_timeout_s: int = 90

    def waiting_for(self, seconds: float) -> ClusterConfig:
        """For a training in which one worker may wait so long for something that the others need not wait for."""
        return dataclasses.replace(self, collective_timeout_s=max(self.collective_timeout_s, math.ceil(seconds)))

    @property
    def min_workers(self) -> int:
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers.min

    def __post_init__(self) -> None:
        check_ranges(
            self,
            **({} if isinstance(self.num_workers, WorkerRange) else {"num_workers": COUNT}),
            resize_every_s=POSITIVE,
            cpus_per_worker=COUNT,
            max_failures=AMOUNT,
            collective_timeout_s=COUNT,
        )


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """Where runs are kept. The environment variable MLFLOW_TRACKING_URI goes before `uri`.

    Args:
        uri: MLflow's tracking URI; None: `sqlite:///<project>/mlflow.db`.
        artifacts: folder or URI of artifacts where no server decides it; None: `<project>/mlartifacts`.
        experiment_prefix: put before the task's name; together they name the experiment.
        system_metrics: CPU, memory, disk, network and GPU use of the driver's machine, each `system_metrics_every_s`.
        flush_s: seconds between two deliveries.
        patience_s: how long the end of a training waits for a server that is away.
    """

    uri: str | None = None
    artifacts: str | None = None
    experiment_prefix: str = "sightline-"
    system_metrics: bool = True
    system_metrics_every_s: float = 10.0
    flush_s: float = 5.0
    patience_s: float = 300.0

    def __post_init__(self) -> None:
        check_ranges(self, system_metrics_every_s=POSITIVE, flush_s=POSITIVE, patience_s=AMOUNT)
        if self.uri is not None:
            check_tracking_uri(self.uri, where="tracking.uri")


@dataclass(frozen=True, kw_only=True)
class RegistryConfig:
    """`gates` maps a run to the value its metric must reach before its model may become champion."""

    gates: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        found = {f"gates.{run}": (value, str(Range())) for run, value in self.gates.items() if value not in Range()}
        if found:
            raise RangeError("a gate must be a finite number", found)


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

    def to_dict(self) -> dict[str, Any]:
        """Plain values: what is stored in a checkpoint and sent to workers."""
        return dataclasses.asdict(self)


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
                self.mistakes.append(f"{key}: {shown(name)} is no name; allowed: {NAME_RULE}")
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
            entry = {**entry, "sources": {source: {} if part is None else part for source, part in sources.items()}}
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
        known = ("dataset", "loader", "model", "task", "train")
        problems += [f"{where}.{key}: unknown key; {nearest(key, known, 'known keys')}" for key in entry.keys() - known]
        dataset, datasets = entry.get("dataset"), list(self.document["datasets"])
        if dataset not in datasets and not any(m.startswith(_NO_DATASETS) for m in self.mistakes):
            problems.append(f"{where}.dataset: no such data set (is {shown(dataset)}); {nearest(dataset, datasets)}")
        train = self._with_shared(TrainConfig, "train", entry, where, problems)
        loader = self._with_shared(LoaderConfig, "loader", entry, where, problems)
        task_name, task = self._named_part("task", entry.get("task"), f"{where}.task", problems)
        model_name, model = self._named_part("model", entry.get("model"), f"{where}.model", problems)
        if len(problems) > before:
            return None
        assert train is not None and loader is not None
        return Run(
            name=name,
            dataset=str(dataset),
            task_name=task_name,
            task=dataclasses.asdict(task),
            model_name=model_name,
            model=dataclasses.asdict(model),
            train=train,
            loader=loader,
        )

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

        return parse(cls, merged(self.document.get(key, {}), own), at, problems)

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
