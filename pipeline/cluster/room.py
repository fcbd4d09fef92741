"""How many training workers there are room for: functions of the resources of a cluster's nodes.

A node is what Ray says of it, `{"CPU": 16.0, "GPU": 2.0, ...}`. A worker lies on one node whole, so what fits is
counted node by node: two nodes with a CPU each have no room for a worker of two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from contracts.errors import ConfigError
from pipeline.settings.sections import ClusterConfig, WorkerRange

Nodes = Sequence[Mapping[str, float]]
_AUTO_CPU_WORKERS = 2  # without a GPU, more workers of a machine mostly wait for each other


@dataclass(frozen=True)
class Share:
    """What one worker takes of a node: CPUs for itself and for each of its loader processes, and perhaps a GPU, or a
    part of one."""

    cpus: int
    use_gpu: bool
    gpus: float = 1.0  # of one GPU, where it takes one

    @property
    def resources(self) -> dict[str, float]:
        return {"CPU": self.cpus, **({"GPU": self.gpus} if self.use_gpu else {})}

    def fitting(self, nodes: Nodes) -> int:
        """How many workers have room on `nodes` together."""
        return sum(
            min(int(node.get(name, 0) // amount) for name, amount in self.resources.items())
            for node in nodes
        )  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """`least` to `most` workers; training does not start with fewer than `least`."""

    share: Share
    least: int
    most: int

    def fits(self, nodes: Nodes) -> bool:
        return self.share.fitting(nodes) >= self.least


def decide_gpu(setting: str, nodes: Nodes, before: bool | None = None) -> bool:
    """Whether each worker takes a GPU: `setting` is `cluster.use_gpu`, `before` what was decided when the run began.

    Nodes come and go; a run that began on GPUs waits for them, and does not fall to CPUs by itself.
    """
    if setting != "auto":
        return setting == "yes"
    return before if before is not None else any(node.get("GPU", 0) >= 1 for node in nodes)


def plan_workers(
    config: ClusterConfig, nodes: Nodes, *, use_gpu: bool, loader_processes: int, batch_size: int
) -> Plan:  # fmt: skip
    """How many workers `cluster.num_workers` means on `nodes`.

    "auto" is one a GPU, or two on CPUs, as far as there is room, and never none. Where the number is ours to choose,
    each worker gets a sample of the global batch.
    """
    share = Share(config.cpus_per_worker + loader_processes, use_gpu, config.gpus_per_worker)
    wanted = config.num_workers
    if isinstance(wanted, WorkerRange):
        return Plan(share, wanted.min, max(wanted.min, min(wanted.max, batch_size)))
    if wanted == "auto":
        # NCCL wants a GPU a rank: who shares one trains alone.
        most = (1 if share.gpus < 1 else batch_size) if use_gpu else _AUTO_CPU_WORKERS
        room = min(most, share.fitting(nodes))
        wanted = max(1, min(room, batch_size))
    return Plan(share, wanted, wanted)


def too_small(plan: Plan, nodes: Nodes, config: ClusterConfig, *, loader_processes: int) -> ConfigError:
    """What is asked for beside what there is."""
    share, fitting = plan.share, plan.share.fitting(nodes)
    parts = f"cluster.cpus_per_worker {config.cpus_per_worker} + loader.num_workers {loader_processes}"
    each = f"{share.cpus} CPUs ({parts})" + (f" and {share.gpus:g} GPU" if share.use_gpu else "")
    return ConfigError(
        "the cluster is smaller than what is asked for",
        value=f"{plan.least} worker{'s' * (plan.least > 1)}, each of {each}",
        allowed=f"{fitting} of them fit where nothing else runs: {_described(nodes)}",
        fix="num_workers: auto takes what there is; use_gpu: no leaves GPUs out; or ask for less, add nodes, raise "
        "cluster.wait_s where nodes are still starting, or set cluster.engine: local",
    )  # fmt: skip


def no_gpu(where: str) -> ConfigError:
    """For a run that asks for a GPU, or began on one, where there is none."""
    return ConfigError(
        "no GPU here",
        value="cluster.use_gpu is yes, or this run began on a GPU",
        where=where,
        fix="go on where there is one, or set cluster.use_gpu: no to go on with CPUs",
    )


def _described(nodes: Nodes) -> str:
    """ "2 nodes of 4 CPUs and 1 GPUs, 1 node of 8 CPUs and 0 GPUs"."""
    kinds = Counter((int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in nodes)
    parts = [f"{n} node{'s' * (n > 1)} of {cpus} CPUs and {gpus} GPUs" for (cpus, gpus), n in sorted(kinds.items())]
    return ", ".join(parts) or "there are none"
