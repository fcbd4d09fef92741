"""What is not exactly one sample of ours is refused, though index and CRC agree with it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import pytest

from contracts.errors import DataError
from contracts.records import Objects, Record, Sentence
from pipeline.shards.samples import parse_sample, sample_pieces, tar_member

RECORD = Record(key="a-1", image_id=1, width=3, height=2, image=b"jpeg", image_format="jpg", semantic_mask=b"png")
COLUMNS: dict[str, list] = {field.name: [] for field in dataclasses.fields(Objects)}
IMAGE, ANNOTATION = tar_member("a-1.jpg", b"jpeg"), tar_member("a-1.json", RECORD.annotation_json())
MASK = tar_member("a-1.semantic.png", b"png")


def joined(*members: list[bytes]) -> bytes:
    return b"".join(piece for member in members for piece in member)


def patched(at: int, value: bytes) -> bytes:
    """The image's member with other bytes at a place in its header or content, then the rest."""
    data = bytearray(joined(IMAGE, ANNOTATION, MASK))
    data[at : at + len(value)] = value
    return bytes(data)


def annotated(change: Callable[[dict], object]) -> bytes:
    document = json.loads(RECORD.annotation_json())
    change(document)
    return joined(IMAGE, tar_member("a-1.json", json.dumps(document).encode()))


FRAMES = [tar_member(f"c.{i:04d}.jpg", f"frame {i}".encode()) for i in range(3)]
CLIP = Record(
    key="c", image_id=1, width=3, height=2, frames=(b"frame 0", b"frame 1", b"frame 2"), times_s=(0.0, 0.04, 0.08)
)
TEXT = Record(key="t", image_id=1, sentences=(Sentence(role="text", text="a"),))
ABOUT_CLIP, ABOUT_TEXT = tar_member("c.json", CLIP.annotation_json()), tar_member("t.json", TEXT.annotation_json())


def test_a_clip_is_its_frames_and_a_text_its_annotation_alone():
    assert sample_pieces(CLIP) == [piece for member in (*FRAMES, ABOUT_CLIP) for piece in member]
    assert sample_pieces(TEXT) == ABOUT_TEXT
    assert parse_sample(b"".join(sample_pieces(CLIP)), "c", "here").frames == CLIP.frames
    assert parse_sample(b"".join(ABOUT_TEXT), "t", "here").sentences == TEXT.sentences


@pytest.mark.parametrize(
    ("key", "members", "said"),
    [
        ("c", [FRAMES[0], FRAMES[2], ABOUT_CLIP], "not the files of one sample"),
        ("c", [FRAMES[1], FRAMES[0], FRAMES[2], ABOUT_CLIP], "not the files of one sample"),
        ("c", [*FRAMES, ABOUT_CLIP, FRAMES[0]], "not the files of one sample"),
        ("c", [*FRAMES, tar_member("c.3.jpg", b""), ABOUT_CLIP], "not the files of one sample"),
        ("c", FRAMES, "not the files of one sample"),
        ("c", [*FRAMES[:2], ABOUT_CLIP], "2 frames"),
        ("c", [ABOUT_CLIP], "kind text that is 3 x 2"),
        ("c", [tar_member("c.jpg", b""), ABOUT_CLIP], "0 frames"),
        ("t", [ABOUT_TEXT, ABOUT_TEXT], "not the files of one sample"),
        ("t", [tar_member("t.jpg", b""), ABOUT_TEXT], "kind image that is 0 x 0"),
        ("t", [tar_member("t.json", CLIP.annotation_json())], "kind text that is 3 x 2"),
    ],
)
def test_other_files_of_a_clip_or_a_text_are_refused(key, members, said):
    with pytest.raises(DataError) as caught:
        parse_sample(joined(*members), key, "here")
    assert said in str(caught.value) and caught.value.where == "here"


def test_a_sample_with_and_without_a_mask():
    assert parse_sample(b"".join(sample_pieces(RECORD)), "a-1", "here").semantic_mask == b"png"
    assert parse_sample(joined(IMAGE, ANNOTATION), "a-1", "here").semantic_mask == b""


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (joined(IMAGE, ANNOTATION, IMAGE), "not the files of one sample"),
        (joined(IMAGE, IMAGE, ANNOTATION), "not the files of one sample"),
        (joined(IMAGE, ANNOTATION, MASK, MASK), "not the files of one sample"),
        (joined(IMAGE, ANNOTATION, tar_member("a-2.json", RECORD.annotation_json())), "not the files of one sample"),
        (joined(tar_member("a-2.jpg", b"jpeg"), ANNOTATION), "not the files of one sample"),
        (joined(IMAGE, ANNOTATION, tar_member("a-1.txt", b"")), "not the files of one sample"),
        (joined(tar_member("a-1.png", b"png"), IMAGE, ANNOTATION), "not the files of one sample"),
        (joined(IMAGE), "not the files of one sample"),
        (b"", "not the files of one sample"),
        (patched(0, b"\xff"), "where a tar member should start"),  # the name, whose sum is another now
        (patched(100, b"0000755"), "where a tar member should start"),
        (patched(124, b"00000000005"), "where a tar member should start"),
        (patched(124, b"-0000000001"), "where a tar member should start"),
        (patched(124, b"77777777777"), "where a tar member should start"),
        (patched(148, b"000000"), "where a tar member should start"),
        (patched(257, b"u5tar"), "where a tar member should start"),
        (patched(400, b"x"), "where a tar member should start"),
        (patched(512 + 4, b"x"), "more than padding"),
        (joined(IMAGE, ANNOTATION)[:-512], "is cut"),
        (joined(IMAGE, ANNOTATION) + bytes(512), "where a tar member should start"),
        (joined(IMAGE, ANNOTATION) + b"x", "where a tar member should start"),
        (annotated(lambda d: d.update(key="a-2")), "belongs to another sample"),
        (annotated(lambda d: d.update(schema=1)), "schema 1 in place of"),
        (annotated(lambda d: d.update(width=0)), "that is 0 x 2"),
        (annotated(lambda d: d.update(objects=COLUMNS | {"labels": [1]})), "differ in length"),
        (annotated(lambda d: d.update(objects={**COLUMNS, "ids": [1]})), "differ in length"),
        (annotated(lambda d: d.update(objects={})), "differ in length"),
        (annotated(lambda d: d.update(objects={name: [1] for name in COLUMNS})), "no text"),
        (annotated(lambda d: d.update(caption=[])), "KeyError: 'caption'"),
        (annotated(lambda d: d.pop("key")), "TypeError"),
        (annotated(lambda d: d.update(image_id=1.5)), "no whole number"),
        (joined(IMAGE, tar_member("a-1.json", b'{"schema": ')), "JSONDecodeError"),
        (joined(IMAGE, tar_member("a-1.json", b"\xff\xff\xff")), "UnicodeDecodeError"),
        (joined(IMAGE, tar_member("a-1.json", b"")), "JSONDecodeError"),
    ],
)
def test_anything_else_is_refused(data, said):
    with pytest.raises(DataError, match=said) as caught:
        parse_sample(data, "a-1", "here")
    assert caught.value.where == "here" and caught.value.fix


def test_a_name_that_no_index_can_hold_is_told():
    """In the bytes of a Latin-1 file name."""
    name, record = "k\xfc", RECORD.annotation_json()
    member = tar_member(name + ".jpg", b"jpeg")
    member[0] = bytes(member[0]).replace("\xfc".encode(), b"\xfc\0")
    with pytest.raises(DataError, match="where a tar member should start"):
        parse_sample(joined(member, tar_member(f"{name}.json", record)), name, "here")


def test_a_key_too_long_for_a_tar_is_told_when_it_is_written():
    key = "k" * 90
    long = Record(key=key, image_id=1, width=3, height=2, image=b"jpeg", image_format="jpg", semantic_mask=b"png")
    with pytest.raises(DataError, match="does not fit into a tar") as caught:
        sample_pieces(long)
    assert "shorter name" in caught.value.fix
