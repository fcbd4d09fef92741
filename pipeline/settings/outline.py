"""Read what a part is given, and what it goes with, without the libraries that do its work.

A part is one file: its `Config` and its family stand beside the network that imports torch, which takes ten times as
long to import as all settings take to check. Inside `outlines()`, a part's own file and what it imports of ours run
with blanks in place of all other libraries: `nn.Module` is a class without anything, `torch.arange(3) * 2` is a blank
again. A Config needs none of it.

Where one does, that is no matter of guessing: once a file has run, every touch of a blank raises `LibraryNeeded`, and
so does a blank that would have to be a number or a truth; the command then starts again without outlines. So the
answer is always that of the real libraries. An import inside a function is a real one.
"""

from __future__ import annotations

import builtins
import os
import sys
from abc import ABCMeta
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from contracts.errors import SightlineError

_OURS = ("contracts", "lightning_modules", "pipeline")
_CHEAP = ("annotated_types", "pydantic", "typing_extensions", "yaml")  # what settings are checked by
_KEPT = sys.stdlib_module_names | {*_OURS, *_CHEAP}
# Of ours, what computes and takes long to import. A package that is not named here is only slower.
_WORK = (
    "contracts.inputs",
    "contracts.raw",
    "contracts.records",
    "lightning_modules.augment.draw",
    "lightning_modules.augment.images",
    "lightning_modules.augment.shown",
    "lightning_modules.augment.view",
    "lightning_modules.blocks.feature_cache",
    "lightning_modules.drawing",
    "lightning_modules.metrics",
    "lightning_modules.ops",
    "lightning_modules.reports",
    "lightning_modules.solvers",
    "pipeline.ingest.door",
    "pipeline.ingest.sources._coco_json",
    "pipeline.ingest.sources._draw",
    "pipeline.ingest.sources._recognise",
    "pipeline.ingest.sources._voc_files",
    "pipeline.ingest.worlds._language",
)
_WITHOUT = "SIGHTLINE_WITHOUT_OUTLINES"
_import = builtins.__import__
_is_on = False
_num_open = 0  # files of parts that are being run: one imports another


class LibraryNeeded(BaseException):
    """A blank was used as if it were the real thing. No `except Exception` of a part may hide that."""


class _Blank(ABCMeta):
    """The kind of blanks: classes, so that they can be inherited from, called, and joined to types by `|`."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__") and name not in ("__version__", "__file__"):
            raise AttributeError(name)  # what Python, dataclasses and typing ask any object for
        return _blank(name)

    def __call__(cls, *arguments: Any, **keywords: Any) -> Any:
        return _blank("a call")

    def __getitem__(cls, key: Any) -> Any:
        return _blank("an item")

    def __setitem__(cls, key: Any, value: Any) -> None:
        _blank("an item")

    def __iter__(cls) -> Iterator[Any]:
        return iter([_blank("an item")])

    def __eq__(cls, other: object) -> bool:
        if isinstance(other, type) or _typing_asks():  # as typing compares the members of a union
            return cls is other
        raise LibraryNeeded("a comparison")

    def __hash__(cls) -> int:
        if "is_blank" in vars(cls):  # what is in a set of blanks, nobody knows
            raise LibraryNeeded("a member of a set")
        return super().__hash__()

    def __instancecheck__(cls, instance: Any) -> bool:
        raise LibraryNeeded("isinstance")

    def __bool__(cls) -> bool:
        if _typing_asks():  # whether a TypeVar has a bound
            return True
        raise LibraryNeeded("a truth")

    def __str__(cls) -> str:
        return _BlankText(_blank("a text").__name__)

    def __format__(cls, how: str) -> str:
        return str(cls)


def _typing_asks() -> bool:
    return sys._getframe(2).f_globals.get("__name__") == "typing"


class _BlankText(str):
    """May stand in a longer text (`f"hotcoco {hotcoco.__version__}"`), and is compared with nothing."""

    def __eq__(self, other: object) -> bool:
        raise LibraryNeeded("a comparison")

    def __hash__(self) -> int:
        raise LibraryNeeded("a member of a set")


def _blank(name: str) -> Any:
    if not _num_open:
        raise LibraryNeeded(name)
    return _Blank(name, (), {"is_blank": True})


for _operator in ("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "pow"):
    setattr(_Blank, f"__{_operator}__", lambda *_: _blank("a number"))
    setattr(_Blank, f"__r{_operator}__", lambda *_: _blank("a number"))
for _operator in ("neg", "pos", "abs", "lt", "le", "gt", "ge"):
    setattr(_Blank, f"__{_operator}__", lambda *_: _blank("a number"))


@contextmanager
def outlines() -> Iterator[None]:
    """Within, parts that `discover.load` imports are outlines. They stay so: a process that does more than look at
    settings has no use for them.

    Raises:
        LibraryNeeded: what was asked needs the real libraries.
    """
    global _is_on
    _is_on = True
    try:
        yield
    finally:
        _is_on = False


def with_outlines(work: Callable[[], None]) -> None:
    """Do what looks at settings alone, and nothing after it in this process, which is the command's own.

    Where it cannot be done by outlines, the same command is started again in place of this process, without them.
    """
    if os.environ.get(_WITHOUT):
        work()
        return
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # it reads every installed package's list of them
    try:
        with outlines():
            work()
    except (SightlineError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # LibraryNeeded, or what a blank led to
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, _WITHOUT: "1"})


@contextmanager
def running_a_part() -> Iterator[None]:
    """Around the import of a part: inside `outlines()`, other libraries are blanks to our files, and to no others."""
    global _num_open
    if not _is_on:
        yield
        return
    _num_open += 1
    builtins.__import__ = _import_outline  # type: ignore[assignment]  # its stub names more than Python gives
    try:
        yield
    finally:
        _num_open -= 1
        if not _num_open:
            builtins.__import__ = _import


def _import_outline(name: str, names: Any = None, local: Any = None, wanted: Any = (), level: int = 0) -> Any:
    importer = (names or {}).get("__name__", "")
    top = name.partition(".")[0]
    is_real = top in _KEPT and not name.startswith(_WORK)
    if level or is_real or importer.partition(".")[0] not in _OURS:
        return _import(name, names, local, wanted, level)
    return _blank(top)
