"""Captions and questions say what is in the scene, and their text alone does not give the answers away."""

from __future__ import annotations

import re
from collections import Counter, defaultdict

import numpy as np
import pytest
import sacrebleu

from contracts.text import words
from pipeline.ingest.worlds._language import Asked, captions, relation
from pipeline.ingest.worlds._scenes import COLORS, SHAPES, TEXTURES, Scene, SceneObject
from pipeline.ingest.worlds.coco_scenes import Config, scene_of

Told = tuple[Scene, list[str], list[Asked]]
_PLURALS = {"crosses" if s == "cross" else f"{s}s": s for s in SHAPES}


@pytest.fixture(scope="module")
def told() -> list[Told]:
    return [scene_of(Config(seed=7), "train", i) for i in range(500)]


def _object(shape: str, color: str, size: str, x: int, y: int, texture: str = "plain") -> SceneObject:
    mask = np.zeros((60, 60), bool)
    mask[y : y + 8, x : x + 8] = True
    return SceneObject(
        shape=shape, color=color, texture=texture, size=size, mask=mask, visible_fraction=1.0, is_truncated=False
    )


def _scene(*objects: SceneObject) -> Scene:
    return Scene(image=np.zeros((60, 60, 3), np.uint8), objects=objects)


def test_relations_by_the_leading_axis() -> None:
    middle = _object("circle", "red", "large", 25, 25)
    places = {(5, 27): "left of", (45, 22): "right of", (22, 5): "above", (27, 45): "below", (5, 5): "near"}
    for (x, y), expected in places.items():
        assert relation(_object("star", "blue", "small", x, y), middle) == expected


def test_captions_of_a_known_pair() -> None:
    star, circle = (
        _object("star", "blue", "large", 45, 25, "dotted"),
        _object("circle", "red", "large", 5, 25, "striped"),
    )
    scene = _scene(star, circle)
    assert Counter(captions(np.random.default_rng(0), scene)) == {
        "A large red circle left of a large blue star.": 2,
        "A red circle left of a blue star.": 1,
        "A large blue star right of a large red circle.": 1,
        "A big red circle left of a big blue star.": 1,
    }


def test_a_large_object_is_named_before_a_small_one_and_several_small_ones_are_counted() -> None:
    large = _object("ring", "cyan", "large", 45, 45)
    small = [_object("star", "red", "small", 5, y) for y in (5, 20)]
    rng = np.random.default_rng(0)
    assert "A large cyan ring near a small red star." in captions(rng, _scene(small[0], large))
    assert "A large cyan ring with two small shapes." in captions(rng, _scene(*small, large))


def test_five_captions_each_with_real_attributes(told: list[Told]) -> None:
    for scene, sentences, _ in told:
        assert len(sentences) == 5
        present = {(o.color, o.shape) for o in scene.objects}
        for sentence in sentences:
            named = re.findall(rf"({'|'.join(COLORS)})(?: (?:{'|'.join(TEXTURES)}))? ({'|'.join(SHAPES)})", sentence)
            assert named and set(named) <= present


def _truth(scene: Scene, text: str) -> str:
    """The answer, read off the objects by another route than the one that made the question."""
    shape, color = "|".join(SHAPES), "|".join(COLORS)

    def count(kind: str = "", tone: str = "") -> int:
        return sum((not kind or o.shape == kind) and (not tone or o.color == tone) for o in scene.objects)

    def only(kind: str) -> SceneObject:
        (found,) = [o for o in scene.objects if o.shape == kind]
        return found

    if m := re.fullmatch(rf"Is there a (?:({color}) )?({shape}|object)\?", text):
        return "yes" if count("" if m[2] == "object" else m[2], m[1] or "") else "no"
    if m := re.fullmatch(rf"Is the ({shape}) (left of|right of|above|below) the ({shape})\?", text):
        return "yes" if relation(only(m[1]), only(m[3])) == m[2] else "no"
    if m := re.fullmatch(rf"What color is the ({shape})\?", text):
        return only(m[1]).color
    if m := re.fullmatch(rf"What shape is the ({color}) object\?", text):
        (found,) = [o for o in scene.objects if o.color == m[1]]
        return found.shape
    if m := re.fullmatch(rf"What is (left of|right of|above|below) the ({shape})\?", text):
        (other,) = [o for o in scene.objects if o.shape != m[2]]
        return other.shape if relation(other, only(m[2])) == m[1] else "?"
    m = re.fullmatch(rf"How many (?:({color}) )?(objects|{'|'.join(_PLURALS)}) are there\?", text)
    assert m, text
    return str(count(_PLURALS.get(m[2], ""), m[1] or ""))


def test_answers_are_right(told: list[Told]) -> None:
    asked = [(scene, one) for scene, _, questions in told for one in questions]
    assert all(one.answer == _truth(scene, one.text) for scene, one in asked)
    kinds = {one.question_type for _, one in asked}
    assert kinds == {"is there a", "is the", "how many", "what color is the", "what", "what is"}
    assert {one.answer for _, one in asked if one.answer_type == "number"} == set("01234")


def test_three_to_five_different_questions(told: list[Told]) -> None:
    counts = Counter(len(questions) for _, _, questions in told)
    assert set(counts) == {3, 4, 5}
    assert all(len({q.text for q in questions}) == len(questions) for _, _, questions in told)


def test_nothing_is_asked_about_what_the_crowd_shows(told: list[Told]) -> None:
    crowded = [(scene.crowd, questions) for scene, _, questions in told if scene.crowd]
    assert len(crowded) > 15
    for crowd, questions in crowded:
        hidden = {crowd.shape, crowd.color, f"{crowd.shape}s", f"{crowd.shape}es"}
        for one in questions:
            assert not hidden & set(words(one.text)) and one.text != "How many objects are there?"


def test_ten_answers_with_some_disagreement(told: list[Told]) -> None:
    asked = [one for _, _, questions in told for one in questions]
    for one in asked:
        assert len(one.answers) == len(one.confidences) == 10
        assert one.answers.count(one.answer) >= 8
    share = np.mean([len(set(one.answers)) > 1 for one in asked])
    assert 0.10 < share < 0.20


def test_the_best_constant_caption_scores_low(told: list[Told]) -> None:
    texts = [[" ".join(words(c)) for c in sentences] for _, sentences, _ in told]
    references = [list(column) for column in zip(*texts, strict=True)]
    bleu = sacrebleu.BLEU(tokenize="none", smooth_method="none", force=True)
    frequent = [c for c, _ in Counter(c for row in texts for c in row).most_common(20)]
    candidates = [*frequent, "with two small shapes and a large cyan", "a large red circle left of a large blue square"]
    best = max(bleu.corpus_score([c] * len(texts), references).score for c in candidates) / 100
    assert 0.05 < best < 0.30
    others = bleu.corpus_score([row[0] for row in texts], references[1:]).score / 100
    assert others > 0.65  # one person's caption against the others': what a good captioner can reach


def test_question_text_gives_few_answers_away(told: list[Told]) -> None:
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for _, _, questions in told[:400]:
        for one in questions:
            seen[one.text][one.answer] += 1
    hits = [
        (seen[one.text].most_common(1)[0][0] if one.text in seen else "yes") == one.answer
        for _, _, questions in told[400:]
        for one in questions
    ]
    assert np.mean(hits) < 0.55
    yes = [one.answer == "yes" for _, _, qs in told for one in qs if one.answer_type == "yes/no"]
    assert 0.4 < np.mean(yes) < 0.6
