"""Detection: two stages or one, on the same backbone and the same scenes (rows S35 to S38, S40)."""

from __future__ import annotations

from itertools import islice
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from lightning_modules.augment.images import decode_record
from lightning_modules.blocks.dense_losses import focal_losses
from lightning_modules.drawing.shapes import draw_objects, panels
from lightning_modules.models.grid_boxes import matched_base_boxes
from lightning_modules.ops.grid import assign_cells, cell_boxes
from lightning_modules.ops.matching import BACKGROUND
from lightning_modules.reports._plots import Plot, bar
from pipeline.measuring.claims import Claim, Measured, Results, Row
from pipeline.measuring.cost import forward_flop

TITLE = "Detectors of two stages and of one"
INTRODUCTION = (
    "The scenes of the chapter on segmentation, with a box for each shape. All detectors have the same small backbone. "
    "Faster R-CNN proposes boxes and looks at each again; the others say class and box at once, of anchors on several "
    "maps or of the cells of one grid."
)
FASTER, STEPS, ALIGNED, PYRAMID, SSD, RETINANET, YOLO, GRID = (
    "Faster R-CNN", "Faster R-CNN, four steps", "Faster R-CNN, RoIAlign", "Faster R-CNN, pyramid",
    "SSD", "RetinaNet", "YOLOv1", "the lecture's head"
)  # fmt: skip
RUNS = {
    FASTER: "detect_faster_a",
    STEPS: "detect_faster_steps_a",
    ALIGNED: "detect_faster_align_a",
    PYRAMID: "detect_pyramid_a",
    SSD: "detect_ssd_a",
    RETINANET: "detect_retinanet_a",
    YOLO: "detect_yolo_a",
    GRID: "detect_grid_boxes_a",
}
TWICE = (FASTER, PYRAMID, SSD, RETINANET, YOLO)  # what is compared across the two kinds
TWO_STAGES = (FASTER, STEPS, ALIGNED, PYRAMID)
CONTROL = "the mean box: 0.011"
SIDES = {YOLO: 112, GRID: 112}
NUM_JUDGED, HARDEST, ALPHA = 100, (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100), 0.25
LOSSES = {
    "RPN: object or not": "loss_objectness",
    "RPN: box": "loss_rpn_box_reg",
    "class": "loss_classifier",
    "box": "loss_box_reg",
}


def claims(results: Results) -> list[Claim]:
    return [
        _joint(results), _aligned(results), _stages(results), _easy(results), _coarse(results), _knows_classes(results)
    ]  # fmt: skip


def _seeds(system: str) -> list[str]:
    first = RUNS[system]
    return [first, first.removesuffix("_a") + "_b"] if system in TWICE else [first]


def _scores(results: Results, name: str, systems: tuple[str, ...], control: str = "") -> list[Row]:
    return [results.row(f"{system}: {name}", _seeds(system), name, control) for system in systems]


class _Detects(nn.Module):
    """A detector asked for detections, which is what its prediction costs."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> object:
        return self.model(images, detect=True)


def _gflop(results: Results, system: str) -> float:
    side = SIDES.get(system, 128)
    images = torch.zeros((1, 3, side, side), dtype=torch.uint8)
    torch.manual_seed(0)
    return forward_flop(_Detects(results.network(RUNS[system])), images) / 1e9


def _joint(results: Results) -> Claim:
    joint, steps = rows = _scores(results, "mAP_2010", (FASTER, STEPS), CONTROL)
    curves = [(what, RUNS[FASTER], name) for what, name in LOSSES.items()]
    curves += [(f"four steps, {what}", RUNS[STEPS], name) for what, name in LOSSES.items()]
    points = [(step, value, of) for of, run, name in curves for step, value in results.curve(run, f"train/{name}")]
    return Claim(
        name="four-losses-at-once",
        says="The CNN makes its own proposals: four losses are learnt jointly",
        slides=("S35",),
        holds=joint.value >= 0.8,
        because=f"Trained on the sum of all four, it reaches a mAP of {joint.value:.3f}; in the paper's four steps, "
        f"each with one of two pairs of losses, {steps.value:.3f}.",
        figure=Plot(
            name="four_losses", kind="curve", columns=("step", "loss", "of"), rows=points, x="step", y="loss",
            series="of", title="Four losses of one training, and in four steps",
        ),
        rows=rows,
        note="One map of stride 16, nine anchors a place, RoIPool, as in the paper; c4 of the small backbone is what "
        "conv5_3 of VGG-16 is there. The paper's main recipe is that of four steps: an RPN alone, a detector on its "
        "proposals, an RPN on the detector's maps, and the detector's head again. Twelve epochs together, of which "
        "each loss has five or seven; at once they have four. A loss that a step does not train is 0 in its curve.",
    )  # fmt: skip


def _aligned(results: Results) -> Claim:
    names = ("mAP_2010", "AP", "AP75")
    pooled = [results.row(f"RoIPool: {name}", [RUNS[FASTER]], name) for name in names]
    aligned = [results.row(f"RoIAlign: {name}", [RUNS[ALIGNED]], name) for name in names]
    return Claim(
        name="rounding-costs-boxes",
        says="RoIPool rounds boxes to the cells of the map; read between the cells they come out finer",
        slides=("S34", "S35"),
        holds=aligned[1].value > pooled[1].value,
        because=f"COCO's AP, which asks for exact boxes, is {pooled[1].value:.3f} with RoIPool and "
        f"{aligned[1].value:.3f} with RoIAlign.",
        figure=bar("roi_pooling", ("how", "score"), [(row.what, row.value) for row in (*pooled, *aligned)],
                   title="RoIPool and RoIAlign"),
        rows=[*pooled, *aligned],
        note="A cell is 16 px here, an object 28 to 82 px.",
    )  # fmt: skip


def _stages(results: Results) -> Claim:
    systems = tuple(RUNS)
    scores = {name: _scores(results, name, systems) for name in ("mAP_2010", "AP")}
    gflop = {system: _gflop(results, system) for system in systems}
    costs = [
        Row(what=f"{system}: GFLOP an image",
            measured=[Measured(run=RUNS[system], name="gflop", value=value, low=None, high=None, constant=None)])
        for system, value in gflop.items()
    ]  # fmt: skip
    by_ap = dict(zip(systems, scores["AP"], strict=True))
    two = max((by_ap[s] for s in TWO_STAGES), key=lambda ap: ap.value)
    one = max((by_ap[s] for s in systems if s not in TWO_STAGES), key=lambda ap: ap.value)
    least, most = min(ap.low or 0 for ap in two.measured), max(ap.high or 1 for ap in one.measured)
    cheapest = min(gflop, key=lambda system: gflop[system])
    return Claim(
        name="one-stage-is-cheaper-two-are-better",
        says="Detectors of one stage cost less, those of two stages find better boxes",
        slides=("S36", "S37", "S38"),
        holds=least > most and cheapest not in TWO_STAGES,
        because=f"COCO's AP is {two.value:.3f} at best with two stages and {one.value:.3f} with one; their "
        f"intervals, of all seeds, must not meet. The least arithmetic is {cheapest}'s, {gflop[cheapest]:.2f} GFLOP "
        f"against {gflop[FASTER]:.2f} of Faster R-CNN on one map.",
        figure=bar("stages", ("detector", "mAP_2010"),
                   [(system, row.value) for system, row in zip(systems, scores["mAP_2010"], strict=True)],
                   title="mAP at IoU 0.5"),
        rows=[*scores["mAP_2010"], *scores["AP"], *costs],
        note="2 FLOPs a multiply-add; suppression of boxes and the pooling of proposals are not counted. Two seeds, "
        "but one of RoIAlign, the four steps and the lecture's head; epochs as each needs, all within "
        "minutes; the scenes are told apart by texture, so that scores say little of photographs.",
    )  # fmt: skip


def _judged(results: Results) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, labels and matches of all anchors of the first scenes, by a trained RetinaNet."""
    module = results.trained(RUNS[RETINANET])
    model, task = cast(Any, module.model), module.task
    judged = []
    losses = model.class_losses
    model.class_losses = lambda *given: (judged.append(given), losses(*given))[1]
    examples = [task.encode(record, None) for record in islice(results.records("scenes"), NUM_JUDGED)]
    with torch.inference_mode():
        task.losses(model, task.collate(examples))
    (given,) = judged
    return given


def _background(judged: tuple[Tensor, Tensor, Tensor], gamma: float) -> tuple[Tensor, float]:
    """The focal losses of background anchors, the largest first, and their share of all class losses."""
    losses = focal_losses(*judged, ALPHA, gamma).double()
    own = losses[judged[2] == BACKGROUND].sort(descending=True).values
    return own, float(own.sum() / losses.sum())


def _easy(results: Results) -> Claim:
    judged = _judged(results)
    found = {gamma: _background(judged, gamma) for gamma in (0.0, 2.0)}
    points, rows = [], []
    hardest = {gamma: float(losses[: len(losses) // 100].sum() / losses.sum()) for gamma, (losses, _) in found.items()}
    for gamma, (losses, share) in found.items():
        for percent in HARDEST:
            part = float(losses[: round(len(losses) * percent / 100)].sum() / losses.sum())
            points.append((percent, part, f"gamma {gamma:g}"))
        rows += [
            Row(what=f"gamma {gamma:g}: {what}",
                measured=[Measured(run=RUNS[RETINANET], name=name, value=value, low=None, high=None, constant=None)])
            for what, name, value in (
                ("of background's loss, its hardest hundredth has", "hardest", hardest[gamma]),
                ("of all class losses, background has", "background", share),
            )
        ]  # fmt: skip
    return Claim(
        name="easy-background-does-not-count",
        says="A detector of one stage judges every place; the focal loss keeps the easy background from deciding",
        slides=("S38",),
        holds=hardest[2.0] > 0.5 > hardest[0.0] and found[2.0][1] < 0.5 < found[0.0][1],
        because=f"Of {len(found[2.0][0]):,} background anchors in {NUM_JUDGED} scenes, the hardest hundredth has "
        f"{hardest[2.0]:.1%} of their loss with gamma 2 and {hardest[0.0]:.1%} with cross-entropy (gamma 0); "
        f"background has {found[2.0][1]:.0%} and {found[0.0][1]:.0%} of all class losses.",
        figure=Plot(
            name="easy_background", kind="curve", columns=("hardest_percent", "share", "of"), rows=points,
            x="hardest_percent", y="share", series="of", title="Share of background's loss, its hardest anchors first",
        ),
        rows=rows,
        note="The paper's figure 4: both losses of one trained RetinaNet, whose own has gamma 2 and alpha 0.25; the "
        "latter is kept for both. No intervals: all anchors of the validation's first scenes.",
    )  # fmt: skip


def _errors(results: Results, system: str) -> dict[str, Row]:
    """By kind what AP50 would gain if its errors of this kind were mended (TIDE, 2008.08115)."""
    tables = {run: {entry["kind"]: entry for entry in results.table(run, "errors")} for run in _seeds(system)}
    return {
        kind: Row(
            what=f"{system}: {tables[RUNS[system]][kind]['error']} ({kind})",
            measured=[
                Measured(run=run, name=f"tide/{kind}", value=float(table[kind]["ap50_gain"]), low=None, high=None,
                         constant=None)
                for run, table in tables.items()
            ],
        )
        for kind in ("Cls", "Loc", "Bkg", "Miss")
    }  # fmt: skip


def _coarse(results: Results) -> Claim:
    errors = {system: _errors(results, system) for system in RUNS}
    place = {system: kinds["Loc"].value for system, kinds in errors.items()}
    scores = zip(*(_scores(results, name, tuple(RUNS)) for name in ("AP75", "AP50")), strict=True)
    kept = {system: at_75.value / max(at_50.value, 1e-9) for system, (at_75, at_50) in zip(RUNS, scores, strict=True)}
    return Claim(
        name="a-grid-is-coarse",
        says="YOLO's boxes are less exact than those of a second look",
        slides=("S36",),
        holds=place[YOLO] > max(place[system] for system in TWO_STAGES),
        because=f"If all boxes in a poor place were mended, AP50 would gain {place[YOLO]:.3f} with YOLO, "
        f"{place[FASTER]:.3f} with Faster R-CNN, {place[SSD]:.3f} with SSD and {place[RETINANET]:.3f} with RetinaNet. "
        f"Of its AP at IoU 0.5, YOLO keeps {kept[YOLO]:.0%} at IoU 0.75, Faster R-CNN {kept[FASTER]:.0%}.",
        figure=bar("poor_places", ("detector", "what AP50 would gain"), list(place.items()),
                   title="Boxes of the right class in a poor place (IoU 0.1 to 0.5)"),
        rows=[row for kinds in errors.values() for row in kinds.values()],
        note="The paper counts errors of localisation, IoU 0.1 to 0.5 with the right class: 19.0 % of YOLO's boxes, "
        "8.6 % of Fast R-CNN's. TIDE counts the same boxes by what they cost. What is kept at IoU 0.75 is about "
        "boxes that were found, and may say otherwise. No intervals; two seeds of these four and of the pyramid.",
    )  # fmt: skip


def _grid_on_a_scene(results: Results, network: Any) -> np.ndarray:
    """Of the first scenes, the one of most objects."""
    record = max(islice(results.records("scenes"), 20), key=lambda record: len(record.objects))
    image, side = decode_record(record), max(record.height, record.width)
    square = np.full((side, side, 3), 128, np.uint8)
    square[: image.shape[0], : image.shape[1]] = image
    scale = side / network.image_size
    target = {
        "boxes": torch.from_numpy(record.objects.boxes), "labels": torch.from_numpy(record.objects.labels),
        "ignored": torch.zeros(0, 4),
    }  # fmt: skip
    grid = network.config.grid
    objects = assign_cells([target], grid, side)
    base = network.base_boxes.flatten(0, 1) * scale
    matched = matched_base_boxes(objects, base)
    cells = cell_boxes(grid, side).numpy()
    drawn, labels, texts = [], [], []
    for i, cell in enumerate(objects.cell.tolist()):
        for a, box in enumerate(base[cell].numpy()):
            is_matched = a == int(matched[i])
            drawn.append(box.clip(0, side))
            labels.append(i + 2 if is_matched else 1)
            texts.append("matched" if is_matched else "")
    nothing = [""] * len(cells)
    own = [draw_objects(square, cells, np.ones(len(cells), int), nothing),
           draw_objects(square, np.array(drawn), np.array(labels), texts)]  # fmt: skip
    return panels(own, [f"{grid} x {grid} cells", "base boxes of the objects' cells"])


def _knows_classes(results: Results) -> Claim:
    rows = _scores(results, "mAP_2010", (GRID, YOLO), CONTROL)
    network: Any = results.network(RUNS[GRID])
    outputs = network.num_outputs
    return Claim(
        name="an-rpn-that-knows-classes",
        says="A grid of 7 x 7 cells with 3 base boxes each finds objects in one pass, like an RPN that knows classes",
        slides=("S40",),
        holds=rows[0].value >= 0.6 and outputs == 7 * 7 * (5 * 3 + 7),
        because=f"{outputs:,} numbers an image, 7 x 7 x (5 x 3 + 7), give a mAP of {rows[0].value:.3f}.",
        figure=bar("grid_heads", ("head", "mAP_2010"), [(row.what, row.value) for row in rows], title="On one grid"),
        rows=rows,
        note="The lecture calls it YOLO; YOLOv1 has neither base boxes nor a class for background. Its training starts "
        "from that of YOLO's network, all but the last layer, so that the two scores are no comparison.",
        pictures={
            "The grid on a scene, and the three base boxes of each cell in which an object is centred: that of the "
            "most similar shape is matched, and moved to the object": _grid_on_a_scene(results, network),
        },
    )
