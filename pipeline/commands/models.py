"""Commands of models: predict, measure, register, serve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from pipeline.commands import _predict as asked
from pipeline.commands._app import command, names
from pipeline.commands._options import Label, Model, Run, Split, Trust


@command("predict")
def predict(
    model: Model,
    images: asked.Images = None,
    question: asked.QuestionText = None,
    text: asked.Text = None,
    source: asked.Source = None,
    candidates: asked.Candidates = None,
    boxes: asked.Boxes = None,
    fps: asked.Fps = None,
    every: asked.Every = 1,
    paths: asked.Paths = None,
    score: asked.Score = None,
    batch: asked.Batch = None,
    json_file: asked.JsonFile = None,
    resume: asked.Resume = False,
    out: asked.Out = "predictions",
    no_pictures: asked.NoPictures = False,
    cluster: asked.OnCluster = False,
    track: asked.Track = False,
    trust: Trust = False,
    label: Label = None,
) -> int:
    """Predict with a trained run or a registered model; print one JSON document or JSON lines, draw pictures.

    An input that cannot be read is an entry with `error`, the rest goes on, and the exit code is 1.

    A run's name stands for its best checkpoint, read with the code of this project. A registered model comes with the
    code that it ships, which runs in a process of its own, and only if this project registered it or with
    --trust.
    """
    from pipeline.predicting.predict import run
    from pipeline.predicting.request import Request

    given = {"question": question, "text": text, "source": source, "candidates": candidates, "boxes": boxes}
    texts = {name: value for name, value in given.items() if value is not None}
    return run(
        Request(
            model=model, images=images or (), texts=texts, out=out, trust=trust, label=label, fps=fps, every=every,
            paths=paths, json=json_file, resume=resume, score=score, batch=batch, pictures=not no_pictures,
            cluster=cluster, track=track,
        )
    )  # fmt: skip


@command("serve")
def serve(
    model: Model,
    host: Annotated[str, Option(help="another address lets in whoever reaches it")] = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535, help="0: one that is free")] = 8000,
    max_mb: Annotated[float, Option(min=0.001, help="the largest body of a request, in 10^6 bytes")] = 20.0,
    batch: Annotated[int, Option(min=1, help="so many inputs are computed at once, at most")] = 8,
    wait_ms: Annotated[float, Option(min=0, max=60_000, help="so long the first of a batch waits for others")] = 5.0,
    trust: Trust = False,
    label: Label = None,
) -> int:
    """Answer over HTTP with a trained run or a registered model: image bytes in, JSON out.

    GET / says how the model is asked, with a curl command; /docs is the interface as a page, /health whether it is
    loaded. A registered model is served by the code that it ships, as `predict` runs it.
    """
    from pipeline.predicting.serve import Request, run

    request = Request(
        model=model, host=host, port=port, max_mb=max_mb, batch=batch, wait_ms=wait_ms, trust=trust, label=label
    )  # fmt: skip
    return run(request)


@command("sweep")
def sweep(
    spec: Annotated[Path, Argument(metavar="SPEC", help="a YAML file: run, num_trials, space ..", show_default=False)],
    apply: Annotated[bool, Option("--apply", help="write the best settings into params.yaml")] = False,
    queue: Annotated[int, Option("--queue-best", metavar="K", min=0, help="queue the best K for DVC")] = 0,
) -> int:
    """Try settings of a run, on Ray: which are best is shown and kept in sweeps/. Called again, it goes on."""
    from pipeline.sweeping.command import run

    return run(spec, apply=apply, queue=queue)


@command("extend")
def extend(
    run: Run,
    epochs: Annotated[int, Option(min=1, help="so many more", show_default=False)],
    name: Annotated[str | None, Option(help="of the new run; default: RUN_longer", show_default=False)] = None,
) -> None:
    """Write a run more into params.yaml: RUN with more epochs, which goes on from the state that RUN ended with.

    The schedule is planned anew for all epochs. RUN keeps its last state with `train.keep_state: true`, or where it is
    trained once another run extends it.
    """
    from pipeline.settings.extend import extend as write
    from pipeline.system.project import Project
    from pipeline.training.run_files import BEST, LAST

    project = Project.here()
    write(project, run, epochs, name or f"{run}_longer")
    trained = project.artifacts(run)
    if (trained / BEST).is_file() and not (trained / LAST).is_dir():
        print(f"note: {run} kept no state to go on from; before that: dvc repro --force --single-item train@{run}")


@command("evaluate")
def evaluate(
    model: Model,
    split: Split = None,
    dataset: Annotated[
        str | None, Option(help="a data set of params.yaml; what the model was trained on if it is not given")
    ] = None,
    out: Annotated[Path | None, Option(metavar="FOLDER", help="for predictions, plots and pictures as well")] = None,
    trust: Annotated[bool, Option("--trust", help="take a model that this project did not register")] = False,
) -> int:
    """Measure a trained model on another split or data set; show each metric with its 95 % interval.

    Writes metrics/other/<model>-<dataset>-<split>.json, with the constant predictor's numbers beside the model's. Git
    and `dvc repro` do not see it. The weights are read with the code of this project.
    """
    from pipeline.measuring.other_splits import Request, run

    return run(Request(model=model, split=split, dataset=dataset, out=out, trust=trust))


@command("export")
def export(
    model: Model,
    to: Annotated[Literal["onnx"], Option(help="the format")] = "onnx",
    out: Annotated[Path | None, Option(metavar="FOLDER", help="default: exports/<model>", show_default=False)] = None,
    split: Split = None,
    samples: Annotated[int, Option(min=0, help="records to compare on; 0: all of the split")] = 256,
    tolerance: Annotated[float, Option(min=0, help="by which the task's metric may differ")] = 0.001,
    trust: Annotated[bool, Option("--trust", help="take a model that this project did not register")] = False,
) -> int:
    """Write a trained model as ONNX files; compare them with it. Exit code 1: the task's metric differs."""
    from pipeline.predicting.export import Request, run

    return run(Request(model=model, out=out, split=split, samples=samples, tolerance=tolerance, trust=trust))


@command("score")
def score(
    task: Annotated[
        str, Argument(metavar="TASK", help=names("measuring/scorers").replace("_", "-"), show_default=False)
    ],
    truth: Annotated[Path | None, Option(metavar="PATH", help="annotation file or folder")] = None,
    predictions: Annotated[Path | None, Option(metavar="PATH", help="result file or folder")] = None,
    questions: Annotated[Path | None, Option(metavar="PATH", help="question file (vqa only)")] = None,
    out: Annotated[Path | None, Option(metavar="FILE", help="write the document there as well")] = None,
    bootstrap: Annotated[int, Option(metavar="N", help="add 95 % intervals from N resamples, such as 1000")] = 0,
    iou: Annotated[
        float | None, Option(metavar="X", help="least IoU of a hit; 0.5, the kit's, if not given (voc-boxes only)")
    ] = None,
    ignore_index: Annotated[
        str | None,
        Option(metavar="N", help="label of the truth that does not count, or `none`; default 255 (segmentation only)"),
    ] = None,
    num_classes: Annotated[int | None, Option(metavar="K", help="labels are 0 to K - 1 (segmentation only)")] = None,
    class_names: Annotated[
        str | None,
        Option(metavar="NAMES", help="of labels 0, 1, ..: a,b,c or a file with a name a line (segmentation only)"),
    ] = None,
    first_word: Annotated[str | None, Option(metavar="T,P", help="words count from 0 or 1 (alignment only)")] = None,
    no_java: Annotated[bool, Option("--no-java", help="leave METEOR and SPICE out (captions only)")] = False,
) -> int:
    """Score anybody's predictions in an official result format; print one JSON document.

    It has every metric under its official name, what it is measured on, which variant it is and what computed it; a
    metric that cannot be computed here says why. Nothing else goes to stdout.
    """
    from pipeline.measuring.score import Request, run

    return run(
        Request(
            task=task,
            truth=truth,
            predictions=predictions,
            questions=questions,
            out=out,
            bootstrap=bootstrap,
            iou=iou,
            ignore_index=ignore_index,
            num_classes=num_classes,
            class_names=class_names,
            first_word=first_word,
            no_java=no_java,
        )
    )


@command("ledger")
def ledger(run: Run) -> int:
    """Check what `train.ledger: true` wrote down: every sample once an epoch. Exit code 1: not so."""
    from pipeline.training.ledger import report

    return report(run)


@command("reproduce")
def reproduce(
    run: Annotated[str, Argument(metavar="RUN", help="a run of params.yaml, or its id in MLflow", show_default=False)],
    keep: Annotated[
        Path | None, Option(metavar="FOLDER", help="a new one, where the clone stays", show_default=False)
    ] = None,
) -> int:
    """Train a run again in a fresh clone at its commit; tell the first thing that comes out otherwise (exit code 1).

    On the same kind of processor with the same packages every number must be equal, else within the run's own 95 %
    intervals.
    """
    from pipeline.measuring.reproduce import run as reproduce_run

    return reproduce_run(run, keep=keep)


@command("promote")
def promote(
    version: Annotated[str, Argument(help="of a registered model, such as name/3", show_default=False)],
    why: Annotated[str, Option(help="kept with the version, where everybody sees it")],
    by: Annotated[str | None, Option(help="who answers for it; git's user.email if it is not given")] = None,
) -> None:
    """Make a version champion that the gate refused, or one that reigned before; who did it and why is kept."""
    from pipeline.system.project import Project
    from pipeline.tracking.promotion import promote

    done = promote(Project.here(), version, why=why, by=by)
    print(f"promote {done['model']}: version {done['version']} is champion: {done['reason']}")
