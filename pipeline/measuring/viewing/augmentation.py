"""What a run's augmentation makes of samples: what its training sees in its first epochs, with all that lies on it.

The task itself encodes each sample with the seed that training gives it; what it asks of its `Augment` is noted, done
once more with boxes, masks and label map beside the pixels, and drawn. So a task of one's own is shown, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from contracts.errors import ConfigError, SightlineError
from contracts.records import DataSpec, Record
from contracts.seeds import derive_seed
from lightning_modules.augment.augment import Augment, Augmented
from lightning_modules.augment.images import decode_semantic
from lightning_modules.base.task import BaseTask
from lightning_modules.drawing.shapes import draw_objects, enlarge, enlargement
from pipeline.measuring.viewing.pictures import data_url, label_map, names, object_masks
from pipeline.settings import discover
from pipeline.settings.params import Params, Run, load_params
from pipeline.shards.reader import SplitReader
from pipeline.system.project import Project, read_json
from pipeline.training.checkpoints import build_task
from pipeline.training.runs import Vocabulary

NUM_SAMPLES, NUM_DRAWS = 10, 4
_MOST_SHOWN = 3  # different augmentations, where no run is named
_WIDTH_PX = 192


class Row(NamedTuple):
    """One sample: as it is resized without augmentation, and as it is in each of the first epochs; data URLs."""

    key: str
    plain: str
    draws: list[str]


class Changes(NamedTuple):
    """What runs with the same augmentation see. `settings` are what is drawn at random, in words; `note` says what is
    left out, or why nothing is shown."""

    runs: list[str]
    settings: str
    rows: list[Row]
    note: str = ""


def check_runs(project: Project, dataset: str, runs: Sequence[str]) -> None:
    """Raise ConfigError unless each of these runs is one of params.yaml and of this data set."""
    params = load_params(project.root) if runs else None
    for name in runs:
        assert params is not None
        if (of := params.run_dataset(name)) != dataset:
            mine = [run for run in params.document["runs"] if _dataset(params, run) == dataset]
            raise ConfigError(
                "this run is trained on another data set", value=f"{name}, on {of}", where="--run",
                allowed=", ".join(mine) or f"no run of params.yaml is trained on {dataset}",
                fix=f"sightline view {of} --run {name}",
            )  # fmt: skip


def show_changes(
    project: Project, manifest: Mapping[str, Any], reader: SplitReader, runs: Sequence[str], *, seed: int
) -> list[Changes]:
    """Ten samples of the training split under the augmentation of `runs`, or of all runs on the data set.

    Args:
        reader: of the training split. seed: draws the samples; what is done to them is the run's own matter.

    Raises:
        SightlineError: a run that is named cannot be made, as without its vocabulary. Of others the page says so.
    """
    try:
        params = load_params(project.root)
    except SightlineError as error:
        return [Changes([], "", [], f"params.yaml cannot be read, which says what is drawn: {error}")]
    mine = runs or [name for name in params.document["runs"] if _dataset(params, name) == manifest["dataset"]]
    groups: dict[Any, tuple[list[str], Run, BaseTask]] = {}
    failed = []
    for name in mine:
        try:
            run, task = _made(project, params, name, manifest)
        except SightlineError as error:
            if runs:
                raise
            failed.append(Changes([name], "", [], f"cannot be shown: {error}"))
            continue
        groups.setdefault(_what_decides(run, task), ([], run, task))[0].append(name)
    shown = list(groups.values())
    some = shown if runs else shown[:_MOST_SHOWN]
    found = [_changes(names_of, run, task, reader, manifest["classes"], seed) for names_of, run, task in some]
    left = [name for names_of, _, _ in shown[len(some) :] for name in names_of]
    if left:
        failed.append(Changes(left, "", [], "not shown here, to keep the page small: `--run` shows them"))
    return found + failed


def _dataset(params: Params, run: str) -> Any:
    entry = params.document["runs"][run]
    return entry.get("dataset") if isinstance(entry, Mapping) else None


def _made(project: Project, params: Params, name: str, manifest: Mapping[str, Any]) -> tuple[Run, BaseTask]:
    """A run and its task. Unlike for training, no run that it starts from must be there."""
    run, counted = params.run(name), {}
    path = project.vocabulary(run.dataset)
    if path.exists():
        fix = f"dvc repro --force vocab@{run.dataset}"
        texts = discover.load("task", run.task_name, where=f"runs.{name}.task").Task.texts
        document = read_json(path, "the vocabulary", fix, Vocabulary)
        counted = {text: document[text] for text in texts if text in document}
    spec = DataSpec(dataset=run.dataset, classes=tuple(manifest["classes"]), vocabulary=counted)
    return run, build_task(run.to_dict(), spec)


def _augment_of(task: BaseTask) -> tuple[str, Augment] | None:
    """Its place in the task: docs/adding.md asks every task that looks at pictures for one."""
    return next(((name, value) for name, value in vars(task).items() if isinstance(value, Augment)), None)


def _what_decides(run: Run, task: BaseTask) -> Any:
    """Runs of which this is equal see the same of each sample."""
    found = _augment_of(task)
    augment = (repr(found[1].config), found[1].size, found[1].mode, found[1].center) if found else None
    return (run.task_name, augment, getattr(task.config, "mirror", None), run.train.seed)


def _in_words(augment: Augment, mirror: float) -> str:
    config = augment.config
    on = {name: value for name in config.__dataclass_fields__ if (value := getattr(config, name))}
    on.pop("min_visibility", None)
    if mirror:
        on = {"mirror": mirror, **on}
    height, width = augment.size
    size = f"{width} x {height} px, {augment.mode}"
    return f"{size}; " + (", ".join(f"{name}: {value}" for name, value in on.items()) or "nothing is drawn at random")


def _changes(
    runs: list[str], run: Run, task: BaseTask, reader: SplitReader, classes: Sequence[str], seed: int
) -> Changes:
    found = _augment_of(task)
    if found is None:
        return Changes(runs, "", [], f"the task {run.task_name} changes no pictures")
    attribute, augment = found
    noting = _Noting(augment)
    setattr(task, attribute, noting)
    places = reader.select(task.requires)
    order = np.random.default_rng(seed).permutation(len(places))[:NUM_SAMPLES]
    rows = []
    for place in places[order].tolist():
        record = reader.read(place)
        seeds = [None, *(derive_seed(run.train.seed, epoch, record.key) for epoch in range(NUM_DRAWS))]
        seen = [noting.seen(task, record, one, classes) for one in seeds]
        if pictures := [data_url(picture, _WIDTH_PX) for picture in seen if picture is not None]:
            rows.append(Row(record.key, pictures[0], pictures[1:]))
    own = run.loader.stages.names
    note = f"what loader.stages does ({', '.join(own)}) is not shown" if own else ""
    return Changes(runs, _in_words(augment, getattr(task.config, "mirror", 0.0)), rows, note)


class _Noting(Augment):
    """Does what the task's own `Augment` does, and keeps what it was asked."""

    def __init__(self, augment: Augment):
        super().__init__(augment.config, size=augment.size, mode=augment.mode, center=augment.center)
        self._asked: dict[str, Any] | None = None

    def __call__(self, image: Any, frame: Any, **given: Any) -> Augmented:
        self._asked = {"image": image, "frame": frame, **given}
        return super().__call__(image, frame, **given)

    def seen(self, task: BaseTask, record: Record, seed: int | None, classes: Sequence[str]) -> np.ndarray | None:
        """What training sees of a record, (h, w, 3) uint8, annotations drawn on it; None: it asked for nothing.

        Where the task gives boxes or a label map itself these are drawn, else those that the record has.
        """
        self._asked = None
        task.encode(record, seed)
        asked: dict[str, Any] | None = self._asked
        if asked is None:
            return None
        draw = self.draw(seed, asked["frame"], mirror=asked.get("mirror"), boxes=asked.get("boxes"))
        on = {name: asked[name] for name in ("boxes", "masks", "semantic") if asked.get(name) is not None}
        if not on and record.media == "image":
            on = _all_of(record)
        changed = self.apply(draw, asked["image"], **on)
        pixels = changed.image if changed.image.ndim == 3 else changed.image[len(changed.image) // 2]
        if changed.semantic is not None:
            return label_map(pixels, changed.semantic, classes)
        if not len(changed.boxes):
            return enlarge(pixels, enlargement(pixels))
        labels, texts = np.ones(len(on["boxes"]), np.int64), [""] * len(on["boxes"])
        if np.array_equal(on["boxes"], record.objects.boxes):  # and no candidates of a question
            labels, texts = record.objects.labels, names(record, classes)
        chosen = changed.indices
        return draw_objects(pixels, changed.boxes, labels[chosen], [texts[i] for i in chosen], changed.masks)


def _all_of(record: Record) -> dict[str, Any]:
    on: dict[str, Any] = {}
    if len(record.objects):
        on["boxes"] = record.objects.boxes
        if all(record.objects.masks):
            on["masks"] = object_masks(record)
    elif record.semantic_mask:
        on["semantic"] = decode_semantic(record.semantic_mask)
    return on
