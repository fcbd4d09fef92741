"""The sections of params.yaml as frozen dataclasses, each with its ranges; `train` has its own file, `train_config.py`.

Data stages read `datasets`, `shards` and `cluster`; nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from contracts.errors import ConfigError
from contracts.ranges import AMOUNT, COUNT, POSITIVE, SEED, SHARE, Range, RangeError, check_ranges
from contracts.searching import Search
from pipeline.settings import discover
from pipeline.settings.archives import DownloadConfig
from pipeline.settings.own import OwnStages
from pipeline.settings.uris import check_tracking_uri


def check_folder_url(key: str, url: str | None) -> None:
    """Raise ConfigError unless `url` is None or names a folder of an object store or a local one."""
    if url is not None and not re.fullmatch(r"file:///.+|(?!file:)\w+://[^/@?]+(/[^?]*)?", url):
        raise ConfigError(
            f"{key} must be the url of a folder", value=url, allowed="s3://bucket/prefix, file:///folder, or null"
        )


@dataclass(frozen=True, kw_only=True)
class DrawConfig:
    """Shares of the train split that become val and test, where there is one file.

    `by: group` keeps the images of one folder (a video, a patient) together. Records that a source gives a group stay
    together in any case.

    Attributes:
        val, test: share of the records of train that becomes this split.
        seed: another one draws other records.
    """

    val: float | None = None
    test: float | None = None
    seed: int = 0
    by: Literal["image", "group"] = "image"

    def __post_init__(self) -> None:
        share = Range(0, 1, open_low=True, open_high=True)
        check_ranges(self, val=share, test=share, seed=SEED)
        if not self.shares or sum(self.shares.values()) >= 1:
            raise ConfigError(
                "nothing to draw, or nothing left for train", value=self.shares, allowed="{val: 0.1} or so"
            )

    @property
    def shares(self) -> dict[str, float]:
        given = {"test": self.test, "val": self.val}
        return {split: share for split, share in given.items() if share is not None}


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """Where a data set comes from and who reads it.

    `input` is what its content depends on, and a DVC dependency: the generator's file, pipeline/ingest/download.py, or,
    for `origin: local`, a folder or `s3://...`, which is read where it lies. `sources` maps a file of ingest/sources to
    its settings. `max_quarantined` is the largest share of records, and of annotations, that may be unusable.
    `follow_links` allows images and masks that are links to files outside the data set's folder. `max_shared` is how
    many images (or clips, texts, groups) two splits may share; null: any number, which is told.
    `splits` says how the files call a split (`{val: valid}`; a list is read as one), `split` draws val and test from
    train where there is one file. `exif` says on what boxes and masks were drawn where a picture has an EXIF
    orientation: `apply`, the turned picture that viewers show; `ignore`, the stored pixels; `auto`, the one that has
    the annotation's size.

    Attributes:
        origin: made by a generator, fetched from the publishers, or a folder of yours, here or in a store.
        world: of `origin: generated`: the name of a file of ingest/worlds, and its settings.
        download: of `origin: download`.
        splits: how the files call a split, such as `{val: valid}`; a list is read as one.
        split: draws val and test from train where there is one file.
        proposals: boxes that Selective Search finds are stored beside every image, for models that do not look for
            regions themselves.
    """

    origin: Literal["generated", "download", "local"]
    input: str
    sources: dict[str, dict[str, Any]]
    world: dict[str, Any] | None = None
    download: DownloadConfig | None = None
    max_quarantined: float = 0.01
    follow_links: bool = False
    max_shared: int | None = None
    splits: dict[Literal["train", "val", "test"], str | tuple[str, ...]] = field(default_factory=dict)
    split: DrawConfig | None = None
    exif: Literal["auto", "apply", "ignore"] = "auto"
    proposals: Search | None = None

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
        check_ranges(self, max_quarantined=SHARE, max_shared=AMOUNT)
        for split, names in self.splits.items():
            if not names or not all(name.strip() for name in ((names,) if isinstance(names, str) else names)):
                raise ConfigError(
                    f"splits.{split} names nothing", value=names, allowed="how the files call it, such as valid",
                    fix="take it out where the files call it so, or have no such split",
                )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ShardsConfig:
    """How records become tars. `samples` counts source records of one shard: quarantined ones leave a shard smaller.

    With `short_side`, an image whose shorter side has more pixels is stored as a JPEG of that short side and `quality`
    (4:2:0): fewer bits to read and decode in every epoch. Annotations stay those of the original. Others keep their
    bytes. An image or mask whose header announces more than `max_megapixels` million pixels is refused before it is
    decoded. `store` is the url of a folder in an object store, which then holds the tars in place of data/shards.
    Credentials are the environment's matter.

    Attributes:
        quality: of the JPEGs that `short_side` makes, 4:2:0.
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
        check_folder_url("store", self.store)


ORDER = ("window", "canonical_nodes", "stages")  # of `loader`: what weights depend on


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """How a training worker reads. `window`: shards that are shuffled together; memory and open files grow with it.

    `cache_gib` limits the shards of an object store that a machine keeps; it should hold two windows, since the next
    one comes while one is read. `canonical_nodes` says into how many parts shards are cut for the order of samples:
    where the number of machines divides it, each reads its own parts of a store alone. Weights depend on it, and do not
    on the number of machines. `stages` are of the user's own.

    Attributes:
        num_workers: loader processes of each training worker, a CPU each; 0: the worker itself reads. With GPUs, about
            CPUs / GPUs - 1.
        prefetch: batches that each loader process has ready.
        start_method: how loader processes begin; `fork` is quick and unsafe beside threads, such as those that fetch
            shards from a store: refused there.
    """

    num_workers: int = 0
    prefetch: int = 2
    start_method: Literal["fork", "forkserver", "spawn"] = "forkserver"
    window: int = 16
    canonical_nodes: int = 1
    cache_gib: float = 50.0
    stages: OwnStages = field(default_factory=OwnStages)

    def __post_init__(self) -> None:
        check_ranges(self, num_workers=AMOUNT, prefetch=COUNT, window=COUNT, canonical_nodes=COUNT,
                     cache_gib=POSITIVE)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class WorkerRange:
    """Elastic training: as many workers as there is room for.

    Attributes:
        min: with fewer, training waits.
        max: more are not asked for.
    """

    min: int
    max: int

    def __post_init__(self) -> None:
        check_ranges(self, min=COUNT, max=COUNT)
        if self.min > self.max:
            raise ConfigError("not a range of workers", value=(self.min, self.max), allowed="1 <= min <= max")


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """Where work runs. RAY_ADDRESS or `address` joins a running Ray cluster; neither starts one on this machine.

    `num_workers` training workers of `cpus_per_worker` CPUs each, one more CPU for each of its loader processes, and
    one GPU each where `use_gpu` says so ("auto": if the cluster has any when the run begins; it then stays so). "auto":
    one worker a GPU, else min(2, CPUs), counted anew at each try. `{min: 1, max: 8}` takes what there is, goes on with
    fewer when workers are lost, and looks for room for more every `resize_every_s`. The global batch always stays. A
    joined cluster is given `wait_s` to grow to the room that the workers need: some start nodes when they are asked
    for. Room that others use is waited for until they are done. `address: local` starts one whatever RAY_ADDRESS says.

    `engine: local` runs everything in this process, without Ray. `storage`, or SIGHTLINE_STORAGE, is the url of a
    folder that training states are copied to, and fetched from when the state folder is gone. With shards in a store,
    too, the workers of a joined cluster use nothing else: no folder need be seen by all machines. A worker that does
    not answer for `collective_timeout_s` is given up; the longest scoring of a validation on one worker must fit into
    it.

    Attributes:
        num_workers: training workers. `auto`: one a GPU, else min(2, CPUs), anew at each try. `{min: 1, max: 8}`
            takes what there is and goes on with fewer when workers are lost.
        cpus_per_worker: CPUs of each training worker, beside one for each of its loader processes.
        use_gpu: a GPU for each worker; `auto`: if the cluster has any when the run begins, and it then stays so.
        gpus_per_worker: 0.25 lets four small runs of one worker each share a GPU of a joined cluster; its memory is not
            divided: see that they fit together.
        max_failures: tries without a new state after which training is given up.
    """

    engine: Literal["ray", "local"] = "ray"
    address: str | None = None
    num_workers: int | Literal["auto"] | WorkerRange = "auto"
    wait_s: float = 300.0
    resize_every_s: float = 60.0
    storage: str | None = None
    cpus_per_worker: int = 1
    use_gpu: Literal["auto", "yes", "no"] = "auto"
    gpus_per_worker: float = 1.0
    max_failures: int = 2
    collective_timeout_s: int = 90

    @property
    def storage_url(self) -> str | None:
        """SIGHTLINE_STORAGE, which goes before `storage`."""
        url = os.environ.get("SIGHTLINE_STORAGE") or self.storage
        check_folder_url("SIGHTLINE_STORAGE", url)
        return url.rstrip("/") if url else None

    def waiting_for(self, seconds: float) -> ClusterConfig:
        """For a training in which one worker may wait so long for something that the others need not wait for."""
        return dataclasses.replace(self, collective_timeout_s=max(self.collective_timeout_s, math.ceil(seconds)))

    def __post_init__(self) -> None:
        is_number = self.num_workers != "auto" and not isinstance(self.num_workers, WorkerRange)
        check_ranges(
            self,
            **({"num_workers": COUNT} if is_number else {}),
            wait_s=AMOUNT,
            resize_every_s=POSITIVE,
            cpus_per_worker=COUNT,
            gpus_per_worker=Range(0, 1, open_low=True),
            max_failures=AMOUNT,
            collective_timeout_s=COUNT,
        )
        check_folder_url("storage", self.storage)
        if self.gpus_per_worker < 1 and self.num_workers not in (1, "auto"):
            raise ConfigError(
                "a part of a GPU is for runs of one worker: NCCL wants a whole one for each",
                value={"gpus_per_worker": self.gpus_per_worker, "num_workers": self.num_workers},
                allowed="num_workers: 1 or auto; or gpus_per_worker: 1",
            )
        if self.address is not None and not self.address.strip():
            raise ConfigError(
                "address is empty", value=self.address, allowed="HOST:6379, ray://HOST:10001, local, or null"
            )


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """Where runs are kept. The environment variable MLFLOW_TRACKING_URI goes before `uri`.

    Args:
        uri: MLflow's tracking URI; None: `sqlite:///<project>/mlflow.db`.
        artifacts: folder or URI of artifacts where no server decides it; None: `<project>/mlartifacts`.
        experiment_prefix: put before the task's name; together they name the experiment.
        system_metrics: CPU, memory, disk, network and GPU use of the driver's machine.
        system_metrics_every_s: seconds between two of them.
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
        if self.artifacts is not None and not self.artifacts.strip():
            raise ConfigError(
                "artifacts is empty", value=self.artifacts, allowed="a folder, s3://bucket/prefix, or null"
            )
        if self.uri is not None:
            check_tracking_uri(self.uri, where="tracking.uri")


@dataclass(frozen=True, kw_only=True)
class RegistryConfig:
    """`runs` are registered: all, or those that are named. `allow_dirty` lets one become champion that was trained by
    code that is in no commit, or in none that is known.

    Attributes:
        min_gain: a model becomes champion where the low end of the 95 % interval of its gain over the reigning one, on
            the same resamples, is above this. 0: it is surely better; -0.01: surely not worse by more than 0.01.
        gates: run -> the value that its metric must reach.
        slices: run -> names or patterns of metrics, such as `AP/*` -> how much none of them may surely fall.
        max_latency_ms: run -> the most that one prediction may take on the machine that registers, the median of 20.
        max_export_loss: run -> how much worse than the checkpoint the file that `sightline export` makes may be.
    """

    runs: Literal["all"] | tuple[str, ...] = "all"
    min_gain: float = 0.0
    gates: dict[str, float] = field(default_factory=dict)
    slices: dict[str, dict[str, float]] = field(default_factory=dict)
    max_latency_ms: dict[str, float] = field(default_factory=dict)
    max_export_loss: dict[str, float] = field(default_factory=dict)
    allow_dirty: bool = False

    def __post_init__(self) -> None:
        check_ranges(self, min_gain=Range())
        ranges = {"gates": Range(), "max_latency_ms": POSITIVE, "max_export_loss": AMOUNT}
        numbers = {
            f"{name}.{run}": (v, allowed) for name, allowed in ranges.items() for run, v in self.of(name).items()
        }
        for run, patterns in self.slices.items():
            numbers |= {f"slices.{run}.{pattern}": (fall, AMOUNT) for pattern, fall in patterns.items()}
        found = {name: (value, str(allowed)) for name, (value, allowed) in numbers.items() if value not in allowed}
        if found:
            raise RangeError("a condition of the registry is no number that can be reached", found)

    def of(self, condition: str) -> dict[str, Any]:
        """One of the mappings from runs."""
        return dict(getattr(self, condition))

    @property
    def named_runs(self) -> dict[str, tuple[str, ...]]:
        """Setting -> the runs that it names."""
        settings = ("gates", "slices", "max_latency_ms", "max_export_loss")
        return {name: tuple(self.of(name)) for name in settings} | ({} if self.runs == "all" else {"runs": self.runs})
