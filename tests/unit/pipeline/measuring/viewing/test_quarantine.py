"""What was refused, with its pictures; and copies between splits, from raw files to the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from contracts.errors import DataError
from pipeline.measuring.view import Request, write_view
from pipeline.measuring.viewing.duplicates import Place
from pipeline.measuring.viewing.quarantine import Example, examples
from pipeline.settings.params import load_params
from pipeline.shards.manifest import load_manifest
from pipeline.shards.reader import open_splits
from pipeline.stages.fetch import fetch
from pipeline.stages.shard import shard
from pipeline.system.project import Project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Class folders with a cut picture, one that is no picture, and a copy of a training picture in val."""
    folder = tmp_path_factory.mktemp("project")
    generator = np.random.default_rng(0)
    for i, place in enumerate(["train/a"] * 6 + ["train/b"] * 6 + ["val/a"] * 4):
        noise = cv2.resize(generator.integers(0, 256, (6, 8, 3), np.uint8), (128, 96), interpolation=cv2.INTER_CUBIC)
        (folder / "raw" / place).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / "raw" / place / f"{i:02}.jpg"), noise)
    copied = cv2.imread(str(folder / "raw/train/b/08.jpg"))
    cv2.imwrite(str(folder / "raw/val/a/99.jpg"), copied[1:-1, 2:], [cv2.IMWRITE_JPEG_QUALITY, 60])
    cut = folder / "raw/train/a/02.jpg"
    cut.write_bytes(cut.read_bytes()[:-900])
    (folder / "raw/val/a/50.jpg").write_text("no picture")
    data = {"origin": "local", "input": "raw", "sources": {"image_folder": {}}, "max_quarantined": 0.5}
    document = {"datasets": {"data": data}, "runs": {}, "cluster": {"engine": "local"}}
    (folder / "params.yaml").write_text(yaml.safe_dump(document))
    made, params = Project(folder), load_params(folder)
    fetch(made, params, "data")
    shard(made, params, "data")
    return made


def shown(project: Project) -> list[Example]:
    folder = project.shards("data")
    manifest = load_manifest(folder, "data")
    return examples(project, "data", open_splits(folder, manifest), manifest["classes"])


def listed(project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *lines: Any) -> list[Example]:
    """What is shown of another list."""
    file = tmp_path / "list.jsonl"
    file.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr(Project, "quarantine", lambda *_: file)
    return shown(project)


def line(**given: str) -> dict[str, str]:
    some = {
        "split": "train",
        "reason": "not_an_image",
        "kind": "record",
        "file": "",
        "item_id": "1",
        "key": "",
        "detail": "",
    }
    return {**some, **given}


def test_the_page_tells_reasons_in_words_and_copies_between_splits(project: Project, tmp_path: Path):
    page = write_view(project, Request(dataset="data", out=tmp_path / "view.html", num=1))
    text = (tmp_path / "view.html").read_text()
    assert page.num_refused == 2
    assert "refused before" not in text and "A file that is no JPEG, PNG, BMP" in text
    assert "not in val: is not measured there" in text and "No run of params.yaml" in text
    assert page.found is not None and page.found.num_pairs == {("train", "val"): 1}
    (pair,) = page.found.pairs
    assert (pair.one.split, pair.other) == ("train", Place("val", 4)), "99.jpg is the last of val"
    assert "<strong>between train and val</strong>" in text


def test_a_cut_picture_is_shown_as_far_as_it_goes(project: Project):
    found = {Path(one.where).name: one for one in shown(project)}
    assert found.keys() == {"02.jpg", "50.jpg"}
    assert found["02.jpg"].picture.startswith("data:image/jpeg;base64,")
    assert (found["50.jpg"].picture, found["50.jpg"].told) == ("", "the file cannot be decoded")


def test_of_a_dropped_part_the_record_is_shown(project: Project, monkeypatch, tmp_path):
    reader = open_splits(project.shards("data"), load_manifest(project.shards("data")))["val"]
    key = reader.keys()[1]
    part = line(split="val", reason="zero_area_box", kind="object", key=key, detail="(1, 1, 1, 1)", file="a.json")
    one, other = listed(project, monkeypatch, tmp_path, part, part | {"key": "unknown"})
    assert one.picture and one.told == "the record, as it was kept" and one.what == "object 1 (1, 1, 1, 1)"
    assert not other.picture and other.told == "no picture belongs to it"


def test_files_elsewhere_large_ones_and_lost_ones_are_not_opened(project: Project, monkeypatch, tmp_path):
    elsewhere, inside = tmp_path / "private.png", project.root / "raw" / "huge.png"
    cv2.imwrite(str(elsewhere), np.zeros((8, 8, 3), np.uint8))
    cv2.imwrite(str(inside), np.zeros((64, 64), np.uint8))
    link = project.root / "raw" / "link.png"
    link.symlink_to(elsewhere)
    files = [elsewhere, link, project.root / "raw" / "gone.png"]
    told = [
        listed(project, monkeypatch, tmp_path, line(file=str(file)))[0] for file in files
    ]  # fmt: skip
    assert [one.picture for one in told] == ["", "", ""]
    assert [one.told for one in told] == [
        "the file is not in the data set's folder", "the file is not in the data set's folder", "the file is not there",
    ]  # fmt: skip
    assert listed(project, monkeypatch, tmp_path, line(file=str(inside)))[0].picture
    monkeypatch.setattr("pipeline.measuring.viewing.quarantine._MOST_PIXELS", 4000)
    assert "megapixels" in listed(project, monkeypatch, tmp_path, line(file=str(inside)))[0].told
    link.unlink()
    inside.unlink()


def test_some_of_each_reason_are_shown(project: Project, monkeypatch, tmp_path):
    many = [line(reason=f"reason_{i % 20}", item_id=str(i)) for i in range(200)]
    reasons = [one.reason for one in listed(project, monkeypatch, tmp_path, *many)]
    assert len(reasons) == 36 and max(map(reasons.count, reasons)) <= 3


@pytest.mark.parametrize("damaged", ['{"split": "train"}\n', "[]\n", "{cut"])
def test_a_damaged_list_is_told_with_its_line(project: Project, monkeypatch, tmp_path, damaged):
    with pytest.raises(DataError, match=r"(?s)quarantine list is damaged.*list.jsonl:2.*shard@data"):
        listed(project, monkeypatch, tmp_path, line(), damaged)


def test_without_raw_data_texts_are_left(project: Project, monkeypatch):
    monkeypatch.setattr(Project, "raw", lambda self, dataset: self.root / "nowhere")
    assert {one.told for one in shown(project)} == {"the raw data is not there any more"}
