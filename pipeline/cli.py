"""`sightline`: every command of this project.

What a command does is imported when it is asked for, so that `--help` is quick. Exit codes: 0; 1 where something was
looked for and found wanting; 2 for an error that the user can mend, told in full without a traceback; 130 when
interrupted.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer import Argument, Option

from pipeline.system.guard import UMASK_HELP, ended_plainly, guard_process

_HERE = Path(__file__).resolve().parent


def _names(folder: str) -> str:
    """Of parts, for a help text: files, so that nothing is imported to list them."""
    return ", ".join(sorted(path.stem for path in (_HERE / folder).glob("[!_]*.py")))


app = typer.Typer(
    epilog=UMASK_HELP,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # rich alone would take longer than all of --help
    pretty_exceptions_enable=False,  # they show values, secrets too
    # Without the default, typer asks pydantic whether "no --help" is a truth, which takes as long as all else.
    context_settings={"help_option_names": ["-h", "--help"], "default_map": {"help": False}},
)


def _tell_version(asked: bool) -> None:
    if asked:
        from contracts import __version__

        print(f"sightline {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, Option("--version", callback=_tell_version, is_eager=True, help="Tell it and exit.")
    ] = False,
) -> None:
    """From raw vision-and-language data to registered models. Run it in a project's folder."""


Dataset = Annotated[str, Argument(metavar="DATASET", help="a data set of params.yaml", show_default=False)]
Run = Annotated[str, Argument(metavar="RUN", help="a run of params.yaml", show_default=False)]


def command(name: str, **settings: Any) -> Callable[[Callable[..., int | None]], Callable[..., None]]:
    """Make a function a command: guarded before it does anything, and ended as the head of this file says."""

    def register(work: Callable[..., int | None]) -> Callable[..., None]:
        @functools.wraps(work)
        def framed(*arguments: Any, **keywords: Any) -> None:
            with ended_plainly():
                guard_process()
                code = work(*arguments, **keywords)
            sys.exit(code or 0)

        return app.command(name, **settings)(framed)

    return register


@command("check")
def check(
    out: Annotated[Path | None, Option(metavar="FILE", help="written when all is well: DVC's output")] = None,
    settings: Annotated[Path | None, Option(metavar="FOLDER", help="for the resolved settings of every run")] = None,
    code: Annotated[Path | None, Option(metavar="FOLDER", help="for a digest of the code of every stage")] = None,
) -> None:
    """Tell every mistake in params.yaml at once, without running anything."""
    from pipeline.ingest.folders import hints
    from pipeline.settings.check import run
    from pipeline.settings.outline import with_outlines

    with_outlines(lambda: run(out, settings, code, hints=hints))


@command("init")
def init(
    folder: Annotated[Path, Argument(help="a new or empty folder", show_default=False)],
    data: Annotated[Path, Option(metavar="FOLDER", help="the data, read where it lies")],
    task: Annotated[str, Option(metavar="TASK", help=_names("../lightning_modules/tasks"))],
    source: Annotated[
        str | None, Option(metavar="SOURCE", help=f"{_names('ingest/sources')}; found out where it is not given")
    ] = None,
) -> None:
    """Write a project for data of your own, anywhere: it runs as it stands, by `sightline repro` in its folder."""
    from pipeline.ingest.new_project import load_sources, write_project
    from pipeline.settings.outline import with_outlines

    load_sources(data)  # these do work here; tasks and models are only looked at
    with_outlines(lambda: write_project(folder, data, task, source))


@command("repro", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def repro_(context: typer.Context) -> int:
    """Check params.yaml, then run what changed: data, shards, training, evaluation, registration.

    Arguments are those of `dvc repro`, such as `register@my_run`.
    """
    from pipeline.ingest.folders import hints
    from pipeline.settings.check import run
    from pipeline.settings.code import CODE, PACKAGES
    from pipeline.settings.outline import with_outlines
    from pipeline.system.git import tell_dvc
    from pipeline.system.repro import repro
    from pipeline.tracking.lineage import VARIABLES, commit_of

    with_outlines(lambda: run(None, None, hints=hints))
    tell_dvc(Path.cwd())
    told = any(os.environ.get(name) for name in VARIABLES) or any(Path(package).is_dir() for package in PACKAGES)
    os.environ |= {} if told else commit_of(CODE)
    # The environment and the umask go with it, so that DVC's cache is the user's, too.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return repro(context.args)


@command("predict")
def predict(
    model: Annotated[
        str,
        Argument(
            help="a run, a registered model (name, name@champion, name/version, models:/.., runs:/..) or a .ckpt file",
            show_default=False,
        ),
    ],
    images: Annotated[
        list[Path] | None,
        Argument(
            metavar="IMAGE...",
            help="JPEG or PNG files; where the model takes clips, folders of frames, animated images or videos",
            show_default=False,
        ),
    ] = None,
    question: Annotated[str | None, Option(help="the question to answer, where the model takes one")] = None,
    text: Annotated[str | None, Option(help="the text to read, where the model takes one")] = None,
    source: Annotated[str | None, Option(help="the sentence to translate, where the model takes one")] = None,
    candidates: Annotated[str | None, Option(help='answers to choose from: "red | dark blue | green"')] = None,
    boxes: Annotated[str | None, Option(help='to point at, in pixels: "x1,y1,x2,y2 | x1,y1,x2,y2 .."')] = None,
    fps: Annotated[
        float | None, Option(min=0.001, help="frames a second of clips; what their files say, else 25, if not given")
    ] = None,
    out: Annotated[Path, Option(help="folder of the pictures")] = Path("predictions"),
    trust: Annotated[
        bool, Option("--trust", help="run the code of a model that this project did not register")
    ] = False,
    label: Annotated[str | None, Option(hidden=True)] = None,
) -> int:
    """Predict for image files with a trained run or a registered model; print one JSON document, draw pictures.

    A run's name stands for its best checkpoint, read with the code of this project. A registered model comes with the
    code that it ships, which runs in a process of its own, and only if this project registered it or with
    --trust.
    """
    from pipeline.predicting.predict import Request, run

    given = {"question": question, "text": text, "source": source, "candidates": candidates, "boxes": boxes}
    texts = {name: value for name, value in given.items() if value is not None}
    return run(Request(model=model, images=images or (), texts=texts, out=out, trust=trust, label=label, fps=fps))


@command("evaluate")
def evaluate(
    model: Annotated[
        str,
        Argument(
            help="a run, a registered model (name, name@champion, name/version, models:/..) or a .ckpt file",
            show_default=False,
        ),
    ],
    split: Annotated[
        Literal["train", "val", "test"] | None,
        Option(help="test where the data set has one, else val, if it is not given", show_default=False),
    ] = None,
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


@command("score")
def score(
    task: Annotated[
        str, Argument(metavar="TASK", help=_names("measuring/scorers").replace("_", "-"), show_default=False)
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

    labels = {"ignore_index": ignore_index, "num_classes": num_classes, "class_names": class_names}
    options = {"bootstrap": bootstrap, "iou": iou, "first_word": first_word, "no_java": no_java}
    files = {"truth": truth, "predictions": predictions, "questions": questions, "out": out}
    return run(Request(task=task, **files, **labels, **options))


@command("sweep")
def sweep(
    spec: Annotated[Path, Argument(metavar="SPEC", help="a YAML file: run, num_trials, space ..", show_default=False)],
    apply: Annotated[bool, Option("--apply", help="write the best settings into params.yaml")] = False,
    queue: Annotated[int, Option("--queue-best", metavar="K", min=0, help="queue the best K for DVC")] = 0,
) -> int:
    """Try settings of a run, on Ray: which are best is shown and kept in sweeps/. Called again, it goes on."""
    from pipeline.sweeping.command import run

    return run(spec, apply=apply, queue=queue)


@command("ledger")
def ledger(run: Run) -> int:
    """Check what `train.ledger: true` wrote down: every sample once an epoch. Exit code 1: not so."""
    from pipeline.training.ledger import report

    return report(run)


@command("ui")
def ui(
    port: Annotated[int, Option()] = 5000,
    host: Annotated[str, Option(help="another address shows everything to whoever reaches it")] = "127.0.0.1",
) -> None:
    """Open the MLflow UI on what was trained."""
    from pipeline.tracking.ui import open_ui

    open_ui(host, port)


@command("heal")
def heal(
    outputs: Annotated[
        list[str] | None, Argument(metavar="[OUTPUT]...", help="such as data/shards/coco; default: everything")
    ] = None,
    yes: Annotated[bool, Option("--yes", help="remove what is damaged; then `dvc pull`, or `dvc repro`")] = False,
) -> int:
    """Find damaged data that DVC takes for whole. Exit code 1: something is damaged.

    DVC trusts a cached object by its name, and a file of an output by its size and time. Here every byte is read. An
    output that DVC itself sees as changed is left alone: `dvc repro` settles that.
    """
    from pipeline.system.heal import run

    return run(outputs or (), remove_them=yes)


@command("page")
def page() -> None:
    """Write this project's claims, beside what was measured, to page.html."""
    from pipeline.measuring.page import PAGE, write_page
    from pipeline.system.project import Project

    claims = write_page(Project.here())
    print(f"page: {len(claims)} claims, {sum(claim.holds for claim in claims)} of them borne out: {PAGE}")


@command("report")
def report(
    runs: Annotated[
        list[str] | None,
        Argument(
            metavar="[RUN]...",
            help="a run, RUN@REVISION (a commit or DVC experiment), or another project's folder; default: all runs",
        ),
    ] = None,
    experiments: Annotated[
        bool, Option("--experiments", help="add the runs of DVC's experiments that came out otherwise")
    ] = False,
    out: Annotated[Path, Option(metavar="FILE", help="the page")] = Path("report.html"),
) -> None:
    """Compare runs on one page: metrics and their differences, curves, errors, pictures, settings, cost."""
    from pipeline.measuring.report import write_report
    from pipeline.system.project import Project

    shown = write_report(Project.here(), runs or (), out, experiments=experiments)
    print(f"report: {len(shown)} runs: {out}")


@command("view")
def view(
    dataset: Dataset,
    split: Annotated[str | None, Option(help="train, val or test; of all of them if it is not given")] = None,
    num: Annotated[int, Option(min=1, help="so many records")] = 24,
    seed: Annotated[int, Option(help="another number draws other records")] = 0,
    key: Annotated[list[str] | None, Option(help="this record; may be given again")] = None,
    name: Annotated[str | None, Option("--class", help="only records in which this class occurs")] = None,
    out: Annotated[Path, Option(metavar="FILE", help="the page")] = Path("view.html"),
) -> None:
    """Show records of a data set on one page, as training reads them: pictures, boxes, masks, texts."""
    from pipeline.measuring.view import write_view
    from pipeline.system.project import Project

    shown = write_view(Project.here(), dataset, out, split=split, num=num, seed=seed, keys=key or (), name=name)
    print(f"view: {len(shown)} records of {dataset}: {out}")


@command("verify")
def verify(
    dataset: Dataset,
    split: Annotated[list[str] | None, Option(help="train, val or test; all of them if it is not given")] = None,
) -> None:
    """Read the shards of a data set with webdataset, as a second opinion, and tell each damage."""
    from pipeline.shards.verify import verify_dataset
    from pipeline.system.project import Project

    verify_dataset(Project.here(), dataset, split)


@command("convert")
def convert(
    dataset: Dataset,
    format_name: Annotated[str, Argument(metavar="FORMAT", help=_names("shards/formats"), show_default=False)],
    folder: Annotated[Path, Argument(help="a new folder", show_default=False)],
    split: Annotated[list[str] | None, Option(help="train, val or test; all of them if it is not given")] = None,
) -> None:
    """Write a data set's shards in the format of another tool. What the format cannot say is counted."""
    from pipeline.shards.convert import convert
    from pipeline.system.project import Project

    convert(Project.here(), dataset, format_name, folder, split)


@command("clean-state")
def clean_state(
    dry_run: Annotated[bool, Option("--dry-run", help="only say what would be removed")] = False,
) -> None:
    """Remove training states that no run goes on from, and extracted downloads."""
    from pipeline.training.clean_state import run

    run(dry_run=dry_run)


@command("clean-store")
def clean_store(
    dataset: Dataset,
    days: Annotated[float, Option(help="keep what is younger: it may be in use")] = 30.0,
    yes: Annotated[bool, Option("--yes", help="delete; without it they are only listed")] = False,
) -> None:
    """Delete shards in an object store that no revision of dvc.lock names."""
    from pipeline.shards.clean_store import run

    run(dataset, days, delete=yes)


@command("stage")
def stage(
    stage: Annotated[Literal["fetch", "shard", "vocab", "train", "evaluate", "register"], Argument(show_default=False)],
    name: Annotated[str, Argument(help="a data set (fetch, shard, vocab) or a run", show_default=False)],
) -> None:
    """Run one stage, as dvc.yaml does; what DVC knows of it stays as it was."""
    os.execv(sys.executable, [sys.executable, "-m", "pipeline.stages", stage, name])


if __name__ == "__main__":
    app(prog_name="sightline")
