"""Shards, weights and their records that are not what was written: every stage says so, with 2, and writes nothing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from contracts.errors import DataError
from lightning_modules.base.task import BaseTask
from pipeline.loading.datamodule import BatchLoader, PlannedLoader
from pipeline.loading.requests import Ask, RequestDataset
from pipeline.loading.sampling import Request
from pipeline.settings.params import LoaderConfig
from pipeline.shards.manifest import load_manifest, manifest_digest
from pipeline.shards.reader import open_splits, verify_shards
from pipeline.system.project import Project
from pipeline.training.run_files import measured, trained

RUN, DATASET = "segmentation", "voc"
SHARDS = Path("data/shards") / DATASET
VAL, TRAIN = SHARDS / "voc-val-v3-000000.tar", SHARDS / "voc-train-v3-000002.tar"
BEST, RECORD = Path("artifacts") / RUN / "best.ckpt", Path("artifacts") / RUN / "run.json"


def stage(root: Path, folder: Path, name: str, what: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pipeline.stages", name, what]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def run_stage(root: Path, folder: Path, name: str, what: str) -> None:
    result = stage(root, folder, name, what)
    assert result.returncode == 0, result.stdout + result.stderr


def files(folder: Path) -> dict[str, str]:
    """Digest of each file of a project; who works on it is noted in the locks."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def flip(path: Path, at: float = 0.5) -> None:
    """One bit of one byte, at a share of the file's length."""
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def refused(root: Path, folder: Path, name: str, what: str, *said: str) -> None:
    """The stage ends with 2 and a message of these words, and leaves the project's files as they are."""
    before = files(folder)
    result = stage(root, folder, name, what)
    assert result.returncode == 2, result.stdout + result.stderr
    assert all(word in result.stderr for word in ("DataError: ", "fix: ", *said)), result.stderr
    assert "Traceback" not in result.stderr
    assert files(folder) == before


@pytest.fixture(scope="module")
def project(root: Path, tiny_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny project with its segmentation trained, not yet measured: by the stages' own processes."""
    folder = tmp_path_factory.mktemp("faults") / "project"
    shutil.copytree(tiny_project.root, folder)
    shutil.rmtree(folder / "artifacts", ignore_errors=True)
    run_stage(root, folder, "train", RUN)
    return folder


@pytest.fixture(scope="module")
def measured_project(root: Path, project: Path) -> Path:
    """Evaluation meets a flipped byte of a validation tar, is refused, and succeeds after the advice was followed."""
    whole = (project / VAL).read_bytes()
    flip(project / VAL)
    refused(
        root,
        project,
        "evaluate",
        RUN,
        "not those that were written",
        VAL.name,
        "sightline heal --yes data/shards/voc",
    )
    run_stage(root, project, "shard", DATASET)
    assert (project / VAL).read_bytes() == whole
    run_stage(root, project, "evaluate", RUN)
    return project


@pytest.fixture
def healed(measured_project: Path, tmp_path: Path) -> Iterator[Path]:
    """The project with shards and artifacts that a test may damage; they are put back after it."""
    project = measured_project
    shutil.copytree(project / SHARDS, tmp_path / "shards")
    shutil.copytree(project / BEST.parent, tmp_path / "artifacts")
    measured = Project(project).measured(RUN).read_bytes()
    yield project
    for place, copy in ((SHARDS, "shards"), (BEST.parent, "artifacts")):
        shutil.rmtree(project / place)
        shutil.copytree(tmp_path / copy, project / place)
    Project(project).measured(RUN).write_bytes(measured)


def test_evaluate_refuses_a_flipped_byte_in_a_validation_tar(healed):
    """`measured_project` shows it; what was measured after the shards were made again belongs to these weights."""
    metrics = json.loads(Project(healed).measured(RUN).read_text())
    assert metrics["checkpoint_sha256"] == hashlib.sha256((healed / BEST).read_bytes()).hexdigest()
    assert metrics["num_samples"] == 11 and metrics["value"] > 0


def test_evaluate_and_register_refuse_a_flipped_byte_in_the_checkpoint(root, healed):
    whole = (healed / BEST).read_bytes()
    digest = hashlib.sha256(whole).hexdigest()
    flip(healed / BEST)
    said = ["not the one that training wrote", str(BEST), digest, f"sightline heal --yes artifacts/{RUN}"]
    refused(root, healed, "evaluate", RUN, *said)
    refused(root, healed, "register", RUN, *said)
    assert not (healed / "registry").exists()
    (healed / BEST).write_bytes(whole)
    run_stage(root, healed, "register", RUN)
    assert json.loads((healed / "registry" / f"{RUN}.json").read_text())["version"] == "1"


def test_train_refuses_a_split_that_is_another_before_it_starts(root, healed):
    manifest = json.loads((healed / SHARDS / "manifest.json").read_text())
    manifest["splits"]["val"] = manifest["splits"]["train"]
    manifest["digest"] = manifest_digest(manifest)
    (healed / SHARDS / "manifest.json").write_text(json.dumps(manifest))
    refused(root, healed, "train", RUN, "voc-train-v3-000000.tar is listed twice", "manifest.json")


TAR_FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "first byte": (lambda path: flip(path, 0), "not those that were written"),
    "padding": (lambda path: flip(path, 511 / path.stat().st_size), "not those that were written"),
    "cut": (cut, "cut or has grown"),
    "empty": (lambda path: path.write_bytes(b""), "cut or has grown"),
    "missing": (lambda path: path.unlink(), "is missing"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "is not a regular file"),
    "a pipe": (lambda path: (path.unlink(), os.mkfifo(path)), "is not a regular file"),
    "another shard": (lambda path: shutil.copyfile(path.with_name("voc-train-v3-000000.tar"), path), ""),
}


@pytest.mark.parametrize("fault", ["first byte", "missing"])
def test_vocab_refuses_what_is_not_the_shard_that_was_written(root, healed, fault):
    """Counting reads every sample. Bringing the shards back makes the same command succeed."""
    whole, words = (healed / TRAIN).read_bytes(), (healed / "data/vocab/voc.json").read_bytes()
    damage, said = TAR_FAULTS[fault]
    damage(healed / TRAIN)
    refused(root, healed, "vocab", DATASET, said, str(TRAIN), "sightline heal --yes data/shards/voc")
    (healed / TRAIN).write_bytes(whole)
    run_stage(root, healed, "vocab", DATASET)
    assert (healed / "data/vocab/voc.json").read_bytes() == words


@pytest.mark.parametrize("fault", TAR_FAULTS)
def test_reading_and_verifying_name_the_tar(healed, fault):
    folder = healed / SHARDS
    damage, said = TAR_FAULTS[fault]
    reader = open_splits(folder, load_manifest(folder))["train"]
    damage(healed / TRAIN)
    with pytest.raises(DataError) as caught:
        list(map(reader.read, range(len(reader))))
    assert said in str(caught.value) and TRAIN.name in caught.value.where
    with pytest.raises(DataError) as caught:
        verify_shards(folder, load_manifest(folder))
    assert TRAIN.name in caught.value.where and "sightline heal --yes data/shards/voc" in caught.value.fix


JSON_FAULTS: dict[str, bytes] = {
    "empty": b"",
    "cut": b'{"schema": 3, "da',
    "another shape": b"[1, 2]",
    "no UTF-8": b'{"schema": "\xff"}',
    "deep": b"[" * 100_000,
    "a huge number": b'{"schema": ' + b"9" * 10_000 + b"}",
    "other keys": b'{"schema": 3, "run_id": 3}',
}
READERS: dict[str, Callable[[Project], Any]] = {
    "manifest.json": lambda project: load_manifest(project.shards(DATASET)),
    "run.json": lambda project: trained(project, RUN),
    "measured.json": lambda project: measured(project, RUN, trained(project, RUN)),
}


@pytest.mark.parametrize("fault", [*JSON_FAULTS, "missing", "a folder"])
@pytest.mark.parametrize("name", READERS)
def test_a_json_file_that_is_none_of_ours_is_named(healed, name, fault):
    place = {"manifest.json": SHARDS / "manifest.json", "run.json": RECORD}.get(name, Path("evaluations") / RUN / name)
    victim, whole = healed / place, (healed / place).read_bytes()
    READERS[name](Project(healed))
    victim.unlink()
    if fault == "a folder":
        victim.mkdir()
    elif fault != "missing":
        victim.write_bytes(JSON_FAULTS[fault])
    with pytest.raises(DataError) as caught:
        READERS[name](Project(healed))
    assert caught.value.where.startswith(str(victim)) and "dvc " in caught.value.fix
    assert len(str(caught.value)) < 2000
    if fault == "a folder":
        victim.rmdir()
    victim.write_bytes(whole)
    READERS[name](Project(healed))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda m: m["splits"]["train"]["shards"].append(m["splits"]["train"]["shards"][0]),
            "shard voc-train-v3-000000.tar is listed twice",
        ),
        (lambda m: m["splits"]["train"].update(num_samples=39), "num_samples is 39, the parts add up to 40"),
        (lambda m: m["splits"]["train"].update(bytes=1 << 20), "bytes is 1048576, the parts add up to"),
        (lambda m: m["splits"]["train"]["shards"].reverse(), "stands after"),
        (lambda m: m["splits"]["train"]["shards"][0].update(name="../../x.tar"), "../../x.tar is not named"),
        (lambda m: m["splits"]["train"]["shards"][0].update(sha256="0"), "sha256"),
        (lambda m: m["splits"]["train"]["shards"][0].update(samples=True), "samples"),
        (lambda m: m["splits"]["train"]["shards"][0].update(samples=8.0), "samples"),
        (lambda m: m["splits"]["train"]["shards"][0].pop("bytes"), "bytes: Field required"),
        (lambda m: m.update(more=1), "more: Extra inputs"),
        (lambda m: m.update(dataset="../voc"), "dataset"),
        (lambda m: m.update(dataset="coco"), "is not named coco-train-v3-000000.tar"),
        (lambda m: m.update(schema=1), "another schema version: 1"),
        (lambda m: m["classes"].append(m["classes"][0]), "  - class "),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(healed, change, said):
    path = healed / SHARDS / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    manifest["digest"] = manifest_digest(manifest)
    path.write_text(json.dumps(manifest))
    with pytest.raises(DataError) as caught:
        load_manifest(path.parent)
    assert said in str(caught.value) and caught.value.where == str(path)


def with_index(folder: Path, shard: str, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a shard's index, and sign index and manifest as their writer would have."""
    manifest = json.loads((folder / "manifest.json").read_text())
    path = folder / shard.replace(".tar", ".index.json")
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))
    entry = next(e for s in manifest["splits"].values() for e in s["shards"] if e["name"] == shard)
    entry["index_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest["digest"] = manifest_digest(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def doubled(index: dict[str, Any]) -> None:
    for column in [*(index[name] for name in index if name != "counts"), *index["counts"].values()]:
        column[1] = column[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (doubled, "without a gap"),
        (lambda i: i["key"].reverse(), "keys do not ascend"),
        (lambda i: i["key"].pop(), "key has 7 rows of 8"),
        (lambda i: [column.pop() for column in i.values() if isinstance(column, list)], "has 7 rows of 8"),
        (lambda i: i["size"].__setitem__(7, i["size"][7] + 512), "the tar ends at"),
        (lambda i: i["size"].__setitem__(7, i["size"][7] + 1), "multiple of 512"),
        (lambda i: i["offset"].__setitem__(0, -512), "greater than or equal to 0"),
        (lambda i: i["counts"]["num_objects"].__setitem__(0, True), "valid integer"),
        (lambda i: i["counts"]["num_objects"].__setitem__(0, 1e6), "valid integer"),
        (lambda i: i["counts"]["num_objects"].__setitem__(0, 100), "totals of split 'train'"),
        (lambda i: i.pop("crc"), "crc: Field required"),
        (lambda i: i["key"].__setitem__(0, "../a"), "pattern"),
    ],
)
def test_an_index_that_contradicts_itself_or_the_manifest_is_refused(healed, change, said):
    folder = healed / SHARDS
    with_index(folder, TRAIN.name, change)
    with pytest.raises(DataError) as caught:
        open_splits(folder, load_manifest(folder))
    assert said in str(caught.value)
    assert caught.value.where in (
        str(folder / "manifest.json"),
        str(folder / TRAIN.name.replace(".tar", ".index.json")),
    )


def test_a_key_in_two_splits_is_refused(healed):
    """The images of a validation split that training sees under the same names."""
    folder = healed / SHARDS
    manifest = load_manifest(folder)
    names = open_splits(folder, manifest)["train"].keys()[:8]
    with_index(folder, VAL.name, lambda index: index.update(key=names))
    with pytest.raises(DataError, match="8 keys are both in split 'train' and in split 'val'"):
        open_splits(folder, load_manifest(folder))


def test_metrics_of_other_weights_or_data_are_not_registered(healed):
    project = Project(healed)
    path = project.measured(RUN)
    known = json.loads(path.read_text())
    for key, said in (("checkpoint_sha256", "another checkpoint"), ("manifest_digest", "other data")):
        path.write_text(json.dumps(known | {key: "0" * 64}))
        with pytest.raises(DataError, match=said) as caught:
            measured(project, RUN, trained(project, RUN))
        assert "dvc repro --force evaluate@segmentation" in caught.value.fix


def test_a_run_that_was_trained_on_other_data_is_not_measured(healed):
    manifest = load_manifest(healed / SHARDS) | {"digest": "0" * 64}
    with pytest.raises(DataError, match="trained on other data"):
        trained(Project(healed), RUN, manifest)


def test_another_data_sets_shards_are_refused(healed):
    with pytest.raises(DataError, match="another data set's shards: 'voc'"):
        load_manifest(healed / SHARDS, "coco")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_loader_process_tells_it_in_the_same_words(healed, num_workers):
    """Not with the traceback of its process in the text, as torch would hand it over."""
    folder = healed / SHARDS
    readers = open_splits(folder, load_manifest(folder))
    flip(folder / readers["train"].shards[0])
    dataset = RequestDataset(readers, cast(BaseTask, None), seed=0)  # the task is not reached
    config = LoaderConfig(num_workers=num_workers, start_method="fork")
    asks = [Ask("train", False, Request(tuple(range(8)), epoch=0))]
    with pytest.raises(DataError, match=r"^a sample's bytes are not those") as caught:
        list(PlannedLoader(BatchLoader(dataset, config), lambda epoch: asks, 1))
    assert "Traceback" not in str(caught.value) and "sightline heal --yes" in str(caught.value)
