import cv2
import numpy as np
import pytest
import torch
from lightning_fabric.utilities import move_data_to_device

from contracts.errors import ConfigError
from contracts.records import DataSpec, Question, Record
from lightning_modules.metrics.vqa_accuracy import question_accuracy
from lightning_modules.models import lstm_vqa
from lightning_modules.reports.vqa import Report
from lightning_modules.tasks.vqa import Task, VQAConfig

COLOURS = {"red": (200, 30, 30), "green": (30, 180, 40), "blue": (30, 60, 220), "white": (250, 250, 250)}
DATA = DataSpec(
    dataset="boxes",
    classes=(),
    vocabulary={
        "questions": [[w, 9] for w in ("what", "color", "is", "it", "this", "red", "the", "box")],
        "answers": [[a, 9] for a in ("yes", "no", *COLOURS)],
    },
)
CONFIG = VQAConfig(image_size=64)


def _question(question_id, text, answers, answer_type="other"):
    return Question(
        question_id=question_id,
        text=text,
        answers=tuple(answers),
        question_type=" ".join(text.lower().split()[:2]),
        answer_type=answer_type,
    )


def _record(name, colour, questions):
    image = np.full((48, 60, 3), colour[::-1], np.uint8)
    return Record(
        key=name,
        image_id=name,
        width=60,
        height=48,
        image=cv2.imencode(".png", image)[1].tobytes(),
        image_format="png",
        questions=tuple(questions),
    )


RECORDS = [
    _record(
        name,
        colour,
        [
            _question(10 * i, "What color is it?", [name] * 10),
            _question(10 * i + 1, "Is this red?", ["yes" if name == "red" else "no"] * 9 + ["maybe"], "yes/no"),
        ],
    )
    for i, (name, colour) in enumerate(COLOURS.items())
]


@pytest.fixture
def task():
    return Task(CONFIG, DATA)


@pytest.fixture
def model(task):
    torch.manual_seed(0)
    config = lstm_vqa.Config(embedding_channels=16, hidden_channels=32, fused_channels=32, dropout=0.0)
    return lstm_vqa.Model(config, task.spec())


def test_batch_holds_each_image_once_and_all_its_questions(task):
    batch = task.collate([task.encode(record, None) for record in RECORDS[:2]])
    assert batch["images"].shape == (2, 3, 64, 64)
    assert batch["questions"].shape == (4, 4)
    # Numbers, which stay on the CPU, where packing reads them; a tensor would go to the GPU and back in each step.
    assert move_data_to_device(batch, "meta")["lengths"] == [4, 3, 4, 3]
    assert batch["questions"][1, 3] == 0
    assert batch["question_image"].tolist() == [0, 0, 1, 1]
    assert batch["question_ids"] == [0, 1, 10, 11]


def test_targets_are_the_official_accuracies(task):
    answers = ["Red."] * 2 + ["red", "the blue", "blue", "green", "purple", "purple", "purple", "mauve"]
    batch = task.collate([task.encode(_record("x", (1, 1, 1), [_question(1, "what", answers)]), None)])
    expected = [question_accuracy(answer, answers) for answer in task.answers]
    assert batch["targets"][0].tolist() == pytest.approx(expected)
    assert dict(zip(task.answers, expected, strict=True))["blue"] == pytest.approx(0.6)


def test_training_draws_questions_by_seed():
    task = Task(VQAConfig(image_size=32, questions_per_image=2), DATA)
    record = _record("x", (1, 1, 1), [_question(i, "what", ["red"] * 10) for i in range(6)])

    def drawn(seed):
        return task.encode(record, seed)["question_ids"]

    assert drawn(5) == drawn(5)
    assert len(set(drawn(5))) == 2
    assert set().union(*map(drawn, range(20))) == set(range(6))
    assert drawn(None) == list(range(6))


def test_a_mirrored_image_has_mirrored_questions_and_answers():
    vocabulary = {"questions": [["left", 1], ["right", 1]], "answers": [["left", 1], ["right", 1]]}
    data = DataSpec(dataset="boxes", classes=(), vocabulary=vocabulary)
    task = Task(VQAConfig(image_size=32, min_word_count=1, mirror=1.0), data)
    record = _record("x", (1, 1, 1), [_question(1, "left or right?", ["left"] * 10)])
    plain, mirrored = task.encode(record, None), task.encode(record, 7)
    assert (plain["questions"], mirrored["questions"]) == ([[4, 1, 5]], [[5, 1, 4]])
    assert plain["targets"][0].tolist() == [1, 0]
    assert mirrored["targets"][0].tolist() == [0, 1]


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_losses_equal_the_formulas(model, loss):
    task = Task(VQAConfig(image_size=64, loss=loss), DATA)
    model.eval()
    questions = [_question(1, "is it red", ["yes"] * 8 + ["no"] * 2), _question(2, "what", ["mauve"] * 10)]
    unanswered = _question(3, "what is it", [])
    batch = task.collate([task.encode(_record("x", (1, 2, 3), [*questions, unanswered]), None)])
    logits = model(batch["images"], batch["questions"], batch["lengths"], batch["question_image"])
    t = batch["targets"]
    if loss == "softmax":  # "mauve" is no answer that could be given, so its question teaches nothing
        expected = -(torch.log_softmax(logits[0], 0) * t[0] / t[0].sum()).sum()
    else:
        p = torch.sigmoid(logits[:2])
        expected = -(t[:2] * p.log() + (1 - t[:2]) * (1 - p).log()).sum() / 2
    answer = task.losses(model, batch)["answer"]
    assert answer.count == (1 if loss == "softmax" else 2)
    torch.testing.assert_close(answer.value, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_learns_four_images_by_heart(model, loss):
    task = Task(VQAConfig(image_size=64, loss=loss), DATA)
    batch = task.collate([task.encode(record, None) for record in RECORDS])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    first = None
    for _ in range(70):
        total = task.losses(model, batch)["answer"].value
        first = total.item() if first is None else first
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert total.item() < 0.25 * first + 0.2  # ten per cent of the annotators disagree, which has entropy
    truths = _truths(task, RECORDS)
    predictions = dict(zip(truths, task.predict(model, batch), strict=True))
    assert task.score(predictions, truths)["overall"] == pytest.approx(100)


def test_padding_changes_no_answer(task, model):
    model.eval()
    batch = task.collate([task.encode(record, None) for record in RECORDS])
    wider = {**batch, "questions": torch.nn.functional.pad(batch["questions"], (0, 7))}
    for a, b in zip(task.predict(model, batch), task.predict(model, wider), strict=True):
        assert a["question_id"] == b["question_id"]
        assert [p for _, p in a["top"]] == pytest.approx([p for _, p in b["top"]], abs=1e-5)


def test_a_bare_image_with_questions_is_answered(task, model):
    model.eval()
    questions = [Question(question_id=-1, text="What is the box?"), Question(question_id=2**40, text="???")]
    first, second = task.predict(model, task.collate([task.encode(_record("x", (5, 5, 5), questions), None)]))
    assert (first["question_id"], second["question_id"]) == (-1, 2**40)
    top = first["top"]
    assert first["answer"] == top[0][0]
    assert len(top) == 5
    assert [p for _, p in top] == sorted((p for _, p in top), reverse=True)
    answer = task.answer(first)
    assert answer["question"] == "What is the box?"
    assert answer["top"][0] == {"answer": top[0][0], "probability": top[0][1]}


def _truths(task, records):
    return {item.id: truth for r in records for item, truth in zip(task.items(r), task.truths(r), strict=True)}


def _answers(**given):
    """By item id, of answers by image, in order."""
    return {
        f"{record.key}/{question.question_id}": {
            "question_id": question.question_id, "question": "", "answer": answer, "top": [],
        }
        for record in RECORDS
        for question, answer in zip(record.questions, given.get(record.key, ()), strict=False)
    }  # fmt: skip


def test_items_are_questions_and_their_group_is_the_image(task):
    assert task.items(RECORDS[1]) == [("green/10", "green", "green"), ("green/11", "green", "green")]
    assert [truth["question_id"] for truth in task.truths(RECORDS[1])] == [10, 11]
    assert task.encode(RECORDS[1], None)["question_ids"] == [10, 11], "predicted in this order"


def _truths_and_predictions(task):
    return _truths(task, RECORDS[:2]), _answers(red=("red", "no"), green=("blue", "no"))


def test_measured_by_answer_type_and_thoroughly_by_question_type(task):
    truths, predictions = _truths_and_predictions(task)
    expected = {"overall": 50, "perAnswerType/yes/no": 50, "perAnswerType/other": 50}
    assert task.score(predictions, truths) == pytest.approx(expected)
    (thorough,) = task.measure(predictions, truths, thorough=True)
    assert {n for n in thorough.values if n.startswith("perQuestionType/")}


def test_images_are_drawn_again_with_all_their_questions(task):
    """By hand: of two images, one right in both questions and one in none, half of the resamples hold one of each."""
    truths, predictions = _truths(task, RECORDS[:2]), _answers(red=("red", "yes"), green=("blue", "yes"))
    groups = {item.id: item.group for record in RECORDS[:2] for item in task.items(record)}
    ones = {"a": 2 * np.eye(2), "b": np.ones((1, 2))}
    (by_image,) = task.measure(predictions, truths, groups)
    assert by_image.num_items == 4 and by_image.num_clusters == 2
    assert sorted(by_image.resample(ones["a"])["overall"]) == [0, 100] and by_image.resample(ones["b"])["overall"] == 50
    (by_question,) = task.measure(predictions, truths)
    assert by_question.num_clusters == 4, "each by itself"


def test_questions_without_annotators_are_not_scored(task):
    truths, predictions = _truths_and_predictions(task)
    truths["red/99"] = {"question_id": 99, "answers": [], "answer_type": "", "question_type": ""}
    predictions["red/99"] = {"question_id": 99, "question": "", "answer": "red", "top": []}
    assert task.score(predictions, truths)["overall"] == 50


def test_constant_is_the_most_frequent_answer(task):
    truths = _truths(task, RECORDS)
    constant = Report(task).constant(truths)
    assert constant.keys() == truths.keys()
    assert {p["answer"] for p in constant.values()} == {"no"}
    assert task.score(constant, truths)["overall"] == pytest.approx(100 * 3 / 8)


def test_answers_are_given_in_the_form_that_annotators_use():
    """Official scores compare what all annotators agree on letter by letter."""
    vocabulary = {"questions": [["what", 1]], "answers": [["one way", 1], ["Yes", 1]]}
    task = Task(VQAConfig(image_size=32, min_word_count=1), DataSpec(dataset="x", classes=(), vocabulary=vocabulary))
    questions = [_question(1, "what", ["one way"] * 10), _question(2, "what", ["Yes"] * 10), _question(3, "x", ["yes"])]
    record = _record("x", (1, 1, 1), questions)
    assert [t.tolist() for t in task.encode(record, None)["targets"]] == [[1, 0], [0, 1], [0, 1]]
    truths = _truths(task, [record])
    logits = torch.tensor([[9.0, 0], [0, 9.0], [0, 9.0]])
    predicted = task._predictions(logits, task.collate([task.encode(record, None)]))
    predictions = dict(zip(truths, predicted, strict=True))
    assert task.score(predictions, truths)["overall"] == 100
    (confusion,) = (plot for plot in Report(task).plots(predictions, truths) if plot.kind == "confusion")
    assert {(truth, predicted) for truth, predicted, _ in confusion.rows} == {("1 way", "1 way"), ("yes", "yes")}
    constant = Report(task).constant(truths)
    assert constant["x/1"]["answer"] == "Yes", "of the eleven answers that are yes ten are written so"


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_one_answer_a_question_is_learned(model, loss):
    task = Task(VQAConfig(image_size=64, loss=loss), DATA)
    batch = task.collate([task.encode(_record("x", (1, 2, 3), [_question(1, "is it red", ["yes"])]), None)])
    assert batch["targets"].sum() == 1
    assert task.losses(model, batch)["answer"].value > 0


def test_plots(task):
    truths, predictions = _truths_and_predictions(task)
    answer_type, question_type, confusion = Report(task).plots(predictions, truths)
    assert dict(answer_type.rows) == {"other": 50, "yes/no": 50}
    assert dict(question_type.rows) == {"what color": 50, "is this": 50}
    assert ("green", "(other)", 1) in confusion.rows  # "blue" is no frequent true answer here
    assert ("no", "no", 1) in confusion.rows


def test_picture_tells_right_from_wrong_by_colour(task):
    record = _record("x", (255, 255, 255), [])

    def drawn(answer, truths):
        predictions = [{"question": "Is it a café?", "answer": answer, "top": [(answer, 0.7), ("blue", 0.1)]}]
        return np.unique(Report(task).picture(record, predictions, truths).reshape(-1, 3), axis=0).tolist()

    truths = [{"answers": ["yes"] * 10}]
    green, red, blue = [0, 130, 60], [200, 30, 30], [60, 110, 200]
    right, wrong, unknown = drawn("yes", truths), drawn("no", truths), drawn("yes", None)
    assert green in right
    assert red not in right
    assert red in wrong
    assert green not in wrong
    assert blue in unknown


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="num_answers must be"):
        VQAConfig(num_answers=0)
    with pytest.raises(ConfigError, match="mirror must be"):
        VQAConfig(mirror=-0.1)


def test_a_data_set_without_questions_is_refused():
    with pytest.raises(ConfigError, match="no questions"):
        Task(CONFIG, DataSpec(dataset="voc", classes=("cat",)))
