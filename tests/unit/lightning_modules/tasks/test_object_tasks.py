"""Detection and instances: targets, one pass, predictions in original pixels, scores, pictures."""

import json

import numpy as np
import pytest
import torch
from lightning_fabric.utilities import move_data_to_device

from contracts.errors import ConfigError
from lightning_modules.augment.augment import AugmentConfig
from lightning_modules.base.object_task import targets_of
from lightning_modules.models import faster_rcnn, mask_rcnn
from lightning_modules.ops.masks import decode_masks
from lightning_modules.reports import detection as detection_report
from lightning_modules.reports import instances as instances_report
from lightning_modules.tasks import detection, instances

SMALL = {"image_size": 64}
KINDS = [(detection, faster_rcnn), (instances, mask_rcnn)]
REPORTS = {detection: detection_report, instances: instances_report}


def build(module, model_module, data, **config):
    task = module.Task(module.Task.Config(**SMALL, **config), data)
    torch.manual_seed(0)
    model = model_module.Model(model_module.Config(channels=16, box_head=32), task.spec())
    return task, model


def batch_of(task, records, seed=None):
    return task.collate([task.encode(r, None if seed is None else seed + i) for i, r in enumerate(records)])


def as_prediction(truth, *, score=0.9):
    """The truth as if it had been predicted."""
    prediction = {name: truth[name] for name in ("boxes", "labels", "size", "masks")}
    return prediction | {"scores": np.full(len(truth["labels"]), score, np.float32)}


@pytest.mark.parametrize(("module", "model_module"), KINDS)
def test_shapes_and_dtypes_of_a_batch(module, model_module, data, make_record):
    task, _ = build(module, model_module, data)
    batch = batch_of(task, [make_record(0), make_record(1, empty=True)], seed=7)
    assert batch["images"].shape == (2, 3, 64, 64) and batch["images"].dtype == torch.uint8
    assert batch["images"].is_contiguous(memory_format=torch.channels_last)
    for target, count in zip(targets_of(batch), (2, 0), strict=True):
        assert target["boxes"].shape == (count, 4) and target["boxes"].dtype == torch.float32
        assert target["labels"].shape == (count,) and target["labels"].dtype == torch.int64
        assert ("masks" in target) == task.with_masks
        if task.with_masks:
            assert target["masks"].shape == (count, 64, 64)


@pytest.mark.parametrize("flag", ["crowd", "difficult"])
@pytest.mark.parametrize(("module", "model_module"), KINDS)
def test_crowds_and_difficult_objects_are_regions_to_ignore(module, model_module, data, make_record, flag):
    task, _ = build(module, model_module, data)
    record = make_record(0, **{flag: True})
    target = targets_of(batch_of(task, [record]))[0]
    assert target["labels"].tolist() == [2]
    np.testing.assert_allclose(target["ignored"].numpy(), record.objects.boxes[:1], atol=1e-4)
    np.testing.assert_allclose(target["boxes"].numpy(), record.objects.boxes[1:], atol=1e-4)


@pytest.mark.parametrize(("module", "model_module"), KINDS)
def test_objects_that_augmentation_cuts_to_slivers_are_regions_to_ignore(module, model_module, data, make_record):
    task, _ = build(module, model_module, data, augment=AugmentConfig(crop=0.45, min_visibility=0.9))
    slivers = 0
    for seed in range(12):
        example = task.encode(make_record(0), seed)
        assert example["ignored"].dtype == np.float32
        slivers += len(example["ignored"])
        assert len(example["labels"]) + len(example["ignored"]) <= 2
    assert slivers > 3


@pytest.mark.parametrize(("module", "model_module"), KINDS)
def test_a_batch_is_tensors_and_numbers_that_stay_here(module, model_module, data, make_record):
    """Nothing of a batch is in lists of dicts, which are neither shared, pinned nor sent in one piece; and how many
    objects an image has is known without asking a GPU."""
    task, _ = build(module, model_module, data)
    records = [make_record(0), make_record(1, empty=True), make_record(2, crowd=True)]
    examples = [task.encode(record, None) for record in records]
    batch = task.collate(examples)
    sent = move_data_to_device(batch, "meta")
    columns = {"boxes", "labels", "ignored"} | ({"masks"} if task.with_masks else set())
    assert {name for name, value in sent.items() if isinstance(value, torch.Tensor)} == columns | {"images"}
    assert [len(target["boxes"]) for target in targets_of(sent)] == [2, 0, 1]
    for target, example in zip(targets_of(batch), examples, strict=True):
        assert target.keys() == columns
        for name, value in target.items():
            np.testing.assert_array_equal(value.numpy(), example[name])


def test_objects_without_a_mask_are_ignored_by_instances(data, make_record):
    task, _ = build(instances, mask_rcnn, data)
    record = make_record(0)
    record.objects.masks[1] = ""
    for seed in (None, 3):
        target = targets_of(task.collate([task.encode(record, seed)]))[0]
        assert target["labels"].tolist() == [1] and len(target["masks"]) == 1 and len(target["ignored"]) == 1


@pytest.mark.parametrize(("module", "model_module"), KINDS)
def test_equal_seeds_give_equal_examples(module, model_module, data, make_record):
    augment = AugmentConfig(horizontal_flip=0.5, scale=0.3, rotate=20)
    task, _ = build(module, model_module, data, augment=augment)
    first, second = (task.encode(make_record(4), 11) for _ in range(2))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


@pytest.mark.parametrize(("module", "model_module"), KINDS)
def test_predictions_are_in_original_pixels(module, model_module, data, make_record):
    """A detector that finds exactly the (resized) truth must be given back as the truth of the original."""
    task = module.Task(module.Task.Config(image_size=128), data)
    record = make_record(2)
    batch = task.collate([task.encode(record, None)])
    target = targets_of(batch)[0]

    def oracle(images, targets=None, *, sizes, detect=False):
        found = {"boxes": target["boxes"], "labels": target["labels"], "scores": torch.tensor([0.9, 0.8])}
        return {}, [found | {"masks": torch.ones(2, 1, 28, 28)}]

    prediction = task.predict(oracle, batch)[0]
    np.testing.assert_allclose(prediction["boxes"], record.objects.boxes, atol=1e-3)
    assert prediction["size"] == (48, 64)
    if task.with_masks:
        square = decode_masks(prediction["masks"], prediction["size"])[0]
        np.testing.assert_array_equal(square, decode_masks(record.objects.masks[:1], (48, 64))[0])


@pytest.mark.parametrize(("module", "model_module"), KINDS)
def test_one_pass_equals_losses_and_predict(module, model_module, data, make_record):
    task, model = build(module, model_module, data)
    batch = batch_of(task, [make_record(0), make_record(1, empty=True)])
    model.eval()
    with torch.no_grad():
        losses, predictions = task.evaluate_batch(model, batch)
        separate_losses, separate = task.losses(model, batch), task.predict(model, batch)
    torch.testing.assert_close(losses, separate_losses)
    for one, other in zip(predictions, separate, strict=True):
        np.testing.assert_array_equal(one["boxes"], other["boxes"])
        assert one["boxes"].dtype == one["scores"].dtype == np.float32


@pytest.mark.parametrize(("module", "model_module"), KINDS)
def test_perfect_empty_and_constant_predictions(module, model_module, data, make_record):
    task, _ = build(module, model_module, data)
    truths = {r.key: task.truths(r)[0] for r in [make_record(i) for i in range(6)] + [make_record(9, empty=True)]}
    perfect = task.score({key: as_prediction(truth) for key, truth in truths.items()}, truths)
    assert perfect[task.metric] == pytest.approx(1.0)
    nothing = {key: as_prediction(truth) for key, truth in truths.items()}
    for prediction in nothing.values():
        for name in ("boxes", "labels", "scores", "masks"):
            prediction[name] = prediction[name][:0]
    assert task.score(nothing, truths)[task.metric] == 0.0
    assert task.score(nothing, truths).keys() == perfect.keys()
    constant = REPORTS[module].Report(task).constant(truths)
    assert constant.keys() == truths.keys()
    assert 0 <= task.score(constant, truths)[task.metric] < 1
    assert len(constant["image-009"]["boxes"]) == 2  # it ignores the image


def test_finding_difficult_objects_is_neither_right_nor_wrong(data, make_record):
    task, _ = build(detection, faster_rcnn, data)
    truths = {r.key: task.truths(r)[0] for r in (make_record(i, difficult=i == 0) for i in range(4))}
    with_it = {key: as_prediction(truth) for key, truth in truths.items()}
    without = {key: dict(p) for key, p in with_it.items()}
    for name in ("boxes", "labels", "scores"):
        without["image-000"][name] = without["image-000"][name][1:]
    assert task.score(with_it, truths) == pytest.approx(task.score(without, truths))
    assert task.score(without, truths)["mAP_2010"] == task.score(without, truths)["AP"] == pytest.approx(1.0)


def test_confusion_counts_misses_and_inventions(data, make_record):
    task, _ = build(detection, faster_rcnn, data)
    record = make_record(0)
    truths = {record.key: task.truths(record)[0]}
    wrong = as_prediction(truths[record.key])
    wrong["labels"] = np.array([2, 2])
    wrong["boxes"] = np.array([wrong["boxes"][0], [0, 40, 5, 48]], np.float32)
    plot = next(p for p in detection_report.Report(task).plots({record.key: wrong}, truths) if p.kind == "confusion")
    counted = {(t, p): n for t, p, n in plot.rows if n}
    assert counted == {("square", "disc"): 1, ("disc", "background"): 1, ("background", "disc"): 1}


@pytest.mark.parametrize(("module", "model_module"), KINDS)
def test_answer_picture_and_plots(module, model_module, data, make_record):
    task, _ = build(module, model_module, data)
    record = make_record(0)
    truth = task.truths(record)[0]
    prediction = as_prediction(truth)
    prediction["scores"][1] = 0.1
    answer = json.loads(json.dumps(task.answer(prediction)))
    assert [o["label"] for o in answer["objects"]] == ["square"]
    assert ("mask" in answer["objects"][0]) == task.with_masks
    report = REPORTS[module].Report(task)
    alone, both = (report.picture(record, [prediction], truths) for truths in (None, [truth]))
    assert alone.dtype == np.uint8 and alone.shape[1] >= 300 and both.shape[1] > 1.9 * alone.shape[1]
    for plot in report.plots({record.key: prediction}, {record.key: truth}):
        assert plot.rows and all(len(row) == len(plot.columns) for row in plot.rows)


@pytest.mark.parametrize(("module", "model_module"), KINDS)
def test_overfitting_four_images_lowers_every_loss_sum(module, model_module, data, make_record):
    task, model = build(module, model_module, data, augment=AugmentConfig(brightness_contrast=0))
    batch = batch_of(task, [make_record(i) for i in range(4)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    totals = []
    for step in range(12):
        torch.manual_seed(step)
        total = sum(loss.value for loss in task.losses(model, batch).values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(float(total.detach()))
    assert totals[-1] < 0.5 * totals[0]


def test_tiny_images_are_refused():
    with pytest.raises(ConfigError, match="image_size"):
        detection.Task.Config(image_size=16)
