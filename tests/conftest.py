"""Fixtures that any test may use. None of them starts Ray or MLflow."""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
from hypothesis import settings
from PIL import Image

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # of the clusters that tests start, and then join
os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
os.environ.setdefault("DVC_NO_ANALYTICS", "1")
# Models that tests register are signed with a key of their own, not with the user's.
os.environ.setdefault("SIGHTLINE_SIGNING_KEY", f"{tempfile.gettempdir()}/sightline-tests-{os.getuid()}/signing.key")

from pipeline.settings.code import PACKAGES
from pipeline.settings.params import load_params
from pipeline.stages.fetch import fetch
from pipeline.stages.shard import shard
from pipeline.stages.vocab import vocab
from pipeline.system.project import Project
from tests.shipped import LOCAL, LOCAL_DATASETS, tiny_datasets

if TYPE_CHECKING:
    from tests.s3_server import Proxy

ROOT = Path(__file__).resolve().parent.parent
settings.register_profile("any machine", deadline=None)  # how long a case takes decides nothing
settings.load_profile("any machine")


# Folders, and files of the faults, whose tests mostly wait, for clusters and DVC: one file after so many that compute,
# so that processors are neither idle nor shared by many clusters.
WAITING = ("integration", "browser", "cluster_kills", "lost_nodes", "cluster_deaths", "cluster_work", "jobs", "sweeps")
BETWEEN = {"faults": 4}
# Files of minutes that compute: begun late, one of them would be all that still runs.
LONG = (
    "registry",
    "fit",
    "torchvision_detector",
    "new_project",
    "training_faults",
    "export",
    "vision_chapters",
    "phases",
    "gpu_check",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The order in which files are given to several processes; the longest of those that wait come first."""
    if not hasattr(config, "workerinput"):
        return
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)

    def name(path: Path) -> str:
        return path.stem.removeprefix("test_")

    def kind(path: Path) -> str:
        return name(path) if path.parent.name in BETWEEN else path.parent.name

    waiting = [path for path in files if kind(path) in WAITING]
    others = sorted((path for path in files if path not in waiting), key=lambda path: name(path) not in LONG)
    for i, path in enumerate(waiting):
        others.insert(min(i * (BETWEEN.get(path.parent.name, 20) + 1), len(others)), path)
    items[:] = [item for path in others for item in files[path]]


_SHARED = pytest.StashKey[ExitStack]()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """All processes of a `--numprocesses` start stages from one, which their first one starts."""
    if _SHARED not in node.config.stash:
        from tests.warm_process import SHARED, listening

        stack = node.config.stash[_SHARED] = ExitStack()
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="slwarm-"))
        os.environ[SHARED] = str(stack.enter_context(listening(Path(folder))))


def pytest_unconfigure(config: pytest.Config) -> None:
    if _SHARED in config.stash:
        config.stash[_SHARED].close()


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return ROOT


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder with real data and golden values that lies beside the checkout; skips where it is absent."""
    folder = Path(os.environ.get("SIGHTLINE_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no real data: {folder} is absent (SIGHTLINE_SHARED names another)")
    return folder


@pytest.fixture(scope="session", autouse=True)
def mlflow_tables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """MLflow makes the tables of a new database by 50 migrations, for two seconds: once, then they are copied."""
    utils = sys.modules.get("mlflow.store.db.utils")
    if utils is None:  # no test of this process has to do with it
        yield
        return
    make, made = utils._initialize_tables, tmp_path_factory.mktemp("tables") / "mlflow.db"

    def copied(engine: Any) -> None:
        if engine.dialect.name != "sqlite" or not utils._is_empty_database(engine):
            make(engine)
            return
        source, target = (made, engine.url.database) if made.exists() else (engine.url.database, made)
        if target == made:
            make(engine)
        with closing(sqlite3.connect(source)) as a, closing(sqlite3.connect(target)) as b:
            a.backup(b)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("mlflow.store.db.utils", "mlflow.store.model_registry.sqlalchemy_store"):
            if name in sys.modules:
                patch.setattr(sys.modules[name], "_initialize_tables", copied)
        yield


@pytest.fixture(scope="session")
def warm_socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The socket of a process with the libraries loaded, for stages and probes of whoever puts it into the environment:
    each that loads them itself takes ten seconds of a processor."""
    from tests.warm_process import SHARED, listening

    if SHARED in os.environ:
        yield os.environ[SHARED]
        return
    with listening(tmp_path_factory.mktemp("warm")) as path:
        yield str(path)


@pytest.fixture
def forked_probe(warm_socket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that asks a registered model is a fork of it."""
    monkeypatch.setenv("SIGHTLINE_WARM_SERVER", warm_socket)


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A bucket `shop` on an S3 server whose objects lie in `tmp_path/s3`; hardly any waiting between attempts."""
    from tests.s3_server import running

    with running(tmp_path, monkeypatch) as proxy:
        yield proxy


TINY = {
    "datasets": tiny_datasets(40, 11),
    "runs": {
        name: {"dataset": dataset, "task": {"name": name, "image_size": 64}, "model": {"name": model}}
        for name, dataset, model in (
            ("captioning", "coco", "soft_attention"),
            ("vqa", "coco", "lstm_vqa"),
            ("segmentation", "voc", "fcn"),
            ("detection", "voc", "faster_rcnn"),
            ("instances", "coco", "mask_rcnn"),
        )
    },
    "train": {"max_epochs": 2, "batch_size": 8, "eval_batch_size": 4, "num_pictures": 2, "precision": "32-true"},
    "shards": {"samples": 8},
    "cluster": {"engine": "local", "num_workers": 1},
    "tracking": {"system_metrics": False, "flush_s": 0.2},
    "registry": {},
}


FLAGS = TINY | {
    "datasets": {
        "flags": {"origin": "local", "input": "flags", "sources": {"image_folder": {}}},
        "voc_regions": tiny_datasets(24, 8)["voc"] | {"proposals": {"mode": "single", "scales": [25], "min_side": 8}},
    },
    "runs": {
        "classification": {
            "dataset": "flags",
            "task": {"name": "classification", "image_size": 64},
            "model": {"name": "image_classifier"},
        },
        "region_detection": {
            "dataset": "voc_regions",
            "task": {"name": "region_detection", "image_size": 64},
            "model": {"name": "fast_rcnn", "head_channels": 64},
        },
        "region_segmentation": {
            "dataset": "voc_regions",
            "task": {"name": "region_segmentation", "image_size": 32, "max_regions": 3},
            "model": {"name": "deconvnet", "widths": [8, 16, 16], "convs": [1, 1, 1], "fc_channels": 16},
        },
        "multilabel": {
            "dataset": "flags",
            "task": {"name": "multilabel_classification", "image_size": 64, "labels_from": "labels"},
            "model": {"name": "image_classifier"},
        },
    },
}

# Too large for the shipped params.yaml, which a laptop trains: what fits the tiny project's data.
LARGE = {
    "detection_torchvision": {
        "dataset": "voc",
        "task": {"name": "detection"},
        "model": {"name": "torchvision_detector", "architecture": "fasterrcnn_mobilenet_v3_large_320_fpn"},
    },
    "instances_torchvision": {
        "dataset": "coco",
        "task": {"name": "instances", "image_size": 64},
        "model": {"name": "torchvision_instances"},
    },
}


@pytest.fixture(scope="module")
def address(warm_socket: str) -> Iterator[str]:
    """A Ray cluster of two nodes of one CPU each, of one file: left running, it takes processors."""
    from tests.integration.cluster import Cluster

    with ExitStack() as stack:
        yield Cluster(stack, num_nodes=2, dashboard=True, warm_socket=warm_socket).address


@pytest.fixture(scope="session")
def tiny_project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with both generated worlds at 64 px, fetched, sharded and counted; a run trains in seconds."""
    return _made(tmp_path_factory.mktemp("project"), TINY)


@pytest.fixture(scope="module")
def unbroken(tiny_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """State folder of a training of the tiny project, in this process, that nothing happens to."""
    from pipeline.training.fit import fit
    from tests.local_training import arguments

    state = tmp_path_factory.mktemp("unbroken")
    fit(**arguments(tiny_project, state))
    return state


@pytest.fixture(scope="session")
def flags_project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The same with a data set of class folders, flags with lying or standing stripes and few without, and one with
    proposals."""
    folder = tmp_path_factory.mktemp("flags")
    generator = np.random.default_rng(3)
    for split, number in [(s, i) for s, count in (("train", 60), ("val", 20)) for i in range(count)]:
        kind = ("lying", "standing", "lying", "standing", "plain")[number % 5]
        pixels = np.tile(generator.integers(0, 256, 3, np.uint8), (48, 64, 1))
        where = {"lying": np.s_[::2], "standing": np.s_[:, ::2], "plain": np.s_[:0]}[kind]
        blocks = pixels.reshape(6, 8, 8, 8, 3).swapaxes(1, 2)  # 6 x 8 squares of 8 pixels
        blocks[where] = generator.integers(0, 256, 3, np.uint8)
        path = folder / "flags" / split / kind / f"{split}-{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(blocks.swapaxes(1, 2).reshape(48, 64, 3)).save(path)
    return _made(folder, FLAGS)


@pytest.fixture(scope="session")
def local_project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The same with the data sets of params.yaml that are a user's own, and their runs: none in this repository."""
    return _made(tmp_path_factory.mktemp("local"), {**TINY, "datasets": LOCAL_DATASETS, "runs": LOCAL})


def _made(folder: Path, document: dict[str, Any]) -> Project:
    (folder / "params.yaml").write_text(yaml.safe_dump(document))
    project, params = Project(folder), load_params(folder)
    for dataset in params.document["datasets"]:
        fetch(project, params, dataset)
        shard(project, params, dataset)
        vocab(project, params, dataset)
    return project


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Several threads add up in another order for another batch, and a detector's choices follow the last digit."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # of the processes that are started
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def memory_full_of_nan() -> Iterator[None]:
    """Tensors that nobody has written to hold NaN, in place of what was left there, which mostly are zeros."""
    import torch

    torch.use_deterministic_algorithms(True)  # fills them: torch.utils.deterministic
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def code(root, tmp_path) -> Path:
    """A copy of the code."""
    for package in PACKAGES:
        shutil.copytree(root / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(root / "dvc.yaml", tmp_path / "dvc.yaml")
    return tmp_path
