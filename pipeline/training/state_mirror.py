"""A copy of a run's training state in an object store.

Where a cluster's machines share the state folder, the copy is made after each state, for the case that their disks go
away, and fetched before a session whose folder has an older state or none. Where they share nothing, it is the only
way between them (`cluster/apart.py`). A state's `.json` with its digest comes last, so what has one is whole.
"""

from __future__ import annotations

import fnmatch
import itertools
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from contracts.errors import DataError
from pipeline.shards import stores
from pipeline.training.checkpoints import file_sha256, newest_state
from pipeline.training.run_files import BEGUN, BEST, DONE, EVENTS, FAILURE, START

_STATES = "state-"
STATES = (f"{_STATES}*.ckpt", f"{_STATES}*.json")
# Of the driver: what a training began with, and how far MLflow has its events: a note that is ahead of its file counts
# for nothing.
DRIVERS = (START, BEGUN, "run_id", "events.sent.json", "nodes/*.sent.json")
# Of the first rank; `done.json` says that all the others are there.
FIRSTS = (BEST, "decided.json", EVENTS, "pictures/*.png")
# Of every rank, each its own.
EACHS = ("ledger/*.jsonl", "spent/*.json", "nodes/*.jsonl", "crash-rank*.json", FAILURE)
ALL = (*EACHS, *FIRSTS, *DRIVERS, *STATES, DONE)
SESSION = "session"  # whose the copy is now


class AnotherSession(Exception):
    """Others train this run meanwhile: nothing of this process may reach the copy any more."""


class StateMirror:
    """
    Args:
        url: folder of the store that belongs to this run and fingerprint alone.
        folder: the run's state folder.
        sends: patterns of the files that `push` copies.
        session: where several may write, whose session this is; before each push it must be the one that was `claim`ed
            last. A machine that the others gave up may still be at work.
    """

    def __init__(self, url: str, folder: Path, sends: Sequence[str] = ALL, session: str = ""):
        self.url, self.folder = url.rstrip("/"), folder
        self._sends, self._session = sends, session
        self._sent: dict[str, tuple[int, int]] = {}  # what this process knows to be there: size and time of change

    def claim(self) -> None:
        """From now on this session alone may push."""
        path = self.folder / SESSION
        path.write_text(self._session)
        stores.upload(path, self._url(SESSION))

    def push(self, enough: Callable[[], bool] = lambda: False) -> None:
        """Copy what is new or has changed; states that the folder has dropped are dropped here as well.

        What training removes or replaces meanwhile is passed over.

        Args:
            enough: asked before each file, ends the copy early.

        Raises:
            DataError: the store cannot be reached, or refuses. The folder is whole all the same.
            AnotherSession: the copy belongs to others by now.
        """
        states = sorted(self.folder.glob(STATES[0]), reverse=True)
        there = stores.listing(self.url)
        if self._session and stores.read(self._url(SESSION)) != self._session.encode():
            raise AnotherSession(self.url)
        is_done = DONE in self._sends and (self.folder / DONE).is_file()  # before the rest is looked for
        # Before their pictures are looked for.
        told = self._held(self.folder / EVENTS) if EVENTS in self._sends else None
        for path in self._found(pattern for pattern in self._sends if pattern not in (*STATES, DONE, EVENTS)):
            if enough():
                return
            self._send(path, there)
        if told is not None:
            self._send(self.folder / EVENTS, there, told)
        if STATES[0] in self._sends:
            self._push_states(states, there, enough)
        if is_done and not enough():
            self._send(self.folder / DONE, there)

    def may_send(self, state: Path) -> bool:
        """Whether what belongs to this state is in the store, so that it may follow."""
        return True

    def _push_states(self, states: Sequence[Path], there: dict[str, int], enough: Callable[[], bool]) -> None:
        whole = {state.stem for state in states if state.with_suffix(".json").name in there}
        for state in states:
            if enough():
                return
            note = state.with_suffix(".json")
            if state.stem in whole or not self.may_send(state):
                continue
            held = self._held(note)  # training may drop both while the state is on its way
            if held is not None and self._send(state, there) and self._send(note, there, held):
                whole.add(state.stem)
        kept = {state.stem for state in states}
        for name in sorted(there, reverse=True):  # a state's .json goes before its .ckpt
            stem = Path(name).stem
            if name.startswith(_STATES) and stem not in kept and stem < max(whole, default=""):
                stores.delete(self._url(name))

    def _held(self, path: Path) -> Path | None:
        """A copy of a file as it is now, None where there is none."""
        with suppress(FileNotFoundError):
            return Path(shutil.copy2(path, self.folder / f".sent{path.suffix}"))
        return None

    def _found(self, patterns: Iterable[str]) -> Iterable[Path]:
        return itertools.chain.from_iterable(sorted(self.folder.glob(pattern)) for pattern in patterns)

    def _send(self, path: Path, there: dict[str, int], source: Path | None = None) -> bool:
        """Upload a file, or `source` by its name, unless the store has it already; whether it is there now."""
        name, path = path.relative_to(self.folder).as_posix(), source or path
        try:
            status = path.stat()
            mark = (status.st_size, status.st_mtime_ns)
            known = self._sent.get(name)
            if name in there and known is None and there[name] == mark[0]:  # of another session
                known = mark if stores.holds(self._url(name), mark[0], file_sha256(path)) else None
            if name not in there or known != mark:
                stores.upload(path, self._url(name))
        except (FileNotFoundError, DataError):
            if path.exists():
                raise
            return False
        self._sent[name] = mark
        return True

    def newest(self) -> str:
        """Name of the newest whole state that the store has, "" if there is none."""
        return newest_of(stores.listing(self.url))

    def pull(self) -> str:
        """Fetch everything if the store's newest state is newer than the folder's newest whole one.

        Returns:
            The name of the state that was fetched, "" if none was.
        """
        there, here = stores.listing(self.url), newest_state(self.folder)
        newest = newest_of(there)
        if not newest or (here is not None and newest <= here.with_suffix(".json").name):
            return ""
        self.fetch(ALL, there)
        return newest

    def fetch(self, patterns: Sequence[str], there: Iterable[str] | None = None) -> None:
        """Fetch what fits one of `patterns`; nothing that is not a state folder's.

        Args:
            there: names of what is in the store, if that is known already.
        """
        known = set(stores.listing(self.url) if there is None else there)
        half = {name for name in known if fnmatch.fnmatchcase(name, STATES[0]) and f"{name[:-5]}.json" not in known}
        names = [name for name in known - half if _fits(name, patterns)]
        for name in sorted(names, key=lambda name: (name.startswith(_STATES) and name.endswith(".json"), name)):
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            stores.download(self._url(name), path)

    def clear(self) -> None:
        """Remove the copy: the run is finished and its result exported."""
        for name in sorted(stores.listing(self.url), reverse=True):
            stores.delete(self._url(name))

    def _url(self, name: str) -> str:
        return f"{self.url}/{name}"


def newest_of(names: Iterable[str]) -> str:
    """The newest whole state of a listing, "" if there is none."""
    return max((name for name in names if fnmatch.fnmatchcase(name, STATES[1])), default="")


def _fits(name: str, patterns: Sequence[str]) -> bool:
    """Whether a name in the store is one of a state folder's: others might lead out of it."""
    if ".." in PurePosixPath(name).parts or name.startswith("/"):
        return False
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
