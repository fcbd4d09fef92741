"""Measure a run's best checkpoint: metrics/<run>.json, predictions/<run>.jsonl, plots/<run>/; the same to MLflow."""

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

    from pipeline.measuring.evaluation import Evaluation
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
    tracking.log_results(
        params.section(TrackingConfig, "tracking"),
        root=project.tracking_root,
        run_id=record["run_id"],
        metrics=evaluation.logged(),
        step=record.get("training", {}).get("step", 0),
        document=evaluation.document(name),
        folders={"plots": project.plots(name)},
        files={"": [project.metrics(name), project.predictions(name)]},
    )
    print(f"evaluate {name}: {evaluation.summary()}")


if __name__ == "__main__":
    main(evaluate, "run")
