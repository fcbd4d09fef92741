"""A chapter of the lecture on a few records: some of its runs are trained, the others get what these scored."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from pipeline.measuring.claims import Claim
from pipeline.measuring.page import write_page
from pipeline.settings.params import load_params
from pipeline.stages.evaluate import evaluate
from pipeline.stages.fetch import fetch
from pipeline.stages.shard import shard
from pipeline.stages.train import train
from pipeline.stages.vocab import vocab
from pipeline.system.project import Project


def from_world_to_page(
    root: Path,
    folder: Path,
    chapter: str,
    trained: Sequence[str],
    *,
    prefix: str,
    num_records: dict[str, int],
    change: Callable[[dict[str, Any]], object],
    like: Callable[[str], str],
    beside: Sequence[str] = (),
    others: Sequence[str] = (),
) -> tuple[Project, dict[str, Claim]]:
    """The project in `folder`, and the claims on its page, by name.

    Args:
        chapter: a file of lecture/claims. trained: runs of lecture/params.yaml, all on one data set.
        prefix: of the names of the chapter's runs. num_records: of the data set's splits.
        change: makes a run's section in place that of a training of seconds.
        like: of a run that is not trained, the trained one whose scores it gets: they would differ by what is compared.
        beside: runs that no claim reads. others: runs of other chapters that one does read.
    """
    document = yaml.safe_load((root / "lecture/params.yaml").read_text())
    runs = [run for run in document["runs"] if run.startswith(prefix)]
    (dataset,) = {document["runs"][run]["dataset"] for run in trained}
    on_it = [run for run in runs if document["runs"][run]["dataset"] == dataset]
    document["runs"] = {run: document["runs"][run] for run in dict.fromkeys([*trained, *on_it])}
    document["datasets"] = {dataset: document["datasets"][dataset]}
    document["datasets"][dataset]["world"]["num_records"] = num_records
    for run in trained:
        change(document["runs"][run])
    document["tracking"] = {"system_metrics": False}
    (folder / "params.yaml").write_text(yaml.safe_dump(document))
    (folder / "claims").mkdir()
    shutil.copy(root / f"lecture/claims/{chapter}.py", folder / "claims")

    project, params = Project(folder), load_params(folder)
    for stage in (fetch, shard, vocab):
        stage(project, params, dataset)
    for run in trained:
        train(project, params, run)
        evaluate(project, params, run)
    for run in (*runs, *others):
        if run not in (*trained, *beside):
            shutil.copytree(project.evaluation(like(run)), project.evaluation(run))
    return project, {claim.name: claim for claim in write_page(project)}


def epochs(number: int) -> Callable[[dict[str, Any]], None]:
    """A `change` that trains for so many epochs and validates after the last."""
    return lambda run: run["train"].update(max_epochs=number, validate_every_epochs=number)
