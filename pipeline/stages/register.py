"""Register a run's best checkpoint as a model version; it becomes champion only if it is better on the same data."""

from __future__ import annotations

from pathlib import Path

from contracts.errors import DataError, SightlineError
from contracts.inputs import inputs_of
from pipeline.settings.params import Params, Run
from pipeline.settings.sections import RegistryConfig, TrackingConfig
from pipeline.shards.manifest import load_manifest, split_digest
from pipeline.shards.reader import open_splits
from pipeline.system.project import Project, read_json, write_json
from pipeline.tracking import probe
from pipeline.tracking.lineage import Lineage, lineage
from pipeline.training.run_files import BEST, Measured, Trained, measured, trained


def register(project: Project, params: Params, name: str) -> None:
    dataset = params.run_dataset(name)
    config = params.section(RegistryConfig, "registry")
    if config.runs != "all" and name not in config.runs:
        reason = "registry.runs leaves it out"
        write_json(project.registry(name), {"model": name, "decision": "not registered", "reason": reason})
        print(f"register {name}: not registered: {reason}")
        return
    record = trained(project, name, load_manifest(project.shards(dataset), dataset))
    score = measured(project, name, record)
    with probe.early():
        _register(project, params, name, record, score, config)


def _register(
    project: Project, params: Params, name: str, record: Trained, score: Measured, config: RegistryConfig
) -> None:
    from pipeline.settings import discover  # these take seconds to import: not for a refusal
    from pipeline.tracking import registry

    run = params.run(name)
    dataset = run.dataset
    folder = project.shards(dataset)
    manifest = load_manifest(folder, dataset)
    code = code_of(project, run, record)
    reader = open_splits(folder, manifest)[score["split"]]
    task = discover.load("task", run.task_name, where=f"runs.{name}.task").Task
    example = reader.read(int(reader.select(task.eval_requires)[0]))
    decision = registry.register(
        params.section(TrackingConfig, "tracking"),
        registry.Candidate(
            model=name,
            task=run.task_name,
            checkpoint=project.artifacts(name) / BEST,
            dataset=dataset,
            metric=score["metric"],
            mode=score["metric_mode"],
            value=score["value"],
            constant=score["constant"].get(score["metric"]),
            split=score["split"],
            step=record.get("training", {}).get("step", 0),
            gate=config.gates.get(name),
            run_id=record["run_id"],
            manifest_digest=score["manifest_digest"],
            split_digest=split_digest(manifest, score["split"]),
            git_commit=code.commit,
            changed=code.changed,
            allow_dirty=config.allow_dirty,
        ),
        root=project.tracking_root,
        inputs=inputs_of(example, task.inputs),
        measure=lambda checkpoint: measure_again(checkpoint, folder, score["split"], score["metric"], run),
        document=read_json(project.measured(name), "the metrics of the run", f"dvc repro --force evaluate@{name}"),
    )
    write_json(project.registry(name), decision)
    print(f"register {name}: version {decision['version']}, {decision['decision']}: {decision['reason']}")


def code_of(project: Project, run: Run, record: Trained) -> Lineage:
    """The commit of the code that trained a run. What was in no commit then, or in none that was known, may be in one
    now, byte for byte."""
    if record["git_changed"] or not record["git_commit"]:
        from pipeline.training.runs import code_of_run

        now = lineage(project.root)
        if now.commit and not now.changed and code_of_run(project, run) == record["code"]:
            return now
    return Lineage(record["git_commit"], tuple(record["git_changed"]))


def measure_again(checkpoint: Path, shards: Path, split: str, metric: str, run: Run) -> float | None:
    """The metric of an older version's weights on the data that is here now.

    Raises:
        DataError: it was trained for other classes, or the code of today cannot load it.
    """
    from pipeline.measuring.evaluation import Evaluation
    from pipeline.training.checkpoints import load_module

    try:
        _, document = load_module(checkpoint)
    except (SightlineError, RuntimeError, TypeError, KeyError) as error:
        raise DataError("its weights cannot be loaded by this code", value=str(error)[:300]) from error
    if document["data"]["classes"] != list(load_manifest(shards)["classes"]):
        raise DataError("its classes are others than this data's")
    return Evaluation(checkpoint, shards, split, now=run).metrics.get(metric)
