"""Words in pictures to texts: what is learnt and written, in which order, what is measured, and what is drawn."""

import cv2
import numpy as np
import pytest
import torch

from contracts.annotations import Transcript
from contracts.errors import ConfigError
from contracts.records import DataSpec, Record
from contracts.text import BEGIN, END, PAD, UNKNOWN
from lightning_modules.augment.augment import AugmentConfig
from lightning_modules.metrics.measurement import values_of
from lightning_modules.metrics.recognition_scores import ReadingWalk, RecognitionByScript, centers
from lightning_modules.models import word_reader
from lightning_modules.reports.text_recognition import Report
from lightning_modules.tasks.text_recognition import Task

ALEF, BEH, TEH = "\u0627", "\u0628", "\u062a"
DATA = DataSpec(
    dataset="d", classes=(),
    vocabulary={"transcripts": [["a", 9], ["b", 7], ["A", 5], [ALEF, 4], [BEH, 3], [TEH, 2], ["z", 1]]},
)  # fmt: skip


def word(key: str, text: str | None, seed: int = 0) -> Record:
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 50, 3), np.uint8)
    direction = "rtl" if text and text[0] > "\u0600" else "ltr"
    return Record(
        key=key, image_id=key, image=cv2.imencode(".png", pixels)[1].tobytes(), width=50, height=20,
        transcript=None if text is None else Transcript(text=text, direction=direction),
    )  # fmt: skip


WORDS = [word("a", "abA"), word("b", BEH + ALEF + TEH, 1), word("c", "q", 2)]


def make(alignment: str = "attention", **config) -> tuple[Task, word_reader.Model]:
    task = Task(Task.Config(alignment=alignment, **config), DATA)  # type: ignore[arg-type]
    torch.manual_seed(0)
    return task, word_reader.Model(word_reader.Config(channels=8), task.spec()).eval()


def test_attention_learns_texts_as_they_are_read_and_ctc_as_they_are_drawn():
    task, _ = make()
    batch = task.collate([task.encode(record, None) for record in WORDS])
    assert batch["images"].shape == (3, 3, 32, 100) and batch["images"].dtype == torch.uint8
    assert batch["tokens"].tolist() == [
        [BEGIN, 4, 5, 6, END], [BEGIN, 8, 7, 9, END], [BEGIN, UNKNOWN, END, PAD, PAD],
    ]  # fmt: skip
    assert batch["counts"] == {"cross_entropy": 10} and batch["lengths"].tolist() == [3, 3, 1]
    ctc, _ = make("ctc")
    batch = ctc.collate([ctc.encode(record, None) for record in WORDS])
    assert batch["tokens"].tolist() == [[4, 5, 6], [9, 7, 8], [UNKNOWN, PAD, PAD]], "Arabic from left to right"
    assert batch["counts"] == {"ctc": 7}
    alone = task.collate([task.encode(word("x", None), None)])
    assert set(alone) == {"images"}, "a picture alone can be asked"


def test_small_letters_long_texts_and_rare_characters():
    task, _ = make(case="lower", max_characters=2, min_character_count=2)
    assert task.vocabulary.tokens[4:] == ["a", "b", ALEF, BEH, TEH], "A counts as a; z is too rare"
    assert task.encode(word("x", "AbA"), None)["tokens"].tolist() == [4, 5]
    assert task.truths(word("x", "AbA")) == [{"text": "AbA", "script": "Latin", "direction": "ltr"}]


@pytest.mark.parametrize("alignment", ["attention", "ctc"])
def test_a_batch_reads_as_each_picture_alone(alignment):
    task, model = make(alignment)
    with torch.inference_mode():
        losses, together = task.evaluate_batch(model, task.collate([task.encode(record, None) for record in WORDS]))
        for record, expected in zip(WORDS, together, strict=True):
            own, (alone,) = task.evaluate_batch(model, task.collate([task.encode(record, None)]))
            assert alone["text"] == expected["text"] == "".join(expected["characters"])
            assert alone["log_prob"] == pytest.approx(expected["log_prob"], abs=1e-3)
            assert expected["attention"].shape == (len(expected["characters"]), 25)
            np.testing.assert_allclose(alone["attention"], expected["attention"], atol=2e-3)
            losses = {name: type(mean)(mean.total - own[name].total, mean.count) for name, mean in losses.items()}
    assert all(abs(float(mean.total)) < 1e-3 for mean in losses.values()), "sums over the batch's texts"
    assert not {"<unk>", "<bos>", "<pad>"} & {c for p in together for c in p["characters"]}


class Columns(torch.nn.Module):
    """Says the same of each picture."""

    def __init__(self, *tokens: int):
        super().__init__()
        self.logits = torch.nn.functional.one_hot(torch.tensor(tokens), 11) * 9.0

    def encode(self, images):
        return images.float().mean(dim=1)[:, :24]

    def columns(self, features):
        return self.logits.repeat(len(features), 1, 1)


def test_what_ctc_says_of_columns_is_turned_around_with_the_places_it_was_seen_at():
    task, _ = make("ctc")
    (read,) = task.predict(Columns(9, 9, 0, 7, 8, 0), task.collate([task.encode(WORDS[1], None)]))
    assert read["text"] == BEH + ALEF + TEH
    assert read["attention"].argmax(axis=1).tolist() == [4, 3, 0], "from right to left"
    (read,) = task.predict(Columns(4, 0, 0, 0, 4, 5), task.collate([task.encode(WORDS[0], None)]))
    assert read["text"] == "aab" and read["attention"].argmax(axis=1).tolist() == [0, 4, 5]


@pytest.mark.parametrize("alignment", ["attention", "ctc"])
def test_a_few_words_are_learnt(alignment):
    task, _ = make(alignment)
    torch.manual_seed(0)
    model = word_reader.Model(word_reader.Config(channels=32, layers=1), task.spec())
    records = [word("a", "ab", 1), word("b", "ba", 2), word("c", BEH + TEH, 3), word("d", TEH + BEH, 4)]
    batch = task.collate([task.encode(record, None) for record in records])
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    model.train()
    for _ in range(150):
        loss = sum(mean.value for mean in task.losses(model, batch).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    for norm in (m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.train()  # running averages of four pictures are no measure of what was learnt
    with torch.no_grad():
        read = [prediction["text"] for prediction in task.predict(model, batch)]
    assert read == ["ab", "ba", BEH + TEH, TEH + BEH]


def reading(text: str, slope: float = 1.0) -> dict:
    attention = np.zeros((len(text), 10))
    places = np.arange(len(text)) if slope > 0 else 9 - np.arange(len(text))
    attention[np.arange(len(text)), places] = 1
    return {"text": text, "characters": list(text), "attention": attention, "log_prob": 0.0}


def test_scores_by_script_and_in_small_letters():
    task, _ = make()
    truths = {
        "a": {"text": "abA", "script": "Latin"}, "b": {"text": "zz", "script": "Latin"},
        "c": {"text": BEH + ALEF + TEH, "script": "Arabic"},
    }  # fmt: skip
    read = {"a": reading("aba"), "b": reading("zz"), "c": reading(BEH + TEH + TEH, -1)}
    values = values_of(task.measure(read, truths, thorough=True))
    assert values["word_accuracy"] == pytest.approx(1 / 3) and values["word_accuracy/lower"] == pytest.approx(2 / 3)
    assert values["word_accuracy/Latin"] == 0.5 and values["word_accuracy/Arabic"] == 0
    assert values["CER/Latin"] == pytest.approx(1 / 5) and values["CER/Arabic"] == pytest.approx(1 / 3)
    assert (values["walks_left/Latin"], values["walks_left/Arabic"]) == (0, 1), "two characters are no walk"
    items = [(key, key, read[key], truths[key]) for key in truths]
    for metric in (RecognitionByScript(), ReadingWalk()):
        for measurement in metric.measure_items(items):
            assert measurement.num_clusters == 3, "all are drawn, of whatever script"
            drawn = measurement.resample(np.array([[1.0, 1, 1], [0, 2, 1]]))
            for name, value in measurement.values.items():
                assert drawn[name][0] == pytest.approx(value), name
    latin = next(m for m in RecognitionByScript().measure_items(items) if "word_accuracy/Latin" in m.values)
    assert latin.resample(np.array([[0.0, 2, 1]]))["word_accuracy/Latin"][0] == 1


def test_centers_are_shares_of_the_width():
    np.testing.assert_allclose(centers(np.array([[1.0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]])), [0.125, 0.75, 0])


@pytest.mark.parametrize("alignment", ["attention", "ctc"])
def test_pictures_and_plots(alignment):
    task, model = make(alignment)
    report = Report(task)
    predictions = task.predict(model, task.collate([task.encode(record, None) for record in WORDS]))
    truths = {record.key: task.truths(record)[0] for record in WORDS}
    for record, prediction in zip(WORDS, predictions, strict=True):
        for known in ([truths[record.key]], None):
            picture = report.picture(record, [prediction], known)
            assert picture.dtype == np.uint8 and picture.shape[1] >= 480
    read = {"a": reading("abA"), "b": reading(BEH + ALEF + TEH, -1), "c": reading("q")}
    accuracy, walk = report.plots(read, truths)
    assert accuracy.rows == [(3, 1.0, "Arabic"), (1, 1.0, "Latin"), (3, 1.0, "Latin")]
    assert walk.rows[0] == (0.0, pytest.approx(0.95), "Arabic") and walk.rows[11] == (0.0, pytest.approx(0.05), "Latin")
    constant = report.constant(truths)
    assert {p["text"] for p in constant.values()} == {"abA"} and len(report.plots(constant, truths)) == 1
    assert "walks_left/Latin" not in values_of(task.measure(constant, truths, thorough=True))
    assert task.answer(read["a"]) == {"text": "abA", "log_prob": 0.0}


def test_what_would_change_the_text_is_refused():
    with pytest.raises(ConfigError, match="horizontal_flip"):
        Task.Config(augment=AugmentConfig(horizontal_flip=0.5))
    with pytest.raises(ConfigError, match="crop"):
        Task.Config(augment=AugmentConfig(crop=0.1))
    with pytest.raises(ConfigError, match="no transcripts"):
        Task(Task.Config(), DataSpec(dataset="d", classes=(), vocabulary={}))


def test_ctc_needs_a_column_for_each_character():
    with pytest.raises(ConfigError, match="at most 25, the columns of a picture 100 px wide"):
        Task.Config(alignment="ctc", max_characters=26)
    Task.Config(alignment="ctc")
    Task.Config(max_characters=26)
