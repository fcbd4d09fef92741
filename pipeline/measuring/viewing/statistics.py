"""What the records of each split are like, counted record by record: nothing is held but counters.

Areas and sides are in the pixels of the original picture, as annotations are; a run sees them at its `image_size`.
Crowds are counted apart, as the manifest does: they are no object to learn.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from contracts.records import IGNORE_INDEX, Question, Record
from contracts.text import words
from lightning_modules.augment.images import decode_semantic
from pipeline.measuring.viewing.histograms import Histogram, histogram

SMALL, MEDIUM = 32**2, 96**2  # square pixels: COCO's borders (cocoeval.py, areaRng)
SIZES = (f"small (below {SMALL} px²)", f"medium (below {MEDIUM} px²)", "large")
_ASPECTS = (0.0, 0.4, 0.6, 0.72, 0.9, 1.12, 1.4, 1.7, 2.5)  # about 1:2, 2:3, 3:4, 1:1, 4:3, 3:2, 16:9, and beyond
_SIDES = tuple(i / 20 for i in range(20))
_MOST_CLASSES, _MOST_WORDS = 1000, 20


class SplitStatistics:
    """Counters of one split. `classes` counts annotations by class, `with_class` records, `pixels` pixels."""

    def __init__(self) -> None:
        self.amounts: Counter[str] = Counter()
        self.classes: Counter[str] = Counter()
        self.with_class: Counter[str] = Counter()
        self.pixels: Counter[str] = Counter()
        self.box_sizes: Counter[str] = Counter()
        self.numbers: defaultdict[str, Counter[float]] = defaultdict(Counter)  # name of a histogram -> its values
        self.words: defaultdict[str, Counter[str]] = defaultdict(Counter)  # kind of text -> words, or answers

    def add(self, record: Record, classes: Sequence[str]) -> None:
        """Count one record."""
        self.amounts[f"{record.media}s"] += 1
        if record.media != "text":
            self.numbers["width"][record.width] += 1
            self.numbers["height"][record.height] += 1
            self.numbers["aspect"][round(record.width / record.height, 3)] += 1
        if record.frames:
            self.amounts["frames"] += len(record.frames)
            self.numbers["frames"][len(record.frames)] += 1
        self._add_classes(record, classes)
        self._add_objects(record)
        self._add_texts(record)

    def _add_classes(self, record: Record, classes: Sequence[str]) -> None:
        found = [classes[label - 1] for label in record.objects.labels[~record.objects.is_crowd].tolist()]
        found += [*record.labels, *(segment.label for segment in record.segments)]
        found += [name for names in record.frame_labels for name in names]
        self.classes.update(found)
        there = set(found)
        if record.semantic_mask:
            pixels = np.bincount(decode_semantic(record.semantic_mask).reshape(-1), minlength=IGNORE_INDEX + 1)
            labels = (set(np.flatnonzero(pixels).tolist()) - {0, IGNORE_INDEX}) & set(range(len(classes) + 1))
            self.pixels.update({classes[label - 1]: int(pixels[label]) for label in labels})
            self.amounts["pixels with a class"] += int(sum(pixels[list(labels)]))
            self.amounts["pixels"] += int(pixels.sum())
            self.amounts["label maps"] += 1
            there |= {classes[label - 1] for label in labels}
        self.with_class.update(there)

    def _add_objects(self, record: Record) -> None:
        objects, counts = record.objects, record.counts()
        usable = ~objects.is_crowd
        self.amounts.update({"objects": counts.get("num_objects", 0), "masks": counts.get("num_masks", 0)})
        self.amounts["crowds beside them"] += int(objects.is_crowd.sum())
        self.amounts["of the objects difficult"] += int((objects.is_difficult & usable).sum())
        if record.media == "image":
            self.numbers["objects"][int(usable.sum())] += 1
        places = np.digitize(objects.areas[usable], (SMALL, MEDIUM))
        self.box_sizes.update(SIZES[place] for place in places.tolist())
        sides = (objects.boxes[usable, 2:] - objects.boxes[usable, :2]).astype(np.float64).max(axis=1, initial=0)
        shares = np.floor(20 * sides / max(record.width, record.height, 1)).clip(0, 19) / 20
        self.numbers["side"].update(shares.tolist())

    def _add_texts(self, record: Record) -> None:
        texts = [("captions", caption.text) for caption in record.captions]
        texts += [("questions", question.text) for question in record.questions]
        texts += [(" ".join(filter(None, (s.role, s.language))) + " sentences", s.text) for s in record.sentences]
        for kind, text in texts:
            found = words(text)
            self.amounts[kind] += 1
            self.numbers[kind][len(found)] += 1
            self.words[kind].update(found)
        for question in record.questions:
            self.amounts["answers"] += len(question.answers)
            if answer := usual_answer(question):
                self.numbers["answers"][len(words(answer))] += 1
                self.words["answers"][answer] += 1
        if record.transcript is not None:
            self.amounts["transcripts"] += 1
            self.numbers["transcripts"][len(record.transcript.text)] += 1
            self.words["transcripts"].update(record.transcript.text)


def usual_answer(question: Question) -> str:
    """The right candidate, else the answer that most annotators gave; "" where there is none."""
    if question.answer_index is not None and question.candidates:
        return question.candidates[question.answer_index]
    if question.multiple_choice_answer:
        return question.multiple_choice_answer
    return Counter(question.answers).most_common(1)[0][0] if question.answers else ""


class ClassRow(NamedTuple):
    """A class: of each split (annotations, records with it, share of the pixels that have a class), and a remark."""

    name: str
    cells: list[tuple[int, int, float]]
    share: list[float]  # of the split's largest class: the length of a bar, 0..1
    remark: str


def class_rows(splits: Mapping[str, SplitStatistics], classes: Sequence[str]) -> tuple[list[ClassRow], int]:
    """A row a class, most frequent of the first split first; and how many are left out of a long list."""
    largest = {split: max(one.with_class.values(), default=1) for split, one in splits.items()}
    rows = [
        ClassRow(
            name,
            [
                (one.classes[name], one.with_class[name], one.pixels[name] / max(1, one.amounts["pixels with a class"]))
                for one in splits.values()
            ],
            [one.with_class[name] / largest[split] for split, one in splits.items()],
            _remark({split: one.with_class[name] for split, one in splits.items()}),
        )
        for name in classes
    ]
    rows.sort(key=lambda row: tuple(-cell[1] for cell in row.cells))
    kept = [row for place, row in enumerate(rows) if place < _MOST_CLASSES or row.remark][: 2 * _MOST_CLASSES]
    return kept, len(rows) - len(kept)


def _remark(counts: Mapping[str, int]) -> str:
    """What a training or a measurement misses."""
    if not any(counts.values()):
        return "nowhere"
    if not counts.get("train", 1):
        return "not in train: cannot be learned"
    missing = [split for split, count in counts.items() if not count]
    return f"not in {' and '.join(missing)}: is not measured there" if missing else ""


class WordTable(NamedTuple):
    """The most frequent words of a kind of text: (word, count by split); `unknown` says what train never has."""

    kind: str
    rows: list[tuple[str, list[int]]]
    num_different: list[int]
    unknown: list[str]


def word_tables(splits: Mapping[str, SplitStatistics]) -> list[WordTable]:
    """A table a kind of text, by what the first split has most of."""
    tables = []
    for kind in dict.fromkeys(kind for one in splits.values() for kind in one.words):
        counted = {split: one.words[kind] for split, one in splits.items()}
        total = sum(counted.values(), Counter[str]())
        unknown = []
        for split, counter in counted.items():
            if split != "train" and "train" in counted and counter:
                new = sum(count for word, count in counter.items() if word not in counted["train"])
                unknown.append(f"{new / counter.total():.1%} of those of {split} are never in train")
        rows = [(word, [counter[word] for counter in counted.values()]) for word, _ in total.most_common(_MOST_WORDS)]
        tables.append(WordTable(kind, rows, [len(counter) for counter in counted.values()], unknown))
    return tables


def histograms(splits: Mapping[str, SplitStatistics]) -> tuple[list[Histogram], list[str]]:
    """Of sizes and lengths, as far as there are any; and in words what is the same everywhere."""
    known: dict[str, tuple[str, str, tuple[float, ...] | None]] = {
        "width": ("Width", "px", None),
        "height": ("Height", "px", None),
        "aspect": ("Width / height", "", _ASPECTS),
        "frames": ("Frames of a clip", "", None),
        "objects": ("Objects of an image", "", None),
        "side": ("Longer side of a box / of its image", "", _SIDES),
    }
    texts = dict.fromkeys(kind for one in splits.values() for kind in one.numbers if kind not in known)
    units = {kind: "characters" if kind == "transcripts" else "words" for kind in texts}
    known |= {kind: (f"Length of {kind}", unit, None) for kind, unit in units.items()}
    charts, constant = [], []
    for name, (title, unit, edges) in known.items():
        values = {split: one.numbers[name] for split, one in splits.items()}
        different = {value for numbers in values.values() for value in numbers}
        if len(different) > 1:
            charts.append(histogram(title, unit, values, edges, whole=edges is None))
        elif different and different != {0}:  # pictures without objects are no news
            constant.append(f"{title}: {different.pop():g} {unit}".rstrip() + " everywhere.")
    return charts, constant
