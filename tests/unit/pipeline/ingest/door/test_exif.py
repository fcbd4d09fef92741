"""Pictures that a tag turns: on which pixels annotations were drawn."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contracts.errors import DataError
from contracts.raw import RawObject
from contracts.records import Caption
from pipeline.ingest.door import DoorConfig, admit, upright_image
from tests.pictures import HEIGHT, WIDTH, admitted, decode, encode, pixels_of, raw, refused, scene


def with_orientation(value: int, kind: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    return encode(scene(), kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))


BOX = RawObject(object_id="1", category="thing", box=(1, 1, 9, 9))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("value", [2, 3, 6, 8])
def test_an_orientation_tag_is_dropped_where_annotations_have_the_stored_size(
    tmp_path: Path, kind: str, value: int
) -> None:
    data = with_orientation(value, kind)
    admission = admitted(tmp_path, data, objects=(BOX,))
    assert admission.record is not None
    turned = value >= 5  # else both have one size, which says nothing
    assert admission.fixes == {"exif_orientation_dropped": 1, **({} if turned else {"exif_undecided": 1})}
    stored = decode(data)
    assert np.array_equal(pixels_of(admission), stored)  # without loss
    assert Image.open(io.BytesIO(admission.record.image)).getexif().get(0x0112) is None
    unsized = admitted(tmp_path, data, None, objects=(BOX,))  # boxes without a claimed size: pixels stay
    assert unsized.fixes == {"exif_orientation_dropped": 1, "exif_undecided": 1}


@pytest.mark.parametrize("claimed", [(WIDTH, HEIGHT), (HEIGHT, WIDTH), None])
@pytest.mark.parametrize("value", [3, 6])
def test_the_data_set_may_say_on_what_boxes_were_drawn(
    tmp_path: Path, value: int, claimed: tuple[int, int] | None
) -> None:
    """`apply`: the turned picture, whichever size is written; `ignore`: the stored pixels, whose size it must be."""
    data = with_orientation(value, "PNG")
    turned = np.rot90(scene(), 2 if value == 3 else -1)
    (tmp_path / "x.png").write_bytes(data)
    item = raw(tmp_path / "x.png", claimed, objects=(BOX,))
    if value == 3 and claimed == (HEIGHT, WIDTH):
        assert refused(admit(item, ["thing"], DoorConfig(exif="apply"))) == "size_mismatch"
        return
    applied = admit(item, ["thing"], DoorConfig(exif="apply"))
    assert applied.fixes == {"exif_rotated": 1}
    assert np.array_equal(pixels_of(applied), turned)
    ignored = admit(item, ["thing"], DoorConfig(exif="ignore"))
    if claimed == (HEIGHT, WIDTH):
        assert refused(ignored) == "size_mismatch"
    else:
        assert ignored.fixes == {"exif_orientation_dropped": 1}
        assert np.array_equal(pixels_of(ignored), scene())


@pytest.mark.parametrize("value", [5, 6, 7, 8])
def test_pixels_are_rotated_where_annotations_have_the_rotated_size(tmp_path: Path, value: int) -> None:
    admission = admitted(tmp_path, with_orientation(value), (HEIGHT, WIDTH), objects=(BOX,))
    assert admission.fixes == {"exif_rotated": 1}
    expected = {
        5: scene().transpose(1, 0, 2),
        6: np.rot90(scene(), -1),
        7: np.rot90(scene(), 2).transpose(1, 0, 2),
        8: np.rot90(scene()),
    }[value]
    error = np.abs(pixels_of(admission)[4:-4:3, 4:-4:3].astype(int) - expected[4:-4:3, 4:-4:3].astype(int))
    assert np.median(error) < 12


def test_an_image_without_annotation_is_shown_upright(tmp_path: Path) -> None:
    admission = admitted(tmp_path, with_orientation(6), None, captions=(Caption(caption_id=1, text="a field"),))
    assert admission.record is not None
    assert admission.fixes == {"exif_rotated": 1}
    assert (admission.record.width, admission.record.height) == (HEIGHT, WIDTH)
    clean = upright_image(with_orientation(6))
    assert (clean.width, clean.height, clean.format) == (HEIGHT, WIDTH, "jpg")


def test_broken_exif_rotates_nothing(tmp_path: Path) -> None:
    data = encode(scene(), exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\x07" * 20)
    admission = admitted(tmp_path, data)
    assert admission.record is not None
    assert admission.record.image == data


def test_upright_image_says_what_is_wrong() -> None:
    with pytest.raises(DataError, match="cannot be used: A file that is no JPEG"):
        upright_image(b"nothing")
