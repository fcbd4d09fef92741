"""A copy of a run's training state in an object store, for clusters whose disks go away with them.

Training itself goes on from the state folder; the copy is made after each state and fetched before a session whose
folder has an older state or none. A state's `.json` with its digest comes last, so what has one is whole.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from contracts.errors import DataError
from pipeline.shards import stores
from pipeline.training.checkpoints import file_sha256, newest_state

_STATES = "state-"
# Events before how far they were delivered: a note that is ahead of its file counts for nothing.
_ALSO = ("best.ckpt", "run_id", "decided.json", "events.jsonl", "events.sent.json", "ledger/*.jsonl", "pictures/*.png")


class StateMirror:
    """
    Args:
        url: folder of the store that belongs to this run and fingerprint alone.
        folder: the run's state folder.
    """

    def __init__(self, url: str, folder: Path):
        self.url, self.folder = url.rstrip("/"), folder
        self._sent: dict[str, tuple[int, int]] = {}  # what this process knows to be there: size and time of change

    def push(self, enough: Callable[[], bool] = lambda: False) -> None:
        """Copy what is new or has changed; states that the folder has dropped are dropped here as well.

        What training removes or replaces meanwhile is passed over.

        Args:
            enough: asked before each file, ends the copy early.

        Raises:
            DataError: the store cannot be reached, or refuses. The folder is whole all the same.
        """
        states = sorted(self.folder.glob(f"{_STATES}*.ckpt"), reverse=True)
        there = stores.listing(self.url)
        for path in (path for pattern in _ALSO for path in sorted(self.folder.glob(pattern))):
            if enough():
                return
            self._send(path, there)
        for state in states:
            if enough():
                return
            note = state.with_suffix(".json")
            if note.name not in there and note.is_file() and self._send(state, there):
                self._send(note, there)
        kept = {state.stem for state in states}
        for name in sorted(there, reverse=True):  # a state's .json goes before its .ckpt
            if name.startswith(_STATES) and Path(name).stem not in kept:
                stores.delete(f"{self.url}/{name}")

    def _send(self, path: Path, there: dict[str, int]) -> bool:
        """Upload a file unless the store has it already; whether it is there now."""
        name = path.relative_to(self.folder).as_posix()
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

    def pull(self) -> str:
        """Fetch everything if the store's newest state is newer than the folder's newest whole one.

        Returns:
            The name of the state that was fetched, "" if none was.
        """
        there = [name for name in stores.listing(self.url) if _is_ours(name)]
        newest = max((name for name in there if name.startswith(_STATES) and name.endswith(".json")), default="")
        here = newest_state(self.folder)
        if not newest or (here is not None and newest <= here.with_suffix(".json").name):
            return ""
        for name in sorted(there, key=lambda name: (name.startswith(_STATES) and name.endswith(".json"), name)):
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            stores.download(self._url(name), path)
        return newest

    def clear(self) -> None:
        """Remove the copy: the run is finished and its result exported."""
        for name in sorted(stores.listing(self.url), reverse=True):
            stores.delete(self._url(name))

    def _url(self, name: str) -> str:
        return f"{self.url}/{name}"


def _is_ours(name: str) -> bool:
    """Whether a name in the store is one of a state folder's: others might lead out of it."""
    if ".." in PurePosixPath(name).parts or name.startswith("/"):
        return False
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in (f"{_STATES}*.ckpt", f"{_STATES}*.json", *_ALSO))
