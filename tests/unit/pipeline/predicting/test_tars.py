"""`sightline predict --cluster`: tars to files of lines, here without Ray (`engine: local`)."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from contracts.errors import DataError
from pipeline.predicting import tars
from tests.command import sightline


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


@pytest.fixture
def images(folder: Path) -> Path:
    """Two tars in `t/`: `b` has a bad image, a sample without any, and one with a mask beside it."""
    document = {"datasets": {}, "runs": {}, "cluster": {"engine": "local"}}
    (folder / "params.yaml").write_text(yaml.safe_dump(document))
    tars._loaded.clear()
    red = (folder / "red.png").read_bytes()
    write_tar(folder / "t/a.tar", {"1.png": red, "2.png": red, "2.json": b"{}"})
    write_tar(folder / "t/b.tar", {"1.jpg": b"bad", "2.json": b"{}", "d/3.semantic.png": b"mask", "d/3.png": red})
    return folder


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(name).read_text().splitlines()]


def predicted(capsys: pytest.CaptureFixture, *arguments: str, code: int) -> dict[str, Any]:
    assert sightline("predict", ["a_run", *arguments, "--cluster", "--out", "found"]) == code
    return json.loads(capsys.readouterr().out)


def test_each_tar_has_a_file_of_lines_and_a_bad_member_is_one(images: Path, capsys: pytest.CaptureFixture) -> None:
    summary = predicted(capsys, "t", code=1)
    assert summary.pop("images_per_s") > 0
    assert summary == {
        "model": "a_run", "out": "found", "tars": 2, "tars_done_before": 0, "tars_failed": 0, "images": 5, "failed": 2,
    }  # fmt: skip
    assert [(one["image"], one["answers"][0]["size"]) for one in lines("found/a.jsonl")] == [
        ("1.png", [20, 30]), ("2.png", [20, 30]),
    ]  # fmt: skip
    bad, none, good = lines("found/b.jsonl")
    assert (bad["image"], none["image"], good["image"]) == ("1.jpg", "2", "d/3.png")
    assert "cannot be used" in bad["error"]["message"] and "no image" in none["error"]["message"]
    assert good["answers"][0]["size"] == [20, 30] and good["model"] == "a_run"


def test_what_is_whole_is_left_alone_and_a_damaged_tar_has_no_file(images: Path, capsys: pytest.CaptureFixture) -> None:
    whole = (images / "t/b.tar").read_bytes()
    (images / "t/b.tar").write_bytes(whole[:700])
    summary = predicted(capsys, "t/*.tar", code=1)
    assert (summary["tars"], summary["tars_failed"], summary["images"]) == (1, 1, 2)
    assert not Path("found/b.jsonl").exists()
    Path("found/a.jsonl").write_text("as it was\n")
    (images / "t/b.tar").write_bytes(whole)
    summary = predicted(capsys, "t/a.tar", "t/b.tar", code=1)
    assert (summary["tars"], summary["tars_done_before"], summary["images"]) == (1, 1, 3)
    assert Path("found/a.jsonl").read_text() == "as it was\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a_run", "t/a.tar", "u/a.tar"], ["two tars would have one file", "t/a.tar, u/a.tar"]),
        (["a_run", "none.tar"], ["no such tar: 'none.tar'"]),
        (["a_run", "other"], ["there are no tars here: 'other'"]),
        (["asks", "t"], ["a question is missing"]),
        (["a_run", "t", "--score", "0.1"], ["asked otherwise", "found/about.json"]),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_done(
    images: Path, capsys: pytest.CaptureFixture, arguments: list[str], said: list[str]
) -> None:
    if "--score" in arguments:
        predicted(capsys, "t/a.tar", code=0)
    before = sorted(Path(".").rglob("*.jsonl"))
    assert sightline("predict", [*arguments, "--cluster", "--out", "found"]) == 2
    err = capsys.readouterr().err
    assert all(text in err for text in said), err
    assert sorted(Path(".").rglob("*.jsonl")) == before


def test_tars_and_answers_may_be_in_a_store(images: Path, s3: Any, capsys: pytest.CaptureFixture) -> None:
    from pipeline.shards import stores

    for name in ("a", "b"):
        stores.upload(images / f"t/{name}.tar", f"s3://shop/in/{name}.tar")
    asked = ["a_run", "s3://shop/in/", "--cluster", "--out", "s3://shop/found"]
    assert sightline("predict", asked) == 1
    assert json.loads(capsys.readouterr().out)["images"] == 5
    assert [json.loads(line)["image"] for line in stores.read("s3://shop/found/a.jsonl").splitlines()] == [
        "1.png",
        "2.png",
    ]
    assert sightline("predict", asked) == 0
    assert json.loads(capsys.readouterr().out)["tars_done_before"] == 2


def test_an_unreadable_tar_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"no tar" * 200)
    with pytest.raises(DataError, match="this tar cannot be read"):
        list(tars._items(tmp_path / "x.tar", "x.tar"))
