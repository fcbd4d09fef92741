"""Train one run on the cluster: artifacts/<run>/best.ckpt and run.json; metrics and pictures go to MLflow meanwhile."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from pipeline import distributed, tracking
from pipeline.checkpoints import BEST, file_sha256, load_best
from pipeline.ledger import FOLDER as LEDGER
from pipeline.params import ClusterConfig, Params, TrackingConfig
from pipeline.project import Project, write_json
from pipeline.runs import RunData, flat, load_run
from pipeline.shards import verify_shards
from pipeline.stages._command import main
from pipeline.state_mirror import StateMirror
from pipeline.training import DONE, EVENTS


def train(project: Project, params: Params, name: str) -> None:
    data = load_run(project, params, name)
    cluster = params.section(ClusterConfig, "cluster")
    verify_shards(project.shards(data.run.dataset), data.manifest)
    state = project.state(name, data.fingerprint)
    state.mkdir(parents=True, exist_ok=True)
    mirror = StateMirror(f"{cluster.state_store.rstrip('/')}/{state.name}", state) if cluster.state_store else None
    if mirror is not None and (fetched := mirror.pull()):
        print(f"{name}: state {fetched.removesuffix('.json')} fetched from {mirror.url}", flush=True)
    config = params.section(TrackingConfig, "tracking")
    with (
        tracking.open_run(
            config,
            root=project.root,
            run_name=name,
            experiment=data.run.task_name,
            params=flat(data.run.to_dict())
            | {"cluster.num_workers": str(cluster.num_workers), "cluster.engine": cluster.engine},
            tags={
                "git_commit": project.git_commit(),
                "dvc_lock_sha256": project.lock_digest(),
                "fingerprint": data.fingerprint,
            },
            dataset=(data.run.dataset, data.manifest["digest"], str(project.shards(data.run.dataset))),
            run_id_file=state / "run_id",
        ) as run,
        tracking.EventTail(run, state / EVENTS),
    ):
        if not (state / DONE).is_file():
            arguments = {
                "run": data.run.to_dict(),
                "data": data.spec.to_dict(),
                "shards": str(project.shards(data.run.dataset)),
                "state": str(state),
                "state_store": None if mirror is None else mirror.url,
            }
            distributed.run_training(arguments, cluster, project.root)
    export(project, data, state, run.run_id)
    shutil.rmtree(state)
    if mirror is not None:
        mirror.clear()


def export(project: Project, data: RunData, state: Path, run_id: str) -> None:
    """Keep what is final: the best checkpoint, and the record of where it comes from."""
    folder = project.artifacts(data.run.name)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(state / BEST, folder / BEST)
    shutil.rmtree(folder / LEDGER, ignore_errors=True)
    if (state / LEDGER).is_dir():
        shutil.copytree(state / LEDGER, folder / LEDGER, dirs_exist_ok=True)
    record = {
        "run": data.run.name,
        "run_id": run_id,
        "manifest_digest": data.manifest["digest"],
        "checkpoint_sha256": file_sha256(folder / BEST),
        "fingerprint": data.fingerprint,
        "git_commit": project.git_commit(),
        "training": json.loads((state / DONE).read_text()),
        "best": load_best(folder / BEST)["info"],
    }
    write_json(folder / "run.json", record)
    print(f"train {data.run.name}: best at epoch {record['best']['epoch'] + 1}: {record['best']['metrics']}")


if __name__ == "__main__":
    main(train, "run")
