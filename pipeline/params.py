"""params.yaml -> typed sections. Every mistake of a section is told at once, before any work.

Data stages read `datasets`, `shards` and `cluster` and never import torch. `load_run` also checks the task's and the
model's own sections, which needs their modules; `python -m pipeline.check` does so for every run.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from contracts.errors import ConfigError
from pipeline import discover
from pipeline.archives import DownloadConfig
from pipeline.settings import Problems, merged, parse, raise_if
from pipeline.train_config import TrainConfig

SECTIONS = ("datasets", "runs", "train", "shards", "loader", "cluster", "tracking", "registry")
FILE = "params.yaml"
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """Where a data set comes from and who reads it.

    `input` is what its content depends on, and a DVC dependency: the generator's file, pipeline/download.py, or, for
    `origin: local`, the user's folder, which is read where it lies. `sources` maps a file of pipeline/sources to its
    settings. `max_quarantined` is the largest share of records, and of annotations, that may be unusable.
    """

    origin: Literal["generated", "download", "local"]
    input: str
    sources: dict[str, dict[str, Any]]
    world: dict[str, Any] | None = None
    download: DownloadConfig | None = None
    max_quarantined: float = 0.01

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
        if not 0 <= self.max_quarantined <= 1:
            raise ConfigError("max_quarantined is no share", value=self.max_quarantined, allowed="0 to 1")


@dataclass(frozen=True, kw_only=True)
class ShardsConfig:
    """How records become tars. `samples` counts source records of one shard: quarantined ones leave a shard smaller.

    With `short_side`, an image whose shorter side has more pixels is stored as a JPEG of that short side and `quality`
    (4:2:0): fewer bits to read and decode in every epoch. Annotations stay those of the original. Others keep their
    bytes. `store` is the url of a folder in an object store, which then holds the tars in place of data/shards.
    Credentials are the environment's matter.
    """

    samples: int = 128
    short_side: int | None = None
    quality: int = 90
    store: str | None = None

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ConfigError("samples must be positive", value=self.samples)
        if self.short_side is not None and self.short_side < 32:
            raise ConfigError("short_side is too small", value=self.short_side, allowed="32 or more, or null")
        if not 1 <= self.quality <= 100:
            raise ConfigError("quality is none of JPEG's", value=self.quality, allowed="1 to 100")
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
        if self.cache_gib <= 0:
            raise ConfigError("cache_gib must be positive", value=self.cache_gib)


@dataclass(frozen=True, kw_only=True)
class WorkerRange:
    """Elastic training: as many workers as there is room for."""

    min: int
    max: int

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.max:
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
        if self.min_workers < 1 or self.cpus_per_worker < 1:
            raise ConfigError(
                "num_workers and cpus_per_worker must be positive", value=(self.num_workers, self.cpus_per_worker)
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
        for name in ("system_metrics_every_s", "flush_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be positive", value=getattr(self, name))
        if self.patience_s < 0:
            raise ConfigError("patience_s must not be negative", value=self.patience_s)
        if (self.uri or "").startswith(("file:", "./", "/")):
            raise ConfigError(
                "MLflow no longer keeps runs in plain files",
                value=self.uri,
                allowed="sqlite:///..., http://..., postgresql://...",
            )


@dataclass(frozen=True, kw_only=True)
class RegistryConfig:
    """`gates` maps a run to the value its metric must reach before its model may become champion."""

    gates: dict[str, float] = field(default_factory=dict)


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
    """The parsed file. Sections are checked when asked for, so that a data stage need not import torch."""

    def __init__(self, document: Mapping[str, Any], file: str = FILE):
        self.document = document
        self.file = file
        problems: Problems = []
        for key in document:
            if key not in SECTIONS:
                near = difflib.get_close_matches(str(key), SECTIONS, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(SECTIONS)}"
                problems.append(f"{key}: unknown section; {hint}")
        for key in ("datasets", "runs"):
            if not isinstance(document.get(key), Mapping):
                problems.append(f"{key}: missing or not a mapping")
        raise_if(problems, file)

    def section(self, cls: type[T], key: str) -> T:
        """The section `key` as `cls`, defaults where it is absent."""
        problems: Problems = []
        value = parse(cls, self.document.get(key) or {}, key, problems)
        raise_if(problems, self.file)
        assert value is not None
        return value

    def dataset(self, name: str) -> DatasetConfig:
        self._known("datasets", name)
        problems: Problems = []
        config = parse(DatasetConfig, self.document["datasets"][name], f"datasets.{name}", problems)
        if config is not None:
            for source, section in config.sources.items():
                self._part("source", source, section, f"datasets.{name}.sources.{source}", problems)
            if config.world is not None:
                part = {key: value for key, value in config.world.items() if key != "name"}
                self._part("world", config.world.get("name", ""), part, f"datasets.{name}.world", problems)
        raise_if(problems, self.file)
        assert config is not None
        return config

    def part_config(self, kind: str, section: Mapping[str, Any], where: str) -> Any:
        """The Config of the component that `section` names."""
        problems: Problems = []
        rest = {key: value for key, value in section.items() if key != "name"}
        config = self._part(kind, section["name"], rest, where, problems)
        raise_if(problems, self.file)
        return config

    def run(self, name: str) -> Run:
        """The run `name` with its task's and model's settings checked. Imports torch."""
        self._known("runs", name)
        where, problems = f"runs.{name}", Problems()
        entry = dict(self.document["runs"][name])
        train = parse(
            TrainConfig, merged(self.document.get("train") or {}, entry.pop("train", {})), f"{where}.train", problems
        )
        loader = parse(
            LoaderConfig,
            merged(self.document.get("loader") or {}, entry.pop("loader", {})),
            f"{where}.loader",
            problems,
        )
        for key in sorted(entry.keys() - {"dataset", "task", "model"}):
            problems.append(f"{where}.{key}: unknown key; known keys: dataset, loader, model, task, train")
        dataset = entry.get("dataset")
        if dataset not in self.document["datasets"]:
            problems.append(
                f"{where}.dataset: no such data set: {dataset!r}; known: {', '.join(self.document['datasets'])}"
            )
        parts: dict[str, tuple[str, dict[str, Any]]] = {}
        for kind in ("task", "model"):
            section = dict(entry.get(kind) or {})
            part_name = section.pop("name", "")
            config = self._part(kind, part_name, section, f"{where}.{kind}", problems)
            parts[kind] = (part_name, dataclasses.asdict(config) if config is not None else {})
        raise_if(problems, self.file)
        assert train is not None and loader is not None
        return Run(
            name=name,
            dataset=str(dataset),
            task_name=parts["task"][0],
            task=parts["task"][1],
            model_name=parts["model"][0],
            model=parts["model"][1],
            train=train,
            loader=loader,
        )

    def _known(self, section: str, name: str) -> None:
        if name not in self.document[section]:
            raise ConfigError(
                f"no such entry in {section}",
                value=name,
                where=f"{self.file}: {section}",
                allowed=", ".join(self.document[section]),
            )

    def _part(self, kind: str, name: str, section: Mapping[str, Any], where: str, problems: Problems) -> Any:
        """A component's Config. The class sits in the module, or on its `Task` class."""
        try:
            module = discover.load(kind, name, where=f"{where}.name")
        except ConfigError as error:
            problems.append(str(error).replace("\n", "\n    "))
            return None
        owner = module.Task if kind == "task" else module
        return parse(owner.Config, section or {}, where, problems)


def load_params(root: Path) -> Params:
    """Read `root`/params.yaml.

    Raises:
        ConfigError: the file is missing or is not YAML; unknown sections.
    """
    path = root / FILE
    try:
        document = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ConfigError("no params.yaml here", where=str(root), fix="run from the project's folder") from None
    except yaml.YAMLError as error:
        raise ConfigError("params.yaml is not valid YAML", where=str(error)) from None
    return Params(document or {}, FILE)
