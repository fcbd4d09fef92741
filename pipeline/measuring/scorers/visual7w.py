"""Visual7W multiple choice: the data set's JSON (1511.03416), results `[{qa_id, candidates: [{answer}, ..]}]`.

The truth is the published file `{images: [{split, qa_pairs: [..]}]}`, or the question-answer pairs alone: a list, or an
object with a list `qa_pairs` or `pairs`. Where images have a split, those splits count that the results answer, whole:
the published file has all three.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.errors import DataError
from lightning_modules.metrics.visual7w import measure_visual7w
from pipeline.measuring.scorers import Inputs, Scores
from pipeline.measuring.scorers._files import Entries, check_same_ids, entries_of, read_entries, read_json

QUESTION_TYPES = ("what", "where", "when", "who", "why", "how", "which")


@dataclass(frozen=True, slots=True)
class _Pair:
    """A question's type and answer, and where it comes from."""

    question_type: str
    answer: str
    image: Hashable
    split: str | None


def score(inputs: Inputs) -> Scores:
    """`overall` and one number for each question word, fractions.

    Raises:
        DataError: a file that cannot be read, or predictions that do not answer each question once.
    """
    pairs = _read_pairs(inputs.truth)
    results = read_entries(inputs.predictions, id_name="qa_id")
    results.ids()  # no two alike
    chosen = {_qa_id(results, i): _first_candidate(results, i) for i in range(len(results))}
    answered = _of_answered_splits(pairs, chosen)
    check_same_ids(answered, chosen, name="qa_id", truth_file=inputs.truth, given_file=inputs.predictions)
    measurement = measure_visual7w(
        {number: (pair.question_type, pair.answer) for number, pair in answered.items()},
        chosen,
        images={number: pair.image for number, pair in answered.items()},
    )
    splits = ", ".join(sorted({str(pair.split) for pair in answered.values()}))
    partly = f"split {splits}: {len(answered)} of the {len(pairs)} questions of {inputs.truth}"
    return Scores(measurements=[measurement], notes=[partly] if len(answered) < len(pairs) else [])


def _of_answered_splits(pairs: dict[int, _Pair], chosen: Collection[int]) -> dict[int, _Pair]:
    """The pairs of every split of which something is answered; all pairs if nothing is."""
    splits = {pairs[number].split for number in chosen if number in pairs}
    return {number: pair for number, pair in pairs.items() if pair.split in splits} if splits else pairs


def _read_pairs(path: Path) -> dict[int, _Pair]:
    """Every pair of the truth by qa_id."""
    out: dict[int, _Pair] = {}
    for entries, position, image, split in _located(path):
        number = _qa_id(entries, position)
        if number in out:
            where = entries.where(position)
            raise DataError("duplicate qa_id", value=number, where=where, allowed="each qa_id once")
        question_type = entries.text(position, "type")
        if question_type not in QUESTION_TYPES:
            raise entries.wrong(position, "type", ", ".join(QUESTION_TYPES))
        answer = _text(entries.get(position, "answer", "a text"), entries, position, "answer")
        # A pair whose image is not known is drawn alone when images are resampled.
        out[number] = _Pair(question_type, answer, f"pair {number}" if image is None else image, split)
    if not out:
        raise DataError("this file has no question-answer pairs", where=str(path))
    return out


def _located(path: Path) -> Iterator[tuple[Entries, int, int | str | None, str | None]]:
    """Every pair as its list, its position there, and the image and split that are known of it."""
    document = read_json(path)
    if not isinstance(document, dict) or "images" not in document:
        names = [key for key in ("qa_pairs", "pairs") if isinstance(document, dict) and key in document]
        if isinstance(document, dict) and not names:
            raise DataError(
                "no question-answer pairs here", value=sorted(document)[:10], where=f"{path}: top level",
                allowed='{"images": [{"qa_pairs": [..]}, ..]}, {"qa_pairs": [..]} or a list of pairs',
            )  # fmt: skip
        pairs = entries_of(document, path, id_name="qa_id", name=names[0] if names else "")
        for i, item in enumerate(pairs.items):
            yield pairs, i, pairs.id(i, "image_id") if "image_id" in item else None, None
        return
    images = entries_of(document, path, id_name="image_id", name="images")
    for i, image in enumerate(images.items):
        items = images.get(i, "qa_pairs", "a list of question-answer pairs")
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise images.wrong(i, "qa_pairs", "a list of objects")
        pairs = Entries(path, f"images[{i}].qa_pairs", "qa_id", items)
        image_id = images.id(i, "image_id") if "image_id" in image else f"images[{i}]"
        split = images.text(i, "split") if "split" in image else None
        yield from ((pairs, position, image_id, split) for position in range(len(items)))


def _qa_id(entries: Entries, position: int) -> int:
    number = entries.id(position, "qa_id")
    if isinstance(number, str):
        raise entries.wrong(position, "qa_id", "a whole number")
    return number


def _first_candidate(results: Entries, position: int) -> str:
    """The official script looks at the first candidate only."""
    allowed = 'a list of {"answer": text}, the best first'
    candidates = results.get(position, "candidates", allowed)
    if not isinstance(candidates, list) or not candidates or not isinstance(candidates[0], dict):
        raise results.wrong(position, "candidates", allowed)
    return _text(candidates[0].get("answer"), results, position, "candidates")


def _text(answer: Any, entries: Entries, position: int, key: str) -> str:
    """The official script compares `str(answer)`, so that a year may be a number."""
    if isinstance(answer, bool) or not isinstance(answer, str | int):
        raise entries.wrong(position, key, "a text" if key == "answer" else 'a list of {"answer": text}')
    return str(answer)
