"""Presets: given statistics, the settings that suit them, each with a reason, and all of them taken by the parts."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest

from pipeline.ingest.presets import CPU, GPU, Machine, presets
from pipeline.ingest.statistics import Objects, Pictures, Spread, Statistics
from pipeline.settings import discover
from pipeline.settings.parse import parse
from pipeline.settings.sections import ShardsConfig
from pipeline.settings.train_config import TrainConfig

MODELS = {
    "action": "lrcn",
    "captioning": "soft_attention",
    "classification": "image_classifier",
    "detection": "faster_rcnn",
    "frame_classification": "lrcn",
    "instances": "mask_rcnn",
    "multilabel_classification": "image_classifier",
    "pointing": "region_pointer",
    "region_detection": "fast_rcnn",
    "region_segmentation": "deconvnet",
    "segmentation": "fcn",
    "telling": "visual7w_lstm",
    "text_classification": "recurrent_classifier",
    "text_recognition": "word_reader",
    "translation": "attention_translator",
    "video_captioning": "s2vt",
    "vqa": "lstm_vqa",
}


def pictures(width: int, height: int, **changes: Any) -> Pictures:
    long, short = float(max(width, height)), float(min(width, height))
    values: dict[str, Any] = {
        "long_px": Spread(long, long, long),
        "short_px": Spread(short, short, short),
        "aspect": Spread(width / height, width / height, width / height),
        "largest_megapixels": width * height / 1e6,
        "median_bytes": width * height / 4,
    }
    return Pictures(**values | changes)


def objects(low: float, smallest: float, high: float, per_image: float = 5, ratios: Any = (0.8, 1, 1.25)) -> Objects:
    return Objects(
        number=1000,
        per_image=Spread(1, per_image / 2, per_image),
        most_per_image=int(per_image * 1.5),
        sides=Spread(low, (low + high) / 2, high),
        ratios=Spread(*ratios),
        smallest="cup",
        smallest_side=smallest,
    )


CELLS = Statistics(
    num_records=205, num_classes=3, pictures=pictures(640, 480), objects=objects(0.053, 0.062, 0.35, per_image=20)
)


def configs(task: str) -> dict[str, type]:
    return {
        "task": discover.load("task", task, where="test").Task.Config,
        "model": discover.load("model", MODELS[task], where="test").Config,
        "train": TrainConfig,
        "shards": ShardsConfig,
    }


def settings(found: Statistics, task: str, machine: Machine = CPU, weights: tuple[str, ...] = ()) -> dict[str, Any]:
    known = {section: {f.name for f in dataclasses.fields(cls)} for section, cls in configs(task).items()}
    chosen = presets(found, task, known, machine, weights)
    for path, setting in chosen.items():
        assert setting.reason and "\n" not in setting.reason and len(setting.reason) < 120, (path, setting)
    return {path: setting.value for path, setting in chosen.items()}


def test_small_objects_of_one_class_make_pictures_larger():
    chosen = settings(CELLS, "detection")
    assert chosen["task.image_size"] == 192  # 12 px of the smallest class
    assert chosen["train.batch_size"] == 8 and chosen["train.max_epochs"] == 10
    assert chosen["train.max_epochs"] % chosen["train.validate_every_epochs"] == 0  # the last is validated
    assert chosen["model.levels"] == ["c3", "c4"] and chosen["model.head_levels"] == ["c3"]
    assert chosen["model.anchors"] == sorted(chosen["model.anchors"]) and len(chosen["model.anchors"]) == 4
    assert 0.05 < chosen["model.anchors"][0] < 0.08 and 0.25 < chosen["model.anchors"][-1] < 0.35
    assert "model.aspect_ratios" not in chosen  # about square, as the default
    assert chosen["model.rpn_post_nms_eval"] == 100  # twenty objects a picture
    assert chosen["shards.short_side"] == 256


def test_photographs_of_a_camera_are_stored_small():
    found = Statistics(num_records=400, num_classes=2, pictures=pictures(4000, 3000))
    chosen = settings(found, "classification")
    assert chosen["task.image_size"] == 128 and chosen["shards.short_side"] == 160
    assert "shards.max_megapixels" not in chosen
    huge = dataclasses.replace(found, pictures=pictures(12000, 9000))
    assert settings(huge, "classification")["shards.max_megapixels"] == 170


def test_no_picture_is_learnt_larger_than_it_is():
    found = Statistics(num_records=50_000, num_classes=10, pictures=pictures(32, 32))
    chosen = settings(found, "classification")
    assert chosen["task.image_size"] == 32 and "shards.short_side" not in chosen
    assert settings(found, "classification", GPU)["task.image_size"] == 32


@pytest.mark.parametrize("number", [30, 90, 137, 205, 333, 480, 900, 2000])
def test_the_last_epoch_is_validated_however_many_there_are(number):
    chosen = settings(dataclasses.replace(CELLS, num_records=number), "detection")
    epochs, every = chosen["train.max_epochs"], chosen.get("train.validate_every_epochs", 1)
    assert epochs % every == 0 and epochs // every <= 8


def test_twelve_pictures_get_many_epochs_of_small_batches_and_few_validations():
    found = dataclasses.replace(CELLS, num_records=12)
    chosen = settings(found, "detection")
    assert chosen["train.batch_size"] == 4 and 40 <= chosen["train.max_epochs"] <= 70
    assert chosen["train.max_epochs"] // chosen["train.validate_every_epochs"] <= 8
    assert chosen["shards.samples"] == 8


def test_a_hundred_thousand_pictures_get_few_epochs_and_little_is_drawn():
    found = dataclasses.replace(CELLS, num_records=100_000)
    chosen, few = settings(found, "detection"), settings(dataclasses.replace(CELLS, num_records=30), "detection")
    assert chosen["train.max_epochs"] == 3 and chosen["train.batch_size"] == 16
    assert chosen["task.augment"]["scale"] < few["task.augment"]["scale"]
    assert chosen["shards.samples"] >= 256
    assert settings(found, "detection", GPU)["train.max_epochs"] > 3


def test_tiny_objects_take_a_finer_map_and_as_many_pixels_as_the_machine_bears():
    found = Statistics(num_records=500, pictures=pictures(4000, 3000), objects=objects(0.004, 0.005, 0.02, 60))
    chosen = settings(found, "detection")
    assert chosen["task.image_size"] == CPU.most_px and chosen["model.levels"][0] == "c2"
    assert settings(found, "detection", GPU)["task.image_size"] == GPU.most_px
    assert chosen["model.max_detections"] == 200 and chosen["model.rpn_post_nms_eval"] >= 200


def test_large_objects_need_no_fine_map():
    found = Statistics(num_records=500, pictures=pictures(640, 480), objects=objects(0.4, 0.5, 0.9, 1))
    assert settings(found, "detection")["model.levels"] == ["c4", "c5"]


@pytest.mark.parametrize(
    ("ratios", "low", "high"), [((0.1, 0.2, 0.5), 0.1, 0.5), ((0.3, 1, 3), 0.3, 3), ((2, 4, 8), 2, 8)]
)
def test_anchors_have_the_shapes_of_the_objects(ratios, low, high):
    found = dataclasses.replace(CELLS, objects=objects(0.1, 0.2, 0.4, ratios=ratios))
    shapes = settings(found, "detection")["model.aspect_ratios"]
    assert low <= shapes[0] and shapes[-1] <= high
    assert all(after / before < 2.8 for before, after in itertools.pairwise([low, *shapes, high]))


def test_texts_are_cut_where_few_are_longer():
    found = Statistics(
        num_records=300, pictures=pictures(640, 480), num_texts={"captions": 900}, words={"captions": Spread(8, 20, 41)}
    )
    chosen = settings(found, "captioning")
    assert chosen["task.max_words"] == 48 and chosen["task.min_word_count"] == 1
    assert "horizontal_flip" not in chosen["task.augment"]  # texts speak of left and right
    many = dataclasses.replace(found, num_texts={"captions": 600_000}, words={"captions": Spread(8, 200, 900)})
    assert settings(many, "captioning")["task.max_words"] == 60
    assert settings(many, "captioning")["task.min_word_count"] == 5


def test_a_task_of_texts_gets_nothing_about_pictures():
    found = Statistics(num_records=5000, num_classes=4, num_texts={"texts": 5000}, words={"texts": Spread(3, 50, 200)})
    chosen = settings(found, "text_classification")
    assert chosen["task.max_tokens"] == 224 and chosen["train.batch_size"] == 32
    assert not {"task.image_size", "task.augment", "shards.short_side", "model.backbone"} & chosen.keys()


def test_few_sentence_pairs_are_not_learnt_by_heart():
    found = Statistics(num_records=29_000, num_texts={"texts": 58_000}, words={"texts": Spread(3, 12, 25)})
    chosen = settings(found, "translation")
    assert chosen["model.dropout"] == 0.3 and chosen["task.max_tokens"] == 32
    assert "model.dropout" not in settings(dataclasses.replace(found, num_records=10**6), "translation")


def test_pretrained_weights_are_used_where_they_lie_on_the_machine():
    chosen = settings(CELLS, "detection", weights=("resnet18", "vgg16"))
    assert (chosen["model.backbone"], chosen["model.pretrained"], chosen["model.norm"]) == ("resnet18", True, "frozen")
    assert chosen["train.optimizer"]["lr"] < settings(CELLS, "detection")["train.optimizer"]["lr"]
    assert settings(CELLS, "detection")["model.backbone"] == "small"


def test_many_classes_are_smoothed():
    found = Statistics(num_records=30_000, num_classes=500, pictures=pictures(500, 375))
    assert settings(found, "classification")["task.label_smoothing"] == 0.1
    assert "task.label_smoothing" not in settings(dataclasses.replace(found, num_classes=1), "classification")


@pytest.mark.parametrize(("aspect", "resize"), [((0.5, 1, 2.5), "cover"), ((4, 6, 9), None), ((0.7, 1.3, 1.5), None)])
def test_pictures_of_many_shapes_are_cut_and_not_squeezed(aspect, resize):
    found = Statistics(num_records=900, num_classes=2, pictures=pictures(500, 375, aspect=Spread(*aspect)))
    assert settings(found, "classification").get("task.resize") == resize


EXTREMES = [
    Statistics(
        num_records=number, num_classes=classes, pictures=pictures(*size), objects=objects(*sides, crowd, ratios),
        num_texts={"captions": number, "questions": number, "texts": number}, num_answers=classes,
        words=dict.fromkeys(("captions", "questions", "texts"), Spread(1, 5, words)),
    )
    for number, classes, size, sides, crowd, ratios, words in (
        (1, 1, (1, 1), (1.0, 1.0, 1.0), 0, (1, 1, 1), 1),
        (12, 1, (4000, 3000), (1e-4, 1e-4, 1e-4), 1, (0.01, 1, 100), 2),
        (10**7, 10_000, (100_000, 20), (0.001, 0.002, 1.0), 5000, (0.02, 0.02, 0.02), 10_000),
        (300, 500, (96, 3000), (0.3, 0.3, 0.31), 3, (30, 40, 90), 60),
    )
]  # fmt: skip


@pytest.mark.parametrize(("machine", "side"), [(CPU, 64), (GPU, 224)], ids=["cpu", "gpu"])
def test_crops_have_a_size_of_their_own_and_pictures_stay_as_large_as_they_are(machine, side):
    found = Statistics(num_records=1000, pictures=pictures(4000, 3000), objects=objects(0.1, 0.1, 0.5))
    chosen = settings(found, "region_segmentation", machine)
    assert chosen["task.image_size"] == side and "shards.short_side" not in chosen
    assert "shards.short_side" in settings(found, "segmentation", machine)


@pytest.mark.parametrize("task", sorted(MODELS))
@pytest.mark.parametrize("machine", [CPU, GPU], ids=["cpu", "gpu"])
def test_whatever_the_data_the_settings_are_taken(task, machine):
    for found, weights in itertools.product(EXTREMES, ((), ("resnet18", "resnet50"))):
        sections: dict[str, dict[str, Any]] = {section: {} for section in configs(task)}
        for path, value in settings(found, task, machine, weights).items():
            section, _, key = path.partition(".")
            sections[section][key] = value
        problems: list[str] = []
        for section, cls in configs(task).items():
            parse(cls, sections[section], section, problems)
        assert not problems, (found, problems)


def test_every_task_has_a_model_here():
    assert MODELS.keys() == set(discover.names("task"))
