"""Find damaged data that DVC takes for whole, and remove exactly that, so that DVC brings it anew.

    sightline heal [OUTPUT ...]        tell what is damaged: of these outputs, or of all, and the cache
    sightline heal --yes [OUTPUT ...]  and remove it; then `dvc pull`, or `dvc repro`

DVC trusts a cached object by its name, and a file of an output by its size and time: a flipped bit is "up to date",
`dvc checkout` copies it, and a stage that refuses it refuses it for ever. Here every byte is read. Removed are objects
whose content has another md5 than their name, the copies made of them, and files that differ from dvc.lock although
DVC sees no change in them. An output that DVC itself sees as changed is left alone: `dvc repro` settles that.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from contracts.errors import ConfigError
from pipeline.system.project import Project
from pipeline.system.removal import remove_tree

_TREE = ".dir"  # ending of an object that lists the files of a folder


@dataclass
class Findings:
    """Damaged are `objects` and `files`; `absent` are objects that the cache lacks, `changed` outputs left alone."""

    cache: Path
    objects: list[Path] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)  # the object's name -> that of the output's object
    changed: list[str] = field(default_factory=list)


class Cache:
    """DVC's local cache, read without DVC: `files/md5/<2 hex digits>/<30 more>`, named by what it holds."""

    def __init__(self, folder: Path):
        self.folder = folder / "files" / "md5"

    @classmethod
    def of(cls, root: Path) -> Cache:
        """That of the project `root`.

        Raises:
            ConfigError: DVC is not installed, or `root` is none of its projects.
        """
        return cls(Path(_dvc(root, "cache", "dir").strip()))

    def place(self, md5: str) -> Path:
        return self.folder / md5[:2] / md5[2:]

    def all(self) -> list[Path]:
        return sorted(
            path for path in self.folder.glob("[0-9a-f][0-9a-f]/*") if re.fullmatch(r"[0-9a-f]{30}(\.dir)?", path.name)
        )

    def files(self, md5: str) -> Iterator[tuple[str, str]]:
        """Relative path and md5 of each file of an output, "" for an output that is a file; none if it is unknown."""
        if not md5.endswith(_TREE):
            yield "", md5
        elif self.place(md5).is_file() and _md5(self.place(md5)) == md5.removesuffix(_TREE):
            for entry in json.loads(self.place(md5).read_bytes()):
                yield entry["relpath"], entry["md5"]


def find(root: Path, paths: Sequence[str | Path] = ()) -> Findings:
    """Read every byte of these outputs and of their objects; without any, of all outputs and of the whole cache.

    Args:
        paths: outputs, or anything in them.

    Raises:
        ConfigError: an output that dvc.lock does not know; DVC is not installed, or `root` is none of its projects.
    """
    recorded = _recorded(root)
    wanted = {_output_of(root, recorded, Path(path)) for path in paths}
    chosen = {name: md5 for name, md5 in recorded.items() if not paths or name in wanted}
    cache = Cache.of(root)
    seen = _changed(root, chosen)
    found = Findings(cache.folder, changed=sorted(seen))
    files = [(name, root / name / path, md5) for name, tree in chosen.items() for path, md5 in cache.files(tree)]
    needed = {tree: tree for tree in chosen.values()} | {md5: chosen[name] for name, _, md5 in files}
    found.absent = {md5: tree for md5, tree in needed.items() if not cache.place(md5).is_file()}

    objects = [path for path in map(cache.place, needed) if path.is_file()] if paths else cache.all()
    with ThreadPoolExecutor() as pool:  # hashing releases the GIL
        bad = {
            path: md5
            for path, md5 in zip(objects, pool.map(_md5, objects), strict=True)
            if md5 != (path.parent.name + path.name).removesuffix(_TREE)
        }
        found.objects = list(bad)
        there = [entry for entry in files if entry[1].is_file()]
        for (name, path, md5), actual in zip(there, pool.map(_md5, [path for _, path, _ in there]), strict=True):
            if actual != md5 and (name not in seen or bad.get(cache.place(md5)) == actual):
                found.files.append(path)
    return found


def _output_of(root: Path, recorded: Mapping[str, str], path: Path) -> str:
    absolute = (root / path).resolve()
    for place in (absolute, *absolute.parents):
        if place.is_relative_to(root) and str(place.relative_to(root)) in recorded:
            return str(place.relative_to(root))
    raise ConfigError(
        "DVC has recorded no such output",
        value=str(path),
        where=str(root / "dvc.lock"),
        allowed=", ".join(sorted(recorded)) or "none: nothing was reproduced yet",
        fix="what a stage made without DVC can be deleted and made again",
    )


def remove(root: Path, found: Findings) -> None:
    """Remove what is damaged, and nothing else."""
    for path in found.objects:
        remove_tree(path, inside=found.cache)
    for path in found.files:
        remove_tree(path, inside=root)


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _recorded(root: Path) -> dict[str, str]:
    """Outputs that DVC caches -> md5, of dvc.lock."""
    lock = root / "dvc.lock"
    if not lock.is_file():
        return {}
    stages = (yaml.safe_load(lock.read_text()) or {}).get("stages", {})
    outs = {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", ())}
    in_git = list(_uncached(root))
    return {path: md5 for path, md5 in outs.items() if not any(pattern.fullmatch(path) for pattern in in_git)}


def _uncached(root: Path) -> Iterator[re.Pattern[str]]:
    """Outputs with `cache: false` in dvc.yaml: git keeps these. A template's `${...}` stands for any name."""
    for stage in yaml.safe_load((root / "dvc.yaml").read_text())["stages"].values():
        stage = stage.get("do", stage)
        for entry in (*stage.get("outs", ()), *stage.get("metrics", ()), *stage.get("plots", ())):
            for path, options in entry.items() if isinstance(entry, dict) else ():
                if not options.get("cache", True):
                    yield re.compile("[^/]*".join(map(re.escape, re.split(r"\$\{.*?\}", path))))


def _changed(root: Path, outputs: Iterable[str]) -> set[str]:
    """Those outputs that DVC itself sees as other than dvc.lock says; all, where it cannot tell."""
    try:
        status = json.loads(_dvc(root, "status", "--json"))
    except ConfigError as error:
        print(f"`dvc status` fails, so the files of outputs are left alone:\n{error}", file=sys.stderr)
        return set(outputs)
    parts = [part for stage in status.values() for part in stage if isinstance(part, dict)]
    return {path for part in parts for path in part.get("changed outs", ())} & set(outputs)


def _unverified_remotes(root: Path) -> list[str]:
    settings = dict(line.partition("=")[::2] for line in _dvc(root, "config", "--list").splitlines())
    remotes = {key.split(".")[1] for key in settings if key.startswith("remote.")}
    return sorted(name for name in remotes if settings.get(f"remote.{name}.verify", "").lower() != "true")


def _dvc(root: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise ConfigError("DVC refuses", value=" ".join(arguments), where=result.stderr.strip()[-500:])
    return result.stdout


def _report(root: Path, found: Findings) -> None:
    for path in found.objects:
        print(f"damaged in the cache: {path}")
    for path in found.files:
        print(f"damaged in an output: {path}")
    for name in found.changed:
        print(f"changed, as DVC knows: {name} (`dvc repro` settles it)")
    for md5, tree in sorted(found.absent.items()):
        names = " and ".join(f"files/md5/{name[:2]}/{name[2:]}" for name in dict.fromkeys((md5, tree)))
        print(
            f"not in the cache: {md5}. If `dvc pull` fetched it in vain, the remote's is damaged: delete {names} there"
        )
    for name in _unverified_remotes(root):
        print(f"remote {name} is believed unseen: dvc remote modify {name} verify true")


def run(outputs: Sequence[str], *, remove_them: bool) -> int:
    """The command: 0 where nothing is damaged any more, 1 where something is."""
    root = Project.here().root
    found = find(root, outputs)
    _report(root, found)
    if not (found.objects or found.files):
        print("nothing is damaged")
        return 0
    if not remove_them:
        print("`sightline heal --yes` removes what is damaged")
        return 1
    remove(root, found)
    print("removed. Now `dvc pull` where a remote has it, else `dvc repro`")
    return 0
