"""`shards.short_side`: large images are stored smaller, and nothing else of a record changes."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
import yaml
from PIL import Image

from contracts.errors import ConfigError
from contracts.raw import RawObject, RawRecord
from contracts.records import Caption, Record
from pipeline.ingest.door import DoorConfig, Shrink, admit
from pipeline.settings.params import load_params
from pipeline.settings.sections import ShardsConfig
from pipeline.shards.manifest import load_manifest
from pipeline.shards.reader import SplitReader, verify_shards
from pipeline.shards.writing import write_shard
from pipeline.stages.shard import shard
from pipeline.system.project import Project

SHRINK = Shrink(short_side=32, quality=90)


def scene(width: int, height: int) -> Image.Image:
    """Smooth colours with a dark square in the middle."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([255 * x / width, 255 * y / height, np.full((height, width), 90)], 2).astype(np.uint8)
    pixels[height // 4 : height // 2, width // 4 : width // 2] = 10
    return Image.fromarray(pixels)


def encode(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **({"quality": 95} if kind == "JPEG" else {}), **options)
    return out.getvalue()


def raw(tmp_path: Path, data: bytes, size: tuple[int, int]) -> RawRecord:
    """A record with a box and a polygon, beside a semantic mask of the image's size."""
    path, mask = tmp_path / "image.bin", tmp_path / "mask.png"
    path.write_bytes(data)
    Image.fromarray(np.ones(size[::-1], np.uint8)).save(mask)
    polygon = [4.5, 4.0, 20.0, 4.0, 20.0, 30.25]
    return RawRecord(
        key="a",
        image_id=1,
        image=path,
        annotation_file="a.json",
        width=size[0],
        height=size[1],
        objects=(RawObject(object_id="1", category="thing", box=(4.5, 4, 20, 30.25), segmentation=[polygon]),),
        captions=(Caption(caption_id=1, text="a square"),),
        semantic_mask=mask,
    )


def both(tmp_path: Path, data: bytes, size: tuple[int, int], shrink: Shrink = SHRINK) -> tuple[Record, Record]:
    """The record as it comes, and shrunk."""
    item = raw(tmp_path, data, size)
    kept, shrunk = admit(item, ["thing"]).record, admit(item, ["thing"], DoorConfig(shrink=shrink)).record
    assert kept is not None
    assert shrunk is not None
    return kept, shrunk


def decoded(record: Record) -> Image.Image:
    image = Image.open(io.BytesIO(record.image))
    image.load()
    return image


@pytest.mark.parametrize(
    ("size", "expected"),
    [((128, 96), (43, 32)), ((96, 128), (32, 43)), ((64, 64), (32, 32)), ((100, 33), (97, 32)), ((300, 40), (240, 32))],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_the_short_side_is_what_was_asked_for(tmp_path, size, expected, kind):
    kept, shrunk = both(tmp_path, encode(scene(*size), kind), size)
    image = decoded(shrunk)
    assert image.size == expected
    assert (image.format, image.mode, shrunk.image_format) == ("JPEG", "RGB", "jpg")
    assert image.layer[0][1:3] == (2, 2), "4:2:0"  # type: ignore[attr-defined]
    wanted = decoded(kept).resize(expected, Image.Resampling.BOX)
    error = np.abs(np.asarray(image, int) - np.asarray(wanted, int))
    assert error.mean() < 5, "the same picture"


def test_annotations_stay_those_of_the_original(tmp_path):
    kept, shrunk = both(tmp_path, encode(scene(128, 96)), (128, 96))
    assert shrunk.image != kept.image
    assert (shrunk.width, shrunk.height) == (128, 96)
    assert shrunk.annotation_json() == kept.annotation_json()
    assert shrunk.semantic_mask == kept.semantic_mask
    assert decoded(replace(shrunk, image=shrunk.semantic_mask)).size == (128, 96)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("size", [(128, 32), (32, 40), (20, 90)])
def test_small_images_keep_their_bytes(tmp_path, kind, size):
    item = raw(tmp_path, encode(scene(*size), kind), size)
    admission = admit(replace(item, objects=()), ["thing"], DoorConfig(shrink=SHRINK))
    assert admission.record is not None
    assert admission.record.image == item.image.read_bytes()
    assert not admission.fixes


def test_a_small_image_of_another_format_becomes_png_as_ever_and_a_large_one_jpeg(tmp_path):
    item = raw(tmp_path, encode(scene(40, 31), "BMP"), (40, 31))
    assert admit(item, ["thing"], DoorConfig(shrink=SHRINK)).fixes == {"reencoded_as_png": 1}
    item = raw(tmp_path, encode(scene(80, 62), "BMP"), (80, 62))
    assert admit(item, ["thing"], DoorConfig(shrink=SHRINK)).fixes == {"image_shrunk": 1}


def test_grey_stays_grey_and_progressive_images_are_shrunk(tmp_path):
    _, grey = both(tmp_path, encode(scene(128, 96).convert("L")), (128, 96))
    assert (decoded(grey).mode, decoded(grey).size) == ("L", (43, 32))
    _, grey = both(tmp_path, encode(scene(128, 96).convert("L"), "PNG"), (128, 96))
    assert (decoded(grey).mode, decoded(grey).size) == ("L", (43, 32))
    _, plain = both(tmp_path, encode(scene(128, 96)), (128, 96))
    _, progressive = both(tmp_path, encode(scene(128, 96), progressive=True), (128, 96))
    assert progressive.image == plain.image, "the same pixels, otherwise coded"


def test_a_turned_image_is_turned_before_it_is_shrunk(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    item = raw(tmp_path, encode(scene(128, 96), exif=exif), (96, 128))
    admission = admit(item, ["thing"], DoorConfig(shrink=SHRINK))
    assert admission.fixes == {"exif_rotated": 1, "image_shrunk": 1}
    assert admission.record is not None
    assert decoded(admission.record).size == (32, 43)
    assert decoded(admission.record).getexif().get(0x0112) is None


def test_a_cut_image_is_refused(tmp_path):
    data = encode(scene(128, 96))
    admission = admit(raw(tmp_path, data[: len(data) // 2], (128, 96)), ["thing"], DoorConfig(shrink=SHRINK))
    assert admission.record is None
    assert admission.problems[0].reason == "truncated_image"


def test_what_pillow_forgives_is_shrunk_too(tmp_path):
    data = encode(scene(128, 96))
    flawed = data[:-2] + b"stray" + data[-2:]
    with pytest.raises(ValueError, match="Corrupt JPEG"):
        simplejpeg.decode_jpeg(flawed)
    kept, shrunk = both(tmp_path, flawed, (128, 96))
    assert decoded(shrunk).size == (43, 32)
    error = np.abs(np.asarray(decoded(shrunk), int) - np.asarray(decoded(kept).resize((43, 32), 4), int))
    assert error.mean() < 5


def test_thin_lines_do_not_alias(tmp_path):
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    _, shrunk = both(tmp_path, encode(Image.fromarray(stripes), subsampling=0), (256, 256))
    assert np.asarray(decoded(shrunk), float).std() < 5


def test_quality_counts_and_equal_files_give_equal_shards(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8))
    item = raw(tmp_path, encode(noise), (128, 96))
    made = []
    for name, quality in (("a", 90), ("b", 90), ("c", 60)):
        folder = tmp_path / name
        folder.mkdir()
        made.append(
            write_shard(
                [item], ["thing"], folder, "toy.tar", DoorConfig(shrink=Shrink(short_side=32, quality=quality))
            ).shard
        )
    assert made[0] == made[1]
    assert made[2] is not None and made[0] is not None
    assert made[2]["bytes"] < made[0]["bytes"]


def test_the_stage_shrinks_and_the_manifest_says_so(tiny_project, tmp_path):
    document = yaml.safe_load((tiny_project.root / "params.yaml").read_text())
    document["shards"] |= {"short_side": 32, "quality": 80}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document))
    (tmp_path / "data").mkdir()
    (tmp_path / "data/raw").symlink_to(tiny_project.root / "data/raw")
    project = Project(tmp_path)
    shard(project, load_params(tmp_path), "voc")
    manifest, plain = load_manifest(project.shards("voc")), load_manifest(tiny_project.shards("voc"))
    verify_shards(project.shards("voc"), manifest)
    assert manifest["shrink"] == {"short_side": 32, "quality": 80}
    assert "shrink" not in plain
    assert manifest["digest"] != plain["digest"]
    assert manifest["splits"]["val"]["fixed"]["image_shrunk"] == manifest["splits"]["val"]["num_samples"]
    small = SplitReader(project.shards("voc"), manifest, "val").read(0)
    large = SplitReader(tiny_project.shards("voc"), plain, "val").read(0)
    assert small.annotation_json() == large.annotation_json()
    pixels = cv2.imdecode(np.frombuffer(small.image, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None and min(pixels.shape[:2]) == 32


def test_settings_that_make_no_image_are_refused():
    for short_side in (None, 32, 1000):
        ShardsConfig(short_side=short_side)
    for short_side in (31, 0, -1):
        with pytest.raises(ConfigError, match="short_side"):
            ShardsConfig(short_side=short_side)
    for quality in (0, 101):
        with pytest.raises(ConfigError, match="quality"):
            ShardsConfig(quality=quality)


@pytest.mark.parametrize("limit", [0, -1, 179, float("nan")])
def test_the_limit_of_pixels_is_checked(limit):
    with pytest.raises(ConfigError, match="max_megapixels"):
        ShardsConfig(max_megapixels=limit)
    assert ShardsConfig().max_megapixels == 50
