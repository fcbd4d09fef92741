"""How a loader process starts: with what it imports already there, one thread each, and it never outlives the training
that it loads for.

torch's own watchdog asks for the parent's number, which for `forkserver` is the fork server's; and the fork server
lives as long as its processes hold on to it. So they would wait for each other for ever.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from multiprocessing import forkserver
from multiprocessing.connection import wait

import torch

from pipeline.loading.batch_memory import keep_freed_memory

_LOOK_S = 2.0


def start_fork_server(modules: Sequence[str]) -> None:
    """Let the fork server import `modules` now, while this process does other things. Its children share them; each
    would import them by itself, one after another, into memory of its own. Does nothing where a server runs already.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(modules))
    forkserver.ensure_running()


def init_worker(_: int) -> None:
    # One thread a worker: OpenCV and torch would each take all cores.
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    import cv2

    cv2.setNumThreads(0)
    keep_freed_memory()
    threading.Thread(target=_die_with_training, args=(os.getppid(),), name="watch", daemon=True).start()


def _die_with_training(starter: int) -> None:
    """The pipe to the process that asked for this one breaks when that ends, however it was started: forked, spawned or
    by the fork server. A forked process may hold its sibling's end of the pipe as well; `starter`, its parent, tells.
    """
    training = multiprocessing.parent_process()
    assert training is not None
    while not wait([training.sentinel], timeout=_LOOK_S) and os.getppid() == starter:
        pass
    os.kill(os.getpid(), signal.SIGKILL)  # the main thread may be anywhere
