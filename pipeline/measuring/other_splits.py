"""`sightline evaluate`: a trained run, a registered model or a checkpoint on any split of any data set that is sharded.

    sightline evaluate segmentation_fcn --split test
    sightline evaluate vqa_lstm@champion --dataset other

The weights are read with the code of this project; nothing that a registered model ships is run. What comes out lies in
metrics/other, which git does not see and no stage knows: `dvc repro` has nothing to do because of it.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import DataError, SightlineError
from contracts.records import DataSpec
from pipeline.cluster import once
from pipeline.settings.params import Params, Run, load_params
from pipeline.settings.sections import ClusterConfig
from pipeline.shards.manifest import MANIFEST, load_manifest
from pipeline.system import lock
from pipeline.system.disk import write_text
from pipeline.system.project import Project, read_json, write_json
from pipeline.tracking.names import Named, checkpoint_of, exact, named

if TYPE_CHECKING:
    from pipeline.training.fit import Placement

FOLDER = "other"  # below metrics
NUM_PICTURES = 8  # with --out
PREDICTIONS, PLOTS = "predictions.jsonl", "plots"
_DOCUMENT, _WEIGHTS = "measured.json", "weights.ckpt"
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the command line says. `split` None: test where the data set has one, else val; `dataset` None: what the
    model was trained on; `out`: a folder for predictions and plots as the evaluate stage has them."""

    model: str
    split: str | None
    dataset: str | None
    out: Path | None
    trust: bool


@dataclass(frozen=True, kw_only=True)
class Asked:
    """
    Attributes:
        run_name: of the checkpoint. now: the run as params.yaml has it, or None (`Evaluation`).
        shards: where they are seen; None where they come from a store.
        details: whether predictions and plots are wanted, too.
    """

    run_name: str
    split: str
    now: Run | None
    shards: Path | None
    details: bool


def run(request: Request) -> int:
    """The command: measure, write the metrics file, show the numbers."""
    project = Project.here()
    params = load_params(project.root)
    chosen = exact(project, named(project, request.model))
    if request.dataset is not None:  # told before anything slow is imported
        _sharded(project, params, request.dataset, request.split)
    with ExitStack() as held:
        checkpoint = checkpoint_of(project, chosen, held, trust=request.trust)
        document = _loaded(checkpoint)
        dataset = request.dataset or str(document["run"]["dataset"])
        split = _sharded(project, params, dataset, request.split)
        what = f"the shards of data set {dataset}"
        held.enter_context(lock.hold(project.locks, f"shards-{dataset}", what, shared=True))
        for note in check_fit(document, project, dataset):
            print(f"note: {note}")
        asked = Asked(
            run_name=str(document["run"]["name"]), split=split, now=_as_now(params, chosen),
            shards=project.shards(dataset), details=request.out is not None,
        )  # fmt: skip
        folder = Path(held.enter_context(tempfile.TemporaryDirectory()))
        measure(folder, checkpoint, asked, document["run"], params.section(ClusterConfig, "cluster"), project.root)
        measured: dict[str, Any] = json.loads((folder / _DOCUMENT).read_text(encoding="utf-8"))
        path = _write(project, request, folder, measured, label_of(chosen), chosen)
    show(measured, request.model, dataset)
    print(f"written to {path.relative_to(project.root)}")
    return 0


def _loaded(checkpoint: Path) -> dict[str, Any]:
    from pipeline.training.checkpoints import load_best

    return load_best(checkpoint)


def _sharded(project: Project, params: Params, dataset: str, split: str | None) -> str:
    """The split to measure, of a data set that is sharded.

    Raises:
        ConfigError: params.yaml has no such data set.
        DataError: it is not sharded yet, or has no such split.
    """
    params.require("datasets", dataset)
    folder = project.shards(dataset)
    if not (folder / MANIFEST).is_file():
        raise DataError(
            "this data set is not sharded yet", value=dataset, where=str(folder), fix=f"dvc repro shard@{dataset}"
        )
    splits = load_manifest(folder, dataset)["splits"]
    if split is not None and split not in splits:
        raise DataError(
            f"data set {dataset} has no such split", value=split, where=str(folder), allowed=", ".join(splits)
        )
    return split or ("test" if "test" in splits else "val")


def check_fit(document: Mapping[str, Any], project: Project, dataset: str) -> list[str]:
    """Compare what a checkpoint knows of its own data with another data set.

    Returns:
        What a reader of the numbers should know: which share of the other data set's words the model has never seen.

    Raises:
        DataError: the classes are others, for a task that learns classes; or it knows no word of the other's texts.
    """
    data = DataSpec.from_dict(document["data"])
    folder = project.shards(dataset)
    classes = tuple(load_manifest(folder)["classes"])
    if classes != data.classes and _learns_classes(document["run"], data):
        raise DataError(
            f"the classes of data set {dataset} are not those that this model was trained on",
            value=_difference(data.classes, classes),
            where=str(folder / MANIFEST),
            allowed="the same classes in the same order: " + _listed(data.classes),
            fix="a model says classes by number; name another data set, or the classes of its source in this order",
        )
    path = project.vocabulary(dataset)
    if dataset == data.dataset or not path.is_file():
        return []
    from pipeline.training.runs import Vocabulary

    counted: Mapping[str, Any] = read_json(path, "the vocabulary", f"dvc repro --force vocab@{dataset}", Vocabulary)
    return _unknown_words(data, counted, dataset)


def _learns_classes(run: Mapping[str, Any], data: DataSpec) -> bool:
    """Whether the task tells its model of the data set's classes: with one more it tells something else."""
    from pipeline.training.checkpoints import build_task

    more = replace(data, classes=(*data.classes, "one more"))
    return build_task(run, data).spec() != build_task(run, more).spec()


def _difference(own: tuple[str, ...], other: tuple[str, ...]) -> str:
    missing, new = ([name for name in a if name not in b] for a, b in ((own, other), (other, own)))
    parts = [f"{what} {_listed(names)}" for what, names in (("lacking", missing), ("new", new)) if names]
    return "; ".join(parts) or "in another order: " + _listed(other)


def _listed(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "") or "none"


def _unknown_words(data: DataSpec, counted: Mapping[str, Any], dataset: str) -> list[str]:
    notes = []
    for text, own in data.vocabulary.items():
        known = {token for token, _ in own}
        total = sum(int(count) for _, count in counted.get(text, ()))
        seen = sum(int(count) for token, count in counted.get(text, ()) if token in known)
        if total and not seen:
            raise DataError(
                f"this model knows no word of the {text} of data set {dataset}",
                value=[token for token, _ in counted[text][:_SHOWN]],
                where=f"data/vocab/{dataset}.json: {text}",
                allowed="texts in the words that it was trained on, such as " + _listed([token for token, _ in own]),
                fix="name a data set in the same language and notation",
            )
        if seen < total:
            notes.append(f"{(total - seen) / total:.1%} of the {text} of {dataset} are not in this model's vocabulary")
    return notes


def _as_now(params: Params, chosen: Named) -> Run | None:
    """The run as params.yaml has it, which says how data is read and in which batches."""
    if chosen.run is None or chosen.run not in params.document["runs"]:
        return None
    return params.run(chosen.run)


def measure(
    folder: Path, checkpoint: Path, asked: Asked, run: Mapping[str, Any], cluster: ClusterConfig, root: Path
) -> None:
    """Write what is asked into `folder`; on a joined cluster its workers find it out.

    Args:
        run: as the checkpoint has it: what measuring it takes.
    """
    if not once.is_joined(cluster):
        write_measured(folder, checkpoint, asked)
        return
    assert asked.shards is not None
    files, place = once.shards_sent(asked.shards)
    files[_WEIGHTS], given = checkpoint.read_bytes(), replace(asked, shards=place)
    run = run if asked.now is None else asked.now.to_dict()
    wanted = (_DOCUMENT, PREDICTIONS, PLOTS)
    once.write_below(folder, once.on_workers(_measure_there, given, files, wanted, run, cluster, root)[0])


def _measure_there(folder: Path, placement: Placement, asked: Asked) -> None:
    write_measured(folder, folder / _WEIGHTS, replace(asked, shards=asked.shards or folder), placement)


def write_measured(folder: Path, checkpoint: Path, asked: Asked, placement: Placement | None = None) -> None:
    """Raises:
    DataError: the code of this project cannot load the weights, or nothing of the split can be measured.
    """
    from pipeline.measuring.evaluation import Evaluation, lacking
    from pipeline.training.checkpoints import load_module

    assert asked.shards is not None
    try:
        module, document = load_module(checkpoint)
    except (SightlineError, RuntimeError, TypeError, KeyError) as error:
        raise DataError(
            "the code of this project cannot load these weights", value=str(error)[:300], where=str(checkpoint),
            fix="check out the commit that trained it, or train it anew",
        ) from error  # fmt: skip
    missing = lacking(load_manifest(asked.shards), asked.split, module.task)
    evaluation = None
    if not missing:
        evaluation = Evaluation(checkpoint, asked.shards, asked.split, now=asked.now, placement=placement)
        if not evaluation.is_first:
            return
    if evaluation is None or not evaluation.has_truth:
        raise DataError(
            f"nothing of split {asked.split!r} can be measured: "
            + (f"no sample has {', '.join(missing)}" if missing else "no truth is known of its items"),
            where=str(asked.shards),
            fix=f"name a split, or a data set, that has what the task {document['run']['task_name']} is measured by",
        )
    write_json(folder / _DOCUMENT, evaluation.document(asked.run_name))
    if asked.details:
        evaluation.write_details(folder / PREDICTIONS, folder / PLOTS, evaluation.pictures(NUM_PICTURES))


def label_of(chosen: Named) -> str:
    """The model in a file's name: `run`, `model-v3`, or of a checkpoint's file its folder and its own name."""
    if chosen.run is not None:
        return chosen.run
    if chosen.checkpoint is not None:
        name = f"{chosen.checkpoint.resolve().parent.name}-{chosen.checkpoint.stem}"
    else:
        name = re.sub(r"/(\d+)$", r"-v\1", str(chosen.uri).partition(":/")[2])
    return re.sub(r"[^\w.@-]+", "-", name).strip("-.") or "model"


def _write(
    project: Project, request: Request, measured: Path, document: Mapping[str, Any], label: str, chosen: Named
) -> Path:
    folder = project.root / "metrics" / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / ".gitignore", "*\n")  # or every measurement would make the work tree dirty
    path = folder / f"{label}-{document['dataset']}-{document['split']}.json"
    if request.out is not None:
        out, files = request.out.resolve(), once.files_below(measured, PREDICTIONS, PLOTS)
        for name in (PREDICTIONS, PLOTS):
            once.lay(out / name, files, inside=out)
    write_json(path, {"model": chosen.uri or chosen.given, **document})
    return path


def show(document: Mapping[str, Any], model: str, dataset: str) -> None:
    """Print every metric with its interval and the constant predictor's, the one that models are chosen by first."""
    from rich.console import Console
    from rich.table import Table

    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.4f}"

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("metric", no_wrap=True)
    for column in ("value", "low", "high", "constant"):
        table.add_column(column, justify="right", no_wrap=True)
    chosen_by, intervals = document["metric"], {m["name"]: m["interval_95"] for m in document["measured"]}
    for name in sorted(document["metrics"], key=lambda name: name != chosen_by):
        low, high = intervals.get(name) or (None, None)
        numbers = (document["metrics"][name], low, high, document["constant"].get(name))
        table.add_row(name, *map(number, numbers), style="bold" if name == chosen_by else None)
    samples = f"{document['num_samples']} samples, {document['num_items']} items"
    print(f"{model} on {document['split']} of {dataset}: {samples}; low and high: 95 % interval")
    Console(highlight=False, width=None if Console().is_terminal else 120).print(table)
