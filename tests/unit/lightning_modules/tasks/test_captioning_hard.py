"""Captioning with a model that looks at random: its losses, its baseline on one and two ranks, other looks."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.distributed as dist

from contracts.annotations import Objects
from contracts.errors import ConfigError
from contracts.records import Caption, DataSpec, Record
from contracts.text import words
from lightning_modules.metrics.measurement import values_of
from lightning_modules.models import hard_attention, recurrent_captioner
from lightning_modules.reports.captioning import Report
from lightning_modules.tasks.captioning import CaptioningConfig, Task
from tests.ranks import call

COLOURS = {"red": (200, 30, 30), "green": (30, 180, 40), "blue": (30, 60, 220), "white": (250, 250, 250)}
CONFIG = CaptioningConfig(image_size=64, captions_per_image=2, min_word_count=1, beam_size=2)
HARD = hard_attention.Config(
    embedding_channels=8, hidden_channels=8, attention_channels=8, dropout=0.0, also_look=("argmax", "sample")
)


def _record(name: str, colour: tuple[int, int, int]) -> Record:
    image = np.zeros((48, 60, 3), np.uint8)
    image[10:40, 12:44] = colour[::-1]
    texts = [f"A {name} box.", f"There is a big {name} box!", f"one {name} box in the dark"]
    return Record(
        key=name, image_id=name, width=60, height=48, image=cv2.imencode(".png", image)[1].tobytes(),
        image_format="png", captions=tuple(Caption(caption_id=i, text=text) for i, text in enumerate(texts)),
        objects=Objects(
            ids=["0", "1"], boxes=np.array([[12, 10, 44, 40], [0, 0, 60, 48]], np.float32), labels=np.array([1, 1]),
            areas=np.array([960.0, 2880]), is_crowd=np.array([False, True]), is_difficult=np.zeros(2, bool),
            is_truncated=np.zeros(2, bool), masks=["", ""],
        ),
    )  # fmt: skip


RECORDS = [_record(name, colour) for name, colour in COLOURS.items()]
VOCABULARY = sorted({word for record in RECORDS for caption in record.captions for word in words(caption.text)})
DATA = DataSpec(dataset="boxes", classes=("box",), vocabulary={"captions": [[word, 1] for word in VOCABULARY]})


@pytest.fixture
def task() -> Task:
    return Task(CONFIG, DATA)


def model_of(task: Task) -> hard_attention.Model:
    torch.manual_seed(0)
    return hard_attention.Model(HARD, task.spec()).eval()  # running averages: an image is what it is alone


def training_batch(task: Task, records: list[Record]) -> dict:
    return task.collate([task.encode(record, 7 + i) for i, record in enumerate(records)]) | {"num_step_images": 4}


def test_all_random_numbers_come_with_the_record(task):
    first, again = (task.encode(RECORDS[0], 5)["draws"] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert first.shape == (2, 22) and first.dtype == np.float32 and ((first >= 0) & (first < 1)).all()
    assert not np.array_equal(first, task.encode(RECORDS[0], 6)["draws"])
    assert "draws" not in task.collate([task.encode(RECORDS[0], None)]), "validation never draws"
    batch = training_batch(task, RECORDS)
    assert batch["draws"].shape == batch["tokens"].shape


def test_four_losses_in_training_and_two_in_validation(task):
    model, batch = model_of(task), training_batch(task, RECORDS)
    losses = task.losses(model, batch)
    assert list(losses) == ["cross_entropy", "attention", "reinforce", "entropy"]
    assert losses["reinforce"].count == losses["entropy"].count == losses["cross_entropy"].count
    assert float(model.baseline.value) < 0
    before = model.baseline.value.clone()
    again = task.collate([task.encode(record, None) for record in RECORDS])
    assert list(task.losses(model, again)) == ["cross_entropy", "attention"]
    task.losses(model, {**batch, "is_stand_in": True})
    assert model.baseline.value == before, "neither validation nor a stand-in moves it"


def test_the_baseline_is_equal_on_one_and_two_ranks(task, tmp_path):
    """Two processes with half of the step's images each, one of them in two parts, and one process with all."""
    whole = model_of(task)
    task.losses(whole, training_batch(task, RECORDS))
    call(tmp_path, baseline, tmp_path, world=2)
    values = [float((tmp_path / f"{rank}.txt").read_text()) for rank in range(2)]
    assert len(values) == 2 and values[0] == values[1]
    assert values[0] == pytest.approx(float(whole.baseline.value), rel=1e-6)
    assert values[0] != 0


def baseline(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(f"{folder}/meeting", 2), rank=rank, world_size=2)
    task = Task(CONFIG, DATA)
    model = model_of(task)
    examples = [task.encode(record, 7 + i) for i, record in enumerate(RECORDS)]
    mine = [[examples[0]], [examples[1]]] if rank == 0 else [examples[2:], examples[:1]]
    for number, part in enumerate(mine):
        stands_in = rank == 1 and number == 1
        task.losses(model, task.collate(part) | {"num_step_images": 4, "is_stand_in": stands_in})
    (folder / f"{rank}.txt").write_text(repr(float(model.baseline.value)))
    dist.destroy_process_group()


def test_other_ways_to_look_have_scores_of_their_own(task):
    model = model_of(task)
    batch = task.collate([task.encode(record, None) for record in RECORDS])
    predictions = task.predict(model, batch)
    assert [p["looks"].keys() for p in predictions] == [{"argmax", "sample"}] * 4
    assert [p["looks"] for p in task.predict(model, batch)] == [p["looks"] for p in predictions]
    keyed = {r.key: p for r, p in zip(RECORDS, predictions, strict=True)}
    truths = {r.key: task.truths(r)[0] for r in RECORDS}
    for prediction in keyed.values():
        prediction["looks"]["sample"] = prediction["caption"]
    measured = values_of(task.measure(keyed, truths, thorough=True))
    assert measured["Bleu_4/sample"] == measured["Bleu_4"] and "Bleu_4/argmax" in measured
    assert "Bleu_4/sample" not in values_of(task.measure(keyed, truths))
    constant = Report(task).constant(truths)
    assert not [name for name in values_of(task.measure(constant, truths, thorough=True)) if "/" in name]


def test_truths_have_the_objects_as_shares_of_the_image_but_no_crowd(task):
    (truth,) = task.truths(RECORDS[0])
    assert truth["object_names"] == ["box"] and truth["size"] == (48, 60)
    np.testing.assert_allclose(truth["object_boxes"], [[12 / 60, 10 / 48, 44 / 60, 40 / 48]])


def test_a_model_of_one_place_pays_nothing_for_looking_there(task):
    torch.manual_seed(0)
    model = recurrent_captioner.Model(recurrent_captioner.Config(), task.spec()).eval()
    losses, predictions = task.evaluate_batch(model, task.collate([task.encode(r, None) for r in RECORDS]))
    assert losses["attention"].total == 0 < losses["cross_entropy"].total
    picture = Report(task).picture(RECORDS[0], predictions[:1], None)
    assert picture.shape[0] < 400, "the image and its caption, no map a word"


def test_captions_are_drawn_at_a_temperature(task):
    torch.manual_seed(0)
    model = recurrent_captioner.Model(recurrent_captioner.Config(), task.spec()).eval()
    batch = task.collate([task.encode(record, None) for record in RECORDS])

    def captions(**settings: float) -> list[str]:
        config = CaptioningConfig(image_size=64, min_word_count=1, **settings)  # type: ignore[arg-type]
        return [p["caption"] for p in Task(config, DATA).predict(model, batch)]

    greedy = captions(beam_size=1)
    assert captions(temperature=1e-5) == greedy
    assert captions(temperature=1.0) == captions(temperature=1.0) != greedy
    with pytest.raises(ConfigError, match="temperature must be 0 or more"):
        captions(temperature=-1.0)


def test_the_gallery_shows_best_and_worst(task):
    truths = {r.key: task.truths(r)[0] for r in RECORDS}
    constant = Report(task).constant(truths)
    drawn = Report(task).gallery(lambda key: next(r for r in RECORDS if r.key == key), constant, truths)
    assert drawn.keys() == {"gallery"} and drawn["gallery"].dtype == np.uint8 and drawn["gallery"].shape[2] == 3
    assert Report(task).gallery(lambda key: RECORDS[0], {}, {})["gallery"].size


@pytest.mark.parametrize(("places", "bound"), [(196, 0.9006), (36, 0.5216)])
def test_the_doubly_stochastic_term_is_least_where_all_places_are_seen_alike(places, bound):
    """(1 - T / L)^2 of T words and L places, 1502.03044 eq. 14; more at any other attention."""
    task = Task(CaptioningConfig(attention_weight=1.0, min_word_count=1), DATA)
    tokens = torch.tensor([[2, *[4] * 9, 3]])  # ten words are predicted
    batch = {"tokens": tokens, "caption_image": torch.tensor([0]), "counts": {"cross_entropy": 10, "attention": 1}}

    def term(attention: torch.Tensor) -> float:
        class Looks:
            def decode(self, features, tokens, caption_image):
                return torch.zeros(1, 10, task.spec().vocabulary_size), attention

        return task._losses(Looks(), torch.zeros(1), batch)["attention"].value.item()

    even = torch.full((1, 10, places), 1 / places)
    assert term(even) == pytest.approx(bound, abs=5e-5)
    drawn = torch.softmax(torch.randn(1, 10, places, generator=torch.Generator().manual_seed(0)), dim=-1)
    assert term(drawn) > term(even)
