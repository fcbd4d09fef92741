"""The lecture's head by hand: matching, coding, the three losses, scores."""

import math

import pytest
import torch

from contracts.errors import ConfigError
from lightning_modules.base.families import DetectorSpec
from lightning_modules.blocks.grid import GridOutput
from lightning_modules.models.grid_boxes import Config, Model, grid_box_losses, matched_base_boxes
from lightning_modules.ops.grid import assign_cells, base_boxes

GRID, SIDE, K = 2, 80, 3  # cells of 40 px; background and two classes
BASE = base_boxes(GRID, SIDE, (0.25, 0.5))  # squares of 20 and 40 px
BOX = [46.0, 42, 86, 82]  # a square of 40 px in cell 3, centred at (66, 62): (6, 2) px from the cell's centre
SMALL = {"conv_channels": (8,), "hidden": 8}
SPEC = DetectorSpec(num_foreground_classes=K - 1, image_size=SIDE)


def output():
    return GridOutput(torch.zeros(1, 4, 2, 4), torch.zeros(1, 4, 2), torch.zeros(1, 4, K))


def objects(*boxes, labels=(2,), ignored=()):
    ignored = torch.tensor(ignored, dtype=torch.float32).reshape(-1, 4)
    target = {"boxes": torch.tensor(boxes), "labels": torch.tensor(labels), "ignored": ignored}
    return assign_cells([target], GRID, SIDE)


def losses(out, found):
    return {name: value.item() for name, value in grid_box_losses(out, found, BASE).items()}


@pytest.mark.parametrize(("classes", "expected"), [(20, 1764), (6, 1078)])
def test_output_sizes(classes, expected):
    """7 x 7 x (5 * 3 + C), where C counts background: 21 for VOC, 7 for the six shapes."""
    model = Model(Config(**SMALL), DetectorSpec(num_foreground_classes=classes, image_size=112)).eval()
    assert model.num_outputs == expected
    with torch.no_grad():
        out = model._run(torch.zeros(1, 3, 112, 112))
    assert sum(part.numel() for part in out) == expected
    assert model.candidates(out, 112)[1].shape == (1, 147, classes)


def test_losses_by_hand():
    """dx = 6/40, dy = 2/40, dh = dw = 0; smooth L1 of beta 1/9: .15 - 1/18 and .05 ** 2 * 9 / 2."""
    found = objects(BOX)
    assert matched_base_boxes(found, BASE).tolist() == [1]
    assert losses(output(), found) == pytest.approx(
        {
            "coordinates": 0.15 - 1 / 18 + 0.05**2 * 4.5,
            "confidence": 8 * math.log(2),  # all eight base boxes
            "class": 4 * math.log(3),  # all four cells
        },
        rel=1e-5,
    )


def test_the_third_number_is_the_height():
    found = objects([55.0, 40, 65, 80])  # at the cell's centre, 10 px wide, 40 px high: IoU .25 and .33 of the shapes
    out = output()
    assert matched_base_boxes(found, BASE).tolist() == [0]
    assert losses(out, found)["coordinates"] > 1
    out.boxes[0, 3, 0] = torch.tensor([0, 0, math.log(2), math.log(0.5)])
    assert losses(out, found)["coordinates"] == pytest.approx(0, abs=1e-9)
    boxes, _ = Model(Config(grid=GRID, base_boxes=(0.25, 0.5), **SMALL), SPEC).candidates(out, SIDE)
    torch.testing.assert_close(boxes[0, 6], torch.tensor([55.0, 40, 65, 80]))


def test_a_perfect_output_costs_next_to_nothing():
    out = output()
    out.boxes[0, 3, 1] = torch.tensor([0.15, 0.05, 0, 0])
    out.confidence[:] = -30
    out.confidence[0, 3, 1] = 30
    out.scores[0, :, 0] = 30  # background
    out.scores[0, 3] = torch.tensor([0.0, 0, 30])
    assert sum(losses(out, objects(BOX)).values()) == pytest.approx(0, abs=1e-6)


def test_the_other_base_boxes_of_an_objects_cell_are_to_have_no_confidence():
    out = output()
    out.confidence[:] = -30
    out.confidence[0, 3] = 30
    assert losses(out, objects(BOX))["confidence"] == pytest.approx(30)


def test_empty_cells_are_background():
    out = output()
    out.scores[0, :, 1] = 30
    assert losses(out, objects(BOX, labels=(1,)))["class"] == pytest.approx(3 * 30)


def test_cells_in_an_ignored_region_cost_nothing():
    upper = [[0.0, 0, SIDE, 40]]
    parts = losses(output(), objects(BOX, ignored=upper))
    assert parts["confidence"] == pytest.approx(4 * math.log(2)) and parts["class"] == pytest.approx(2 * math.log(3))
    whole = losses(output(), objects(BOX, ignored=[[0.0, 0, SIDE, SIDE]]))  # the object's cell counts all the same
    assert whole["confidence"] == pytest.approx(2 * math.log(2)) and whole["class"] == pytest.approx(math.log(3))


def test_scores_are_confidence_times_the_probability_of_a_foreground_class():
    out = output()
    out.confidence[0, 0] = torch.tensor([0.0, -30])
    out.scores[0, 0] = torch.tensor([0.5, 0.1, 0.4]).log()
    scores = Model(Config(grid=GRID, base_boxes=(0.25, 0.5), **SMALL), SPEC).candidates(out, SIDE)[1]
    torch.testing.assert_close(scores[0, :2], torch.tensor([[0.05, 0.2], [0, 0]]), rtol=1e-5, atol=1e-6)


def test_base_boxes_to_be_drawn():
    model = Model(Config(aspect_ratios=(0.5, 1.0), **SMALL), DetectorSpec(num_foreground_classes=6, image_size=112))
    base = model.base_boxes
    assert base.shape == (7, 7, 6, 4) and model.cells.shape == (7, 7, 4)
    torch.testing.assert_close(base[2, 3, 1], torch.tensor([56 - 15.68, 40 - 15.68, 56 + 15.68, 40 + 15.68]))
    assert model.cells[2, 3].tolist() == [48, 32, 64, 48]  # row 2, column 3
    assert model.num_outputs == 49 * (5 * 6 + 7)


@pytest.mark.parametrize("wrong", [{"base_boxes": ()}, {"aspect_ratios": ()}, {"base_boxes": (0.2, 0.0)}])
def test_settings_out_of_range(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Config(**wrong)
