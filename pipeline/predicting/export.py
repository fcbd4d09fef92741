"""`sightline export`: a trained model as ONNX files, with proof that they say what it says.

    sightline export segmentation_fcn --to onnx
    sightline export vqa_lstm@champion --samples 0

Writes `<out>/model.onnx`, of a model that writes words `encoder.onnx` and `step.onnx`, beside `export.json`, which
tells how to use them. The weights are read with the code of this project. Exit code 1: the task's metric differs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import ConfigError, DataError
from pipeline.shards.manifest import MANIFEST, load_manifest
from pipeline.system import lock
from pipeline.system.disk import publish, write_text
from pipeline.system.project import Project, write_json
from pipeline.tracking.names import Named, checkpoint_of, exact, named

if TYPE_CHECKING:
    from lightning_modules.base.module import TaskModule
    from lightning_modules.base.task import BaseTask
    from pipeline.predicting.parity import Exported, Parity

SAMPLES = 256
DOCUMENT = "export.json"
_LATENCY_RECORDS = 8
_MODES = {
    "stretch": "stretched to that size",
    "letterbox": "scaled, keeping its shape, to fit; in the upper left corner; the rest is grey 124, 116, 104",
    "cover": "the middle of it: `center` of the largest part with that shape, scaled to that size",
    "line": "scaled, keeping its shape, to that height; cut or filled with grey on the right",
}


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the command line says.

    Attributes:
        out: the folder to write; None: `exports/<model>`.
        split: to compare on; None: test where the data set has one, else val.
        samples: how many records of it, the first ones; 0: all.
        tolerance: by how much the task's metric may differ, of a metric above 1 by so large a share of it.
    """

    model: str
    out: Path | None
    split: str | None
    samples: int
    tolerance: float
    trust: bool


def run(request: Request) -> int:
    """The command: write the files, compare, show both tables.

    Raises:
        ConfigError: nothing is called so, or the model is not exported, with the reason.
        DataError: the checkpoint cannot be read, or its data set has no such split.
    """
    project = Project.here()
    chosen = exact(project, named(project, request.model))
    with ExitStack() as held:
        checkpoint = checkpoint_of(project, chosen, held, trust=request.trust)
        from pipeline.training.checkpoints import load_module

        module, document = load_module(checkpoint)
        shards = _shards(project, document["run"]["dataset"])
        split = None if shards is None else _split(shards, request.split)
        if shards is not None:
            what = f"the shards of data set {document['run']['dataset']}"
            held.enter_context(lock.hold(project.locks, f"shards-{document['run']['dataset']}", what, shared=True))
        out = request.out or Path("exports") / _label(chosen)
        return _export(request, module, document, checkpoint, out, shards, split)


def _label(chosen: Named) -> str:
    from pipeline.measuring.other_splits import label_of

    return label_of(chosen)


def _shards(project: Project, dataset: str) -> Path | None:
    folder = project.shards(dataset)
    return folder if (folder / MANIFEST).is_file() else None


def _split(shards: Path, asked: str | None) -> str:
    splits = load_manifest(shards)["splits"]
    if asked is not None and asked not in splits:
        raise DataError("this data set has no such split", value=asked, where=str(shards), allowed=", ".join(splits))
    return asked or ("test" if "test" in splits else "val")


def _export(
    request: Request,
    module: TaskModule,
    document: Mapping[str, Any],
    checkpoint: Path,
    out: Path,
    shards: Path | None,
    split: str | None,
) -> int:
    from pipeline.predicting.parity import compare, export_model, latencies, read_records, refuse

    refuse(module, document["run"]["model_name"])
    if out.exists() and not out.is_dir():
        raise ConfigError("--out is a file", value=str(out), allowed="a folder, which is made where there is none")
    out.mkdir(parents=True, exist_ok=True)
    if request.out is None:
        write_text(out.parent / ".gitignore", "*\n")  # or every export would make the work tree dirty
    # Whoever reads `out` meanwhile, or after an interruption, finds whole files or none.
    with tempfile.TemporaryDirectory(dir=out, prefix=".part-") as temporary:
        part = Path(temporary)
        exported = export_model(module, document["run"]["model_name"], part)
        files = sorted(part.glob("*.onnx"))
        described = describe(module, document, checkpoint, exported, part)
        parity = None
        if shards is not None and split is not None:
            records = read_records(shards, split, module.task, request.samples or None)
            parity = compare(module, exported, records, split)
            first = list(islice(read_records(shards, split, module.task, _LATENCY_RECORDS), _LATENCY_RECORDS))
            described["parity"] = _of_parity(parity, request.tolerance)
            described["latency"] = {"threads": _threads(), "device": "cpu", "rows": latencies(module, exported, first)}
        for file in files:
            publish(file, out / file.name)
    write_json(out / DOCUMENT, described)
    return _tell(request, described, parity, [out / file.name for file in files], document["run"]["dataset"])


def describe(
    module: TaskModule, document: Mapping[str, Any], checkpoint: Path, exported: Exported, folder: Path
) -> dict[str, Any]:
    """What whoever runs the files must know, as `export.json` has it."""
    import onnx
    import onnxruntime
    import torch

    from pipeline.predicting.graphs._parts import OPSET
    from pipeline.training.checkpoints import file_sha256

    run, task = document["run"], module.task
    files = {}
    for graph in exported.graphs:
        told = exported.sessions[graph.name].described()
        for end, values in (("inputs", graph.inputs), ("outputs", graph.outputs)):
            for row, value in zip(told[end], values, strict=True):
                row["meaning"] = value.meaning
        file = f"{graph.name}.onnx"
        files[file] = {"sha256": file_sha256(folder / file), **told}
    return {
        "run": run["name"],
        "task": run["task_name"],
        "model": run["model_name"],
        "checkpoint_sha256": file_sha256(checkpoint),
        "opset": OPSET,
        "versions": {"torch": torch.__version__, "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__},
        "files": files,
        **({"images": told_images} if (told_images := _images(task)) else {}),
        "classes": list(task.data.classes),
        **_words(task),
    }


def _images(task: BaseTask) -> dict[str, Any]:
    """How a picture becomes an input."""
    augment = getattr(task, "_augment", None)
    if augment is None:
        return {}
    told = {
        "height": augment.size[0],
        "width": augment.size[1],
        "layout": "RGB, channels first, uint8",
        "resize": augment.mode,
        "resize_means": _MODES[augment.mode],
        "interpolation": "OpenCV's INTER_AREA where a picture becomes much smaller, INTER_LINEAR otherwise",
        "normalization": "inside the graph: give 0 to 255",
    }
    return told | ({"center": augment.center} if augment.mode == "cover" else {})


def _words(task: BaseTask) -> dict[str, Any]:
    """Vocabularies by id, lists of answers, and how numbers become probabilities."""
    from contracts.text import Vocabulary

    told: dict[str, Any] = {
        name.strip("_"): {"tokenizer": value.tokenizer, "tokens": list(value.tokens)}
        for name, value in vars(task).items()
        if isinstance(value, Vocabulary)
    }
    if isinstance(answers := getattr(task, "answers", None), list):
        told["answers"] = answers
    if (loss := getattr(task.config, "loss", None)) in ("softmax", "sigmoid"):
        told["activation"] = loss
    elif task.spec_class.protocol.__name__ in ("Classifier", "SequenceClassifier"):
        told["activation"] = "sigmoid" if "multilabel" in type(task).__module__ else "softmax"
    return told


def _of_parity(parity: Parity, tolerance: float) -> dict[str, Any]:
    return {
        "split": parity.split,
        "num_samples": parity.num_samples,
        "num_items": parity.num_items,
        "metric": parity.metric,
        "tolerance": tolerance,
        "holds": parity.holds(tolerance),
        "largest_difference": {k: _finite(v) for k, v in parity.differences.items()},
        "metrics": {k: {"torch": own, "onnx": other} for k, (own, other) in sorted(parity.metrics.items())},
    }


def _finite(value: float) -> float | None:
    return None if value == float("inf") else value


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _tell(
    request: Request, described: Mapping[str, Any], parity: Parity | None, files: Sequence[Path], dataset: str
) -> int:
    print("written: " + ", ".join(f"{file} ({file.stat().st_size / 1e6:.1f} MB)" for file in files))
    print(f"written: {files[0].parent / DOCUMENT}")
    if parity is None:
        print(f"not compared: the data set {dataset} is not sharded here; `dvc repro shard@{dataset}`")
        return 0
    _show(described)
    if parity.holds(request.tolerance):
        return 0
    print(f"the two differ: {parity.metric} by more than {request.tolerance:g}")
    return 1


def _show(described: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    def table(*columns: str) -> Table:
        out = Table(box=None, pad_edge=False, header_style="bold")
        for i, column in enumerate(columns):
            out.add_column(column, justify="right" if i else "left", no_wrap=True)
        return out

    parity, latency = described["parity"], described["latency"]
    console = Console(highlight=False, width=None if Console().is_terminal else 120)
    print(f"\n{parity['split']}: {parity['num_samples']} samples, {parity['num_items']} items")
    metrics = table("metric", "torch", "onnx", "difference")
    for name in sorted(parity["metrics"], key=lambda name: name != parity["metric"]):
        own, other = parity["metrics"][name]["torch"], parity["metrics"][name]["onnx"]
        style = "bold" if name == parity["metric"] else None
        metrics.add_row(name, f"{own:.4f}", f"{other:.4f}", f"{other - own:+.1e}", style=style)
    console.print(metrics)
    outputs = table("output", "largest difference")
    for name, value in parity["largest_difference"].items():
        outputs.add_row(name, "other shapes" if value is None else f"{value:.1e}")
    console.print(outputs)
    print(f"\nms a record on the CPU, {latency['threads']} threads")
    times = table("batch", "torch", "onnx")
    for row in latency["rows"]:
        times.add_row(str(row["batch"]), f"{row['torch_ms']:.2f}", f"{row['onnx_ms']:.2f}")
    console.print(times)
