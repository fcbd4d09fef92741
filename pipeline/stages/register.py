"""Register a run's best checkpoint as a model version; it becomes champion only if it is better on the same data."""

from __future__ import annotations

from pipeline.manifest import load_manifest
from pipeline.params import Params
from pipeline.project import Project, write_json
from pipeline.run_files import BEST, measured, trained
from pipeline.sections import RegistryConfig, TrackingConfig
from pipeline.shards import open_splits
from pipeline.stages._command import main


def register_run(project: Project, params: Params, name: str) -> None:
    run = params.run(name)
    folder = project.shards(run.dataset)
    manifest = load_manifest(folder, run.dataset)
    record = trained(project, name, manifest)
    score = measured(project, name, record)

    from pipeline import discover  # these take seconds to import: not for a refusal
    from pipeline.registry import Candidate, register

    reader = open_splits(folder, manifest)[score["split"]]
    positions = reader.select(["num_questions"])
    example = reader.read(int(positions[0]) if len(positions) else 0)
    task = discover.load("task", run.task_name, where=f"runs.{name}.task").Task
    decision = register(
        params.section(TrackingConfig, "tracking"),
        Candidate(
            model=name,
            task=run.task_name,
            checkpoint=project.artifacts(name) / BEST,
            dataset=run.dataset,
            metric=score["metric"],
            mode=score["metric_mode"],
            value=score["value"],
            gate=params.section(RegistryConfig, "registry").gates.get(name),
            run_id=record["run_id"],
            manifest_digest=score["manifest_digest"],
            git_commit=record["git_commit"],
        ),
        root=project.store_root,
        image=example.image,
        question=example.questions[0].text if "num_questions" in task.requires else None,
    )
    write_json(project.registry(name), decision)
    print(f"register {name}: version {decision['version']}, {decision['decision']}: {decision['reason']}")


if __name__ == "__main__":
    main(register_run, "run")
