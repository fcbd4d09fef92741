"""How workers on one machine find each other: by a file, not by torch's server.

That server (TCPStore) listens on all addresses and serves whoever connects. Imports Ray Train and torch.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import _set_torch_distributed_env_vars, _setup_torch_process_group, _TorchBackend


@dataclass
class FileTorchConfig(TorchConfig):
    """`folder`: seen by all workers, private to this user."""

    folder: str = ""

    @property
    def backend_cls(self) -> type:
        return _FileBackend


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
