"""Where everything lies below the project's folder. All paths are absolute: Ray workers have another current folder."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import StringConstraints, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from contracts.errors import DataError
from pipeline.system.disk import write_text

POINTER = "source.json"


class Pointer(TypedDict):
    """Where the raw data of a data set of the user's own lies, an absolute folder or a url, and what was there when it
    was fetched."""

    listing_sha256: str
    folder: NotRequired[Annotated[str, StringConstraints(pattern="^/")]]
    store: NotRequired[str]


@dataclass(frozen=True)
class Project:
    """The folder that holds params.yaml."""

    root: Path

    @staticmethod
    def here() -> Project:
        return Project(Path.cwd().resolve())

    @property
    def store_root(self) -> Path:
        """The project that training states belong to.

        `dvc exp run --temp` and queued experiments work in a copy below `.dvc/tmp/exps`, which DVC deletes
        with all that is in it. What must outlive it goes to the project itself.
        """
        for folder in self.root.parents:
            if folder.parts[-3:] == (".dvc", "tmp", "exps"):
                return folder.parents[2]
        return self.root

    @property
    def tracking_root(self) -> Path:
        """The folder of mlflow.db and mlartifacts, where nothing names another place: projects of one DVC repository
        share them, so that their runs stand side by side."""
        root = self.store_root
        return next((folder for folder in (root, *root.parents) if (folder / ".dvc").is_dir()), root)

    @property
    def locks(self) -> Path:
        """Of what stages write in this folder (`pipeline.system.lock`)."""
        return self.root / "state" / "locks"

    @property
    def store_locks(self) -> Path:
        """Of what experiments in folders of their own write in the project they belong to."""
        return self.store_root / "state" / "locks"

    def raw(self, dataset: str) -> Path:
        return self.root / "data" / "raw" / dataset

    def raw_root(self, dataset: str) -> Path:
        """The folder that sources read: data/raw/<dataset>, the user's own that it points to, or what stands in for one
        in a store."""
        pointer = self.raw_pointer(dataset)
        folder = self.raw(dataset) if pointer is None else Path(pointer.get("folder") or self.raw_names(dataset))
        if not folder.is_dir():
            raise DataError("the raw data is not there", where=str(folder), fix=f"dvc repro fetch@{dataset}")
        return folder

    def raw_pointer(self, dataset: str) -> Pointer | None:
        """Where raw data lies that is not below data/raw/<dataset>."""
        path = self.raw(dataset) / POINTER
        if not path.is_file():
            return None
        fix = f"dvc repro --force fetch@{dataset}"
        pointer: Pointer = read_json(path, "the pointer to the raw data", fix, Pointer)
        return pointer

    def raw_names(self, dataset: str) -> Path:
        """Stands in for raw data that lies in a store: what annotates, and the names of pictures."""
        return self.root / "state" / "raw" / dataset

    def shards(self, dataset: str) -> Path:
        return self.root / "data" / "shards" / dataset

    def quarantine(self, dataset: str) -> Path:
        return self.root / "data" / "quarantine" / f"{dataset}.jsonl"

    def vocabulary(self, dataset: str) -> Path:
        return self.root / "data" / "vocab" / f"{dataset}.json"

    def artifacts(self, run: str) -> Path:
        return self.root / "artifacts" / run

    def metrics(self, run: str) -> Path:
        """The task's metric alone, as `dvc metrics` shows it."""
        return self.root / "metrics" / f"{run}.json"

    def evaluation(self, run: str) -> Path:
        """The folder of all that was measured, as runs are compared by it."""
        return self.root / "evaluations" / run

    def measured(self, run: str) -> Path:
        return self.evaluation(run) / "measured.json"

    def curves(self, run: str) -> Path:
        """The folder of learning curves, as `dvc plots` draws them."""
        return self.root / "curves" / run

    def predictions(self, run: str) -> Path:
        return self.root / "predictions" / f"{run}.jsonl"

    def plots(self, run: str) -> Path:
        return self.root / "plots" / run

    def registry(self, run: str) -> Path:
        return self.root / "registry" / f"{run}.json"

    def state(self, run: str, fingerprint: str) -> Path:
        """Resumable training state: outside every DVC output, which DVC deletes before it runs a stage."""
        return self.store_root / "state" / f"{run}-{fingerprint[:16]}"

    def lock_digest(self) -> str:
        """sha256 of dvc.lock, or "" before the first `dvc repro`."""
        lock = self.root / "dvc.lock"
        return hashlib.sha256(lock.read_bytes()).hexdigest() if lock.is_file() else ""


def heal(path: Path) -> str:
    """What mends a damaged file of an output, for an error's `fix`. To delete it does not: DVC brings the same."""
    return f"`sightline heal --yes {path}`, then `dvc pull` where a remote has it, else `dvc repro`"


def write_json(path: Path, document: Any, *, indent: int | None = 1) -> None:
    """Write JSON atomically: keys in the given order, a final newline, indented for people and git by default."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(document, indent=indent, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, what: str, fix: str, shape: Any = dict[str, Any]) -> Any:
    """The document of a JSON file that this project wrote.

    Args:
        what: the file in words, such as "the record of the training". fix: what to do where it is not as it should be.
        shape: the type of the document, strictly: a `TypedDict`, `dict[str, int]`, ...

    Raises:
        DataError: not there, no file, cut, empty, not UTF-8, no JSON, or not of `shape`; names the file.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{what} is not there", where=str(path), fix=fix) from None
    except (IsADirectoryError, NotADirectoryError, PermissionError) as error:
        raise DataError(f"{what} cannot be read", value=error.strerror, where=str(path), fix=fix) from None
    try:
        return _adapter(shape).validate_json(data, strict=True)
    except ValidationError as error:
        raise DataError(f"{what} is damaged", value="; ".join(explain(error)[:8]), where=str(path), fix=fix) from None


@cache
def _adapter(shape: Any) -> TypeAdapter[Any]:
    return TypeAdapter(shape)  # building one takes milliseconds


def explain(error: ValidationError) -> list[str]:
    """What pydantic found wrong in a document, a text each: where, what, and the value where it is short."""
    found = []
    for item in error.errors(include_url=False, include_context=False):
        place, value = ".".join(map(str, item["loc"])), item["input"]
        plain = isinstance(value, bool | float | str | None) or (isinstance(value, int) and abs(value) < 10**20)
        told = f" (is {value!r})" if plain and item["type"] != "json_invalid" and len(str(value)) <= 60 else ""
        found.append(f"{place + ': ' if place else ''}{item['msg']}{told}")
    return found
