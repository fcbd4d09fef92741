"""Remove from the object store what no shard set of a data set needs: list it, or with --yes delete it.

Kept is what these name: the project's own manifest, every version of dvc.lock in this clone's git (all branches, tags
and experiments), and every set or lone object younger than --days. Fetch the branches of others first, and let no shard
stage run meanwhile.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.errors import ConfigError, DataError
from pipeline.settings.params import load_params
from pipeline.settings.sections import ShardsConfig
from pipeline.shards import stores
from pipeline.shards.manifest import MANIFEST, load_manifest, manifest_digest, stored_files
from pipeline.system.project import Project

DAY_S = 86_400
_SET = re.compile(rf"[0-9a-f]{{64}}/{re.escape(MANIFEST)}")
_SHARD = re.compile(r"[a-z0-9_-]+-[0-9a-f]{64}\.(tar|index\.json)")
_PART = re.compile(r"\.[0-9a-f]{32}\.part$")  # of an upload into a folder that was killed
_LOCKED = re.compile(r"\b[0-9a-f]{32}\.dir\b")


@dataclass(frozen=True)
class Plan:
    """What is to be done below the folder `store`: names relative to it, and the bytes of what goes."""

    store: str
    kept: dict[str, str]  # name of a set's manifest -> why it is kept
    doomed: list[str]  # manifests first: what is half deleted is named by none
    num_bytes: int
    foreign: list[str]  # objects that no shard stage writes: left alone


def dvc_id(manifest: bytes) -> str:
    """What dvc.lock calls a folder that holds this manifest alone. So git tells which sets are of use, even where DVC's
    cache has none of them."""
    listing = [{"md5": hashlib.md5(manifest, usedforsecurity=False).hexdigest(), "relpath": MANIFEST}]
    text = json.dumps(listing, sort_keys=True).encode()
    return hashlib.md5(text, usedforsecurity=False).hexdigest() + ".dir"


def locked_ids(root: Path) -> set[str]:
    """The ids of folders in all versions of dvc.lock that this clone knows, and in the one that lies here.

    Raises:
        ConfigError: there is no git, or not all of its history.
    """
    if _git(root, "rev-parse", "--is-shallow-repository").strip() != b"false":
        raise ConfigError(
            "this clone has only the newest revisions: older ones may name sets that are of use",
            where=str(root),
            fix="git fetch --unshallow, then run the same command again",
        )
    # Merges included: --full-history keeps the versions of a side that a merge did not take.
    revisions = _git(root, "rev-list", "--all", "--reflog", "--full-history", "--", "dvc.lock").split()
    names = b"".join(revision + b":./dvc.lock\n" for revision in revisions)
    versions = _git(root, "cat-file", "--batch", given=names)
    lock = root / "dvc.lock"
    here = lock.read_text() if lock.is_file() else ""
    return set(_LOCKED.findall(versions.decode(errors="replace"))) | set(_LOCKED.findall(here))


def _git(root: Path, *command: str, given: bytes = b"") -> bytes:
    try:
        result = subprocess.run(["git", "-C", str(root), *command], input=given, capture_output=True, check=False)
        told = result.stderr.decode(errors="replace").strip()
        if result.returncode == 0:
            return result.stdout
    except FileNotFoundError:
        told = "git is not installed"
    raise ConfigError(
        "git does not tell which shard sets older revisions name, so nothing can be called useless",
        value=told,
        where=str(root),
        fix="run this in a whole clone of the project",
    )


def plan(project: Project, dataset: str, store: str, days: float) -> Plan:
    """What no set that is of use needs, among the objects below `store`.

    Raises:
        ConfigError: git cannot be asked.
        DataError: the store cannot be asked, or a manifest in it is damaged: what it names is then unknown.
    """
    locked = locked_ids(project.root)
    local = project.shards(dataset) / MANIFEST
    own = load_manifest(local.parent)["digest"] if local.is_file() else ""
    found = stores.contents(store)
    young = {name for name, stored in found.items() if time.time() - stored.written < days * DAY_S}
    kept: dict[str, str] = {}
    needed: set[str] = set()
    for name in filter(_SET.fullmatch, found):
        data = stores.read(f"{store}/{name}")
        manifest = _manifest(data, f"{store}/{name}")
        reasons = {
            "this project's": manifest["digest"] == own,
            "in dvc.lock": dvc_id(data) in locked,
            f"younger than {days:g} days": name in young,
        }
        if why := ", ".join(reason for reason, holds in reasons.items() if holds):
            kept[name] = why
            needed |= {name, *stored_files(manifest)}
    plain = {name: _PART.sub("", name) for name in found}
    ours = {name for name in found if _SET.fullmatch(plain[name]) or _SHARD.fullmatch(plain[name])}
    doomed = sorted(ours - needed - young, key=lambda name: (_SET.fullmatch(name) is None, name))
    num_bytes = sum(found[name].size for name in doomed)
    return Plan(store, kept, doomed, num_bytes, sorted(set(found) - ours))


def _manifest(data: bytes, url: str) -> dict[str, Any]:
    try:
        manifest = json.loads(data)
        stored_files(manifest)
        whole = url.endswith(f"/{manifest_digest(manifest)}/{MANIFEST}")
    except (ValueError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise DataError(
            "a manifest in the store is damaged, so what it names is unknown: nothing was deleted",
            where=url,
            fix="run the shard stage of the revision that wrote it, or delete it by hand",
        )
    return manifest


def clean(project: Project, dataset: str, store: str, days: float, *, delete: bool) -> None:
    """Tell the plan, and carry it out where asked to."""
    todo = plan(project, dataset, store, days)
    for name, why in todo.kept.items():
        print(f"keep {name.partition('/')[0]}: {why}")
    for name in todo.foreign:
        print(f"leave alone {name}: no shard stage writes such a name")
    for name in todo.doomed:
        if delete:
            stores.delete(f"{store}/{name}")
        print(f"{'deleted' if delete else 'would delete'} {name}")
    what = f"{len(todo.doomed)} objects, {todo.num_bytes / 2**20:.1f} MiB, below {store}"
    if delete or not todo.doomed:
        print(f"clean_store {dataset}: {'deleted ' if todo.doomed else 'nothing to delete: '}{what}")
    else:
        print(f"clean_store {dataset}: nothing was deleted; --yes deletes {what}")


def run(dataset: str, days: float, *, delete: bool) -> None:
    """The command. What is kept is whole also where it is interrupted.

    Raises:
        ConfigError: no such data set, or its shards are in no store.
    """
    project = Project.here()
    params = load_params(project.root)
    params.dataset(dataset)  # refuses other names: the folder in the store is named by it
    base = params.section(ShardsConfig, "shards").store
    if base is None:
        raise ConfigError(
            "the shards are not in an object store",
            where="shards.store",
            value=None,
            fix="name the store to be cleaned",
        )
    clean(project, dataset, f"{base.rstrip('/')}/{dataset}", days, delete=delete)
