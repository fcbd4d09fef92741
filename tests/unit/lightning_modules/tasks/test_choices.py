"""Telling and pointing: batches, losses by their formulas, what is learned, measured, drawn and answered."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from contracts.errors import ConfigError, DataError
from contracts.records import DataSpec, Question, Record
from contracts.text import END
from lightning_modules.augment.augment import AugmentConfig
from lightning_modules.base.choice_task import ChoiceConfig
from lightning_modules.models import region_pointer, visual7w_lstm
from lightning_modules.reports.pointing import Report as PointingReport
from lightning_modules.reports.telling import Report as TellingReport
from lightning_modules.tasks.pointing import Task as Pointing
from lightning_modules.tasks.pointing import _left
from lightning_modules.tasks.telling import Task as Telling
from lightning_modules.tasks.telling import TellingConfig

COLORS = {"red": (200, 30, 30), "green": (30, 180, 40), "blue": (30, 60, 220), "white": (250, 250, 250)}
WORDS = [[w, 9] for w in ("what", "color", "is", "it", "which", "one", "left", "right", *COLORS)]
DATA = DataSpec(dataset="x", classes=(), vocabulary={"telling_questions": WORDS, "pointing_questions": WORDS})
STILL = AugmentConfig(brightness_contrast=0.0)
BOXES = ((0.0, 0.0, 24.0, 24.0), (24.0, 0.0, 48.0, 24.0), (0.0, 24.0, 24.0, 48.0), (24.0, 24.0, 48.0, 48.0))


def telling_record(name: str, number: int, **changes) -> Record:
    """A plain picture, and of which color it is."""
    image = np.full((48, 60, 3), COLORS[name][::-1], np.uint8)
    order = [list(COLORS)[(i + number) % 4] for i in range(4)]
    question = Question(
        question_id=number, text="What color is it?", question_type="what",
        candidates=tuple(f"{color.title()}." for color in order), answer_index=order.index(name),
    )  # fmt: skip
    return _record(name, image, replace(question, **changes))


def pointing_record(number: int, **changes) -> Record:
    """Four squares of four colors: which one is red, white and so on."""
    image = np.zeros((48, 48, 3), np.uint8)
    order = [list(COLORS)[(i + number) % 4] for i in range(4)]
    for color, (x1, y1, x2, y2) in zip(order, BOXES, strict=True):
        image[int(y1) : int(y2), int(x1) : int(x2)] = COLORS[color][::-1]
    questions = [
        Question(
            question_id=10 * number + i, text=f"Which one is {color}?", candidate_boxes=BOXES,
            candidates=("7", "8", "9", "10"), answer_index=i,
        )
        for i, color in enumerate(order)
    ]  # fmt: skip
    return _record(f"squares-{number}", image, *[replace(question, **changes) for question in questions])


def _record(key: str, image: np.ndarray, *questions: Question) -> Record:
    return Record(
        key=key, image_id=key, width=image.shape[1], height=image.shape[0], image_format="png",
        image=cv2.imencode(".png", image)[1].tobytes(), questions=questions,
    )  # fmt: skip


TOLD = [telling_record(name, i) for i, name in enumerate(COLORS)]
POINTED = [pointing_record(i) for i in range(4)]


def telling(**settings) -> Telling:
    return Telling(TellingConfig(image_size=32, mirror=0.0, augment=STILL, **settings), DATA)


def pointing(**settings) -> Pointing:
    return Pointing(ChoiceConfig(image_size=48, mirror=0.0, augment=STILL, **settings), DATA)


def teller(task: Telling) -> torch.nn.Module:
    torch.manual_seed(0)
    config = visual7w_lstm.Config(
        embedding_channels=16, hidden_channels=24, attention_channels=16, context_channels=16, dropout=0.0
    )
    return visual7w_lstm.Model(config, task.spec())


def measured(task, model, records) -> dict[str, float]:
    batch = task.collate([task.encode(record, None) for record in records])
    items = [item.id for record in records for item in task.items(record)]
    truths = dict(zip(items, (truth for record in records for truth in task.truths(record)), strict=True))
    predictions = dict(zip(items, task.predict(model.eval(), batch), strict=True))
    return task.score(predictions, truths)


def test_a_telling_batch_has_each_image_once_and_all_candidates() -> None:
    task = telling()
    batch = task.collate([task.encode(record, None) for record in TOLD[:2]])
    assert batch["images"].shape == (2, 3, 32, 32) and batch["questions"].shape == (2, 4)
    assert batch["answers"].shape == (8, 2) and (batch["answers"][:, 1] == END).all()
    assert batch["candidate_question"].tolist() == [0] * 4 + [1] * 4 and batch["slot"].tolist() == [0, 1, 2, 3] * 2
    words = [task.vocabulary.tokens[i] for i in batch["answers"][batch["is_right"], 0]]
    assert words == ["red", "green"] and batch["counts"] == {"answer": 4}


@pytest.mark.parametrize("length_normalise", [True, False])
def test_log_likelihoods_are_summed_or_averaged(length_normalise: bool) -> None:
    task = telling(length_normalise=length_normalise)
    given = torch.tensor([[-1.0, -1.0, -1.0], [-1.2, -1.2, 0.0]])  # three tokens, two tokens
    scores = task._scores(given, {"answer_lengths": [3, 2]})
    torch.testing.assert_close(scores, torch.tensor([-1.0, -1.2] if length_normalise else [-3.0, -2.4]))


@pytest.mark.parametrize("score", ["loglik", "match"])
def test_losses_equal_the_formulas(score: str) -> None:
    task = telling(score=score)
    model = teller(task).eval()
    unknown = telling_record("red", 9, answer_index=None)
    batch = task.collate([task.encode(record, None) for record in (*TOLD[:2], unknown)])
    parts = [batch[k] for k in ("images", "questions", "lengths", "question_image", "answers", "answer_lengths")]
    given = model(*parts, batch["candidate_question"])
    if score == "loglik":
        (name, expected) = "answer", -given[batch["is_right"]].sum() / 4
    else:
        p, right = torch.sigmoid(given[:8]), batch["is_right"][:8]
        (name, expected) = "match", -torch.cat([p[right].log(), (1 - p[~right]).log()]).mean()
    loss = task.losses(model, batch)[name]
    torch.testing.assert_close(loss.value, expected, atol=1e-5, rtol=1e-5)
    again, _ = task.evaluate_batch(model, batch)
    torch.testing.assert_close(again[name].value, expected, atol=1e-5, rtol=1e-5)
    assert again[name].count == loss.count == batch["counts"][name] == (4 if score == "loglik" else 8)


@pytest.mark.parametrize("score", ["loglik", "match"])
def test_learns_four_pictures_by_heart(score: str) -> None:
    task = telling(score=score)
    model = teller(task)
    learn(task, model, TOLD, 60)
    assert measured(task, model, TOLD) == {"overall": 1.0, "what": 1.0, "overall, ties wrong": 1.0}


def learn(task, model, records, steps: int) -> None:
    batch = task.collate([task.encode(record, None) for record in records])
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        next(iter(task.losses(model.train(), batch).values())).value.backward()
        optimizer.step()


def test_pointing_learns_colors_by_heart_and_blind_it_guesses() -> None:
    task = pointing()
    settings = {"embedding_channels": 8, "hidden_channels": 16}
    torch.manual_seed(0)
    model = region_pointer.Model(region_pointer.Config(**settings), task.spec())
    learn(task, model, POINTED, 40)
    assert measured(task, model, POINTED)["overall"] == 1.0
    blind = region_pointer.Model(region_pointer.Config(blind_to="image", **settings), task.spec())
    many = [pointing_record(i) for i in range(60)]
    values = measured(task, blind, many)
    assert abs(values["overall"] - 0.25) < 0.08 and values["overall, ties wrong"] == 0


def test_a_pointing_loss_is_the_cross_entropy_over_a_questions_boxes() -> None:
    task = pointing()
    batch = task.collate([task.encode(record, None) for record in POINTED[:2]])
    assert batch["boxes"].shape == (32, 4) and batch["counts"] == {"cross_entropy": 8}
    scores = torch.randn(32)
    loss = task._losses(scores, batch)["cross_entropy"].value
    expected = torch.nn.functional.cross_entropy(scores.view(8, 4), torch.tensor([0, 1, 2, 3] * 2))
    torch.testing.assert_close(loss, expected)


def test_a_candidate_that_is_out_of_sight_is_none() -> None:
    first, second = (
        Question(question_id=i, text="which?", candidate_boxes=BOXES, answer_index=2, candidates=("a", "b", "c", "d"))
        for i in range(2)
    )
    kept, chosen = _left([first, second], np.array([0, 2, 3, 4, 5, 7]))
    assert [q.question_id for q in kept] == [0], "the second has lost its right one"
    assert kept[0].candidates == ("a", "c", "d") and kept[0].answer_index == 1 and chosen == [0, 1, 2]


def test_boxes_move_with_a_mirrored_picture() -> None:
    task = Pointing(ChoiceConfig(image_size=48, mirror=1.0, augment=STILL), DATA)
    example = task.encode(pointing_record(0, text="Which is left?"), 3)
    assert [task.vocabulary.tokens[i] for i in example["questions"][0]][-1] == "right"
    right = example["right"][0]
    mirrored = [BOXES[i] for i in (1, 0, 3, 2)]
    assert example["boxes"][:4].tolist() == [list(box) for box in mirrored] and right in range(4)


def test_training_draws_questions_by_seed() -> None:
    task = pointing(questions_per_image=2)
    ids = [task.encode(POINTED[1], seed)["question_ids"] for seed in (5, 5, *range(20))]
    assert ids[0] == ids[1] and all(len(some) == 2 for some in ids)
    assert set().union(*ids) == {10, 11, 12, 13}


def test_the_other_kind_of_candidates_is_refused_in_words() -> None:
    with pytest.raises(DataError, match=r"(?s)has texts to choose from.*two data sets"):
        telling().encode(POINTED[0], None)
    with pytest.raises(DataError, match="has boxes to choose from"):
        pointing().items(TOLD[0])
    with pytest.raises(ConfigError, match="the data set has no telling_questions"):
        Telling(TellingConfig(), DataSpec(dataset="x", classes=(), vocabulary={"questions": WORDS}))


def test_answers_are_in_the_official_form_the_best_first() -> None:
    task = telling()
    prediction = {
        "question_id": 7, "question": "What?", "candidates": ["A", "B", "C"],
        "scores": np.array([-2.0, -1.0, -1.0], np.float32), "choice": 2,
    }  # fmt: skip
    answer = json.loads(json.dumps(task.answer(prediction)))
    assert answer["qa_id"] == 7 and [c["answer"] for c in answer["candidates"]] == ["C", "B", "A"]


@pytest.mark.parametrize("kind", ["telling", "pointing"])
def test_pictures_constant_and_plots(kind: str) -> None:
    task = telling() if kind == "telling" else pointing()
    report = TellingReport(task) if kind == "telling" else PointingReport(task)  # type: ignore[arg-type]
    records = TOLD if kind == "telling" else POINTED
    truths = {i.id: t for r in records for i, t in zip(task.items(r), task.truths(r), strict=True)}
    constant = report.constant(truths)
    assert abs(task.score(constant, truths)["overall"] - 0.25) <= 0.25
    (plot,) = report.plots(constant, truths)
    assert {name for name, _ in plot.rows} == ({"what"} if kind == "telling" else {"which"})
    shown = [constant[item.id] for item in task.items(records[0])]
    for known in (None, task.truths(records[0])):
        picture = report.picture(records[0], shown, known)
        assert picture.dtype == np.uint8 and picture.shape[2] == 3
    assert not np.array_equal(picture, report.picture(records[0], shown, None)), "the right one is marked"


def test_a_question_whose_right_candidate_nobody_knows_is_not_measured() -> None:
    task = telling()
    records = [TOLD[0], telling_record("red", 9, answer_index=None)]
    model = teller(task)
    truths = [t for r in records for t in task.truths(r)]
    assert truths[1]["answer"] == ""
    items = {f"{i}": t for i, t in enumerate(truths)}
    batch = task.collate([task.encode(record, None) for record in records])
    predictions = dict(zip(items, task.predict(model.eval(), batch), strict=True))
    (official, untied) = task.measure(predictions, items)
    assert official.num_items == untied.num_items == 1
