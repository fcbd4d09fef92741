"""A copy of a run's training state in an object store, for clusters whose disks go away with them.

Training itself goes on from the state folder; the copy is made after each state and fetched before a session whose
folder has an older state or none. A state's `.json` with its digest comes last, so what has one is whole.
"""

from __future__ import annotations

from pathlib import Path

from pipeline import stores

_STATES = "state-"
_ALSO = ("best.ckpt", "run_id", "ledger/*.jsonl")


class StateMirror:
    """
    Args:
        url: folder of the store that belongs to this run and fingerprint alone.
        folder: the run's state folder.
    """

    def __init__(self, url: str, folder: Path):
        self.url, self.folder = url.rstrip("/"), folder

    def push(self) -> None:
        """Copy what is new; states that the folder has dropped are dropped here as well.

        Raises:
            DataError: the store could not be reached for minutes, or refuses. The folder is whole all the same.
        """
        states = sorted(self.folder.glob(f"{_STATES}*.ckpt"))
        there = stores.listing(self.url)
        for path in sorted(path for pattern in _ALSO for path in self.folder.glob(pattern)):
            stores.upload(path, self._url(path))
        for state in states:
            note = state.with_suffix(".json")
            if note.is_file() and note.name not in there:
                stores.upload(state, self._url(state))
                stores.upload(note, self._url(note))
        kept = {state.stem for state in states}
        for name in sorted(there, reverse=True):  # a state's .json goes before its .ckpt
            if name.startswith(_STATES) and Path(name).stem not in kept:
                stores.delete(f"{self.url}/{name}")

    def pull(self) -> str:
        """Fetch everything if the store's newest state is newer than the folder's.

        Returns:
            The name of the state that was fetched, "" if none was.
        """
        there = stores.listing(self.url)
        newest = max((name for name in there if name.startswith(_STATES) and name.endswith(".json")), default="")
        if newest <= max((path.name for path in self.folder.glob(f"{_STATES}*.json")), default=""):
            return ""
        for name in sorted(there, key=lambda name: (name.endswith(".json"), name)):
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            stores.download(f"{self.url}/{name}", path)
        return newest

    def clear(self) -> None:
        """Remove the copy: the run is finished and its result exported."""
        for name in sorted(stores.listing(self.url), reverse=True):
            stores.delete(f"{self.url}/{name}")

    def _url(self, path: Path) -> str:
        return f"{self.url}/{path.relative_to(self.folder).as_posix()}"
