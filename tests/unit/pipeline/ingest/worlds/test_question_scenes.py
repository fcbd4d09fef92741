"""The world of questions: what is asked is true of the picture, and neither question nor picture alone tells."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from contracts.errors import ConfigError
from pipeline.ingest.worlds._grid import COLOR_NAMES, PLACES, SHAPES, STEPS
from pipeline.ingest.worlds._output import SplitSizes
from pipeline.ingest.worlds.question_scenes import Config, generate, scene_of

CONFIG = Config(num_records=SplitSizes(train=8, val=4))
SCENES = [scene_of(CONFIG, "train", i) for i in range(150)]


def named(picture, text: str):
    """The things that a name, "red circle", "red" or "circle", is true of."""
    words = set(text.lower().strip("?.").split())
    given = [(part, words & set(values)) for part, values in (("color", COLOR_NAMES), ("shape", SHAPES))]
    return [t for t in picture.things if all(not some or getattr(t, part) in some for part, some in given)]


def test_open_questions_have_true_answers() -> None:
    kinds: Counter[str] = Counter()
    for picture, asked, _, _ in SCENES:
        for question in asked:
            kinds[question.kind] += 1
            things = named(picture, question.text)
            if question.kind == "is there":
                assert question.answer == ("yes" if things else "no"), question
            else:
                (thing,) = things
                side = next((side for side in STEPS if f"is {side} " in question.text), None)
                expected = picture.beside(thing, side).shape if side else getattr(thing, question.kind.split()[1])
                assert question.answer == expected, question
    assert kinds.keys() == {"is there", "what color", "what shape", "what is"} and min(kinds.values()) > 100


def test_yes_is_as_frequent_as_no() -> None:
    answers = [q.answer for _, asked, _, _ in SCENES for q in asked if q.kind == "is there"]
    assert abs(answers.count("yes") / len(answers) - 0.5) < 0.08


def test_beside_is_the_next_place() -> None:
    """By the places: left of the center is the middle of the left column."""
    picture = SCENES[0][0]
    for thing in picture.things:
        for side, (down, right) in STEPS.items():
            other = picture.beside(thing, side)
            if other is not None:
                assert other.place == thing.place + 3 * down + right
                (x1, y1, x2, y2), (a1, b1, a2, b2) = thing.box, other.box
                assert {"left of": a2 <= x1, "right of": a1 >= x2, "above": b2 <= y1, "below": b1 >= y2}[side]


def test_candidates_are_of_one_kind_and_mostly_true_of_the_same_picture() -> None:
    own = far = 0
    for picture, _, told, _ in SCENES:
        for choice in told:
            texts = [str(text).strip(".").lower() for text in (choice.right, *choice.wrong)]
            assert len(set(texts)) == 4
            for kind in (COLOR_NAMES, SHAPES, PLACES):
                assert (texts[0] in kind) == all(text in kind for text in texts)
            if choice.text.startswith("What"):
                there = {t.color for t in picture.things} | {t.shape for t in picture.things}
                own, far = own + sum(t in there for t in texts[1:]), far + sum(t not in there for t in texts[1:])
    assert own > 4 * far
    words = Counter(choice.kind for *_, told, _ in SCENES for choice in told)
    assert words.keys() == {"what", "where", "who", "how"}


def test_the_question_alone_does_not_tell() -> None:
    """The candidate that is right most often for these words, learnt on these very questions, is right in few."""
    counts: dict[str, Counter] = {}
    for *_, told, _ in SCENES:
        for choice in told:
            counts.setdefault(choice.text.split()[0], Counter())[choice.right] += 1
    hits = [
        max((choice.right, *choice.wrong), key=lambda text: counts[choice.text.split()[0]][text]) == choice.right
        for *_, told, _ in SCENES
        for choice in told
    ]
    assert abs(np.mean(hits) - 0.25) < 0.09


def test_pointing_candidates_are_four_things_of_the_picture() -> None:
    for picture, _, _, pointed in SCENES:
        for choice in pointed:
            places = [choice.right, *choice.wrong]
            assert len(set(places)) == 4 and all(0 <= place < len(picture.things) for place in places)
            assert choice.kind == "which"
            place = next((p for p in sorted(PLACES, key=len, reverse=True) if p in choice.text), None)
            right = picture.things[choice.right]
            assert PLACES[right.place] == place if place else named(picture, choice.text) == [right]


def test_boxes_hold_their_things() -> None:
    picture = SCENES[0][0]
    for thing in picture.things:
        x1, y1, x2, y2 = thing.box
        inside = picture.image[y1:y2, x1:x2].reshape(-1, 3).astype(float).std()
        assert 0 <= x1 < x2 <= 96 and 0 <= y1 < y2 <= 96 and inside > 20


def test_the_published_files_are_written(tmp_path) -> None:
    done: list[int] = []
    generate(tmp_path, CONFIG, done.append)
    assert sum(done) == 12 and len(list((tmp_path / "images").iterdir())) == 12
    telling = json.loads((tmp_path / "dataset_v7w_telling.json").read_text())
    pointing = json.loads((tmp_path / "dataset_v7w_pointing.json").read_text())
    assert Counter(image["split"] for image in telling["images"]) == {"train": 8, "val": 4}
    pairs = [pair for image in pointing["images"] for pair in image["qa_pairs"]]
    assert len({pair["qa_id"] for pair in pairs}) == len(pairs)
    boxes = {box["box_id"]: box["image_id"] for box in pointing["boxes"]}
    assert all(boxes[i] == p["image_id"] for p in pairs for i in (p["answer"], *p["multiple_choices"]))
    asked = json.loads((tmp_path / "vqa/v2_OpenEnded_mscoco_val2014_questions.json").read_text())["questions"]
    said = json.loads((tmp_path / "vqa/v2_mscoco_val2014_annotations.json").read_text())["annotations"]
    assert [q["question_id"] for q in asked] == [a["question_id"] for a in said] and len(asked) > 20


def test_a_scene_depends_on_seed_split_and_number_alone() -> None:
    more = Config(num_records=SplitSizes(train=1, val=1))
    assert scene_of(more, "train", 3)[1:] == SCENES[3][1:]
    np.testing.assert_array_equal(scene_of(more, "train", 3)[0].image, SCENES[3][0].image)
    assert scene_of(CONFIG, "val", 3)[1] != SCENES[3][1] != scene_of(Config(seed=2), "train", 3)[1]
    with pytest.raises(ConfigError, match="choices"):
        Config(choices=0)
