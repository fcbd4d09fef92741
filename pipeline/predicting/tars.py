"""Predict for WebDataset tars, each by a Ray task: `<out>/<tar>.jsonl` has a line an image, in the order of the tar.

A file of answers gets its name when it is whole, and a tar that has one is left alone: the same command, called again,
goes on. Neither tars nor answers need a file system that the nodes share: both may be in an object store, and answers
come to the process that asked, which writes them.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from glob import glob, has_magic
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from contracts.errors import ConfigError, DataError
from pipeline.ingest.tree import IMAGES
from pipeline.predicting.given import Item
from pipeline.predicting.output import line_of
from pipeline.predicting.request import Request
from pipeline.settings.params import FILE, load_params
from pipeline.settings.sections import ClusterConfig
from pipeline.settings.uris import is_url
from pipeline.shards import stores
from pipeline.system.disk import write_lines
from pipeline.system.progress import progress_bar
from pipeline.system.project import Project

if TYPE_CHECKING:
    from pipeline.training.predictor import Predictor

ABOUT = "about.json"
_CODE = Path(__file__).resolve().parents[2]
_loaded: dict[tuple[str, float | None], Predictor] = {}  # a worker's, for its next tars


@dataclass(frozen=True, kw_only=True)
class Task:
    """What each tar is asked; `weights` tells one checkpoint from another."""

    model: str
    weights: str
    texts: dict[str, str]
    score: float | None
    batch: int | None

    def about(self) -> dict[str, Any]:
        return {"model": self.model, "weights": self.weights, "texts": self.texts, "score": self.score}


@dataclass(frozen=True, kw_only=True)
class Result:
    """Of a tar: its lines, and how many of its images failed; or why it could not be read."""

    lines: list[str]
    num_failed: int
    error: DataError | None = None


def predict_tars(request: Request, checkpoint: Path, model: str, project: Project) -> int:
    """The command with `--cluster`: a summary as JSON on stdout; exit code 1 where an image or a tar failed.

    Raises:
        ConfigError: two tars of one name, answers of another model in this folder, a model that takes no image.
        DataError: no such tar, or the store or the disk refuses.
    """
    from pipeline.cluster.map import map_ordered
    from pipeline.predicting.batches import load
    from pipeline.predicting.predict import check_asked, digest_of

    tars = _named(_tars(request.images), request.out)
    check_asked(load(checkpoint, request.score), "image", request.texts)
    task = Task(
        model=model, weights=digest_of(checkpoint), texts=dict(request.texts), score=request.score, batch=request.batch
    )
    _claim(request.out, task)
    todo = [(tar, target) for tar, target in tars.items() if not _exists(target)]
    for tar, _ in todo:
        _check_there(tar)
    config = _cluster_config(project)
    jobs = ((tar, task) for tar, _ in todo)
    images = failed = broken = 0
    start_s = time.monotonic()
    with progress_bar("predict, tars", len(todo)) as advance:
        shared = (checkpoint.read_bytes(),)
        results = map_ordered(
            predict_tar, jobs, config, _CODE, shared=shared, use_gpu=config.use_gpu is not False,
            travels=all(is_url(tar) for tar, _ in todo),
        )  # fmt: skip
        for (_, target), result in zip(todo, results, strict=True):
            advance(1)
            if result.error is not None:
                _tell(result.error)
                broken += 1
                continue
            _write(target, result.lines)
            images, failed = images + len(result.lines), failed + result.num_failed
    seconds = time.monotonic() - start_s
    summary = {
        "model": model, "out": request.out, "tars": len(todo) - broken, "tars_done_before": len(tars) - len(todo),
        "tars_failed": broken, "images": images, "failed": failed, "images_per_s": round(images / seconds, 1),
    }  # fmt: skip
    print(json.dumps(summary, indent=1, ensure_ascii=False))
    return 1 if failed or broken else 0


def predict_tar(checkpoint: bytes, tar: str, task: Task) -> Result:
    """In a worker: the answers of a tar's images. What is wrong with the tar comes back, so that the others go on."""
    from pipeline.predicting.batches import answered, default_size, described

    predictor, lines, num_failed = _predictor(checkpoint, task), [], 0
    try:
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(tar)
            if is_url(tar):
                path = Path(temporary) / "images.tar"
                stores.save(tar, path)
            for one in answered(predictor, _items(path, tar), "image", task.texts, task.batch or default_size()):
                entry: dict[str, Any] = {"image": one.item.name, **task.texts}
                if one.error is not None:
                    entry["error"] = described(one.error)
                    num_failed += 1
                else:
                    assert one.predictions is not None
                    entry["answers"] = predictor.answers(one.predictions)
                lines.append(line_of({"model": task.model, "weights": task.weights, **entry}))
    except DataError as error:
        return Result(lines=[], num_failed=0, error=error)
    return Result(lines=lines, num_failed=num_failed)


def _predictor(checkpoint: bytes, task: Task) -> Predictor:
    from pipeline.predicting.batches import load

    key = (task.weights, task.score)
    if key not in _loaded:
        _loaded.clear()
        with tempfile.NamedTemporaryFile(suffix=".ckpt") as file:
            file.write(checkpoint)
            file.flush()
            _loaded[key] = load(Path(file.name), task.score)
    return _loaded[key]


def _items(path: Path, tar: str) -> Iterator[Item]:
    """Each sample's image, by the name of its member; of several the first by name.

    Raises:
        DataError: the tar is damaged or cannot be read.
    """
    import webdataset as wds
    from webdataset.tariterators import group_by_keys, tar_file_expander

    try:
        with open(path, "rb") as file:  # webdataset opens no files itself
            for sample in wds.DataPipeline(
                lambda: iter([{"url": tar, "stream": file}]),
                partial(tar_file_expander, handler=wds.reraise_exception),
                partial(group_by_keys, handler=wds.reraise_exception),
            ):
                yield _item(sample)
    except Exception as error:  # damage makes tarfile, zlib and webdataset raise errors of a dozen types
        why = f"{type(error).__name__}: {error.args[0] if error.args else ''}"[:200]
        raise DataError("this tar cannot be read", value=why, where=tar, fix="write or download it again") from error


def _item(sample: dict[str, Any]) -> Item:
    key = sample["__key__"]
    endings = sorted(name for name in sample if f".{name.rpartition('.')[2].lower()}" in IMAGES)
    # A mask or a second view has a part of its own before the ending: `semantic.png`.
    endings.sort(key=lambda ending: ending.count("."))
    if not endings:
        allowed = f"a member {', '.join(IMAGES)}"
        return Item(name=key, stem=key, error=DataError("this sample has no image", value=key, allowed=allowed))
    return Item(name=f"{key}.{endings[0]}", stem=key, data=sample[endings[0]])


def _tars(given: Sequence[str]) -> Iterator[str]:
    for name in given:
        found = [name]
        if is_url(name):
            if not name.endswith(".tar"):
                below = stores.listing(name.rstrip("/"))
                found = sorted(f"{name.rstrip('/')}/{inner}" for inner in below if inner.endswith(".tar"))
        elif Path(name).is_dir():
            found = sorted(map(str, Path(name).rglob("*.tar")))
        elif has_magic(name) and not Path(name).exists():
            found = sorted(glob(name, recursive=True))
        if not found:
            raise DataError("there are no tars here", value=name, allowed="files *.tar")
        yield from found


def _named(tars: Iterator[str], out: str) -> dict[str, str]:
    """Each tar with its file of answers."""
    named: dict[str, str] = {}
    of: dict[str, str] = {}
    for tar in tars:
        target = f"{out.rstrip('/')}/{PurePosixPath(tar).name.removesuffix('.tar')}.jsonl"
        if of.setdefault(target, tar) != tar:
            raise ConfigError(
                "two tars would have one file of answers", value=f"{of[target]}, {tar}", where=target,
                fix="predict for them in two calls, with another --out",
            )  # fmt: skip
        named[tar] = target
    return named


def _claim(out: str, task: Task) -> None:
    """Note whose answers a folder holds, or refuse one that holds others'."""
    path, about = f"{out.rstrip('/')}/{ABOUT}", task.about()
    if _exists(path):
        text = stores.read(path).decode() if is_url(path) else Path(path).read_text(encoding="utf-8")
        if text.strip() != json.dumps(about):
            raise ConfigError(
                "this folder has answers of another model, or asked otherwise", value=text.strip(), where=path,
                allowed=json.dumps(about), fix="name another --out",
            )  # fmt: skip
        return
    _write(path, [json.dumps(about)])


def _write(target: str, lines: list[str]) -> None:
    if not is_url(target):
        write_lines(Path(target), lines)
        return
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "answers.jsonl"
        write_lines(path, lines)
        stores.upload(path, target)


def _exists(target: str) -> bool:
    return stores.exists(target) if is_url(target) else Path(target).is_file()


def _check_there(tar: str) -> None:
    if not is_url(tar) and not Path(tar).is_file():
        raise DataError(
            "no such tar", value=tar, allowed="a file, a folder, a pattern in quotes, or s3://bucket/prefix/"
        )


def _tell(error: DataError) -> None:
    print(f"DataError: {error}", file=sys.stderr, flush=True)


def _cluster_config(project: Project) -> ClusterConfig:
    """`cluster:` of params.yaml, or the defaults where there is no such file."""
    if not (project.root / FILE).is_file():
        return ClusterConfig()
    return load_params(project.root).section(ClusterConfig, "cluster")
