"""Unpacking: nothing outside, nothing too large, nothing damaged."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import DataError
from pipeline.ingest.extract import extract
from tests.zips import zip_bytes

CONTENT = zip_bytes(train2017__a=bytes(range(256)) * 400)


def tar_bytes(*members: tarfile.TarInfo, data: bytes = b"") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        for member in members:
            file.addfile(member, io.BytesIO(data) if member.isreg() else None)
    return out.getvalue()


def tar_member(name: str, **fields: Any) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(member, key, value)
    return member


def zip_link() -> bytes:
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("first", b"1")
        file.writestr(info, "/etc/passwd")
    return out.getvalue()


UNSAFE: dict[str, Callable[[], bytes]] = {
    "zip parent": lambda: zip_bytes(ok=b"1", **{"..__x": b"1"}),
    "zip absolute": lambda: zip_bytes(ok=b"1", __tmp__x=b"1"),
    "zip backslash": lambda: zip_bytes(ok=b"1", **{"..\\x": b"1"}),
    "zip link": zip_link,
    "tar parent": lambda: tar_bytes(tar_member("ok"), tar_member("a/../../x")),
    "tar absolute": lambda: tar_bytes(tar_member("ok"), tar_member("/tmp/x")),
    "tar symbolic link": lambda: tar_bytes(tar_member("ok"), tar_member("x", type=tarfile.SYMTYPE, linkname="/etc")),
    "tar hard link": lambda: tar_bytes(tar_member("ok"), tar_member("x", type=tarfile.LNKTYPE, linkname="ok")),
    "tar device": lambda: tar_bytes(tar_member("ok"), tar_member("x", type=tarfile.CHRTYPE)),
    "tar pipe": lambda: tar_bytes(tar_member("ok"), tar_member("x", type=tarfile.FIFOTYPE)),
}


@pytest.mark.parametrize("kind", UNSAFE)
def test_unsafe_archives_write_nothing(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a").write_bytes(UNSAFE[kind]())
    with pytest.raises(DataError, match="not safe"):
        extract(tmp_path / "a", tmp_path / "out", lambda _: None)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a"]


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out/folder").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "a").write_bytes(zip_bytes(folder__x=b"1"))
    with pytest.raises(DataError, match="through a link"):
        extract(tmp_path / "a", tmp_path / "out", lambda _: None)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_bombs_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("zeros", bytes(80 << 20))
    (tmp_path / "a").write_bytes(out.getvalue())
    with pytest.raises(DataError, match="not safe"):
        extract(tmp_path / "a", tmp_path / "out", lambda _: None)
    monkeypatch.setattr("pipeline.ingest.extract._MAX_FILES", 1)
    (tmp_path / "b").write_bytes(zip_bytes(x=b"1", y=b"1"))
    with pytest.raises(DataError, match="not safe"):
        extract(tmp_path / "b", tmp_path / "out", lambda _: None)
    assert not (tmp_path / "out").exists()


def test_good_tars_and_damaged_archives(tmp_path: Path) -> None:
    folder = tar_member("VOCdevkit", type=tarfile.DIRTYPE)
    good = tar_bytes(folder, tar_member("VOCdevkit/x", size=3, mode=0o4777), data=b"abc")
    (tmp_path / "a.tar").write_bytes(good)
    counted: list[int] = []
    assert extract(tmp_path / "a.tar", tmp_path / "out", counted.append) == {"VOCdevkit/x": 3}
    assert (tmp_path / "out/VOCdevkit/x").read_bytes() == b"abc"
    assert (tmp_path / "out/VOCdevkit/x").stat().st_mode & 0o7111 == 0  # no set-uid, no execute bit from the archive
    assert counted == [1]
    damaged = bytearray(CONTENT)
    damaged[200] ^= 0xFF
    for name, data in (("cut.zip", CONTENT[:5000]), ("flipped.zip", bytes(damaged)), ("text", b"hello" * 300)):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match="damaged"):
            extract(tmp_path / name, tmp_path / "out2", lambda _: None)
