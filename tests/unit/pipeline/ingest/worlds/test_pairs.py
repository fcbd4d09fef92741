"""Sentence pairs whose words' links are known: agreement, order, even lengths, and no sentence in both splits."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from contracts.errors import ConfigError
from pipeline.ingest.sources import sentences as source
from pipeline.ingest.worlds._lexicon import ADJECTIVES, NOUNS, VERBS
from pipeline.ingest.worlds._output import SplitSizes
from pipeline.ingest.worlds.pairs import BINS, LECTURE, Clause, Config, Group, generate, pair_of, sentences
from tests.formats import through_door


def linked(pair, language: str) -> set[tuple[str, str]]:
    text, links = pair.others[language]
    english, other = pair.english.split(), text.split()
    return {(english[int(i)], other[int(j)]) for i, _, j in (link.partition("-") for link in links.split())}


def test_the_lectures_sentence() -> None:
    pair = pair_of(LECTURE)
    assert pair.english == "The agreement on the European Economic Area was signed in August 1992."
    assert pair.others["fr"][0] == "L'accord sur la zone économique européenne a été signé en août 1992."
    assert pair.others["de"][0] == (
        "Das Abkommen über die europäische wirtschaftliche Zone wurde im August 1992 unterzeichnet."
    )
    assert pair.others["fr"][1] == "0-0 1-0 2-1 3-2 4-5 5-4 6-3 7-6 7-7 8-8 9-9 10-10 11-11"
    assert {("the", "die"), ("Area", "Zone"), ("signed", "unterzeichnet."), ("1992.", "1992")} <= linked(pair, "de")
    assert next(sentences(1, "val")) == pair


def test_agreement_reaches_from_the_subject_to_the_participle() -> None:
    """French: a feminine subject, far away; German: case in article and adjective of a masculine noun."""
    nouns = {noun.english: noun for noun in NOUNS}
    law, treaty = (Group(nouns[name], (ADJECTIVES[4],), name=False) for name in ("law", "treaty"))
    feminine = pair_of((Clause((law, treaty), (2,), VERBS[0], None),))
    assert feminine.english == "The public law against the public treaty was signed."
    assert feminine.others["fr"][0] == "La loi publique contre le traité public a été signée."
    assert feminine.others["de"][0] == "Das öffentliche Gesetz gegen den öffentlichen Vertrag wurde unterzeichnet."
    masculine = pair_of((Clause((treaty, law), (2,), VERBS[0], None),))
    assert masculine.others["fr"][0] == "Le traité public contre la loi publique a été signé."
    assert masculine.others["de"][0] == "Der öffentliche Vertrag gegen das öffentliche Gesetz wurde unterzeichnet."


def test_lengths_are_even_over_the_bins_and_splits_share_nothing() -> None:
    drawn = {split: list(islice(sentences(3, split), 400)) for split in ("train", "val")}
    for pairs in drawn.values():
        lengths = [len(pair.english.split()) + 1 for pair in pairs]  # with the mark
        assert min(lengths) == BINS[0][0] and max(lengths) == BINS[-1][1]
        shares = [sum(low <= n <= high for n in lengths) / len(lengths) for low, high in BINS]
        assert all(0.15 < share < 0.35 for share in shares), shares
    for texts in (lambda p: p.english, lambda p: p.others["fr"][0], lambda p: p.others["de"][0]):
        assert not set(map(texts, drawn["train"])) & set(map(texts, drawn["val"]))
    words = Counter(word for pair in drawn["train"] for word in pair.others["fr"][0].split())
    assert 100 < len(words) < 200


def test_files_are_read_as_any_parallel_text(tmp_path) -> None:
    config = Config(num_records=SplitSizes(train=30, val=12))
    generate(tmp_path, config, lambda _: None)
    for language in ("fr", "de"):
        settings = source.Config(languages={"source": "en", "target": language}, alignment=f"{{split}}.en-{language}")
        found = through_door(source, tmp_path, settings)
        assert not found.problems and {s: len(r) for s, r in found.records.items()} == {"train": 30, "val": 12}
        for record in (*found.records["train"], *found.records["val"]):
            targets = {target for _, target in record.alignment.links}
            sources = {place for place, _ in record.alignment.links}
            words = {s.role: set(range(len(s.text.split()))) for s in record.sentences}
            assert (sources, targets) == (words["source"], words["target"]), "every word says something"
    first = (tmp_path / "train.en").read_text()
    generate(tmp_path, config, lambda _: None)
    assert (tmp_path / "train.en").read_text() == first
    with pytest.raises(ConfigError, match="seed"):
        Config(seed=-1)
