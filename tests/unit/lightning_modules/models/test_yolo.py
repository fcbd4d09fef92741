"""YOLOv1's loss and scores by hand; what is easily got wrong has a test each."""

import pytest
import torch

from contracts.errors import ConfigError
from lightning_modules.base.families import DetectorSpec
from lightning_modules.blocks.grid import GridOutput
from lightning_modules.models.yolo import Config, Model, yolo_losses
from lightning_modules.ops.grid import assign_cells, encode_in_cells

GRID, SIDE, C = 7, 112, 3
CELL = 24  # row 3, column 3: 48 to 64 px
BOX = [28.0, 42, 84, 70]  # w = .5, h = .25, centred in that cell
SMALL = {"conv_channels": (8,), "hidden": 8}


def output(*, boxes=2, images=1):
    return GridOutput(
        torch.zeros(images, GRID**2, boxes, 4), torch.zeros(images, GRID**2, boxes), torch.zeros(images, GRID**2, C)
    )


def one_object(label=2, ignored=()):
    ignored = torch.tensor(ignored, dtype=torch.float32).reshape(-1, 4)
    one = {"boxes": torch.tensor([BOX]), "labels": torch.tensor([label]), "ignored": ignored}
    return assign_cells([one], GRID, SIDE)


def coded(box):
    return encode_in_cells(torch.tensor([box]), torch.tensor([CELL]), GRID, SIDE)[0]


def losses(out, objects=None):
    return {name: value.item() for name, value in yolo_losses(out, objects or one_object(), GRID, SIDE).items()}


def test_golden_7_25():
    """5 (.25 + .25 + .5 + .25) for the coordinates, 1 for the class, and no box overlaps: confidence 0 is right."""
    spec = DetectorSpec(num_foreground_classes=C, image_size=SIDE)
    parts = Model(Config(**SMALL), spec).cell_losses(output(), one_object(), SIDE)
    parts = {name: value.item() for name, value in parts.items()}
    assert parts == pytest.approx({"coordinates": 6.25, "confidence": 0, "no_object": 0, "class": 1})
    assert sum(parts.values()) == pytest.approx(7.25)


@pytest.mark.parametrize(("boxes", "classes", "expected"), [(2, 20, 1470), (3, 20, 1715), (2, 6, 784)])
def test_output_sizes(boxes, classes, expected):
    spec = DetectorSpec(num_foreground_classes=classes, image_size=SIDE)
    model = Model(Config(boxes=boxes, **SMALL), spec).eval()
    assert model.num_outputs == expected
    with torch.no_grad():
        out = model._run(torch.zeros(1, 3, SIDE, SIDE))
    assert sum(part.numel() for part in out) == expected
    assert model.candidates(out, SIDE)[0].shape == (1, 49 * boxes, 4)  # 98 boxes of the paper's two


def test_a_perfect_output_costs_nothing():
    out = output()
    out.boxes[0, CELL, 1] = coded(BOX)
    out.confidence[0, CELL, 1] = 1
    out.scores[0, CELL, 1] = 1  # label 2
    assert losses(out) == pytest.approx(dict.fromkeys(("coordinates", "confidence", "no_object", "class"), 0), abs=1e-9)


def test_the_confidence_is_to_be_the_iou_not_one():
    out = output()
    out.boxes[0, CELL, 0] = coded([28.0, 42, 56, 70])  # the left half: IoU .5
    out.confidence[0, CELL, 0] = 0.5
    assert losses(out)["confidence"] == pytest.approx(0, abs=1e-9)
    out.confidence[0, CELL, 0] = 1
    assert losses(out)["confidence"] == pytest.approx(0.25)


def test_no_gradient_goes_through_the_iou():
    out = output()
    out.boxes[0, CELL, 0] = coded([28.0, 42, 56, 70])
    out.boxes.requires_grad_()
    out.confidence.requires_grad_()
    parts = yolo_losses(out, one_object(), GRID, SIDE)
    (gradient,) = torch.autograd.grad(parts["confidence"], [out.boxes], allow_unused=True, retain_graph=True)
    assert gradient is None
    assert torch.autograd.grad(parts["confidence"], [out.confidence])[0][0, CELL].tolist() == [-1, 0]


def test_the_responsible_box_is_that_of_the_highest_iou_now():
    """Not the nearest, where boxes overlap."""
    out = output()
    out.boxes[0, CELL, 0] = coded([28.0, 56, 84, 84])  # an eighth of the image too low: IoU 1/3
    out.boxes[0, CELL, 1] = coded([0.0, 42, 112, 70])  # half of the image too wide: IoU 1/2
    out.boxes.requires_grad_()
    gradient = torch.autograd.grad(yolo_losses(out, one_object(), GRID, SIDE)["coordinates"], [out.boxes])[0]
    assert (gradient[0, CELL, 0] == 0).all() and (gradient[0, CELL, 1] != 0).any()
    assert gradient.count_nonzero() == gradient[0, CELL, 1].count_nonzero()


def test_boxes_of_other_cells_are_never_responsible():
    out = output()
    out.boxes[0, CELL - 1, 0] = coded(BOX) + torch.tensor([1.0, 0, 0, 0])  # the object's box, said by the cell beside
    out.boxes.requires_grad_()
    gradient = torch.autograd.grad(yolo_losses(out, one_object(), GRID, SIDE)["coordinates"], [out.boxes])[0]
    assert gradient[0, CELL, 0].count_nonzero() == gradient.count_nonzero() == 4


def test_a_negative_root_is_a_size_and_an_error_like_any_other():
    """A square root of a prediction would be NaN, or without a gradient where it is cut at 0."""
    out = output()
    out.boxes[0, CELL] = coded(BOX) * torch.tensor([1, 1, -1, -1])
    assert losses(out)["confidence"] == pytest.approx(1)  # squared, the size is right
    out.boxes.requires_grad_()
    coordinates = yolo_losses(out, one_object(), GRID, SIDE)["coordinates"]
    assert coordinates.item() == pytest.approx((2 * 0.5**0.5) ** 2 + 1)
    gradient = torch.autograd.grad(coordinates, [out.boxes])[0][0, CELL, 0]
    torch.testing.assert_close(gradient, torch.tensor([0, 0, -4 * 0.5**0.5, -2.0]), rtol=1e-4, atol=1e-4)


def test_without_overlap_the_nearest_box_is_responsible():
    """In fractions of the image: a whole cell's shift (.14) is less than no width (.5)."""
    out = output()
    out.boxes[0, CELL, 0] = torch.tensor([0.5, 0.5, 0, 0])  # at the centre, without a size
    out.boxes[0, CELL, 1] = torch.tensor([0.5, 3.5, 0.5**0.5, 0.5])  # the right size, three cells below
    assert losses(out)["coordinates"] == pytest.approx(9)
    out.boxes[0, CELL, 1, 1] = 5.5  # five: .71, more than (.5, .25) are
    assert losses(out)["coordinates"] == pytest.approx(0.75)


def test_sizes_are_fractions_of_the_image_and_roots_are_taken_once():
    out = output()
    out.boxes[0, CELL, 0] = torch.tensor([0.5, 0.5, 0.8, 0.4])
    expected = (0.8 - 0.5**0.5) ** 2 + (0.4 - 0.25**0.5) ** 2
    assert losses(out)["coordinates"] == pytest.approx(expected, rel=1e-5)


def test_the_other_boxes_of_an_objects_cell_are_without_an_object():
    out = output()
    out.confidence[0, CELL] = torch.tensor([0.0, 0.6])
    assert losses(out)["no_object"] == pytest.approx(0.36)
    out.confidence[0, 0] = torch.tensor([0.5, 0.5])  # and those of empty cells
    assert losses(out)["no_object"] == pytest.approx(0.86)


def test_empty_cells_have_no_class():
    out = output()
    out.scores[0] = 5.0
    out.scores[0, CELL] = torch.tensor([0.1, 0.9, 0.2])
    assert losses(out)["class"] == pytest.approx(0.01 + 0.01 + 0.04, rel=1e-5)


def test_the_default_weights_are_the_papers():
    """The no-object term has the half, the coordinates five times; the others one."""
    spec = DetectorSpec(num_foreground_classes=C, image_size=SIDE)
    out = output()
    out.confidence[:] = 0.5
    plain = losses(out)
    for settings, weights in (({}, (5, 0.5)), ({"lambda_coord": 1.0, "lambda_noobj": 2.0}, (1, 2))):
        weighed = Model(Config(**SMALL, **settings), spec).cell_losses(out, one_object(), SIDE)
        assert weighed["coordinates"].item() == pytest.approx(weights[0] * plain["coordinates"])
        assert weighed["no_object"].item() == pytest.approx(weights[1] * plain["no_object"])
        assert weighed["class"].item() == plain["class"] and weighed["confidence"].item() == plain["confidence"]
    assert plain["no_object"] == pytest.approx(97 * 0.25)


def test_cells_in_an_ignored_region_cost_nothing_but_an_objects_own_do():
    out = output()
    out.confidence[:] = 1
    whole = [[0.0, 0, SIDE, SIDE]]
    assert losses(out, one_object(ignored=whole))["no_object"] == 1  # the object's cell: its other box
    assert losses(out, one_object(ignored=[[0.0, 0, SIDE, 16]]))["no_object"] == 97 - 14
    assert losses(out, one_object(ignored=whole))["coordinates"] == pytest.approx(1.25)


def test_losses_are_sums_over_cells_and_images():
    out = output(images=3)
    out.confidence[:] = 1
    none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "ignored": torch.zeros(0, 4)}
    some = {**none, "boxes": torch.tensor([BOX, [0.0, 0, 10, 10]]), "labels": torch.tensor([1, 3])}
    parts = losses(out, assign_cells([some, none, some], GRID, SIDE))
    assert parts["no_object"] == 3 * 98 - 4 and parts["class"] == 4 and parts["confidence"] == 4


def test_scores_are_confidence_times_class_and_never_of_two_negatives():
    spec = DetectorSpec(num_foreground_classes=C, image_size=SIDE)
    out = output()
    out.confidence[0, 0] = torch.tensor([0.5, -0.5])
    out.scores[0, 0] = torch.tensor([0.8, -0.9, 1.5])
    scores = Model(Config(**SMALL), spec).candidates(out, SIDE)[1]
    torch.testing.assert_close(scores[0, :2], torch.tensor([[0.4, 0, 0.5], [0, 0, 0]]))
    assert (scores[0, 2:] == 0).all()


def test_candidates_are_where_the_cells_say():
    spec = DetectorSpec(num_foreground_classes=C, image_size=SIDE)
    out = output()
    out.boxes[0, CELL, 1] = coded(BOX)
    boxes, scores = Model(Config(**SMALL), spec).candidates(out, SIDE)
    assert boxes.shape == (1, 98, 4) and scores.shape == (1, 98, C)
    torch.testing.assert_close(boxes[0, 2 * CELL + 1], torch.tensor(BOX))


@pytest.mark.parametrize("wrong", [{"boxes": 0}, {"lambda_coord": -1.0}, {"lambda_noobj": float("nan")}])
def test_settings_out_of_range(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Config(**wrong)
