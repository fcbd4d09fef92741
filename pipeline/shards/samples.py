"""One record <-> its bytes in a WebDataset tar, deterministic.

A sample is the members `<key>.jpg|png`, `<key>.json` and, where there is one, `<key>.semantic.png`; that of a clip has
its frames `<key>.0000.jpg`, `<key>.0001.jpg` and so on before the `.json`, that of texts the `.json` alone. So any
WebDataset reader reads the tars. Members are plain ustar with mtime 0 and fixed owner: equal records give equal tars,
which DVC relies on, and a reader knows every byte of a header.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Sequence
from typing import Literal

from contracts.errors import DataError
from contracts.records import Record
from pipeline.shards.manifest import BLOCK

_AGAIN = "run the shard stage again"
# A ustar header: name, mode 0644, owner 0, length, mtime 0, checksum, plain file; tarfile makes the same more slowly.
_HEADER = b"%b0000644\x000000000\x000000000\x00%b\x0000000000000\x00%b0" + bytes(100) + b"ustar\x0000" + bytes(247)
_HEADER_SUM = sum(_HEADER % (b"", b"", b" " * 8))  # a checksum counts its own field as blanks


def tar_member(name: str, data: bytes) -> list[bytes]:
    """Header, content and padding of one file in a tar: whole blocks.

    Raises:
        DataError: the name is too long for a tar's header.
    """
    return [_header(name.encode(), len(data)), data, bytes(-len(data) % BLOCK)]


def _header(name: bytes, size: int) -> bytes:
    if len(name) > tarfile.LENGTH_NAME:  # ustar cuts such a name in two at a slash
        info = tarfile.TarInfo(name.decode())
        info.size, info.mode, info.uname, info.gname = size, 0o644, "", ""
        try:
            return info.tobuf(tarfile.USTAR_FORMAT)
        except ValueError as error:
            raise DataError(
                f"a name does not fit into a tar: {error}",
                value=name.decode(),
                allowed=f"{tarfile.LENGTH_NAME} bytes with its ending",
                fix="give the image's file a shorter name",
            ) from None
    length = b"%011o" % size
    checksum = b"%06o\0 " % (_HEADER_SUM + sum(name) + sum(length))
    return _HEADER % (name.ljust(tarfile.LENGTH_NAME, b"\0"), length, checksum)


def sample_pieces(record: Record) -> list[bytes]:
    """The tar members of one record. In pieces: to join them would copy every image once more.

    Raises:
        DataError: the key is too long for a tar's header.
    """
    pieces: list[bytes] = []
    if record.image_format:
        pieces += tar_member(f"{record.key}.{record.image_format}", record.image)
    for number, frame in enumerate(record.frames):
        pieces += tar_member(_frame_name(record.key, number), frame)
    pieces += tar_member(f"{record.key}.json", record.annotation_json())
    if record.semantic_mask:
        pieces += tar_member(f"{record.key}.semantic.png", record.semantic_mask)
    return pieces


def write_pieces(descriptor: int, pieces: Sequence[bytes]) -> int:
    """Write all pieces, with one system call if there is room; returns their length in bytes.

    Raises:
        OSError: no room for all of them.
    """
    size = sum(map(len, pieces))
    written = os.writev(descriptor, pieces)
    while written != size:  # the system says why it stopped only when it is asked for the rest
        written += os.write(descriptor, b"".join(pieces)[written:])
    return size


def parse_sample(data: bytes, key: str, where: str) -> Record:
    """The inverse of `sample_pieces`, joined.

    Raises:
        DataError: the bytes are not exactly those of one sample of `key` and of this schema version.
    """
    names, contents = _members(data, where)
    record = _record(names, contents, key, where)
    if record is None:
        raise DataError(
            "these are not the files of one sample",
            value=names[:8],
            where=where,
            allowed=f"{key}.jpg or {key}.png or {_frame_name(key, 0)} and so on, if there is any, then {key}.json, "
            f"then perhaps {key}.semantic.png",
            fix=_AGAIN,
        )
    if record.key != key:
        raise DataError("an annotation belongs to another sample", value=record.key, where=where, fix=_AGAIN)
    return record


def _record(names: list[str], contents: list[bytes], key: str, where: str) -> Record | None:
    """The record of a sample's files; None where they are not those of one sample."""
    annotation = f"{key}.json"
    image_formats: tuple[Literal["jpg", "png"], ...] = ("jpg", "png")
    for image_format in image_formats:
        expected = [f"{key}.{image_format}", annotation, f"{key}.semantic.png"]
        if names in (expected[:2], expected):
            return Record.from_parts(contents[1], contents[0], image_format, *contents[2:], where=where)
    frames = len(names) - 1
    if frames >= 0 and names == [*(_frame_name(key, number) for number in range(frames)), annotation]:
        return Record.from_parts(contents[-1], frames=tuple(contents[:-1]), where=where)
    return None


def _frame_name(key: str, number: int) -> str:
    return f"{key}.{number:04d}.jpg"


def _members(data: bytes, where: str) -> tuple[list[str], list[bytes]]:
    """Names and contents of the members of a tar without its end."""
    names: list[str] = []
    contents: list[bytes] = []
    position = 0
    while position < len(data):
        header = data[position : position + BLOCK]
        name, size = header[: tarfile.LENGTH_NAME].rstrip(b"\0"), _octal(header[124:135])
        if size is None or header != _header(name, size):
            raise DataError("unexpected bytes where a tar member should start", where=where, fix=_AGAIN)
        start = position + BLOCK
        position = start + size + (-size % BLOCK)
        if position > len(data) or any(data[start + size : position]):
            raise DataError("a tar member is cut, or followed by more than padding", where=where, fix=_AGAIN)
        names.append(name.decode(errors="replace"))
        contents.append(data[start : start + size])
    return names, contents


def _octal(field: bytes) -> int | None:
    return int(field, 8) if field.isdigit() and max(field) < ord("8") else None
