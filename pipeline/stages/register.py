"""Register a run's best checkpoint as a model version; it becomes champion only if it is better on the same data."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from contracts.errors import ConfigError, DataError, SightlineError
from contracts.inputs import inputs_of
from pipeline.cluster.once import is_joined, on_workers, shards_sent
from pipeline.settings.params import FILE, Params, Run
from pipeline.settings.sections import ClusterConfig, RegistryConfig, TrackingConfig
from pipeline.shards.manifest import load_manifest, split_digest
from pipeline.shards.reader import open_splits
from pipeline.system.project import Project, write_json
from pipeline.tracking import probe
from pipeline.tracking.lineage import Lineage, lineage
from pipeline.training.run_files import BEST, Measured, Trained, measured, trained
from pipeline.training.scores import Scores, read_scores

if TYPE_CHECKING:
    from pipeline.training.fit import Placement


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
    check_slices(config.slices.get(name, {}), score, f"registry.slices.{name}")
    with probe.early():
        _register(project, params, name, record, score, config)


def _register(
    project: Project, params: Params, name: str, record: Trained, score: Measured, config: RegistryConfig
) -> None:
    from pipeline.predicting.conditions import EXPORT, LATENCY, unmet  # these take seconds to import: not for a refusal
    from pipeline.settings import discover
    from pipeline.tracking import registry

    run = params.run(name)
    dataset = run.dataset
    folder = project.shards(dataset)
    manifest = load_manifest(folder, dataset)
    code = code_of(project, run, record)
    reader = open_splits(folder, manifest)[score["split"]]
    task = discover.load("task", run.task_name, where=f"runs.{name}.task").Task
    inputs = inputs_of(reader.read(int(reader.select(task.eval_requires)[0])), task.inputs)
    checkpoint = project.artifacts(name) / BEST
    conditions = {what: config.of(what)[name] for what in (LATENCY, EXPORT) if name in config.of(what)}
    decision = registry.register(
        params.section(TrackingConfig, "tracking"),
        registry.Candidate(
            model=name,
            task=run.task_name,
            checkpoint=checkpoint,
            dataset=dataset,
            metric=score["metric"],
            mode=score["metric_mode"],
            value=score["value"],
            constant=score["constant"].get(score["metric"]),
            split=score["split"],
            step=record.get("training", {}).get("step", 0),
            scores=read_scores(project.evaluation(name)) or Scores(values=score["metrics"]),
            gate=config.gates.get(name),
            min_gain=config.min_gain,
            slices=config.slices.get(name, {}),
            conditions=conditions,
            run_id=record["run_id"],
            manifest_digest=score["manifest_digest"],
            split_digest=split_digest(manifest, score["split"]),
            git_commit=code.commit,
            changed=code.changed,
            allow_dirty=config.allow_dirty,
        ),
        root=project.tracking_root,
        inputs=inputs,
        measure=lambda other: measure_again(project, params, run, other, score["split"]),
        further=lambda: unmet(checkpoint, inputs, conditions, shards=folder, split=score["split"]),
        evaluation=project.evaluation(name),
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


def check_slices(slices: Mapping[str, float], score: Measured, where: str) -> None:
    """Raises:
    ConfigError: a pattern that no metric has: it would guard nothing.
    """
    for pattern in slices:
        if not any(fnmatchcase(name, pattern) for name in score["metrics"]):
            names = ", ".join(sorted(score["metrics"]))
            raise ConfigError("no metric is called so", value=pattern, where=f"{FILE}: {where}", allowed=names)


def measure_again(project: Project, params: Params, run: Run, checkpoint: Path, split: str) -> Scores:
    """How an older version's weights do on the data that is here now; on a joined cluster its workers find out.

    Raises:
        DataError: it was trained for other classes, or the code of today cannot load it.
    """
    cluster, shards = params.section(ClusterConfig, "cluster"), project.shards(run.dataset)
    if not is_joined(cluster):
        return _scores(checkpoint, shards, split, run)
    files, place = shards_sent(shards)
    files[BEST], given = checkpoint.read_bytes(), (split, run, place)
    return on_workers(_scores_there, given, files, (), run.to_dict(), cluster, project.root)[1]


def _scores_there(folder: Path, placement: Placement, given: tuple[str, Run, Path | None]) -> Scores:
    split, run, shards = given
    return _scores(folder / BEST, shards or folder, split, run, placement)


def _scores(checkpoint: Path, shards: Path, split: str, run: Run, placement: Placement | None = None) -> Scores:
    from pipeline.measuring.evaluation import Evaluation
    from pipeline.training.checkpoints import load_module

    try:
        _, document = load_module(checkpoint)
    except (SightlineError, RuntimeError, TypeError, KeyError) as error:
        raise DataError("its weights cannot be loaded by this code", value=str(error)[:300]) from error
    if document["data"]["classes"] != list(load_manifest(shards)["classes"]):
        raise DataError("its classes are others than this data's")
    evaluation = Evaluation(checkpoint, shards, split, now=run, placement=placement)
    return Scores(values=evaluation.metrics, drawn=evaluation.drawn) if evaluation.is_first else Scores(values={})
