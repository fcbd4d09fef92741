"""Raw data in an object store: `input: s3://bucket/folder` in place of a folder.

What annotates is brought to this machine when the data set is fetched. Pictures and videos stay in the store, named by
empty files here, until a worker shards them, on whatever machine that is (`raw_store.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from contracts.errors import DataError
from contracts.redact import redact
from pipeline.ingest.tree import IMAGES, VIDEOS
from pipeline.shards import stores
from pipeline.system.disk import renewed, writing
from pipeline.system.progress import note, progress_bar

STREAMS = 16  # requests at once: small objects cost a store's delay, not its bandwidth


def lay(url: str, folder: Path, *, inside: Path) -> str:
    """Make `folder`, named as its data set, a stand-in for the store's: what annotates, and an empty file for each
    picture and video.

    Returns:
        sha256 of the listing, by which a change of the data is known.

    Raises:
        DataError: there is no such folder in the store, or it cannot be read; the disk refuses.
    """
    found = stores.contents(url)
    if not found:
        raise DataError(
            "no such folder in the store, or an empty one", value=redact(url), where="datasets: input",
            fix="name the folder that your data lies in; see AWS_ENDPOINT_URL and the credentials",
        )  # fmt: skip
    digest = hashlib.sha256()
    for name, stored in sorted(found.items()):
        digest.update(f"{name}\0{stored.size}\0{stored.written}\n".encode(errors="surrogatepass"))
    names = _usable(list(found))
    if left := len(found) - len(names):
        note(f"{left} objects below {redact(url)} have names that no file can have here: left out")
    away = [name for name in names if _suffix(name) in (*IMAGES, *VIDEOS)]
    brought = sorted(set(names) - set(away))
    with renewed(folder, inside=inside) as new, writing(new):
        for parent in {(new / name).parent for name in names}:
            parent.mkdir(parents=True, exist_ok=True)
        for name in away:
            (new / name).touch()
        with progress_bar(f"fetch {folder.name}", len(brought)) as advance, ThreadPoolExecutor(STREAMS) as pool:
            try:
                for _ in pool.map(lambda name: stores.save(f"{url.rstrip('/')}/{name}", new / name), brought):
                    advance(1)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    return digest.hexdigest()


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _usable(names: Sequence[str]) -> list[str]:
    """Those that can be files below a folder: no way out of it, no file where another name has a folder."""
    parts = {name: name.split("/") for name in names}
    plain = [name for name, of in parts.items() if not {"", ".", ".."} & set(of) and "\0" not in name]
    folders = {"/".join(parts[name][:end]) for name in plain for end in range(1, len(parts[name]))}
    return [name for name in plain if name not in folders]
