"""One record <-> its bytes in a WebDataset tar, deterministic.

A sample is the members `<key>.jpg|png`, `<key>.json` and, where there is one, `<key>.semantic.png`, so any WebDataset
reader reads the tars. Members are plain ustar with mtime 0 and fixed owner: equal records give equal tars, which DVC
relies on, and a reader knows every byte of a header.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Sequence

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
    pieces = tar_member(f"{record.key}.{record.image_format}", record.image)
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
    members: list[tuple[str, bytes]] = []
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
        members.append((name.decode(errors="replace"), data[start : start + size]))
    names = [name for name, _ in members]
    for image_format in ("jpg", "png"):
        expected = [f"{key}.{image_format}", f"{key}.json", f"{key}.semantic.png"]
        if names in (expected[:2], expected):
            image, annotation, *semantic = (content for _, content in members)
            record = Record.from_parts(annotation, image, image_format, *semantic, where=where)
            if record.key != key:
                raise DataError("an annotation belongs to another sample", value=record.key, where=where, fix=_AGAIN)
            return record
    raise DataError(
        "these are not the files of one sample",
        value=names[:8],
        where=where,
        allowed=f"{key}.jpg or {key}.png, then {key}.json, then perhaps {key}.semantic.png",
        fix=_AGAIN,
    )


def _octal(field: bytes) -> int | None:
    return int(field, 8) if field.isdigit() and max(field) < ord("8") else None


def sample_counts(record: Record) -> dict[str, int]:
    usable = ~record.objects.is_crowd
    return {
        "num_objects": int(usable.sum()),
        "num_masks": sum(1 for mask, keep in zip(record.objects.masks, usable, strict=True) if mask and keep),
        "num_captions": len(record.captions),
        "num_questions": len(record.questions),
        "num_labels": len(record.labels),
        "has_semantic": int(bool(record.semantic_mask)),
    }
