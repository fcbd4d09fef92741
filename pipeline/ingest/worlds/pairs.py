"""Generated parallel text with its word alignment: English sentences, what they are in French and in German.

Layout under the root, as WMT and Multi30k publish parallel text: `{train,val}.{en,fr,de}`, a sentence a line as people
write it, and `{train,val}.en-{fr,de}`, the links `i-j` of word i of the English sentence with word j of the other,
counted from 0; words are what stands between blanks, so that "L'accord" is one.

    The agreement on the European Economic Area was signed in August 1992.
    L'accord sur la zone économique européenne a été signé en août 1992.
    Das Abkommen über die europäische wirtschaftliche Zone wurde im August 1992 unterzeichnet.

What decides: nearly every content word is drawn evenly and without regard to the others, so that one vector must hold
about four bits for each of them; lengths are even over four bins from 4 to 25 words and marks. Order: French turns a
group of adjectives and their noun around; German puts the participle last. Agreement: articles, adjectives and the
French participle follow the noun's gender, which English does not show, and the subject may stand many words before
its participle; German articles and adjectives show the case as well. Names are capitalised in English alone
("Economic").

Sentences of equal content are all in one split. The first of `val` is the one above.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from contracts.ranges import SEED, check_ranges
from pipeline.ingest.worlds._lexicon import (
    ADJECTIVES,
    MONTHS,
    NOUNS,
    PREPOSITIONS,
    VERBS,
    YEARS,
    Adjective,
    Noun,
    Verb,
)
from pipeline.ingest.worlds._output import SplitSizes, image_rng

TARGETS = ("fr", "de")
BINS = ((4, 5), (6, 10), (11, 15), (16, 25))  # tokens of the English sentence: its words and the mark at its end
_STREAMS = {"train": 22, "val": 23}
_VAL_SHARE = 8  # one content of so many is validated with
_NAMES, _TIMES, _SHORT = 0.3, 0.5, 0.5  # shares of names, of clauses that say when, of short sentences without a verb
_FEWEST, _MOST = 2, 5  # words of an English noun group
_CLAUSE = _FEWEST + 2  # the shortest: "the law was signed"
_ARTICLES = {"m": "der", "f": "die", "n": "das"}


@dataclass(frozen=True, kw_only=True)
class Config:
    """`num_records` counts sentence pairs of each split."""

    seed: int = 1
    num_records: SplitSizes = field(default=SplitSizes(train=4000, val=500))

    def __post_init__(self) -> None:
        check_ranges(self, seed=SEED)


class Pair(NamedTuple):
    """An English sentence, and by language its translation and the links (English word, other word), as texts."""

    english: str
    others: dict[str, tuple[str, str]]


class Group(NamedTuple):
    """A noun with its adjectives in English order. `name`: capitalised in English."""

    noun: Noun
    adjectives: tuple[Adjective, ...]
    name: bool


class Clause(NamedTuple):
    """`groups` are the subject, then what each preposition brings; `verb` None: no clause, a heading. `time`: places of
    month and year."""

    groups: tuple[Group, ...]
    prepositions: tuple[int, ...]
    verb: Verb | None
    time: tuple[int, int] | None


Sentence = tuple[Clause, ...]  # joined by "and"


def generate(root: Path, config: Config, progress: Callable[[int], None]) -> None:
    """Write both splits under `root`; `progress` is called with the number of pairs done since the last call."""
    for split in _STREAMS:
        number = getattr(config.num_records, split)
        pairs = list(islice(sentences(config.seed, split), number))
        _write(root / f"{split}.en", [pair.english for pair in pairs])
        for language in TARGETS:
            _write(root / f"{split}.{language}", [pair.others[language][0] for pair in pairs])
            _write(root / f"{split}.en-{language}", [pair.others[language][1] for pair in pairs])
        progress(number)


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def sentences(seed: int, split: str) -> Iterator[Pair]:
    """The pairs of a split, without end; none has the content of one of the other split."""
    if split == "val":
        yield pair_of(LECTURE)
    for index in count():
        rng = image_rng(seed, _STREAMS[split], index)
        low, high = BINS[index % len(BINS)]
        sentence = _sentence(rng, int(rng.integers(low, high + 1)) - 1)
        pair = pair_of(sentence)
        if (_is_validated(pair) == (split == "val")) and pair.others != pair_of(LECTURE).others:
            yield pair


def _is_validated(pair: Pair) -> bool:
    """By the French and the German, which say what is meant: English has the same in two ways, as a name and not."""
    said = "\n".join(text for text, _ in pair.others.values())
    return zlib.crc32(said.encode()) % _VAL_SHARE == 0


# ---- what is said


def _sentence(rng: np.random.Generator, length: int) -> Sentence:
    """Of `length` English words without the mark."""
    if length < _CLAUSE or (length <= _MOST and rng.random() < _SHORT):
        return (_heading(rng, length),)
    if length > 2 * _CLAUSE and rng.random() < 0.5:
        first = int(rng.integers(_CLAUSE, length - _CLAUSE))
        return (_clause(rng, first), _clause(rng, length - 1 - first))
    return (_clause(rng, length),)


def _heading(rng: np.random.Generator, length: int) -> Clause:
    if length == 3 and rng.random() < 0.3:
        return Clause((), (), None, _time(rng))
    return Clause((_group(rng, length),), (), None, None)


def _clause(rng: np.random.Generator, length: int) -> Clause:
    verb = VERBS[rng.integers(len(VERBS))]
    when = length >= _CLAUSE + 3 and rng.random() < _TIMES
    rest = length - 2 - 3 * when
    sizes = _sizes(rng, rest)
    prepositions = tuple(int(p) for p in rng.integers(len(PREPOSITIONS), size=len(sizes) - 1))
    return Clause(tuple(_group(rng, size) for size in sizes), prepositions, verb, _time(rng) if when else None)


def _sizes(rng: np.random.Generator, rest: int) -> list[int]:
    """Sizes of noun groups, a preposition between two, that add up to `rest` words."""
    sizes: list[int] = []
    while rest:
        # What is left is nothing, or a preposition and a group.
        fits = [size for size in range(_FEWEST, _MOST + 1) if rest - size == 0 or rest - size > _FEWEST]
        sizes.append(int(rng.choice(fits)))
        rest -= sizes[-1]
        rest -= rest > 0
    return sizes


def _group(rng: np.random.Generator, length: int) -> Group:
    chosen = rng.permutation(len(ADJECTIVES))[: length - 2]
    adjectives = tuple(ADJECTIVES[i] for i in chosen)
    return Group(NOUNS[rng.integers(len(NOUNS))], adjectives, bool(rng.random() < _NAMES))


def _time(rng: np.random.Generator) -> tuple[int, int]:
    return int(rng.integers(len(MONTHS))), int(rng.integers(len(YEARS)))


# ---- how it is said


class _Writer:
    """English words and, of another language, words with the English ones that each says."""

    def __init__(self, language: str):
        self.french = language == "fr"
        self.english: list[str] = []
        self.other: list[str] = []
        self.links: list[tuple[int, int]] = []

    def say(self, english: str, *others: str) -> int:
        """The next English word, and what it is at once in the other language; its place."""
        self.english.append(english)
        for word in others:
            self.link(word, len(self.english) - 1)
        return len(self.english) - 1

    def link(self, word: str, *places: int) -> None:
        """The next word of the other language; an elided article and what follows it are one."""
        if self.other and self.other[-1].endswith("'"):
            self.other[-1] += word
        else:
            self.other.append(word)
        self.links += [(place, len(self.other) - 1) for place in places]

    def group(self, group: Group, *, subject: bool) -> None:
        noun, name = group.noun, group.name
        the = self.say("the")
        places = [self.say(_named(adjective.english, name)) for adjective in group.adjectives]
        at = self.say(_named(noun.english, name))
        if self.french:
            feminine = noun.french_gender == "f"
            self.link("l'" if noun.french_begins == "v" else "la" if feminine else "le", the)
            self.link(noun.french, at)
            for adjective, place in reversed(list(zip(group.adjectives, places, strict=True))):
                self.link(adjective.french_f if feminine else adjective.french_m, place)
            return
        accusative_m = not subject and noun.german_gender == "m"
        self.link("den" if accusative_m else _ARTICLES[noun.german_gender], the)
        for adjective, place in zip(group.adjectives, places, strict=True):
            self.link(adjective.german + ("en" if accusative_m else "e"), place)
        self.link(noun.german, at)

    def time(self, time: tuple[int, int]) -> None:
        month, year = MONTHS[time[0]], YEARS[time[1]]
        self.say("in", "en" if self.french else "im")
        self.say(month[0], month[1 if self.french else 2])
        self.say(year, year)

    def clause(self, clause: Clause) -> None:
        for i, group in enumerate(clause.groups):
            if i:
                preposition = PREPOSITIONS[clause.prepositions[i - 1]]
                self.say(preposition[0], preposition[1 if self.french else 2])
            self.group(group, subject=i == 0)
        if clause.verb is None:
            if clause.time is not None:
                self.time(clause.time)
            return
        self.say("was", *(("a", "été") if self.french else ("wurde",)))
        if self.french:
            ending = "e" if clause.groups[0].noun.french_gender == "f" else ""
            self.say(clause.verb.english, clause.verb.french + ending)
        else:
            at = self.say(clause.verb.english)
        if clause.time is not None:
            self.time(clause.time)
        if not self.french:
            self.link(clause.verb.german, at)

    def sentence(self, sentence: Sentence) -> tuple[str, str, str]:
        for i, clause in enumerate(sentence):
            if i:
                self.say("and", "et" if self.french else "und")
            self.clause(clause)
        links = " ".join(f"{source}-{target}" for source, target in sorted(self.links))
        return _begun(self.english), _begun(self.other), links


def pair_of(sentence: Sentence) -> Pair:
    """What is said, in all languages."""
    written = {language: _Writer(language).sentence(sentence) for language in TARGETS}
    return Pair(written["fr"][0], {language: (text, links) for language, (_, text, links) in written.items()})


def _named(english: str, name: bool) -> str:
    return english[0].upper() + english[1:] if name else english


def _begun(words: list[str]) -> str:
    text = " ".join(words)
    return f"{text[0].upper()}{text[1:]}."


# The lecture's own sentence, as Bahdanau et al. (1409.0473, figure 3a) show it.
LECTURE: Sentence = (
    Clause(
        (Group(NOUNS[0], (), name=False), Group(NOUNS[1], ADJECTIVES[:2], name=True)), (0,), VERBS[0], (7, 7)
    ),
)  # fmt: skip
