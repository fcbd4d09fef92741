"""Measure a run's best checkpoint: metrics/<run>.json, predictions/<run>.jsonl, plots/<run>/, curves/<run>/, and all
that it is compared by, evaluations/<run>/. The same to MLflow.

Checkpoints and champions are chosen on `val`; where the data set has a `test` split, the metrics have its numbers, too.
"""

from __future__ import annotations

from pipeline.settings.params import Params
from pipeline.settings.sections import TrackingConfig
from pipeline.shards.manifest import load_manifest
from pipeline.system.project import Project
from pipeline.training.run_files import BEST, trained


def evaluate(project: Project, params: Params, name: str) -> None:
    dataset = params.run_dataset(name)
    shards = project.shards(dataset)
    record = trained(project, name, load_manifest(shards, dataset))

    from pipeline.measuring.comparison import TABLES
    from pipeline.measuring.evaluation import Evaluation, on_test
    from pipeline.measuring.keeping import keep
    from pipeline.tracking import mlflow_run as tracking  # these take seconds to import: not for a refusal

    run = params.run(name)
    checkpoint = project.artifacts(name) / BEST
    evaluation = Evaluation(checkpoint, shards, now=run)
    test = on_test(checkpoint, shards, evaluation.report.task, now=run)
    pictures = evaluation.pictures(run.train.num_pictures)
    evaluation.write(
        metrics=project.metrics(name),
        predictions=project.predictions(name),
        plots=project.plots(name),
        pictures=pictures,
        test=test,
    )
    keep(evaluation, project, name, pictures, test=test)
    tracking.log_results(
        params.section(TrackingConfig, "tracking"),
        root=project.tracking_root,
        run_id=record["run_id"],
        metrics=evaluation.logged() | ({} if test is None else test.logged()),
        step=record.get("training", {}).get("step", 0),
        document=evaluation.document(name, test),
        folders={"plots": project.plots(name), "tables": project.evaluation(name) / TABLES},
        files={"": [project.measured(name), project.predictions(name)]},
    )
    for measured in (evaluation, test):
        if measured is not None:
            print(f"evaluate {name}: {measured.summary()}")
