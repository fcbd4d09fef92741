"""Names of splits: what the files call them, which there are, and several as one."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import Literal

from contracts.errors import DataError
from contracts.raw import Problem, RawRecord

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
SplitNames = dict[Split, str | tuple[str, ...]]


def split_names(split: str, splits: Mapping[Split, str | tuple[str, ...]]) -> tuple[str, ...]:
    """What the files of a data set call `split`: its own name unless `splits` says otherwise."""
    names = splits.get(split, split)  # type: ignore[call-overload]  # any text may be asked for
    return (names,) if isinstance(names, str) else tuple(names)


def check_all_there(split: str, names: Iterable[str], found: Container[str], where: str) -> None:
    """Raise DataError if a split that is made of several names lacks one of them."""
    if missing := [name for name in names if name not in found]:
        raise DataError(
            f"split {split!r} is made of several, and not all of them are there", value=missing, where=where,
            fix="correct the names in `splits`, or take these out",
        )  # fmt: skip


def names_there(
    split: str, splits: Mapping[Split, str | tuple[str, ...]], is_there: Callable[[str], bool], where: str
) -> list[str]:
    """What the files call `split`, where they have it.

    Args:
        is_there: whether there is a file of the split that is called so.

    Raises:
        DataError: some of its names have a file and some have not.
    """
    names = split_names(split, splits)
    found = [name for name in names if is_there(name)]
    if found:
        check_all_there(split, names, found, where)
    return found


def file_splits(template: str, only: tuple[Split, ...]) -> tuple[Split, ...]:
    """Splits that a path can be a file of: without `{split}` it is one file, of train unless `only` has one split."""
    if "{split}" in template:
        return only
    return only if len(only) == 1 else ("train",)


def in_key_order(streams: Iterable[Iterator[RawRecord | Problem]]) -> Iterator[RawRecord | Problem]:
    """Several streams of a source as one, in ascending order of key; of two records with one key the first counts."""
    heads: list[tuple[str, int, RawRecord]] = []
    opened = list(streams)

    def advance(number: int) -> Iterator[Problem]:
        for item in opened[number]:
            if isinstance(item, RawRecord):
                heapq.heappush(heads, (item.key, number, item))
                return
            yield item

    for number in range(len(opened)):
        yield from advance(number)
    last = ""
    while heads:
        key, number, record = heapq.heappop(heads)
        if key == last:
            yield Problem(
                reason="duplicate_key", kind="record", file=record.annotation_file, item_id=str(record.image_id),
                key=key, detail=str(record.image),
            )  # fmt: skip
        else:
            yield record
        last = key
        yield from advance(number)
