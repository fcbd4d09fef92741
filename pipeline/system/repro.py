"""`dvc repro`, its stages counted and told in a line each, beside the process that they start from (`warm.py`); several
at once where they do not depend on each other.

DVC itself works on one stage after the other. It decides what is stale, hashes and writes dvc.lock under its lock of
the project, which it lets go of while a stage's command runs. With `jobs`, each stage has a thread; one at a time is
inside DVC, with that lock, and commands run side by side.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from pipeline.system import lock_blocks, warm

_RUNS, _SKIPPED = re.compile(r"Running stage '(.+)':"), re.compile(r"(?:Stage )?'(.+)' (?:didn't change|is cached)")
_INTERRUPTED = 130
# dash, told by Ctrl-C, ends by the signal itself after its stage
_ENDED_BY_CTRL_C = re.compile(rf"exited with (?:{_INTERRUPTED}|-{signal.SIGINT.value})\b")
_SHELLS = {"sh", "bash", "dash", "zsh", "fish", "ksh"}
_TOLD_BY = ("dvc.cli", "dvc.stage.run", "dvc.stage", "dvc.stage.cache", "dvc.dvcfile", "dvc.output")
_SLOW = {"train", "evaluate", "register"}  # to import
_BEFORE = {"fetch", "shard", "vocab"}  # where one of those follows, the libraries can be imported meanwhile


def repro(arguments: Sequence[str], jobs: int = 1, starts: Mapping[str, str] | None = None) -> int:
    """Run what changed.

    Args:
        arguments: those of `dvc repro`.
        jobs: so many stages at once.
        starts: run -> the run that its training starts from, of which DVC's graph knows nothing.

    Returns:
        DVC's exit code, or 130 where a stage was interrupted.
    """
    from dvc import dvcfile
    from dvc.cli import main
    from dvc.repo import reproduce
    from dvc.utils.serialize import parse_yaml_for_update

    signal.signal(signal.SIGTERM, _pass_on)
    if jobs > 1:  # stages that each take all processors would wait for each other at every step
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    with tempfile.TemporaryDirectory(prefix="slwarm-") as folder, warm.started(Path(folder)) as start:
        steps = _Steps(start)
        planned, modify = reproduce.plan_repro, dvcfile.modify_yaml

        def counted(*given: Any, **named: Any) -> Any:
            plan = planned(*given, **named)
            steps.plan([stage.addressing for stage in plan])
            return plan

        reproduce.plan_repro = counted  # the only place where DVC knows how many there will be
        dvcfile.modify_yaml = lock_blocks.by_stage(modify, parse_yaml_for_update, _dumped)
        loggers = [logging.getLogger(name) for name in _TOLD_BY]
        for logger in loggers:
            logger.addFilter(steps)
        try:
            with side_by_side(jobs, starts or {}, steps.plan) if jobs > 1 else contextlib.nullcontext():
                code = int(main(["repro", *arguments]))
            return _INTERRUPTED if steps.interrupted else code
        finally:
            reproduce.plan_repro, dvcfile.modify_yaml = planned, modify
            for logger in loggers:
                logger.removeFilter(steps)
            steps.tell_end()


def _dumped(document: dict[str, Any]) -> str:
    """As DVC writes it, but for aliases: of what is in several places each gets its own."""
    from dvc.utils.serialize._yaml import dumps_yaml

    def own(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: own(inner) for key, inner in value.items()}
        return [own(inner) for inner in value] if isinstance(value, (list, tuple)) else value

    return str(dumps_yaml(own(document)))


@contextlib.contextmanager
def side_by_side(jobs: int, starts: Mapping[str, str], plan: Callable[[list[str]], None]) -> Iterator[None]:
    """Let DVC reproduce `jobs` stages at once in this block; their output comes line by line, each with its stage.

    Args:
        starts: as for `repro`. plan: told the stages where there are more than DVC planned.
    """
    from dvc.repo import reproduce
    from dvc.stage import run

    turn = threading.Lock()  # whoever has it is inside DVC; where nobody has it, DVC's own lock is free
    stopped = threading.Event()  # no command begins any more
    one_by_one, command, planned = reproduce._reproduce, run._run, reproduce.plan_repro

    def all_of_them(stages: list[Any], graph: Any = None, **options: Any) -> list[Any]:
        if graph is None or not stages:  # --single-item, or nothing to do
            return one_by_one(stages, graph, **options)
        here = [stage for stage in graph if Path(stage.path).resolve() == Path("dvc.yaml").resolve()]
        trainings = {name: stage for stage in here for kind, name in [_parts(stage.addressing)] if kind == "train"}
        before = {trainings[a]: trainings[b] for a, b in starts.items() if a in trainings and b in trainings}
        todo = list(stages)
        while missing := [before[s] for s in todo if s in before and before[s] not in todo]:
            todo = list(dict.fromkeys([*planned(graph, missing), *todo]))
        if len(todo) > len(stages):
            plan([stage.addressing for stage in todo])
        return _Branches(todo, graph, before, turn, stopped, options).run(jobs)

    def shown(executable: str | None, line: str, *, env: dict[str, str], **options: Any) -> None:
        if stopped.is_set():
            raise _NotBegun
        turn.release()
        try:
            _run_shown(run._make_cmd(executable, line), " ".join(_parts(env["DVC_STAGE"])).rstrip(), env, **options)
        except subprocess.CalledProcessError as error:
            raise run.StageCmdFailedError(line, error.returncode) from None
        finally:
            turn.acquire()

    reproduce._reproduce, run._run = all_of_them, shown
    try:
        yield
    finally:
        reproduce._reproduce, run._run = one_by_one, command


def _run_shown(command: str | list[str], stage: str, env: dict[str, str], **options: Any) -> None:
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    with subprocess.Popen(command, env=env | {"PYTHONUNBUFFERED": "1"}, **pipe, **options) as process:  # type: ignore[call-overload]
        for line in process.stdout:
            print(f"{stage} | {line}", end="", flush=True)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)


class _NotBegun(Exception):
    """Of a stage whose turn came after the end was decided: it did not fail."""


class _Branches:
    """Stages in an order that follows from what they depend on, as many at once as there are threads.

    As DVC's own loop, whose options these are: after a failure nothing new begins (`on_error: fail`), or nothing that
    depends on it. `before`: stage -> one more that it waits for.
    """

    def __init__(
        self,
        stages: list[Any],
        graph: Any,
        before: Mapping[Any, Any],
        turn: threading.Lock,
        stopped: threading.Event,
        options: dict[str, Any],
    ):
        self._all, self._waiting, self._graph, self._turn = set(stages), list(stages), graph, turn
        self._stopped = stopped
        self._before = before
        self._on_error: str = options.pop("on_error", "fail")
        self._force_downstream: bool = options.pop("force_downstream", False)
        self._forced = set(stages) if options.pop("force", False) else set()
        self._options = options
        self._done: set[Any] = set()
        self._failed: dict[Any, BaseException] = {}

    def run(self, jobs: int) -> list[Any]:
        """The stages that ran.

        Raises:
            ReproductionError: one or more failed; those under way were waited for.
        """
        from dvc.repo import reproduce

        lock, ran = next(iter(self._all)).repo.lock, []
        lock._wait = True  # it is taken often: another DVC that has it for a while is no reason to lose a result
        running: dict[Future[Any], Any] = {}
        interrupted = False
        lock.unlock()
        with ThreadPoolExecutor(jobs, "stage") as pool:
            while running or self._waiting:
                try:
                    for stage in self._ready()[: jobs - len(running)]:
                        self._waiting.remove(stage)
                        running[pool.submit(self._reproduce, stage)] = stage
                    if not running:
                        break
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        stage = running.pop(future)
                        self._done.add(stage)
                        error = future.exception()
                        if error is not None and not isinstance(error, _NotBegun):
                            self._failed[stage] = error
                            self._leave_out(stage, error)
                        elif error is None and future.result():
                            ran.append(stage)
                except KeyboardInterrupt:  # the stages have it, too, and end in their own way
                    interrupted = True
                    self._begin_no_more()
        lock.lock()
        if self._failed and self._on_error != "ignore":
            reproduce._raise_error(next(iter(self._failed.values())), *self._failed)
        if interrupted:
            raise KeyboardInterrupt
        return ran

    def _ready(self) -> list[Any]:
        """What depends on nothing that waits or is under way."""
        left = self._all - self._done
        return [
            stage
            for stage in self._waiting
            if not left.intersection([*self._graph.successors(stage), self._before.get(stage)])
        ]

    def _reproduce(self, stage: Any) -> Any:
        from dvc.repo import reproduce

        upstream, downstream = reproduce._get_upstream_downstream_nodes(self._graph, stage)
        with self._turn, stage.repo.lock:
            if self._stopped.is_set():
                raise _NotBegun
            forced = stage in self._forced
            ran = reproduce._reproduce_stage(stage, upstream=upstream, force=forced, **self._options)
            if self._force_downstream and (ran or forced):
                self._forced.update(downstream)
            return ran

    def _begin_no_more(self) -> None:
        self._stopped.set()
        self._waiting.clear()

    def _leave_out(self, stage: Any, error: BaseException) -> None:
        from dvc.repo import reproduce

        if self._on_error == "fail":
            self._begin_no_more()
        elif isinstance(error, Exception) and self._on_error != "ignore":
            reproduce.handle_error(self._graph, self._on_error, error, stage)  # it tells which of DVC's it skips
            todo = [stage]
            while todo:
                one = todo.pop()
                after = [s for s in self._waiting if one in {*self._graph.successors(s), self._before.get(s)}]
                self._waiting = [s for s in self._waiting if s not in after]
                todo += after


def _pass_on(number: int, frame: FrameType | None) -> None:
    """The stage ends in its own way, its own processes with it, and DVC then; where none runs, as Ctrl-C does."""
    stages: list[psutil.Process] = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if warm.__name__ not in child.cmdline():
                stages += child.children() if child.name() in _SHELLS else [child]
    for stage in stages:
        with contextlib.suppress(psutil.NoSuchProcess):
            stage.terminate()
    if not stages:
        signal.default_int_handler(number, frame)


class _Steps(logging.Filter):
    """DVC's lines of a stage, its command and its lock file become one: `[7/32] train captioning`."""

    def __init__(self, start: Callable[[], None]):
        super().__init__()
        self.total, self.interrupted = 0, False
        self._start = start
        self._is_slow = False
        self._ran = self._skipped = 0

    def plan(self, addresses: list[str]) -> None:
        """What DVC will look at, as it calls its stages."""
        self.total = len(addresses)
        self._is_slow = any(_parts(address)[0] in _SLOW for address in addresses)

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and _ENDED_BY_CTRL_C.search(str(error.__cause__)):
            self.interrupted = True  # the stage has said so
            return False
        if record.levelno != logging.INFO:
            return not text.endswith("is empty.")  # a list of what was dropped may well be
        if found := _RUNS.match(text):
            self._ran += 1
            stage, name = _parts(found[1])
            if stage in _SLOW or (stage in _BEFORE and self._is_slow):
                self._start()
            of = f"/{self.total}" if self.total else ""
            print(f"[{self._ran + self._skipped}{of}] {stage} {name}".rstrip(), flush=True)
            return False
        if _SKIPPED.match(text):
            self._skipped += 1
            return False
        return not text.startswith(("> ", "Updating lock file", "Generating lock file"))

    def tell_end(self) -> None:
        if self._ran or self._skipped:
            print(f"{self._ran} stages ran, {self._skipped} were up to date", flush=True)


def _parts(address: str) -> tuple[str, str]:
    """`lecture/dvc.yaml:train@run` -> train, run"""
    stage, _, name = address.rpartition("/")[2].rpartition(":")[2].partition("@")
    return stage, name
