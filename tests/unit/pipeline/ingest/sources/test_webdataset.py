"""The source of WebDataset tars, written by webdataset itself, by tar and in img2dataset's layout."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import webdataset

from contracts.errors import DataError
from contracts.raw import RawRecord
from pipeline.ingest.sources import OpenSource, draw_from, read_joined
from pipeline.ingest.sources import webdataset as source
from pipeline.ingest.sources._draw import Draw
from pipeline.ingest.sources._splits import SPLITS
from tests.formats import drawn, put, through_door

IMAGE = drawn([(10, 8, 30, 28)])


def tar(path: Path, members: list[tuple[str, bytes | str]], kind: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=kind) as file:
        for name, content in members:
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def test_samples_of_webdatasets_own_writer(tmp_path: Path) -> None:
    for split, start in (("train", 0), ("train", 1), ("valid", 10)):
        put(tmp_path / split / f"{start:05d}.tar", b"")
        with open(tmp_path / split / f"{start:05d}.tar", "wb") as file, webdataset.TarWriter(file) as writer:
            for i in range(start, start + 5, 2):
                writer.write({"__key__": f"{i:06d}", "jpg": IMAGE, "cls": 10 - i % 3, "txt": f"a square {i}"})
    config = source.Config(splits={"val": "valid"})
    read = through_door(source, tmp_path, config)
    assert read.problems == [] and read.fixes == {}
    assert read.classes == ("8", "9", "10"), "numbers in their own order"
    assert {r.image_id: r.labels for r in read.records["train"]} == {
        f"{i:06d}": (str(10 - i % 3),) for i in range(6)
    }  # fmt: skip
    found = {c.text for r in read.records["val"] for c in r.captions}
    assert found == {"a square 10", "a square 12", "a square 14"}
    assert all(r.image == IMAGE for found in read.records.values() for r in found)
    named = through_door(source, tmp_path, source.Config(classes=tuple("abcdefghijk")))
    assert {str(r.image_id): r.labels for r in named.records["train"]}["000001"] == ("j",)


def test_img2datasets_layout(tmp_path: Path) -> None:
    def entry(key: str, caption: str | None) -> list[tuple[str, bytes | str]]:
        document = {
            "caption": caption, "url": f"https://example.org/{key}.jpg", "key": key, "status": "success",
            "error_message": None, "width": 64, "height": 48, "original_width": 640, "original_height": 480,
            "exif": "{}", "sha256": "0" * 64,
        }  # fmt: skip
        texts: list[tuple[str, bytes | str]] = [] if caption is None else [(f"{key}.txt", caption)]
        return [(f"{key}.jpg", IMAGE), *texts, (f"{key}.json", json.dumps(document))]

    tar(tmp_path / "00000.tar", entry("000000000", "ein Hügel") + entry("000000001", None))
    tar(tmp_path / "00001.tar", entry("000010000", "two hills"))
    put(tmp_path / "00000_stats.json", '{"count": 2}')
    put(tmp_path / "00000.parquet", b"PAR1")
    config = source.Config(tars="{00000..00009}.tar")
    read = through_door(source, tmp_path, config)
    assert read.problems == [] and read.classes == ()
    found = {str(r.image_id): [c.text for c in r.captions] for r in read.records["train"]}
    assert found == {"000000000": ["ein Hügel"], "000000001": [], "000010000": ["two hills"]}


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_members_that_people_have(tmp_path: Path, kind: int) -> None:
    long = "d" * 60 + "/" + "n" * 60
    place = tar(
        tmp_path / "train/a.tar",
        [
            ("__meta__/x.json", "{}"), ("._x.jpg", b"a fork"),
            ("./x.JPG", IMAGE), ("./x.json", '{"label": ["b", 3], "caption": ["one", "two"]}'),
            (f"{long}.png", drawn(kind="PNG")), (f"{long}.cls", "b\n"), (f"{long}.seg.png", b"a mask"),
            ("z.webp", drawn(kind="WEBP")), ("z.txt", "\ufeffone "), ("z.json", '{"caption": "one"}'),
        ],
        kind,
    )  # fmt: skip
    read = through_door(source, tmp_path)
    assert read.problems == []
    assert sorted((r.image_id, r.labels, [c.text for c in r.captions]) for r in read.records["train"]) == [
        ("./x", ("b", "3"), ["one", "two"]), (long, ("b",), []), ("z", (), ["one"]),
    ]  # fmt: skip
    assert read.classes == ("3", "b") and place.is_file()


def test_what_is_no_annotation_is_told_with_tar_and_member(tmp_path: Path) -> None:
    place = tar(
        tmp_path / "train/a.tar",
        [
            ("a.txt", "no image"), ("b.jpg", IMAGE), ("b.json", "[1]"), ("c.jpg", IMAGE), ("c.txt", b"\xff\xfe"),
            ("d.jpg", IMAGE), ("d.json", '{"caption": 5, "label": {"x": 1}}'), ("e.jpg", IMAGE), ("e.cls", " \n"),
            ("f.jpg", IMAGE), ("f.cls", "1"), ("f.cls", "2"), ("g.1.jpg", IMAGE), ("h.jpg", IMAGE), ("h.cls", "y"),
        ],
    )  # fmt: skip
    read = through_door(source, tmp_path, source.Config(classes=("x", "y")))
    assert {problem.file for problem in read.problems} == {str(place)}
    assert sorted((p.reason, p.kind, p.item_id) for p in read.problems) == [
        ("bad_caption", "caption", "c.txt"), ("bad_caption", "caption", "d.json"), ("bad_label", "label", "d"),
        ("bad_label", "label", "e"), ("bad_sample_json", "caption", "b.json"), ("duplicate_member", "label", "f.cls"),
        ("sample_without_image", "record", "a"), ("sample_without_image", "record", "g"),
    ]  # fmt: skip
    assert {str(r.image_id): r.labels for r in read.records["train"]} == {
        "b": (), "c": (), "d": (), "e": (), "f": ("y",), "h": ("y",),
    }  # fmt: skip


def test_val_can_be_drawn_from_the_images_of_one_tar(tmp_path: Path) -> None:
    tar(tmp_path / "00000.tar", [(f"{i:04d}.jpg", IMAGE) for i in range(40)])
    module, config = source, source.Config(tars="*.tar")
    opened = [OpenSource(name="webdataset", module=module, root=tmp_path, config=config)]  # type: ignore[arg-type]
    draw = draw_from(opened, Draw(tmp_path, seed=0, by_folder=False, shares={"val": 0.25}))
    found = {
        split: {r.key for r in read_joined(opened, split, draw) if isinstance(r, RawRecord)} for split in SPLITS[:2]
    }
    assert [len(keys) for keys in found.values()] == [30, 10]
    assert found["train"].isdisjoint(found["val"])


def test_an_image_in_a_tar_is_judged_as_any_other(tmp_path: Path) -> None:
    tar(tmp_path / "train/a.tar", [("a.jpg", b"no image"), ("b.jpg", IMAGE[:-200]), ("c.jpg", b""), ("d.jpg", IMAGE)])
    read = through_door(source, tmp_path)
    assert sorted((p.reason, p.item_id) for p in read.problems) == [
        ("not_an_image", "a"), ("not_an_image", "c"), ("undecodable_image", "b"),
    ]  # fmt: skip
    assert [r.image_id for r in read.records["train"]] == ["d"]


@pytest.mark.parametrize("damage", ["compressed", "cut", "header", "none", "empty"])
def test_tars_that_cannot_be_read_are_named(tmp_path: Path, damage: str) -> None:
    place = tar(tmp_path / "train/a.tar", [("a.jpg", IMAGE), ("b.jpg", IMAGE), ("c.jpg", IMAGE)])
    data = place.read_bytes()
    second = 512 + len(IMAGE) + -len(IMAGE) % 512
    changed: dict[str, Any] = {
        "compressed": gzip.compress(data),
        "cut": data[: second + 600],
        "header": data[:second] + b"x" * 512 + data[second + 512 :],
        "none": b"no tar at all" * 100,
        "empty": b"",
    }
    place.write_bytes(changed[damage])
    with pytest.raises(DataError, match="cannot read a tar") as error:
        through_door(source, tmp_path)
    assert error.value.where == str(place)
