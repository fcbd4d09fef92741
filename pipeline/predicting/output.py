"""Where answers go as they are made: one JSON document on stdout, or JSON lines that a later call goes on from."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from contracts.errors import ConfigError, DataError
from pipeline.system.disk import writing

Entry = dict[str, Any]
STDOUT = "-"


@dataclass
class Done:
    """What a file of lines has already: inputs as (name, frame), pictures, and how many failed."""

    inputs: set[tuple[str, int | None]] = field(default_factory=set)
    pictures: list[Path] = field(default_factory=list)
    failed: int = 0


@contextmanager
def document(head: Mapping[str, Any]) -> Iterator[Callable[[Entry], None]]:
    """Yield what writes an entry of `predictions` of a document that begins with `head`, as `json.dumps(.., indent=1)`
    has it. Nothing is printed before the first entry; what was begun is closed even after an interruption."""
    begun = False

    def begin() -> None:
        nonlocal begun
        begun = True
        print(f'{_text(head, indent=1)[:-2]},\n "predictions": [', end="")

    def write(entry: Entry) -> None:
        separator = ",\n  " if begun else "\n  "
        if not begun:
            begin()
        # Not by `textwrap`, which would take a U+2028 within a text for the end of a line.
        print(separator + _text(entry, indent=1).replace("\n", "\n  "), end="", flush=True)

    try:
        yield write
    except BaseException:
        if begun:
            print("\n ]\n}", flush=True)
        raise
    if begun:
        print("\n ]\n}", flush=True)
    else:
        begin()
        print("]\n}", flush=True)


@contextmanager
def lines(target: str, about: Mapping[str, str]) -> Iterator[Callable[[Entry], None]]:
    """Yield what writes an entry as a line, with `about` before it. It is appended to the file and leaves this process
    at once, so that an interruption costs what was not yet answered and nothing else."""
    if target == STDOUT:
        yield lambda entry: _write(sys.stdout, {**about, **entry})
        return
    path = Path(target)
    with ExitStack() as stack:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(open(path, "a", encoding="utf-8"))

        def write(entry: Entry) -> None:
            with writing(path):
                _write(file, {**about, **entry})

        yield write


def line_of(entry: Mapping[str, Any]) -> str:
    return _text(entry)


def _text(values: Mapping[str, Any], indent: int | None = None) -> str:
    """JSON. What of a file's name is no UTF-8 becomes the escape that JSON itself has for it."""
    return json.dumps(values, indent=indent, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


def _write(file: TextIO, entry: Entry) -> None:
    file.write(line_of(entry) + "\n")
    file.flush()


def begun(target: str, about: Mapping[str, str], *, resume: bool) -> Done:
    """What the file has already. A last line that was cut by the death of who wrote it is removed.

    Raises:
        ConfigError: it has something, and `resume` is not asked for; or its answers are of another model.
        DataError: a line is none of ours.
    """
    done, path = Done(), Path(target)
    if target == STDOUT or not path.exists():
        return done
    if path.is_file() and path.stat().st_size and not resume:
        raise ConfigError(
            "this file has lines already", value=target, where="--json",
            fix="--resume goes on after them; or remove it, or name another",
        )  # fmt: skip
    with writing(path), open(path, "r+b") as file:
        whole = 0
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            _take(done, line, about, f"{path}, line {number}")
        file.seek(whole)
        file.truncate()
    return done


def _take(done: Done, line: bytes, about: Mapping[str, str], where: str) -> None:
    try:
        entry = json.loads(line)
        of = {name: entry[name] for name in about}
    except (ValueError, TypeError, KeyError):
        fix = "name another file"
        raise DataError("this line is no answer of `predict`", value=line[:60], where=where, fix=fix) from None
    if of != about:
        raise ConfigError(
            "these answers are of another model, or of other weights", value=of, where=where, allowed=str(dict(about)),
            fix="name another file",
        )  # fmt: skip
    done.inputs.add((entry.get("image", entry.get("clip", "")), entry.get("frame")))
    done.failed += "error" in entry
    if "picture" in entry:
        done.pictures.append(Path(entry["picture"]))


def leave_closed_pipe() -> None:
    """After a reader such as `head` is gone: Python's own flush at its end must not raise once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
