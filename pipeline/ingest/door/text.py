"""Captions, sentences and transcripts without control characters and stray white space."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from contracts.raw import ItemKind, Problem, RawRecord
from contracts.records import Alignment, Caption, Sentence, Transcript
from contracts.text import spaced
from pipeline.ingest.door.rules import Refused

MAX_TOKENS = 200  # of a sentence of a pair; words, and characters of scripts that put no blanks between words
MAX_RATIO = 9.0  # of the tokens of a pair's longer sentence to those of the shorter one
# Control, surrogate (cannot be encoded) and unassigned characters, and the two Unicode line separators.
_SPACE_LIKE = {"Cc", "Cs", "Cn", "Zl", "Zp"}


def normalised(text: str) -> str:
    """Control characters, line ends and runs of white space become one space; the ends are stripped."""
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    plain = (" " if unicodedata.category(c) in _SPACE_LIKE else c for c in text if c != "\ufeff")
    return " ".join("".join(plain).split())


def composed(text: str) -> str:
    """`normalised`, and letters and their marks as one character where there is one (NFC)."""
    plain = normalised(text)
    return plain if plain.isascii() else unicodedata.normalize("NFC", plain)


def is_blank(text: str) -> bool:
    """Whether a normalised text shows nothing: joiners and blanks without width are no characters to read."""
    return all(unicodedata.category(c) in ("Cf", "Zs") for c in text)


def clean_captions(raw: RawRecord, problems: list[Problem], fixes: Counter[str]) -> tuple[Caption, ...]:
    def kept() -> Iterator[Caption]:
        for caption in raw.captions:
            text = normalised(caption.text)
            if is_blank(text):
                problems.append(_problem(raw, Refused("empty_caption"), "caption", str(caption.caption_id)))
                continue
            fixes["caption_normalised"] += text != caption.text
            yield replace(caption, text=text)

    return tuple(kept())


def clean_sentences(raw: RawRecord, problems: list[Problem], fixes: Counter[str]) -> tuple[Sentence, ...]:
    """All sentences or none: a pair without one side is none.

    Raises:
        Refused: they cannot be used, and the record has no pixels that could be.
    """
    sentences = tuple(replace(sentence, text=composed(sentence.text)) for sentence in raw.sentences)
    try:
        _check_sentences(sentences)
    except Refused as refused:
        if raw.image is None and not raw.frames:
            raise
        problems.append(_problem(raw, refused, "sentence", str(raw.image_id)))
        return ()
    fixes["sentence_normalised"] += sum(a.text != b.text for a, b in zip(sentences, raw.sentences, strict=True))
    return sentences


def _check_sentences(sentences: tuple[Sentence, ...]) -> None:
    for sentence in sentences:
        if is_blank(sentence.text):
            raise Refused("empty_sentence", f"{sentence.role} {sentence.language}".rstrip())
    tokens = {s.role: len(spaced(s.text).split()) for s in sentences if s.role != "text"}
    if len(tokens) < 2:
        return
    if max(tokens.values()) > MAX_TOKENS:
        raise Refused("long_sentence", f"{max(tokens.values())} words, the limit is {MAX_TOKENS}")
    if max(tokens.values()) > MAX_RATIO * min(tokens.values()):
        raise Refused("uneven_pair", " and ".join(f"{number} words of {role}" for role, number in tokens.items()))


def clean_alignment(raw: RawRecord, sentences: tuple[Sentence, ...], problems: list[Problem]) -> Alignment | None:
    """The alignment, if each of its links joins a word of the one sentence with a word of the other."""
    alignment = raw.alignment
    if alignment is None or not sentences:
        return None
    words = {s.role: len(s.text.split()) for s in sentences}
    written = {s.role: len(s.text.split()) for s in raw.sentences}
    sides = (alignment.source, alignment.target)
    links = (*alignment.links, *alignment.possible_links)
    if all(words.get(role, -1) == written.get(role) for role in sides) and all(
        0 <= place < words[role] for link in links for place, role in zip(link, sides, strict=True)
    ):
        return alignment
    what = " and ".join(f"{words.get(role, 0)} words of {role}" for role in sides)
    problems.append(_problem(raw, Refused("bad_alignment", what), "alignment", str(raw.image_id)))
    return None


def clean_transcript(raw: RawRecord, problems: list[Problem], fixes: Counter[str]) -> Transcript | None:
    if raw.transcript is None:
        return None
    text = composed(raw.transcript.text)
    if is_blank(text):
        problems.append(_problem(raw, Refused("empty_transcript"), "transcript", str(raw.image_id)))
        return None
    fixes["transcript_normalised"] += text != raw.transcript.text
    return replace(raw.transcript, text=text)


def _problem(raw: RawRecord, refused: Refused, kind: ItemKind, item_id: str) -> Problem:
    return Problem(
        reason=refused.reason, kind=kind, file=raw.annotation_file, item_id=item_id, key=raw.key, detail=refused.detail
    )
