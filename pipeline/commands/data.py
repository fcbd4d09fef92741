"""Commands of data sets: look at their shards, read them with other tools, write them for others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from pipeline.commands._app import command, names
from pipeline.commands._options import Dataset


@command("view")
def view(
    dataset: Dataset,
    split: Annotated[str | None, Option(help="train, val or test; of all of them if it is not given")] = None,
    num: Annotated[int, Option(min=1, help="so many records")] = 24,
    seed: Annotated[int, Option(help="another number draws other records")] = 0,
    key: Annotated[list[str] | None, Option(help="this record; may be given again")] = None,
    name: Annotated[str | None, Option("--class", help="only records in which this class occurs")] = None,
    run: Annotated[list[str] | None, Option(help="whose augmentation is shown; may be given again")] = None,
    duplicates: Annotated[bool, Option(help="look for pictures that are nearly the same")] = True,
    out: Annotated[Path, Option(metavar="FILE", help="the page")] = Path("view.html"),
) -> None:
    """Show what is in a data set's shards on one page: statistics, records, refusals, near duplicates, augmentation."""
    from pipeline.measuring import view

    asked: dict[str, Any] = {"split": split, "num": num, "seed": seed, "keys": key or (), "name": name}
    view.run(view.Request(dataset=dataset, out=out, runs=run or (), duplicates=duplicates, **asked))


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
    format_name: Annotated[str, Argument(metavar="FORMAT", help=names("shards/formats"), show_default=False)],
    folder: Annotated[Path, Argument(help="a new folder", show_default=False)],
    split: Annotated[list[str] | None, Option(help="train, val or test; all of them if it is not given")] = None,
) -> None:
    """Write a data set's shards in the format of another tool. What the format cannot say is counted."""
    from pipeline.shards.convert import convert
    from pipeline.system.project import Project

    convert(Project.here(), dataset, format_name, folder, split)


@command("clean-store")
def clean_store(
    dataset: Dataset,
    days: Annotated[float, Option(help="keep what is younger: it may be in use")] = 30.0,
    yes: Annotated[bool, Option("--yes", help="delete; without it they are only listed")] = False,
) -> None:
    """Delete shards in an object store that no revision of dvc.lock names."""
    from pipeline.shards.clean_store import run

    run(dataset, days, delete=yes)
