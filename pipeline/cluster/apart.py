"""Training on machines that share nothing but a network and a store.

Each worker has a folder of its own, which ends with it. What the first one decides to go on from, it and all others
fetch from the store when they start; what they write is copied there every few seconds, a state last, when the ledgers
of all ranks are there up to it. The driver fetches from there what it delivers to MLflow, and in the end the result.
So a driver on another machine goes on from the store alone.

The copy belongs to the session that claimed it last: a machine that was given up, and comes back after the network was
cut, finds that and ends. Shards come from the store as well (`shards.store`); of their folder workers need the
manifest.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.errors import DataError, TrainingError
from contracts.redact import redact
from pipeline.cluster.session import cluster_address, private_folder
from pipeline.settings.sections import ClusterConfig
from pipeline.shards import stores
from pipeline.shards.manifest import MANIFEST
from pipeline.system.disk import publish
from pipeline.system.project import write_json
from pipeline.training.checkpoints import newest_state, read_note
from pipeline.training.ledger import FOLDER as LEDGER
from pipeline.training.resume import APART, DECIDED
from pipeline.training.run_files import BEST, DONE, EVENTS, FAILURE, START
from pipeline.training.state_copier import CLOSE_S, StateCopier
from pipeline.training.state_mirror import (
    ALL,
    DRIVERS,
    EACHS,
    FIRSTS,
    STATES,
    AnotherSession,
    StateMirror,
    newest_of,
)

_LAST_COPY_S = 15.0
_REACHED = "reached"  # folder of the copy: a file a rank, with the step up to which its ledger is there
_PICTURES = "pictures/*.png"
_TOLD = (*EACHS, DECIDED, _PICTURES)  # what the driver wants meanwhile, beside the events


def is_apart(config: ClusterConfig, manifest: Mapping[str, Any]) -> bool:
    """Whether workers may be on machines that share nothing: a cluster that is joined, states and shards in a store."""
    joined = config.engine == "ray" and cluster_address(config) is not None
    return joined and config.storage_url is not None and "store" in manifest


def fetch_begun(mirror: StateMirror) -> None:
    """What a driver must know of a training that others began: its MLflow run, what it started from, its decisions."""
    mirror.fetch((*DRIVERS, DECIDED, _PICTURES, EVENTS))


@dataclass(frozen=True)
class Apart:
    """What workers need to have folders of their own.

    Attributes:
        url: the run's folder in the store.
        manifest: of the shards, which lie in a store, too.
        every_s: seconds between two copies.
        session: whose the copy is, of one group of workers.
    """

    url: str
    manifest: Mapping[str, Any]
    every_s: float
    session: str = ""


class _RankMirror(StateMirror):
    """The copy as one rank writes it."""

    def __init__(self, apart: Apart, folder: Path, rank: int, world: int, has_ledger: bool):
        own = (f"{_REACHED}/*.json",)
        sends = (*EACHS, *own, *FIRSTS, *STATES, DONE) if rank == 0 else (*EACHS, *own)
        super().__init__(apart.url, folder, sends, apart.session)
        self._rank, self._world, self._has_ledger = rank, world, has_ledger

    def push(self, *arguments: Any, **options: Any) -> None:
        if self._has_ledger:
            path = self.folder / _REACHED / f"rank{self._rank:04d}.json"
            path.parent.mkdir(exist_ok=True)
            reached = {"session": self._session, "step": self._step()}
            if read_note(path) != reached:
                write_json(path, reached)
        super().push(*arguments, **options)

    def _step(self) -> int:
        """The last one in this rank's ledger of this session, which is the only one in the folder."""
        newest = max((self.folder / LEDGER).glob(f"*-rank{self._rank:04d}.jsonl"), default=None)
        lines = newest.read_text(encoding="utf-8").split("\n")[:-1] if newest is not None else []
        last: dict[str, Any] = json.loads(lines[-1]) if lines else {}
        return int(last.get("step", last.get("from_step", -1)))

    def may_send(self, state: Path) -> bool:
        step = int(read_note(state.with_suffix(".json")).get("step", 0))
        if not self._has_ledger:
            return True
        for rank in range(1, self._world):
            url = f"{self.url}/{_REACHED}/rank{rank:04d}.json"
            reached = json.loads(stores.read(url)) if stores.exists(url) else {}
            if reached.get("session") != self._session or reached["step"] < step:
                return False
        return True

    def finish(self, patience_s: float) -> None:
        """Copy all that is there, the newest state, too.

        Raises:
            DataError: the store cannot be reached, or another rank's ledger does not get there.
            AnotherSession: the copy belongs to others by now.
        """
        deadline = time.monotonic() + patience_s
        while True:
            with stores.patience(patience_s):
                self.push()
            newest = newest_state(self.folder)
            if self._rank > 0 or newest is None or newest.with_suffix(".json").name <= self.newest():
                return
            if time.monotonic() > deadline:
                raise DataError("the newest state did not get into the store", where=redact(self.url))
            time.sleep(0.2)


@contextmanager
def own_folder(apart: Apart, rank: int, world: int, node: str, has_ledger: bool) -> Iterator[tuple[Path, Path]]:
    """A worker's side.

    Args:
        node: what this machine's load is told as, by the first worker that it has.

    Yields:
        Its state folder, with what the training goes on from, and a folder with the shards' manifest.

    Raises (on leaving the block):
        DataError: training ended, and its result did not get into the store.
    """
    with private_folder() as base:
        state, shards = base / "state", base / "shards"
        state.mkdir()
        write_json(shards / MANIFEST, dict(apart.manifest))
        write_json(state / APART, {"store": redact(apart.url)})
        mirror = _RankMirror(apart, state, rank, world, has_ledger)
        wanted = (START, DECIDED, f"crash-rank{rank}.json", *STATES, *((BEST, EVENTS) if rank == 0 else ()))
        mirror.fetch((*wanted, f"nodes/{node}.jsonl") if node else wanted)
        copier = StateCopier(mirror)
        stop = threading.Event()

        def work() -> None:
            while not stop.wait(apart.every_s):
                copier.ask()

        thread = threading.Thread(target=work, name="Apart", daemon=True)
        thread.start()
        is_done = False
        try:
            yield state, shards
            is_done = True
        finally:
            stop.set()
            thread.join()
            copier.close(0.0)
            # Of a training that failed or was stopped the others may be gone, and their ledgers never come.
            with nullcontext() if is_done else suppress(DataError, AnotherSession):
                mirror.finish(stores.PATIENCE_S if is_done else _LAST_COPY_S)


class Shared:
    """The driver's side where workers see its folder: nothing is to be done."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __enter__(self) -> Shared:
        return self

    def __exit__(self, *_: object) -> None: ...

    def begin(self) -> None: ...

    def newest(self) -> str:
        return newest_of(path.name for path in self.folder.glob(STATES[1]))

    def ended(self, error: str | None) -> None: ...


class Follower:
    """The driver's side where they do not: what workers tell is fetched while they train."""

    def __init__(self, apart: Apart, folder: Path):
        self.apart, self.folder = apart, folder
        self._mirror = StateMirror(apart.url, folder, ("run_id", "events.sent.json", "nodes/*.sent.json"))
        self._seen: dict[str, stores.Stored] = {}
        self._stop, self._is_away, self._one = threading.Event(), False, threading.Lock()
        self._thread = threading.Thread(target=self._work, name="Follower", daemon=True)

    def __enter__(self) -> Follower:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        with stores.patience(CLOSE_S if kind else stores.PATIENCE_S):
            self._try()

    def begin(self) -> Apart:
        """Lay what is here into the store, and claim it for a new group of workers."""
        session = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
        newest, there = newest_state(self.folder), stores.listing(self.apart.url)
        is_newer = newest is not None and newest.with_suffix(".json").name > newest_of(there)
        sends = ALL if is_newer else (*DRIVERS, DECIDED)
        StateMirror(self.apart.url, self.folder, sends).push()
        stores.delete(f"{self.apart.url}/{FAILURE}")
        StateMirror(self.apart.url, self.folder, session=session).claim()
        return Apart(self.apart.url, self.apart.manifest, self.apart.every_s, session)

    def newest(self) -> str:
        """Name of the newest state: a failure after progress starts the count anew."""
        return self._mirror.newest()

    def follow(self) -> None:
        """Fetch what is new, and leave word of what was delivered."""
        part = self.folder / f".{EVENTS}"
        with self._one:
            changed = self._changed()
            if EVENTS in changed:  # before what they name is looked for, and not to be read before that is here
                stores.download(f"{self.apart.url}/{EVENTS}", part)
                changed = self._changed() | {EVENTS: changed[EVENTS]}
            self._mirror.fetch(_TOLD, changed)
            if EVENTS in changed:
                publish(part, self.folder / EVENTS)
            self._seen |= changed
            self._mirror.push()

    def _changed(self) -> dict[str, stores.Stored]:
        there = stores.contents(self.apart.url)
        return {name: stored for name, stored in there.items() if self._seen.get(name) != stored}

    def ended(self, error: str | None) -> None:
        """Fetch what a group of workers left behind; of one that has trained to the end, the result.

        Raises:
            TrainingError: it is not there.
        """
        if error is not None:
            self._try()
            return
        self.follow()
        self._mirror.fetch((BEST, DONE))
        if not (self.folder / DONE).is_file() or not (self.folder / BEST).is_file():
            raise TrainingError("training has ended, and its result is not in the store", where=redact(self.apart.url))

    def _try(self) -> None:
        try:
            self.follow()
        except Exception as error:  # whatever a store or a proxy raises: training must not feel it
            if not self._is_away:
                print(f"{redact(self.apart.url)} is away ({str(error).splitlines()[0][:300]}); trying on", flush=True)
            self._is_away = True
        else:
            if self._is_away:
                print(f"{redact(self.apart.url)} is back", flush=True)
            self._is_away = False

    def _work(self) -> None:
        while not self._stop.wait(self.apart.every_s):
            with stores.patience(0.0):
                self._try()
