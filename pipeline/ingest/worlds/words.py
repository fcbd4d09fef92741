"""Pictures of single words in two scripts, each of made-up syllables, in the layout of text recognition: `{split}.txt`
with lines `images/{split}/word_000001.jpg<TAB>word`, the text in the order in which it is read.

No word can be guessed from half of it, and none of val is in train: what is read right was looked at. Letters of Arabic
are joined as in print; two of them, lam and alef, are drawn as one sign.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from contracts.errors import ConfigError
from contracts.ranges import Range, check_ranges
from lightning_modules.drawing.arabic import visual
from pipeline.ingest.worlds._output import RANGES, SplitSizes, encode_jpeg, image_rng

Script = Literal["latin", "arabic"]
_STREAMS = {"train": 40, "val": 41}
_FONTS: dict[Script, tuple[str, ...]] = {
    "latin": ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSerif", "DejaVuSerif-Bold"),
    "arabic": ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono"),  # the serif ones have no Arabic
}
_CONSONANTS: dict[Script, str] = {
    "latin": "bcdfghjklmnpqrstvwxyz",
    "arabic": "\u0628\u062a\u062b\u062c\u062d\u062e\u062f\u0630\u0631\u0632\u0633\u0634\u0635\u0636\u0637\u0638\u0639"
    "\u063a\u0641\u0642\u0643\u0644\u0645\u0646\u0647\u0648\u064a\u0626\u0624",
}
_VOWELS: dict[Script, str] = {"latin": "aeiou", "arabic": "\u0627\u0648\u064a"}
_FIRST, _LAST = "\u0623\u0625\u0622", "\u0629\u0649\u0621"  # letters of Arabic that stand at one end
_DIGITS = "0123456789"
_NUMBER_SHARE = 0.1  # of Latin words that are numbers
_VAL_SHARE = 5  # one word in so many is of val
_SHARPER = 3  # drawn so much larger, then reduced


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    Attributes:
        scripts: one after the other; each has an equal share of the words.
        letters: fewest and most of a word.
        height: of a picture in pixels; its width follows the word.
    """

    seed: int = 1
    scripts: tuple[Script, ...] = ("latin", "arabic")
    num_records: SplitSizes = field(default=SplitSizes(train=4000, val=600))
    letters: tuple[int, int] = (2, 8)
    height: int = 32
    jpeg_quality: int = 92

    def __post_init__(self) -> None:
        ranges = {name: RANGES[name] for name in ("seed", "jpeg_quality")}
        check_ranges(self, letters=Range(1, 30), height=Range(16, 256), **ranges)
        if self.letters[0] > self.letters[1]:
            raise ConfigError("letters must be two numbers, the smaller first", value=self.letters, where="letters")
        if not self.scripts or len(set(self.scripts)) != len(self.scripts):
            raise ConfigError("scripts names none, or one twice", value=self.scripts, where="scripts")


def generate(root: Path, config: Config, progress: Callable[[int], None]) -> None:
    """Write both splits under `root`; `progress` is called with the number of pictures done since the last call."""
    for split in _STREAMS:
        (root / "images" / split).mkdir(parents=True, exist_ok=True)
        lines = []
        for index, (word, picture) in enumerate(words_of(config, split)):
            file = f"images/{split}/word_{index + 1:06d}.jpg"
            (root / file).write_bytes(encode_jpeg(picture, config.jpeg_quality))
            lines.append(f"{file}\t{word}\n")
            progress(1)
        (root / f"{split}.txt").write_text("".join(lines), encoding="utf-8")


def words_of(config: Config, split: str) -> Iterator[tuple[str, np.ndarray]]:
    """Each word of a split and its picture (h, w, 3) uint8 RGB."""
    for index in range(getattr(config.num_records, split)):
        script = config.scripts[index % len(config.scripts)]
        rng = image_rng(config.seed, _STREAMS[split], index)
        word = draw_word(rng, script, config.letters)
        while is_of_val(word) != (split == "val"):
            word = draw_word(rng, script, config.letters)
        yield word, picture_of(rng, word, script, config.height)


def is_of_val(word: str) -> bool:
    """Which split a word is of depends on the word alone."""
    return zlib.crc32(word.encode()) % _VAL_SHARE == 0


def draw_word(rng: np.random.Generator, script: Script, letters: tuple[int, int]) -> str:
    """Syllables of a consonant and mostly a vowel, or, in Latin script, now and then digits."""
    length = int(rng.integers(letters[0], letters[1] + 1))

    def one(of: str) -> str:
        return of[int(rng.integers(len(of)))]

    if script == "latin" and rng.random() < _NUMBER_SHARE:
        return "".join(one(_DIGITS) for _ in range(length))
    vowel_share = 0.85 if script == "latin" else 0.45  # Arabic does not write short vowels
    word = one(_FIRST) if script == "arabic" and rng.random() < 0.2 else ""
    while len(word) < length:
        word += one(_CONSONANTS[script])
        if rng.random() < vowel_share:
            word += one(_VOWELS[script])
    word = word[:length]
    return word[:-1] + one(_LAST) if script == "arabic" and length > 2 and rng.random() < 0.2 else word


def picture_of(rng: np.random.Generator, word: str, script: Script, height: int) -> np.ndarray:
    """The word in one of the fonts, sheared, turned, blurred and noisy, on a ground that changes from left to right."""
    names = _FONTS[script]
    font = _font(names[int(rng.integers(len(names)))], round(height * _SHARPER * rng.uniform(0.62, 0.8)))
    left, top, right, bottom = font.getbbox(visual(word), anchor="ls")
    margin = round(height * _SHARPER * rng.uniform(0.12, 0.3))
    width, tall = round(right - left) + 2 * margin, height * _SHARPER
    ink = Image.new("L", (width, tall))
    at = (margin - left, (tall - (bottom - top)) / 2 - top)
    ImageDraw.Draw(ink).text(at, visual(word), font=font, fill=255, anchor="ls")
    moved = _moved(rng, np.asarray(ink), rng.uniform(-0.2, 0.2), rng.uniform(-4, 4))
    small = cv2.resize(moved, (max(8, round(width / _SHARPER)), height), interpolation=cv2.INTER_AREA)
    return _colored(rng, small.astype(np.float32) / 255)


def _moved(rng: np.random.Generator, ink: np.ndarray, shear: float, degrees: float) -> np.ndarray:
    height, width = ink.shape
    # A long word is turned less: its ends must stay in the picture.
    degrees *= min(1.0, 2 * height / width)
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    turn[0] += shear * np.array([turn[1, 0], turn[1, 1], turn[1, 2] - height / 2])
    return cv2.warpAffine(ink, turn, (width, height), flags=cv2.INTER_LINEAR)


def _colored(rng: np.random.Generator, ink: np.ndarray) -> np.ndarray:
    """Ink (h, w) in 0..1 -> (h, w, 3) uint8."""
    ground, end = rng.uniform(0, 255, 3), rng.uniform(-40, 40, 3)
    dark = ground.mean() > 127
    color = rng.uniform(0, 70, 3) if dark else rng.uniform(185, 255, 3)
    color += (ground.mean() - 127) * 0.2  # contrast differs from picture to picture
    slope = np.linspace(0, 1, ink.shape[1])[None, :, None]
    clean = ground + end * slope
    clean = clean + ink[..., None] * (color - clean)
    blurred = cv2.GaussianBlur(clean, (3, 3), rng.uniform(0.3, 0.8)) if rng.random() < 0.2 else clean
    pixels = blurred + rng.normal(0, rng.uniform(0, 8), clean.shape)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


@cache
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    matplotlib = find_spec("matplotlib")
    assert matplotlib is not None and matplotlib.origin is not None
    file = Path(matplotlib.origin).parent / f"mpl-data/fonts/ttf/{name}.ttf"
    return ImageFont.truetype(file, size, layout_engine=ImageFont.Layout.BASIC)
