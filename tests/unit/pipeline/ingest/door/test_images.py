"""The door's image rules, one bad file each."""

from __future__ import annotations

import io
import os
import random
import struct
import unicodedata
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFile

from contracts.errors import DataError
from pipeline.ingest.door import DoorConfig, admit, upright_image
from pipeline.ingest.door import images as images_module
from pipeline.ingest.door.images import clean_image
from pipeline.ingest.door.rules import Refused
from tests.pictures import HEIGHT, WIDTH, admitted, encode, pixels_of, raw, refused, scene


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_good_images_keep_their_bytes(tmp_path: Path, kind: str, mode: str) -> None:
    data = encode(Image.fromarray(scene()).convert(mode), kind)
    admission = admitted(tmp_path, data)
    assert admission.record is not None
    assert admission.record.image == data
    assert not admission.fixes
    assert admission.record.image_format == {"JPEG": "jpg", "PNG": "png"}[kind]
    assert (admission.record.width, admission.record.height) == (WIDTH, HEIGHT)


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    assert refused(admit(raw(tmp_path / "none.jpg"), [])) == "missing_image"
    assert refused(admit(raw(tmp_path), [])) == "missing_image"  # a folder
    for name in ("nul\0.jpg", "half\ud800.jpg", "x" * 300, "file.txt/a.jpg"):
        (tmp_path / "file.txt").touch()
        assert refused(admit(raw(tmp_path / name), [])) == "missing_image"
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    assert refused(admit(raw(tmp_path / "loop.jpg"), [])) == "missing_image"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert refused(admit(raw(tmp_path / "pipe.jpg"), [])) == "missing_image"


@pytest.mark.parametrize("data", [b"", b"<html>404</html>", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 30 20\n"])
def test_files_that_are_no_image(tmp_path: Path, data: bytes) -> None:
    assert refused(admitted(tmp_path, data)) == "not_an_image"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP"])
def test_truncated_files(tmp_path: Path, kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    data = encode(noise, kind)
    reason = refused(admitted(tmp_path, data[: len(data) * 2 // 3]))
    assert reason in ("truncated_image", "undecodable_image")
    if kind in ("JPEG", "PNG"):
        assert reason == "truncated_image"


def photograph(mode: str = "RGB", **options: object) -> bytes:
    """A JPEG of 48 x 40 pixels in which every block has something to decode."""
    rng = np.random.default_rng(1)
    pixels = cv2.GaussianBlur(rng.integers(0, 255, (40, 48, 3), np.uint8), (3, 3), 0)
    return encode(Image.fromarray(pixels).convert(mode), **{"quality": 95, **options})


CODINGS: list[dict[str, object]] = [
    {"subsampling": 0},
    {"subsampling": 2},
    {"progressive": True},
    {"restart_marker_blocks": 4},
    {"mode": "L"},
]


@pytest.mark.parametrize("options", CODINGS, ids=str)
def pillow_pixels(data: bytes) -> np.ndarray | None:
    try:
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    except Exception:
        return None


def longer_data(data: bytes) -> bytes:
    """The JPEG with junk after the data of its last scan, which changes its pixels only if some data was missing."""
    end = data.rfind(b"\xff\xd9")
    end = len(data) if end < 0 else end
    return data[:end].rstrip(b"\xff") + bytes(random.Random(1).randrange(1, 250) for _ in range(200)) + b"\xff\xd9"


@pytest.mark.parametrize("options", CODINGS, ids=str)
def test_of_damaged_jpegs_none_passes_that_pillow_refuses_or_whose_data_ends_early(options: dict[str, Any]) -> None:
    whole, rng = photograph(**options), random.Random(0)
    ends = [whole[:length] for length in range(0, len(whole), 7)] + [whole[:-1], whole[:-2]]
    damaged = ends + [data + b"\xff\xd9" for data in ends]
    for _ in range(300):
        data = bytearray(whole)
        position = rng.randrange(len(data))
        how = rng.randrange(4)
        if how == 0:
            data[position] ^= 1 << rng.randrange(8)
        elif how == 1:
            del data[position : position + rng.choice([1, 50])]
        elif how == 2:
            data[position : position + 50] = b"\xff" * len(data[position : position + 50])
        else:
            data[position:position] = rng.randbytes(5)
        damaged.append(bytes(data))
    refusals = 0
    for data in damaged:
        try:
            clean_image(data, claimed=None, has_pixel_annotations=True)
        except Refused:
            refusals += 1
            continue
        pixels, longer = pillow_pixels(data), pillow_pixels(longer_data(data))
        assert pixels is not None
        assert longer is not None
        assert np.array_equal(pixels, longer)
    assert 300 < refusals < len(damaged) - 50


def with_size(data: bytes, width: int, height: int) -> bytes:
    """The JPEG with another size in its header."""
    position = 2
    while data[position + 1] not in (0xC0, 0xC1, 0xC2):
        position += 2 + struct.unpack(">H", data[position + 2 : position + 4])[0]
    return data[: position + 5] + struct.pack(">HH", height, width) + data[position + 9 :]


@pytest.mark.parametrize("options", [*CODINGS, {"mode": "CMYK"}], ids=str)
def test_a_jpeg_has_the_rows_that_its_header_announces(tmp_path: Path, options: dict[str, Any]) -> None:
    whole = photograph(**options)
    assert admitted(tmp_path, whole, (48, 40)).record is not None
    for share in (0.1, 0.5, 0.9, 0.98):
        cut = whole[: int(len(whole) * share)] + b"\xff\xd9"
        assert refused(admitted(tmp_path, cut, (48, 40))) in ("truncated_image", "undecodable_image"), share
    assert refused(admitted(tmp_path, with_size(whole, 6000, 6000), (6000, 6000))) == "truncated_image"
    assert refused(admitted(tmp_path, with_size(whole, 9000, 9000), (9000, 9000))) == "too_many_pixels"
    assert refused(admitted(tmp_path, with_size(whole, 48, 16), (48, 16))) == "damaged_image"


def test_a_progressive_jpeg_has_all_its_scans(tmp_path: Path) -> None:
    whole = photograph(progressive=True)
    scans = [i for i in range(len(whole)) if whole[i : i + 2] == b"\xff\xda"]
    assert len(scans) > 5
    for scan in scans[1:]:
        early = whole[:scan] + b"\xff\xd9"  # the tables between are of no harm
        assert pillow_pixels(early) is not None
        assert refused(admitted(tmp_path, early, (48, 40))) == "truncated_image"


def test_a_turned_jpeg_is_no_way_round_the_proof(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = photograph(exif=exif)
    assert admitted(tmp_path, whole, (48, 40)).record is not None
    assert refused(admitted(tmp_path, whole[: len(whole) // 2] + b"\xff\xd9", (48, 40))) == "truncated_image"


def test_pillow_decodes_no_plain_jpeg_and_judges_the_flawed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []
    load = ImageFile.ImageFile.load
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: (loads.append(self.mode), load(self))[1])
    for options in CODINGS:
        assert admitted(tmp_path, photograph(**options), (48, 40)).record is not None  # type: ignore[arg-type]
    assert loads == []
    whole = photograph()
    padded = whole[:-2] + bytes(20) + whole[-2:]  # libjpeg warns of these; all pixels are there
    unheard_of = whole[:11] + b"\x09" + whole[12:]  # version 9 of JFIF: libjpeg warns of it first, and then no more
    for forgivable in (padded, unheard_of):
        admission = admitted(tmp_path, forgivable, (48, 40))
        assert admission.record is not None
        assert admission.record.image == forgivable
        assert loads
    lost = whole[:-300] + b"\xff\xd0" + whole[-300:]  # a marker among the pixels: what follows it is not read
    assert refused(admitted(tmp_path, lost, (48, 40))) == "truncated_image"
    lost = unheard_of[:-300] + b"\xff\xd9"
    assert refused(admitted(tmp_path, lost, (48, 40))) == "truncated_image"


def test_a_flipped_bit_in_a_png_is_seen(tmp_path: Path) -> None:
    data = bytearray(encode(scene(), "PNG"))
    data[data.index(b"IDAT") + 10] ^= 0xFF
    assert refused(admitted(tmp_path, bytes(data))) == "undecodable_image"


def test_damage_after_the_pixels_of_a_png_is_seen(tmp_path: Path) -> None:
    data = encode(scene(), "PNG")
    assert refused(admitted(tmp_path, data[:-12])) == "truncated_image"  # without IEND
    text = b"tEXtComment\0x"
    late = struct.pack(">I", len(text) - 4) + text + b"\0\0\0\0"  # with a wrong checksum
    assert refused(admitted(tmp_path, data[:-12] + late + data[-12:])) == "undecodable_image"


def png(width: int, height: int, rows: bytes = b"\0", *, second: bytes = b"") -> bytes:
    """An RGB PNG whose header may say anything. `second`: a header after the first."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + second + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "small.png"
    path.write_bytes(encode(scene(), "PNG"))
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    for width, height in ((5_001, 10_000), (60_000, 60_000)):  # above our limit; above Pillow's own
        assert refused(admitted(tmp_path, png(width, height), (width, height))) == "too_many_pixels"
    assert refused(admit(raw(path), [], DoorConfig(max_pixels=HEIGHT * WIDTH - 1))) == "too_many_pixels"
    with pytest.raises(DataError, match="max_megapixels"):
        upright_image(png(5_001, 10_000))


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_png_has_the_rows_that_its_header_announces(tmp_path: Path, rows: int) -> None:
    lines = [b"\0" + scene()[row].tobytes() for row in range(HEIGHT)]
    assert admitted(tmp_path, png(WIDTH, HEIGHT, b"".join(lines))).record is not None
    early = png(WIDTH, HEIGHT, b"".join(lines[:-rows]))
    assert pillow_pixels(early) is not None
    assert refused(admitted(tmp_path, early)) == "truncated_image"
    black = [bytes(1 + 3 * WIDTH)] * HEIGHT
    assert admitted(tmp_path, png(WIDTH, HEIGHT, b"".join(black))).record is not None
    assert refused(admitted(tmp_path, png(WIDTH, HEIGHT, b"".join(black[:-rows])))) == "truncated_image"


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (9, 3), (30, 20)])
def test_black_pngs_of_every_kind_have_all_rows(tmp_path: Path, mode: str, size: tuple[int, int]) -> None:
    image = Image.new(mode, size)
    assert admitted(tmp_path, encode(image, "PNG"), size).record is not None
    if mode in ("L", "RGB"):
        interlaced = cv2.imencode(".png", np.asarray(image))[1].tobytes()
        assert admitted(tmp_path, interlaced, size).record is not None


def test_a_png_has_one_header(tmp_path: Path) -> None:
    second = png(WIDTH, 5)[8:33]
    lines = b"".join(b"\0" + row.tobytes() for row in scene())
    assert refused(admitted(tmp_path, png(WIDTH, HEIGHT, lines, second=second), (WIDTH, 5))) == "undecodable_image"


def test_a_tiff_has_the_rows_that_its_header_announces(tmp_path: Path) -> None:
    data = encode(scene(), "TIFF")
    entry = data.index(struct.pack("<HH", 257, 4)) + 8  # ImageLength
    taller = data[:entry] + struct.pack("<I", 400) + data[entry + 4 :]
    assert refused(admitted(tmp_path, taller, (WIDTH, 400))) == "truncated_image"


def test_a_huge_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images_module, "MAX_FILE_BYTES", 100)
    assert refused(admitted(tmp_path, encode(scene()))) == "file_too_large"


def test_size_mismatch(tmp_path: Path) -> None:
    assert refused(admitted(tmp_path, encode(scene()), (WIDTH + 1, HEIGHT))) == "size_mismatch"
    assert refused(admitted(tmp_path, encode(scene()), (HEIGHT, WIDTH))) == "size_mismatch"
    assert refused(admitted(tmp_path, encode(scene()), (WIDTH, 0))) == "size_mismatch"
    assert admitted(tmp_path, encode(scene()), None).record is not None


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    admission = admitted(tmp_path, encode(Image.fromarray(scene()).convert("CMYK"), quality=95))
    assert admission.fixes == {"cmyk_to_rgb": 1}
    assert np.abs(pixels_of(admission)[2, 25].astype(int) - (30, 200, 30)).max() < 25


def test_sixteen_bits_keep_the_high_byte(tmp_path: Path) -> None:
    grey = (np.arange(HEIGHT * WIDTH, dtype=np.uint16) * 100).reshape(HEIGHT, WIDTH)
    admission = admitted(tmp_path, encode(grey, "PNG"))
    assert admission.fixes == {"depth_16_to_8": 1}
    assert np.array_equal(pixels_of(admission)[:, :, 0], grey >> 8)
    colour = np.stack([grey, grey[::-1], grey // 2], 2)
    ok, data = cv2.imencode(".png", colour[:, :, ::-1])
    admission = admitted(tmp_path, data.tobytes())
    assert ok
    assert admission.fixes == {"depth_16_to_8": 1}
    assert np.array_equal(pixels_of(admission), colour >> 8)


def test_alpha_is_dropped_and_not_blended(tmp_path: Path) -> None:
    alpha = np.dstack([scene(), np.zeros((HEIGHT, WIDTH), np.uint8)])
    admission = admitted(tmp_path, encode(alpha, "PNG"))
    assert admission.fixes == {"alpha_dropped": 1}
    assert np.array_equal(pixels_of(admission), scene())


@pytest.mark.parametrize("kind", ["BMP", "WEBP", "TIFF", "PPM", "GIF"])
def test_other_formats_become_png_without_loss(tmp_path: Path, kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    admission = admitted(tmp_path, encode(scene(), kind, **options))
    assert admission.record is not None
    assert admission.record.image_format == "png"
    assert admission.fixes.keys() == {"reencoded_as_png"} | ({"palette_to_rgb"} if kind == "GIF" else set())
    assert np.array_equal(pixels_of(admission), scene())


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_kept(tmp_path: Path, kind: str) -> None:
    frames = [Image.fromarray(scene()), Image.fromarray(255 - scene())]
    out = io.BytesIO()
    options = {"lossless": True} if kind == "WEBP" else {}
    frames[0].save(out, kind, save_all=True, append_images=frames[1:], duration=100, **options)
    admission = admitted(tmp_path, out.getvalue())
    assert admission.fixes["first_frame"] == 1
    assert np.array_equal(pixels_of(admission), scene())


def test_palette_bilevel_and_unusual_modes(tmp_path: Path) -> None:
    admission = admitted(tmp_path, encode(Image.fromarray(scene()).quantize(8), "PNG"))
    assert admission.fixes == {"palette_to_rgb": 1}
    assert np.array_equal(pixels_of(admission), scene())
    admission = admitted(tmp_path, encode(Image.fromarray(scene()).convert("1"), "PNG"))
    assert admission.fixes == {"colour_mode_converted": 1}
    assert set(np.unique(pixels_of(admission))) <= {0, 255}
    floats = Image.fromarray(np.ones((HEIGHT, WIDTH), np.float32))
    assert refused(admitted(tmp_path, encode(floats, "TIFF"))) == "unsupported_mode"


def test_a_name_in_the_other_unicode_form_is_found(tmp_path: Path) -> None:
    composed, taken_apart = (unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD"))
    for on_disk, asked in ((composed, taken_apart), (taken_apart, composed)):
        (tmp_path / on_disk).write_bytes(encode(scene(), "PNG"))
        assert admit(raw(tmp_path / asked), [], DoorConfig(root=tmp_path)).record is not None
        (tmp_path / on_disk).unlink()
    (tmp_path / "a.png").touch()
    assert refused(admit(raw(tmp_path / composed), [], DoorConfig(root=tmp_path))) == "missing_image"
