"""Register a run's best checkpoint as a model version; it becomes champion only if it is better on the same data."""

from __future__ import annotations

import json

from pipeline import discover
from pipeline.checkpoints import BEST
from pipeline.params import Params, RegistryConfig, TrackingConfig
from pipeline.project import Project, write_json
from pipeline.registry import Candidate, register
from pipeline.shards import SplitReader, load_manifest
from pipeline.stages._command import main


def register_run(project: Project, params: Params, name: str) -> None:
    run = params.run(name)
    measured = json.loads(project.metrics(name).read_text())
    trained = json.loads((project.artifacts(name) / "run.json").read_text())
    folder = project.shards(run.dataset)
    reader = SplitReader(folder, load_manifest(folder), measured["split"])
    positions = reader.select(["num_questions"])
    record = reader.read(int(positions[0]) if len(positions) else 0)
    task = discover.load("task", run.task_name, where=f"runs.{name}.task").Task
    decision = register(
        params.section(TrackingConfig, "tracking"),
        Candidate(
            model=name,
            task=run.task_name,
            checkpoint=project.artifacts(name) / BEST,
            dataset=run.dataset,
            metric=measured["metric"],
            mode=measured["metric_mode"],
            value=measured["value"],
            gate=params.section(RegistryConfig, "registry").gates.get(name),
            run_id=trained["run_id"],
            manifest_digest=measured["manifest_digest"],
            git_commit=trained["git_commit"],
        ),
        root=project.store_root,
        image=record.image,
        question=record.questions[0].text if "num_questions" in task.requires else None,
    )
    write_json(project.registry(name), decision)
    print(f"register {name}: version {decision['version']}, {decision['decision']}: {decision['reason']}")


if __name__ == "__main__":
    main(register_run, "run")
