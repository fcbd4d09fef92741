"""Names of splits, several files or folders as one, and splits that are drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import ConfigError, DataError
from contracts.raw import Problem, RawRecord
from pipeline.ingest.sources import (
    Draw,
    OpenSource,
    check_splits,
    coco,
    draw_from,
    joined_classes,
    joined_splits,
    read_joined,
    vqa,
)

ROBOFLOW: dict[str, Any] = {"images": "{split}", "instances": "{split}/_annotations.coco.json"}


def write(path: Path, names: list[str], categories: tuple[str, ...] = ("cup", "plate"), first_id: int = 1) -> None:
    """An instances file with one box an image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "images": [{"id": i, "file_name": name, "width": 40, "height": 30} for i, name in enumerate(names)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": first_id, "bbox": [1, 2, 10, 20]} for i in range(len(names))
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(categories, start=first_id)],
    }
    path.write_text(json.dumps(document))


def source(root: Path, **config: Any) -> list[OpenSource]:
    return [OpenSource(name="coco", module=coco, root=root, config=coco.Config(**config))]


def names(opened: list[OpenSource], split: str, draw: Draw | None = None) -> list[str]:
    items = list(read_joined(opened, split, draw))
    assert all(isinstance(item, RawRecord) for item in items)
    root = opened[0].root
    return [item.image.relative_to(root).as_posix() for item in items if isinstance(item, RawRecord)]


def test_files_may_call_a_split_otherwise(tmp_path: Path) -> None:
    for folder in ("train", "valid"):
        write(tmp_path / folder / "_annotations.coco.json", [f"{folder}.jpg"])
    opened = source(tmp_path, **ROBOFLOW, splits={"val": "valid"})
    assert joined_splits(opened) == ("train", "val")
    assert names(opened, "val") == ["valid/valid.jpg"]
    check_splits(opened, joined_splits(opened))


def test_several_names_are_read_as_one_in_order_of_key(tmp_path: Path) -> None:
    for folder in ("train", "extra", "val"):
        write(tmp_path / folder / "_annotations.coco.json", ["b.jpg", "a.jpg"])
    opened = source(tmp_path, **ROBOFLOW, splits={"train": ("train", "extra")})
    assert names(opened, "train") == ["extra/a.jpg", "extra/b.jpg", "train/a.jpg", "train/b.jpg"]
    missing = source(tmp_path, **ROBOFLOW, splits={"train": ("train", "more")})
    with pytest.raises(DataError, match=r"(?s)not all of them are there: \['more'\].*_annotations"):
        joined_splits(missing)


def test_several_folders_are_one_source(tmp_path: Path) -> None:
    """Ids start anew in each of them, and may differ for one class."""
    for number, folder in enumerate(("site_b", "site_a")):
        write(tmp_path / folder / "train.json", ["1.jpg", "2.jpg"], first_id=number)
    opened = source(tmp_path, images="img", instances="{split}.json", folders=("site_b", "site_a"))
    assert joined_classes(opened) == ("cup", "plate")
    assert names(opened, "train") == [f"site_{s}/img/{i}.jpg" for s in "ab" for i in (1, 2)]
    records = [item for item in read_joined(opened, "train") if isinstance(item, RawRecord)]
    assert {o.category for r in records for o in r.objects} == {"cup"}


def test_an_image_that_two_lists_have_is_told_once(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / f"{name}.json", ["a.jpg"])
    opened = source(tmp_path, images="img", instances="{split}.json", splits={"train": ("one", "two")})
    problem, record = read_joined(opened, "train")
    assert isinstance(record, RawRecord) and isinstance(problem, Problem)
    assert (problem.reason, problem.kind, problem.key) == ("duplicate_key", "record", record.key)


def test_one_file_is_train_and_val_must_come_from_somewhere(tmp_path: Path) -> None:
    write(tmp_path / "all.json", [f"{i}.jpg" for i in range(5)])
    opened = source(tmp_path, images=".", instances="all.json")
    assert joined_splits(opened) == ("train",)
    with pytest.raises(DataError, match=r"(?s)no val split.*looked for .*captions_val2017\.json.*split: \{val: 0\.1\}"):
        check_splits(opened, joined_splits(opened))
    named = source(tmp_path, **ROBOFLOW, splits={"test": "tset"})
    with pytest.raises(DataError, match=r"(?s)no test split.*tset/_annotations\.coco\.json"):
        check_splits(named, ("train", "val"))
    assert joined_splits(source(tmp_path, images=".", instances="all.json", only=("val",))) == ("val",)


def drawn(
    opened: list[OpenSource], shares: dict[str, float], seed: int = 0, *, by_folder: bool = False
) -> dict[str, Any]:
    draw = draw_from(opened, Draw(opened[0].root, seed, by_folder, shares))
    assert joined_splits(opened, draw) == tuple(s for s in ("train", "val", "test") if s in ("train", *shares))
    return {split: names(opened, split, draw) for split in joined_splits(opened, draw)}


def test_a_drawn_split_has_its_share_and_every_image_is_in_one(tmp_path: Path) -> None:
    everything = [f"img/{i:03d}.jpg" for i in range(100)]
    write(tmp_path / "all.json", everything)
    opened = source(tmp_path, images=".", instances="all.json")
    parts = drawn(opened, {"test": 0.2, "val": 0.1})
    assert {split: len(found) for split, found in parts.items()} == {"train": 70, "val": 10, "test": 20}
    assert sorted(name for found in parts.values() for name in found) == everything
    assert drawn(opened, {"test": 0.2, "val": 0.1}) == parts
    assert drawn(opened, {"test": 0.2, "val": 0.1}, seed=1) != parts
    write(tmp_path / "all.json", [*everything, "img/new.jpg"])
    again = drawn(opened, {"test": 0.2, "val": 0.1})
    assert len({*again["val"]} - {*parts["val"]}) <= 1  # who adds a picture keeps the split


def test_what_belongs_together_stays_together(tmp_path: Path) -> None:
    frames = [f"video{v}/{i}.jpg" for v in range(10) for i in range(5)]
    write(tmp_path / "all.json", frames)
    opened = source(tmp_path, images=".", instances="all.json")
    val = drawn(opened, {"val": 0.3}, by_folder=True)["val"]
    assert len(val) == 15 and len({name.split("/")[0] for name in val}) == 3
    copies = [f"{p}_jpg.rf.{p:016x}{c:016x}.jpg" for p in range(20) for c in range(3)]
    write(tmp_path / "all.json", copies)
    val = drawn(opened, {"val": 0.1})["val"]
    assert len(val) == 6 and len({name.split(".rf.")[0] for name in val}) == 2  # Roboflow's copies of one photo


def test_groups_that_records_name_stay_together_whatever_is_asked(tmp_path: Path) -> None:
    for by_folder in (False, True):
        draw = Draw(tmp_path, 0, by_folder, {"val": 0.5})
        named = [
            RawRecord(key=f"{g}{i}", image_id=i, annotation_file="a", group=f"g{g}", image=tmp_path / f"{i}/{g}.jpg")
            for g in range(8)
            for i in range(3)
        ]
        drawn_from = draw.among(named)
        found = {
            group: {drawn_from.split_of(r) for r in named if r.group == group} for group in {r.group for r in named}
        }
        assert sorted(map(len, found.values())) == [1] * 8 and sum(s == {"val"} for s in found.values()) == 4
    alone = [RawRecord(key=f"train-{i}", image_id=i, annotation_file="a") for i in range(10)]
    chosen = Draw(tmp_path, 0, False, {"val": 0.2}).among(alone)
    assert sum(chosen.split_of(record) == "val" for record in alone) == 2, "texts are drawn by their keys"


def test_problems_are_counted_once_with_train(tmp_path: Path) -> None:
    write(tmp_path / "all.json", ["a.jpg", "b.jpg", "a.jpg"])
    opened = source(tmp_path, images=".", instances="all.json")
    draw = draw_from(opened, Draw(tmp_path, 0, False, {"val": 0.5}))
    problems = {s: [i.reason for i in read_joined(opened, s, draw) if isinstance(i, Problem)] for s in ("train", "val")}
    assert problems == {"train": ["duplicate_key", "unknown_image"], "val": []}


def test_what_cannot_be_drawn(tmp_path: Path) -> None:
    write(tmp_path / "all.json", ["a.jpg"])
    opened = source(tmp_path, images=".", instances="all.json")
    with pytest.raises(DataError, match=r"too few records.*1 records"):
        draw_from(opened, Draw(tmp_path, 0, False, {"val": 0.1}))
    with pytest.raises(DataError, match="too few folders"):
        draw_from(opened, Draw(tmp_path, 0, True, {"val": 0.1}))
    with pytest.raises(ConfigError, match="draws train, which has files"):
        joined_splits(opened, Draw(tmp_path, 0, False, {"train": 0.1}))
    only_val = source(tmp_path, images=".", instances="all.json", only=("val",))
    with pytest.raises(DataError, match="no train split to draw"):
        joined_splits(only_val, Draw(tmp_path, 0, False, {"test": 0.1}))


def test_questions_follow_their_images_into_a_drawn_split(tmp_path: Path) -> None:
    write(tmp_path / "all.json", [f"{i}.jpg" for i in range(20)])
    questions = [{"question_id": i + 1, "image_id": i, "question": "What?"} for i in range(20)]
    (tmp_path / "questions.json").write_text(json.dumps({"questions": questions}))
    config = vqa.Config(questions="questions.json", annotations="none.json", images="{image_id}.jpg")
    opened = [
        *source(tmp_path, images=".", instances="all.json"),
        OpenSource(name="vqa", module=vqa, root=tmp_path, config=config),
    ]
    draw = draw_from(opened, Draw(tmp_path, 0, False, {"val": 0.25}))
    val = [item for item in read_joined(opened, "val", draw) if isinstance(item, RawRecord)]
    assert len(val) == 5 and all(len(r.questions) == len(r.objects) == 1 for r in val)
