"""How many workers fit, node by node: no Ray, only what it would say of its nodes."""

from __future__ import annotations

import pytest
import yaml

from contracts.errors import ConfigError
from pipeline.cluster.room import Plan, Share, decide_gpu, plan_workers, too_small
from pipeline.settings.params import load_params
from pipeline.settings.sections import ClusterConfig, WorkerRange


def node(cpus: float, gpus: float = 0) -> dict[str, float]:
    return {"CPU": cpus, "GPU": gpus, "memory": 1e9} if gpus else {"CPU": cpus, "memory": 1e9}


def planned(
    config: ClusterConfig, nodes: list[dict[str, float]], loader_processes: int = 0, batch_size: int = 32
) -> Plan:
    use_gpu = decide_gpu(config.use_gpu, nodes)
    return plan_workers(config, nodes, use_gpu=use_gpu, loader_processes=loader_processes, batch_size=batch_size)


@pytest.mark.parametrize(
    ("nodes", "workers", "use_gpu"),
    [
        ([node(8, 1)], 1, True),  # the shipped settings on a machine with one GPU
        ([node(32, 4)], 4, True),
        ([node(8, 1), node(8, 1), node(64)], 2, True),  # the third has no GPU
        ([node(2, 4)], 2, True),  # a CPU for each
        ([node(1)], 1, False),
        ([node(16)], 2, False),
        ([node(1), node(1), node(1)], 2, False),
    ],
)
def test_the_shipped_settings_run_on_any_machine(root, nodes, workers, use_gpu):
    shipped = load_params(root).section(ClusterConfig, "cluster")
    assert shipped == ClusterConfig()
    plan = planned(shipped, nodes)
    assert (plan.least, plan.most, plan.share.use_gpu) == (workers, workers, use_gpu)
    assert plan.fits(nodes)


def test_room_is_counted_node_by_node():
    share = Share(4, use_gpu=True)
    assert share.fitting([node(3, 1), node(5, 0), node(3, 2)]) == 0, "11 CPUs and 3 GPUs, but never together"
    assert share.fitting([node(9, 1), node(8, 4), node(4, 0.5)]) == 3
    assert not planned(ClusterConfig(num_workers=2, cpus_per_worker=2), [node(3), node(1)]).fits([node(3), node(1)])


def test_loader_processes_take_cpus_too():
    plan = planned(ClusterConfig(), [node(8, 2)], loader_processes=3)
    assert plan.share.resources == {"CPU": 4, "GPU": 1} and plan.most == 2
    assert planned(ClusterConfig(), [node(8, 2)], loader_processes=4).most == 1
    crowded = planned(ClusterConfig(), [node(4, 1)], loader_processes=4)
    assert not crowded.fits([node(4, 1)])
    text = str(too_small(crowded, [node(4, 1)], ClusterConfig(), loader_processes=4))
    assert "1 worker, each of 5 CPUs (cluster.cpus_per_worker 1 + loader.num_workers 4) and 1 GPU" in text
    assert "0 of them fit where nothing else runs: 1 node of 4 CPUs and 1 GPUs" in text


def test_small_runs_share_a_gpu():
    nodes = [node(8, 1)]
    plan = planned(ClusterConfig(gpus_per_worker=0.25), nodes)
    assert (plan.least, plan.most) == (1, 1) and plan.share.resources == {"CPU": 1, "GPU": 0.25}
    assert plan.share.fitting(nodes) == 4, "so many such runs at once"
    assert planned(ClusterConfig(gpus_per_worker=0.25), [node(8)]).most == 2, "on CPUs it says nothing"
    with pytest.raises(ConfigError, match="a part of a GPU is for runs of one worker"):
        ClusterConfig(gpus_per_worker=0.5, num_workers=2)


def test_no_worker_goes_without_a_sample():
    nodes = [node(64, 8)] * 2
    assert planned(ClusterConfig(), nodes, batch_size=6).most == 6
    elastic = ClusterConfig(num_workers=WorkerRange(min=2, max=64))
    assert (planned(elastic, nodes).least, planned(elastic, nodes).most) == (2, 32)


def test_whether_gpus_are_used_is_decided_when_the_run_begins():
    assert decide_gpu("auto", [node(4, 1)]) and not decide_gpu("auto", [node(4)])
    assert decide_gpu("auto", [node(4)], before=True), "the node with the GPU is lost: no fall to CPUs"
    assert not decide_gpu("auto", [node(4, 1)], before=False)
    assert not decide_gpu("no", [node(4, 1)], before=True) and decide_gpu("yes", [node(4)], before=False)
    lost = plan_workers(
        ClusterConfig(num_workers=WorkerRange(min=1, max=2)), [node(4)], use_gpu=True, loader_processes=0, batch_size=8
    )
    assert not lost.fits([node(4)])


def test_a_mixed_group_of_nodes_is_described():
    plan = planned(ClusterConfig(num_workers=9), [node(4, 2), node(4, 2), node(8)])
    text = str(too_small(plan, [node(4, 2), node(4, 2), node(8)], ClusterConfig(num_workers=9), loader_processes=0))
    assert "4 of them fit where nothing else runs: 2 nodes of 4 CPUs and 2 GPUs, 1 node of 8 CPUs and 0 GPUs" in text


def test_auto_is_a_number_of_workers_in_params(root, tmp_path):
    document = yaml.safe_load((root / "params.yaml").read_text())
    document["cluster"]["num_workers"] = "auto"
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document))
    assert load_params(tmp_path).section(ClusterConfig, "cluster").num_workers == "auto"
