"""Ray Train on a cluster of our own: workers find each other by a file, and no process watches over what ends with it.

torch's own server (TCPStore) listens on all addresses and serves whoever connects. Imports Ray Train and torch.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.torch.config import _set_torch_distributed_env_vars, _setup_torch_process_group, _TorchBackend
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.util.placement_group import PlacementGroup, placement_group_table, remove_placement_group


@dataclass
class FileTorchConfig(TorchConfig):
    """`folder`: seen by all workers, private to this user."""

    folder: str = ""

    @property
    def backend_cls(self) -> type:
        return _FileBackend


def torch_config(private: Path | None, timeout_s: int) -> TorchConfig:
    """For workers that see the folder `private`; None: that may be anywhere."""
    return (
        TorchConfig(timeout_s=timeout_s)
        if private is None
        else FileTorchConfig(timeout_s=timeout_s, folder=str(private))
    )


class _FileBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: FileTorchConfig) -> None:  # type: ignore[override]
        world = len(worker_group)
        gpus = worker_group.get_resources_per_worker().get("GPU", 0)
        worker_group.execute(_set_torch_distributed_env_vars)
        meeting = f"file://{backend_config.folder}/torch-{secrets.token_hex(8)}"  # each group of workers its own
        started = [
            worker_group.execute_single_async(
                rank,
                _setup_torch_process_group,
                backend="nccl" if gpus else "gloo",
                world_rank=rank,
                world_size=world,
                init_method=meeting,
                timeout_s=backend_config.timeout_s,
            )
            for rank in range(world)
        ]
        ray.get(started)


class _Unasked(FixedScalingPolicy):
    """For a cluster that cannot grow: nobody is told what is wanted, which takes a process of its own and a second."""

    def after_controller_start(self, train_run_context: Any) -> None: ...

    def _maybe_send_resource_request(self) -> None: ...


class Trainer(TorchTrainer):
    """Without the processes of Ray Train that nothing here needs: each imports for seconds what it never uses.

    Ray Data hands out no data sets here, ours are read from shards. Where the cluster ends with this process, nothing
    must free what a dead controller had reserved: the cleaner asks a dashboard each second, eight processes more. Nor
    does that cluster grow.
    """

    def __init__(self, is_private: bool, *arguments: Any, **options: Any):
        self._is_private = is_private
        self._unused = (DatasetsCallback, PlacementGroupCleanerCallback) if is_private else (DatasetsCallback,)
        super().__init__(*arguments, **options)

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()  # type: ignore[misc]
        return [callback for callback in callbacks if not isinstance(callback, self._unused)]

    def _initialize_and_run_controller(self, **given: Any) -> Any:
        if self._is_private and isinstance(given["scaling_policy"], FixedScalingPolicy):
            given["scaling_policy"] = _Unasked(given["scaling_policy"].scaling_config)
        return super()._initialize_and_run_controller(**given)  # type: ignore[misc]


def clear_room() -> None:
    """Free what an earlier try reserved whose controller died. For a cluster that is ours alone."""
    for number, group in placement_group_table().items():
        if group["state"] != "REMOVED":
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(number))))
