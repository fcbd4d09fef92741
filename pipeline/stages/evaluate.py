"""Measure a run's best checkpoint: metrics/<run>.json, predictions/<run>.jsonl, plots/<run>/, curves/<run>/, and all
that it is compared by, evaluations/<run>/. The same to MLflow.

Checkpoints and champions are chosen on `val`; where the data set has a `test` split, the metrics have its numbers, too.
On a joined cluster its workers do the work, as many as train.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cluster.once import files_below, is_joined, lay, on_workers, shards_sent
from pipeline.settings.params import Params, Run
from pipeline.settings.sections import ClusterConfig, TrackingConfig
from pipeline.shards.manifest import load_manifest
from pipeline.system.project import Project, read_json
from pipeline.training.run_files import BEST, EVENTS, RECORD, trained

if TYPE_CHECKING:
    from pipeline.training.fit import Placement


def evaluate(project: Project, params: Params, name: str) -> None:
    dataset = params.run_dataset(name)
    manifest = load_manifest(project.shards(dataset), dataset)
    record = trained(project, name, manifest)

    from pipeline.measuring.comparison import TABLES
    from pipeline.tracking import mlflow_run as tracking  # takes seconds to import: not for a refusal

    run, cluster = params.run(name), params.section(ClusterConfig, "cluster")
    lines = measure_there(project, run, cluster) if is_joined(cluster) else measure(project, run)
    document: dict[str, Any] = read_json(project.measured(name), "what was measured", f"`dvc repro evaluate@{name}`")
    tracking.log_results(
        params.section(TrackingConfig, "tracking"),
        root=project.tracking_root,
        run_id=record["run_id"],
        metrics={  # by the names that training gives them; intervals and the constant's are in the run's description
            f"{found['split']}/{key}": value
            for found in (document, document.get("test"))
            if found is not None
            for key, value in found["metrics"].items()
        },
        step=record.get("training", {}).get("step", 0),
        document=document,
        folders={"plots": project.plots(name), "tables": project.evaluation(name) / TABLES},
        files={"": [project.measured(name), project.predictions(name)]},
    )
    for line in lines:
        print(f"evaluate {name}: {line}")


def measure(project: Project, run: Run, placement: Placement | None = None) -> list[str]:
    """Write what the stage gives; of several processes the first one does.

    Returns:
        A line for each split that was measured.
    """
    from pipeline.measuring.evaluation import Evaluation, on_test
    from pipeline.measuring.keeping import keep

    checkpoint, shards = project.artifacts(run.name) / BEST, project.shards(run.dataset)
    evaluation = Evaluation(checkpoint, shards, now=run, placement=placement)
    test = on_test(checkpoint, shards, evaluation.module.task, now=run, placement=placement)
    if not evaluation.is_first:
        return []
    pictures = evaluation.pictures(run.train.num_pictures)
    evaluation.write(
        metrics=project.metrics(run.name),
        predictions=project.predictions(run.name),
        plots=project.plots(run.name),
        pictures=pictures,
        test=test,
    )
    keep(evaluation, project, run.name, pictures, test=test)
    return [measured.summary() for measured in (evaluation, test) if measured is not None]


def measure_there(project: Project, run: Run, cluster: ClusterConfig) -> list[str]:
    """As `measure`, by the workers of the joined cluster."""
    shards, artifacts = project.shards(run.dataset), project.artifacts(run.name).relative_to(project.root)
    files = files_below(project.root, *(str(artifacts / name) for name in (BEST, EVENTS, RECORD)))
    sent, place = shards_sent(shards, str(shards.relative_to(project.root)))
    folders = [project.plots(run.name), project.evaluation(run.name), project.curves(run.name)]
    outputs = [*folders, project.predictions(run.name), project.metrics(run.name)]
    wanted = tuple(str(path.relative_to(project.root)) for path in outputs)
    found, lines = on_workers(_measure_here, (run, place), files | sent, wanted, run.to_dict(), cluster, project.root)
    for output in outputs:
        lay(output, found, inside=project.root)
    return lines


def _measure_here(folder: Path, placement: Placement, given: tuple[Run, Path | None]) -> list[str]:
    """A worker's side. `given`: the run, and where its shards are seen, or None where they come from a store."""
    (run, shards), project = given, Project(folder)
    if shards is not None:
        project.shards(run.dataset).parent.mkdir(parents=True)
        project.shards(run.dataset).symlink_to(shards, target_is_directory=True)
    return measure(project, run, placement)
