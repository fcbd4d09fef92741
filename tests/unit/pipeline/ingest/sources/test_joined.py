"""Joining the sources of one data set by key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from contracts.annotations import Segment, Sentence, Transcript
from contracts.errors import ConfigError, DataError
from contracts.raw import ImagePart, Problem, RawObject, RawRecord
from contracts.records import Caption, Question
from pipeline.ingest.sources import OpenSource, joined_classes, joined_splits, read_joined
from pipeline.ingest.sources._files import Unread

DOG = RawObject(object_id="1", category="dog", box=(0, 0, 1, 1))
LOST = Problem(reason="unknown_image", kind="object", file="f", item_id="1")


@dataclass
class Fake:
    """A source of given items."""

    items: list[RawRecord | Problem] = field(default_factory=list)
    names: tuple[str, ...] = ()
    found: tuple[str, ...] = ("train",)

    def classes(self, root: Path, config: Any) -> tuple[str, ...]:
        return self.names

    def splits(self, root: Path, config: Any) -> tuple[str, ...]:
        return self.found

    def read(self, root: Path, split: str, config: Any) -> Iterator[RawRecord | Problem]:
        assert split in self.found
        yield from self.items


def opened(*fakes: Fake) -> list[OpenSource]:
    return [OpenSource(name=f"s{i}", module=fake, root=Path("r"), config=None) for i, fake in enumerate(fakes)]


def record(key: str, file: str = "a.json", **fields: Any) -> RawRecord:
    return RawRecord(key=key, image_id=key, annotation_file=file, **{"image": Path(f"{key}.jpg"), **fields})


def test_records_are_merged_by_key_in_order_and_problems_pass() -> None:
    first = Fake([LOST, record("a", objects=(DOG,), width=4, height=3, fixes=("x",)), record("c"), LOST])
    caption, question = Caption(caption_id=1, text="x"), Question(question_id=1, text="y")
    second = Fake(
        [record("a", "b.json", captions=(caption,), fixes=("y",)), LOST, record("b", "b.json", questions=(question,))]
    )
    third = Fake([record("c", questions=(question,))], found=("val",))
    items = list(read_joined(opened(first, second, third), "train"))
    assert [item for item in items if isinstance(item, Problem)] == [LOST] * 3
    a, b, c = (item for item in items if isinstance(item, RawRecord))
    assert (a.key, b.key, c.key) == ("a", "b", "c")
    assert (a.objects, a.captions, a.width, a.height) == ((DOG,), (caption,), 4, 3)
    assert (a.annotation_file, a.fixes) == ("a.json, b.json", ("x", "y"))
    assert (b.questions, b.annotation_file) == ((question,), "b.json")
    assert c.questions == ()


def test_masks_keep_their_label_map() -> None:
    plain = record("a")
    masked = record("a", "b.json", semantic_mask=Path("m.png"), label_map={0: 1})
    for pair in ((plain, masked), (masked, plain)):
        (joined,) = read_joined(opened(*(Fake([item]) for item in pair)), "train")
        assert isinstance(joined, RawRecord)
        assert (joined.semantic_mask, joined.label_map) == (Path("m.png"), {0: 1})
    with pytest.raises(DataError, match="semantic_mask"):
        list(read_joined(opened(Fake([masked]), Fake([masked])), "train"))


def test_texts_and_clips_are_joined_with_what_another_source_knows() -> None:
    """One source has the pixels; either may come first."""
    said = (Sentence(role="text", text="a"),)
    frames, part = (Path("0.jpg"), Path("1.jpg")), (Segment(start_s=0.0, end_s=1.0, label="x"),)
    clip = record("a", image=None, frames=frames, times_s=(0.0, 1.0), segments=part, group="v")
    text = record("a", "b.txt", image=None, sentences=said, transcript=Transcript(text="b"), segments=part)
    for pair in ((clip, text), (text, clip)):
        (joined,) = read_joined(opened(*(Fake([item]) for item in pair)), "train")
        assert isinstance(joined, RawRecord)
        assert (joined.frames, joined.times_s, joined.image, joined.group) == (frames, (0.0, 1.0), None, "v")
        assert (joined.sentences, joined.transcript, joined.segments) == (said, Transcript(text="b"), (*part, *part))


@pytest.mark.parametrize(
    ("fields", "others", "told"),
    [
        ({"transcript": Transcript(text="a")}, {"transcript": Transcript(text="b")}, "two sources give a transcript"),
        ({"frame_labels": (("a",),)}, {"frame_labels": (("b",),)}, "two sources give a frame_labels"),
        ({"group": "a"}, {"group": "b"}, r"different groups: \['a', 'b'\]"),
        ({"image": None, "frames": (Path("1"),)}, {"image": None, "frames": (Path("2"),)}, "different files"),
        ({"image": None, "frames": (Path("1"),)}, {}, "different files for one image or clip"),
    ],
)
def test_what_only_one_source_may_know(fields: dict[str, Any], others: dict[str, Any], told: str) -> None:
    with pytest.raises(DataError, match=told):
        list(read_joined(opened(Fake([record("a", **fields)]), Fake([record("a", "b.json", **others)])), "train"))


def test_conflicts() -> None:
    sizes = Fake([record("a", width=4, height=3), record("b")]), Fake([record("a", "b.json", width=3, height=4)])
    problem, rest = read_joined(opened(*sizes), "train")
    assert isinstance(problem, Problem)
    assert (problem.reason, problem.kind, problem.key) == ("conflicting_size", "record", "a")
    assert isinstance(rest, RawRecord)
    elsewhere = Fake([record("a")]), Fake([record("a", image=Path("images/a.jpg"))])
    with pytest.raises(DataError, match="different files"):
        list(read_joined(opened(*elsewhere), "train"))


def test_classes_and_splits_of_a_data_set() -> None:
    fakes = Fake(names=("a",), found=("val",)), Fake(found=("train", "val")), Fake(names=("a",))
    assert joined_classes(opened(*fakes)) == ("a",)
    assert joined_splits(opened(*fakes)) == ("train", "val")
    assert joined_classes(opened(Fake())) == ()
    with pytest.raises(ConfigError, match="different class lists"):
        joined_classes(opened(*fakes, Fake(names=("b",))))
    with pytest.raises(DataError, match="no split"):
        joined_splits(opened(Fake(found=())))


def test_labels_of_two_sources_are_one_list() -> None:
    first, second = Fake([record("a", labels=("cat", "big"))]), Fake([record("a", "b.json", labels=("big", "wild"))])
    (joined,) = read_joined(opened(first, second), "train")
    assert isinstance(joined, RawRecord) and joined.labels == ("cat", "big", "wild")
    part = ImagePart(offset=0, size=1)
    with pytest.raises(DataError, match="different files"):
        list(read_joined(opened(first, Fake([record("a", image_part=part)])), "train"))


def test_what_one_source_alone_knows_stays_unread() -> None:
    def make(item: Any) -> Caption:
        raise AssertionError("nobody has asked")

    unread = Unread([b"one", b"two"], make)
    caption = Caption(caption_id=1, text="x")
    first = Fake([record("a", captions=unread), record("b", captions=(caption,))])
    second = Fake([record("a"), record("b", captions=(caption, caption))])
    a, b = read_joined(opened(first, second), "train")
    assert isinstance(a, RawRecord) and a.captions is unread
    assert isinstance(b, RawRecord) and b.captions == (caption,) * 3
