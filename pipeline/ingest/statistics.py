"""What the training records of a data set are like, as numbers: what `presets.py` chooses settings by.

Sizes of pictures come from the headers of some of them; sides of objects are shares of the longer side of their
picture, since that is what a picture is scaled by.
"""

from __future__ import annotations

import io
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from PIL import Image

from contracts.raw import Problem, RawObject, RawRecord

MOST_RECORDS = 20_000  # read at most; of more, the number is not known
_NUM_OPENED = 200  # pictures whose headers are read, drawn among all that were read
_HEADER_BYTES = 1 << 18  # cameras write a small picture and a color profile before the size
_RARE = 5  # a class with fewer objects says nothing of its size


class Spread(NamedTuple):
    """Five of a hundred are below `low`, five above `high`."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        return cls(*(float(v) for v in np.percentile(values, (5, 50, 95)))) if len(values) else None


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Of the pictures whose headers were read: pixels of the longer and the shorter side, width / height, bytes."""

    long_px: Spread
    short_px: Spread
    aspect: Spread
    largest_megapixels: float
    median_bytes: float


@dataclass(frozen=True, kw_only=True)
class Objects:
    """`sides`: square roots of the areas, as shares of the pictures' longer sides; `ratios`: height / width.

    Of both, each class counts as much as any other, as in a mean over classes. `smallest` names the class whose median
    side is the least, `smallest_side`.
    """

    number: int
    per_image: Spread
    most_per_image: int
    sides: Spread
    ratios: Spread
    smallest: str
    smallest_side: float


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Of the training split. `is_all` is false where only the first `MOST_RECORDS` were read. Words are those of the
    texts by what they are: `captions`, `questions`, `texts`."""

    num_records: int
    is_all: bool = True
    num_classes: int = 0
    pictures: Pictures | None = None
    missing: tuple[str, ...] = ()  # of the pictures looked for, those that are not there
    objects: Objects | None = None
    num_texts: dict[str, int] = field(default_factory=dict)
    words: dict[str, Spread] = field(default_factory=dict)
    num_answers: int = 0


class Look:
    """Records one after the other -> `Statistics`."""

    def __init__(self) -> None:
        self._num = 0
        self._random = random.Random(0)
        self._sample: list[RawRecord] = []  # evenly drawn among those read
        self._boxes: list[tuple[RawRecord, Sequence[RawObject]]] = []
        self._words: dict[str, list[int]] = defaultdict(list)
        self._labels: set[str] = set()
        self._answers: Counter[str] = Counter()

    def add(self, record: RawRecord) -> None:
        self._num += 1
        if len(self._sample) < _NUM_OPENED:
            self._sample.append(record)
        elif (place := self._random.randrange(self._num)) < _NUM_OPENED:
            self._sample[place] = record
        self._labels.update(record.labels)
        if len(self._boxes) < _NUM_OPENED * 10:
            self._boxes.append((record, record.objects))
        for caption in record.captions:
            self._words["captions"].append(len(caption.text.split()))
        for question in record.questions:
            self._words["questions"].append(len(question.text.split()))
            self._answers.update(set(question.answers))
        for sentence in record.sentences:
            self._words["texts"].append(len(sentence.text.split()))
        if record.transcript is not None:
            self._words["transcripts"].append(len(record.transcript.text))  # characters

    def statistics(self, *, is_all: bool, num_classes: int) -> Statistics:
        """What was seen; opens pictures."""
        headers, missing = self._headers()
        return Statistics(
            num_records=self._num,
            is_all=is_all,
            num_classes=num_classes or len(self._labels),
            pictures=_pictures(list(headers.values())),
            missing=tuple(missing),
            objects=self._objects(headers),
            num_texts={kind: len(counts) for kind, counts in self._words.items()},
            words={kind: spread for kind, counts in self._words.items() if (spread := Spread.of(counts))},
            num_answers=sum(count > 1 for count in self._answers.values()) or len(self._answers),
        )

    def _headers(self) -> tuple[dict[str, tuple[int, int, int]], list[str]]:
        """Key -> width, height and bytes; and pictures that are not there."""
        found: dict[str, tuple[int, int, int]] = {}
        missing: list[str] = []
        for record in self._sample:
            path = record.image or next(iter(record.frames), None)
            if path is None:
                continue
            try:
                if (part := record.image_part) is None:
                    with Image.open(path) as image:
                        found[record.key] = (*image.size, path.stat().st_size)
                elif not part.is_base64:
                    with open(path, "rb") as file:
                        file.seek(part.offset)
                        head = file.read(min(part.size, _HEADER_BYTES))
                    with Image.open(io.BytesIO(head)) as image:  # of a file that is open it would read the start
                        found[record.key] = (*image.size, part.size)
            except FileNotFoundError:
                missing.append(str(path))
            except (OSError, ValueError, SyntaxError):  # unusable: the door will say so
                continue
        return found, missing

    def _objects(self, headers: dict[str, tuple[int, int, int]]) -> Objects | None:
        sides, ratios = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
        counts = [len(objects) for _, objects in self._boxes]
        for record, objects in self._boxes:
            width, height = headers.get(record.key, (record.width, record.height))[:2]
            for one in objects:
                size = (1, 1) if one.is_relative and not width else (width, height)
                scale = size if one.is_relative else (1, 1)
                w, h = (one.box[2] - one.box[0]) * scale[0], (one.box[3] - one.box[1]) * scale[1]
                if one.is_crowd or max(size) < 1 or not (w > 0 and h > 0):  # NaN, too
                    continue
                sides[one.category].append(min(1.0, (w * h) ** 0.5 / max(size)))
                ratios[one.category].append(h / w)
        if not sides:
            return None
        kept = [name for name, values in sides.items() if len(values) >= _RARE] or list(sides)
        medians = {name: float(np.median(sides[name])) for name in kept}
        smallest = min(medians, key=lambda name: (medians[name], name))
        per_image, all_sides, all_ratios = Spread.of(counts), _balanced(sides, kept), _balanced(ratios, kept)
        return Objects(
            number=sum(counts),
            per_image=per_image or Spread(0, 0, 0),
            most_per_image=max(counts),
            sides=all_sides,
            ratios=all_ratios,
            smallest=smallest,
            smallest_side=medians[smallest],
        )


def look(records: Iterable[RawRecord | Problem], num_classes: int) -> Statistics:
    """Statistics of the first `MOST_RECORDS` records."""
    one_look, is_all = Look(), True
    usable = (record for record in records if not isinstance(record, Problem))
    for number, record in enumerate(usable):
        if number == MOST_RECORDS:
            is_all = False
            break
        one_look.add(record)
    return one_look.statistics(is_all=is_all, num_classes=num_classes)


def _balanced(values: dict[str, list[float]], names: list[str]) -> Spread:
    """Percentiles in which each class weighs as much as any other."""
    pairs = sorted((value, 1 / len(values[name])) for name in names for value in values[name])
    passed = np.cumsum([weight for _, weight in pairs]) / len(names)
    places = np.searchsorted(passed, (0.05, 0.5, 0.95)).clip(max=len(pairs) - 1)
    return Spread(*(pairs[place][0] for place in places))


def _pictures(headers: list[tuple[int, int, int]]) -> Pictures | None:
    if not headers:
        return None
    long_px, short_px = ([side(width, height) for width, height, _ in headers] for side in (max, min))
    spreads = Spread.of(long_px), Spread.of(short_px), Spread.of([width / height for width, height, _ in headers])
    assert spreads[0] and spreads[1] and spreads[2]
    return Pictures(
        long_px=spreads[0],
        short_px=spreads[1],
        aspect=spreads[2],
        largest_megapixels=max(width * height for width, height, _ in headers) / 1e6,
        median_bytes=float(np.median([size for *_, size in headers])),
    )
