"""A real Ray cluster of two nodes on this machine: sharding and training spread over both."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from contracts.errors import ConfigError
from pipeline.cluster.map import map_ordered
from pipeline.cluster.session import session
from pipeline.measuring import other_splits
from pipeline.measuring.comparison import MEASURED
from pipeline.settings.code import CODE
from pipeline.settings.params import Params, load_params
from pipeline.settings.sections import ClusterConfig, ShardsConfig
from pipeline.shards.manifest import load_manifest
from pipeline.shards.writing import shard_dataset
from pipeline.stages.evaluate import measure, measure_there
from pipeline.stages.register import measure_again
from pipeline.stages.shard import open_sources
from pipeline.system.project import Project, write_json
from pipeline.training.checkpoints import BEST, load_best
from pipeline.training.run_files import DONE, EVENTS, RECORD
from tests.mlflow_server import free_port

pytestmark = pytest.mark.filterwarnings("default")


def test_tasks_run_on_both_nodes_and_results_keep_their_order(address, root):
    def where(number: int) -> tuple[int, str]:
        import ray

        time.sleep(0.5)
        return number, ray.get_runtime_context().get_node_id()

    results = list(map_ordered(where, ((i,) for i in range(8)), ClusterConfig(address=address), root))
    assert [number for number, _ in results] == list(range(8))
    assert len({node for _, node in results}) == 2


def test_sigterm_is_still_heard_when_ray_has_ended(address, root):
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with session(ClusterConfig(address=address), root):
            pass
        status = Path("/proc/self/status").read_text()  # Python's own word is about what it has set, not what is so
        caught = int(status.split("SigCgt:")[1].split()[0], 16)
        assert caught >> (signal.SIGTERM - 1) & 1
    finally:
        signal.signal(signal.SIGTERM, before)


_LETS_GO = """
import sys, threading
from pathlib import Path
import ray
import ray._private.worker as worker
from pipeline.cluster.session import session
from pipeline.settings.sections import ClusterConfig

class WaitedFor:  # Ray's core worker, in whose end a thread that waited for a result lets go of it
    def __init__(self, core_worker):
        self.core_worker = core_worker
    def __getattr__(self, name):
        return getattr(self.core_worker, name)
    def shutdown_driver(self):
        self.core_worker.shutdown_driver()
        thread = threading.Thread(target=kept.clear)
        thread.start()
        thread.join()

with session(ClusterConfig(address=sys.argv[1]), Path(sys.argv[2])):
    actor = ray.remote(threading.Event).remote()
    kept = [actor.wait.remote(), actor]
    del actor
    worker.global_worker.core_worker = WaitedFor(worker.global_worker.core_worker)
print("goes on")
"""


def test_a_thread_that_lets_go_of_a_result_while_ray_ends_does_not_end_the_process(address, root):
    command = [sys.executable, "-c", _LETS_GO, address, str(root)]
    done = subprocess.run(command, cwd=CODE, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "goes on\n"), done.stderr


def test_shards_from_the_cluster_equal_those_made_here(address, root, tiny_project, tmp_path):
    params = load_params(tiny_project.root)
    manifest = shard_dataset(
        "coco",
        params.dataset("coco"),
        open_sources(tiny_project, params, "coco"),
        Project(tmp_path),
        params.section(ShardsConfig, "shards"),
        partial(map_ordered, config=ClusterConfig(address=address), root=root),
    )
    assert manifest == load_manifest(tiny_project.shards("coco"))


def test_training_on_both_nodes_reports_once_each_validation(unbroken):
    assert json.loads((unbroken / DONE).read_text()) == {"step": 60, "epochs": 12}
    assert load_best(unbroken / BEST)["info"]["metrics"]["val/mean_iou"] > 0
    lines = [json.loads(line) for line in (unbroken / EVENTS).read_text().splitlines()]
    steps = [line["step"] for line in lines if line["kind"] == "metrics" and "val/loss" in line["values"]]
    assert len(steps) == 3, "one line each, from one rank alone"


def test_a_node_tells_its_load_and_where_rays_page_is(unbroken):
    """These two nodes have one address, so to Ray Train they are one."""
    files = {path.stem: path.read_text().splitlines() for path in unbroken.glob("nodes/*.jsonl")}
    told = {name: [json.loads(line) for line in lines] for name, lines in files.items()}
    assert told.keys() == {"node-0", "cluster"}
    assert told["node-0"][0]["kind"] == "tags" and len(told["node-0"]) > 2
    values = told["node-0"][-1]["values"]
    assert 0 <= values["system/node-0/cpu_utilization_percentage"] <= 100
    assert 0 <= values["system/node-0/loader_wait_percentage"] <= 100.01, "of two clocks, read one after the other"
    assert told["cluster"][0]["values"]["ray.dashboard"].startswith("http://127.0.0.1:")


def same(one: Path, other: Path) -> set[str]:
    """The names of the files below both folders, which are the same bytes: but for a loss, which is a mean of the
    workers' float32 means, and whose last digit is of their number."""
    files = [{p.relative_to(top): p.read_bytes() for p in top.rglob("*") if p.is_file()} for top in (one, other)]
    measured = next(path for path in files[0] if path.name == MEASURED)
    documents = [json.loads(found.pop(measured)) for found in files]
    losses = [document.pop("losses") for document in documents]
    assert files[0].keys() == files[1].keys() and losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert documents[0] == documents[1], "the same digits, whoever measured"
    assert [str(path) for path in files[0] if files[0][path] != files[1][path]] == []
    return {path.name for path in files[0]} | {MEASURED}


def test_what_both_nodes_measure_together_is_what_one_process_measures(address, unbroken, root, tiny_project, tmp_path):
    params = load_params(tiny_project.root)
    run, here, there = params.run("segmentation"), Project(tmp_path / "here"), Project(tmp_path / "there")
    for project in (here, there):
        artifacts, shards = project.artifacts(run.name), project.shards(run.dataset)
        artifacts.mkdir(parents=True)
        shutil.copy(unbroken / BEST, artifacts / BEST)
        write_json(artifacts / RECORD, {"training": {"step": 60}})
        shards.parent.mkdir(parents=True)
        shards.symlink_to(tiny_project.shards(run.dataset), target_is_directory=True)
    lines = measure(here, run)
    assert measure_there(there, run, ClusterConfig(address=address, num_workers=2)) == lines
    assert len(same(here.root, there.root)) > 10
    joined = Params(params.document | {"cluster": {"address": address, "num_workers": 1}})
    again = [measure_again(there, p, run, there.artifacts(run.name) / BEST, "val") for p in (params, joined)]
    assert again[0].values == again[1].values and again[0].drawn.keys() == again[1].drawn.keys()

    asked = other_splits.Asked(
        run_name="segmentation", split="val", now=run, shards=tiny_project.shards("voc"), details=True
    )
    cluster = joined.section(ClusterConfig, "cluster")
    for folder, config in ((tmp_path / "a", ClusterConfig(engine="local")), (tmp_path / "b", cluster)):
        folder.mkdir()
        other_splits.measure(folder, unbroken / BEST, asked, run.to_dict(), config, root)
    assert len(same(tmp_path / "a", tmp_path / "b")) > 5


def test_nobody_answers_at_the_address(root):
    with (
        pytest.raises(ConfigError, match="no Ray cluster answers"),
        session(ClusterConfig(address=f"127.0.0.1:{free_port()}"), root),
    ):
        pass
