"""Measure a run's best checkpoint: metrics/<run>.json, predictions/<run>.jsonl, plots/<run>/, curves/<run>/, and all
that it is compared by, evaluations/<run>/. The same to MLflow."""

from __future__ import annotations

from pipeline.settings.params import Params
from pipeline.settings.sections import TrackingConfig
from pipeline.shards.manifest import load_manifest
from pipeline.stages._command import main
from pipeline.system.project import Project
from pipeline.training.run_files import BEST, trained


def evaluate(project: Project, params: Params, name: str) -> None:
    dataset = params.run_dataset(name)
    shards = project.shards(dataset)
    record = trained(project, name, load_manifest(shards, dataset))

    from pipeline.measuring.comparison import TABLES
    from pipeline.measuring.evaluation import Evaluation
    from pipeline.measuring.keeping import keep
    from pipeline.tracking import mlflow_run as tracking  # these take seconds to import: not for a refusal

    run = params.run(name)
    evaluation = Evaluation(project.artifacts(name) / BEST, shards, now=run)
    evaluation.write(
        name,
        metrics=project.metrics(name),
        predictions=project.predictions(name),
        plots=project.plots(name),
        num_pictures=run.train.num_pictures,
    )
    keep(evaluation, project, name, num_pictures=run.train.num_pictures)
    tracking.log_results(
        params.section(TrackingConfig, "tracking"),
        root=project.tracking_root,
        run_id=record["run_id"],
        metrics=evaluation.logged(),
        folders={"plots": project.plots(name), "tables": project.evaluation(name) / TABLES},
        files={"": [project.measured(name), project.predictions(name)]},
    )
    print(f"evaluate {name}: {evaluation.summary()}")


if __name__ == "__main__":
    main(evaluate, "run")
