"""Commands of a whole project: check it, run it, look at what came out, keep it tidy."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Context, Option

from pipeline.commands._app import command, names
from pipeline.commands._options import Address, Job


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
    task: Annotated[str, Option(metavar="TASK", help=names("../lightning_modules/tasks"))],
    source: Annotated[
        str | None, Option(metavar="SOURCE", help=f"{names('ingest/sources')}; found out where it is not given")
    ] = None,
) -> None:
    """Write a project for data of your own, anywhere: it runs as it stands, by `sightline repro` in its folder."""
    from pipeline.ingest.new_project import load_sources, write_project
    from pipeline.settings.outline import with_outlines

    load_sources(data)  # these do work here; tasks and models are only looked at
    with_outlines(lambda: write_project(folder, data, task, source))


@command("repro", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def repro_(
    context: Context,
    jobs: Annotated[
        int, Option(min=1, help="so many stages at once, where they do not depend on each other", show_default=True)
    ] = 1,
    on: Annotated[
        str | None,
        Option(metavar="ADDRESS", help="train on this Ray cluster: HOST:6379, or ray://HOST:10001 from anywhere"),
    ] = None,
    storage: Annotated[
        str | None,
        Option(metavar="URL", help="training states are copied there: s3://bucket/prefix; no folder need be shared"),
    ] = None,
) -> int:
    """Check params.yaml, then run what changed: data, shards, training, evaluation, registration.

    Other arguments are those of `dvc repro`, such as `register@my_run`. `--on` and `--storage` go before
    `cluster.address` and `cluster.storage`.
    """
    from pipeline.ingest.folders import hints
    from pipeline.settings.check import run
    from pipeline.settings.code import CODE, PACKAGES
    from pipeline.settings.outline import with_outlines
    from pipeline.settings.params import read_params
    from pipeline.system.git import tell_dvc
    from pipeline.system.repro import repro
    from pipeline.tracking.lineage import VARIABLES, commit_of

    given = {"RAY_ADDRESS": on, "SIGHTLINE_STORAGE": storage}  # the stages' processes read them there
    os.environ |= {name: value for name, value in given.items() if value is not None}
    with_outlines(lambda: run(None, None, hints=hints))
    tell_dvc(Path.cwd())
    told = any(os.environ.get(name) for name in VARIABLES) or any(Path(package).is_dir() for package in PACKAGES)
    os.environ |= {} if told else commit_of(CODE)
    # The environment and the umask go with it, so that DVC's cache is the user's, too.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return repro(context.args, jobs, read_params(Path.cwd()).starts())


@command("submit", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def submit(
    context: Context,
    address: Address = None,
    folder: Annotated[
        str | None,
        Option(help="where the job works: a folder that every node sees, in which it goes on when sent again"),
    ] = None,
    detach: Annotated[bool, Option("--detach", help="do not follow its log")] = False,
    stop: Annotated[bool, Option("--stop", help="on Ctrl-C stop the job, too; else it goes on")] = False,
) -> int:
    """Run `sightline repro` on a Ray cluster, as a job: this project travels there, its log comes back.

    Other arguments are those of `dvc repro`. The exit code is the job's; 130 where it was stopped.
    """
    from pipeline.cluster.jobs import jobs
    from pipeline.commands import _submit

    with jobs(address) as cluster:
        return _submit.submit(cluster, Path.cwd(), context.args, folder=folder, detach=detach, stop=stop)


@command("job", hidden=True)
def job(
    arguments: Annotated[list[str] | None, Argument()] = None, folder: Annotated[Path | None, Option()] = None
) -> int:
    """What a submitted job runs on the cluster."""
    from pipeline.cluster.job import work
    from pipeline.system.guard import end_on_sigterm

    end_on_sigterm()  # `sightline stop-job`: states are written
    return work(folder, arguments or ())


@command("follow-job")
def follow_job(
    job: Job,
    address: Address = None,
) -> int:
    """Show the log of a submitted job until it ends; the exit code is the job's."""
    from pipeline.cluster.jobs import jobs

    with jobs(address) as cluster:
        return cluster.follow(job)


@command("stop-job")
def stop_job(
    job: Job,
    address: Address = None,
) -> None:
    """Ask a submitted job to write its state and end."""
    from pipeline.cluster.jobs import jobs

    with jobs(address) as cluster:
        cluster.stop(job)
    print(f"job {job} is asked to stop")


@command("stage")
def stage(
    stage: Annotated[Literal["fetch", "shard", "vocab", "train", "evaluate", "register"], Argument(show_default=False)],
    name: Annotated[str, Argument(help="a data set (fetch, shard, vocab) or a run", show_default=False)],
) -> None:
    """Run one stage, as dvc.yaml does; what DVC knows of it stays as it was."""
    os.execv(sys.executable, [sys.executable, "-m", "pipeline.stages", stage, name])


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


@command("page")
def page() -> None:
    """Write this project's claims, beside what was measured, to page.html."""
    from pipeline.measuring.page import PAGE, write_page
    from pipeline.system.project import Project

    claims = write_page(Project.here())
    print(f"page: {len(claims)} claims, {sum(claim.holds for claim in claims)} of them borne out: {PAGE}")


@command("ui")
def ui(
    port: Annotated[int, Option()] = 5000,
    host: Annotated[str, Option(help="another address shows everything to whoever reaches it")] = "127.0.0.1",
) -> None:
    """Open the MLflow UI on what was trained."""
    from pipeline.tracking.ui import open_ui

    open_ui(host, port)


@command("costs")
def costs() -> int:
    """What each stage spent when it was last done here: time, processors, GPUs, memory, energy; and the sums."""
    from pipeline.system.project import Project
    from pipeline.system.spending import show

    return show(Project.here())


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


@command("clean-state")
def clean_state(
    dry_run: Annotated[bool, Option("--dry-run", help="only say what would be removed")] = False,
) -> None:
    """Remove training states that no run goes on from, and extracted downloads."""
    from pipeline.training.clean_state import run

    run(dry_run=dry_run)
