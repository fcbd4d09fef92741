"""Given regions: windows and proposals, a network's run for each or one for all (rows S29, S30, S32 to S35)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_modules.ops.windows import random_boxes
from lightning_modules.reports._plots import Plot, bar
from pipeline.measuring.claims import Claim, Measured, Results, Row
from pipeline.measuring.cost import forward_flop

TITLE = "From crops to one network for all proposals"
INTRODUCTION = (
    "The scenes of the chapter on detectors, whose detectors are told here where to look: at the windows of a grid, or "
    "at the best 100 proposals of Selective Search. A classifier of crops runs once for each of them; Fast R-CNN runs "
    "once for all and reads the regions from its map."
)
WINDOWS, SOFTMAX, RCNN, FAST, ALIGNED, FASTER = (
    "sliding windows", "R-CNN, softmax alone", "R-CNN", "Fast R-CNN", "Fast R-CNN, RoIAlign", "Faster R-CNN",
)  # fmt: skip
RUNS = {
    WINDOWS: "regions_windows_a",
    SOFTMAX: "regions_rcnn_softmax_a",
    RCNN: "regions_rcnn_a",
    FAST: "regions_fast_a",
    ALIGNED: "regions_fast_align_a",
    FASTER: "detect_faster_a",
}
CONTROL = "the mean box: 0.011"
SIDE, NUM_WINDOWS, NUM_PROPOSALS = 128, 371, 100
NUMBERS = (25, 50, 100, 200, 400)


def claims(results: Results) -> list[Claim]:
    return [_few_beat_many(results), _shared(results), _svms(results), _pooling(results), _own_proposals(results)]


def _scores(results: Results, *systems: str, name: str = "mAP_2010") -> list[Row]:
    return [results.row(f"{system}: {name}", [RUNS[system]], name, CONTROL) for system in systems]


def _number(system: str, what: str, value: float) -> Row:
    measured = Measured(run=RUNS[system], name=what, value=value, low=None, high=None, constant=None)
    return Row(what=f"{system}: {what}", measured=[measured])


class _Detects(torch.nn.Module):
    """A model of given regions, asked for detections in so many, which is what its prediction costs."""

    def __init__(self, model: Any, number: int):
        super().__init__()
        self.model = model
        self.regions = [torch.from_numpy(random_boxes((SIDE, SIDE), number, seed=0, min_side=12))]

    def forward(self, images: Tensor) -> object:
        return self.model(images, self.regions, detect=True)


def _gflop(results: Results, system: str, number: int) -> float:
    torch.manual_seed(0)
    model = _Detects(results.network(RUNS[system]), number)
    return forward_flop(model, torch.zeros((1, 3, SIDE, SIDE), dtype=torch.uint8)) / 1e9


def _few_beat_many(results: Results) -> Claim:
    windows, proposals = _scores(results, WINDOWS, SOFTMAX)
    costs = [_gflop(results, WINDOWS, NUM_WINDOWS), _gflop(results, SOFTMAX, NUM_PROPOSALS)]
    return Claim(
        name="few-proposals-beat-many-windows",
        says="A CNN on every window is too much; on a few proposals it does better",
        slides=("S29", "S30", "S32"),
        holds=(proposals.measured[0].low or 0) > (windows.measured[0].high or 1) and costs[0] > costs[1],
        because=f"The same classifier reaches a mAP of {windows.value:.3f} on {NUM_WINDOWS} windows and "
        f"{proposals.value:.3f} on {NUM_PROPOSALS} proposals, for {costs[0]:.1f} and {costs[1]:.1f} GFLOP a picture.",
        figure=bar("windows_and_proposals", ("regions", "mAP_2010"), [(r.what, r.value) for r in (windows, proposals)],
                   title="One classifier of crops, two kinds of regions"),
        rows=[windows, proposals, _number(WINDOWS, "GFLOP a picture", costs[0]),
              _number(SOFTMAX, "GFLOP a picture", costs[1])],
        note="A picture of 128 x 128 px has 68,161,536 boxes. Windows of three sizes, every 8 px; neither windows nor "
        "proposals are moved afterwards. 2 FLOPs a multiply-add; what Selective Search takes is in "
        "docs/benchmarks.md.",
    )  # fmt: skip


def _shared(results: Results) -> Claim:
    points = {(s, k): _gflop(results, s, k) for s in (RCNN, FAST) for k in NUMBERS}
    ratio = points[RCNN, NUM_PROPOSALS] / points[FAST, NUM_PROPOSALS]
    slow, fast = _scores(results, RCNN, FAST)
    columns = ("regions a picture", "GFLOP", "of")
    return Claim(
        name="one-network-for-all-proposals",
        says="R-CNN is slow, a network's run for every proposal; Fast R-CNN runs the network once",
        slides=("S33", "S34"),
        holds=ratio >= 5 and fast.value >= slow.value,
        because=f"At {NUM_PROPOSALS} proposals R-CNN needs {ratio:.1f} times the arithmetic of Fast R-CNN, and reaches "
        f"{slow.value:.3f} against {fast.value:.3f}.",
        figure=Plot(
            name="cost_by_regions", kind="curve", columns=columns, x=columns[0], y=columns[1], series=columns[2],
            rows=[(k, points[s, k], s) for s in (RCNN, FAST) for k in NUMBERS], title="What a picture costs",
        ),
        rows=[slow, fast, *(_number(s, f"GFLOP at {k} regions", points[s, k]) for s in (RCNN, FAST) for k in NUMBERS)],
        note="Times of the parts, by the number of regions, are in docs/benchmarks.md. The paper: 47 s a picture with "
        "VGG-16 against 0.32 s, proposals not counted.",
    )  # fmt: skip


def _svms(results: Results) -> Claim:
    softmax, svm = _scores(results, SOFTMAX, RCNN)
    at_75 = _scores(results, SOFTMAX, RCNN, name="AP75")
    return Claim(
        name="svms-and-regression-add",
        says="R-CNN's classes are linear SVMs on the network's features, and its boxes are moved by regression",
        slides=("S32",),
        holds=svm.value > softmax.value,
        because=f"With both, mAP is {svm.value:.3f}, and {softmax.value:.3f} by the network's own softmax and unmoved "
        f"boxes; COCO's AP75, which asks for exact boxes, {at_75[1].value:.3f} and {at_75[0].value:.3f}.",
        figure=bar("svms", ("system", "score"), [(r.what, r.value) for r in (softmax, svm, *at_75)],
                   title="What the second pass over the training pictures adds"),
        rows=[softmax, svm, *at_75],
        note="In the paper, VOC 2007: softmax 50.9, SVMs 54.2, with regression 58.5.",
    )  # fmt: skip


def _pooling(results: Results) -> Claim:
    rows = [row for name in ("mAP_2010", "AP75") for row in _scores(results, FAST, ALIGNED, name=name)]
    return Claim(
        name="regions-read-between-cells",
        says="Regions are read from the map by their rounded cells (RoIPool); read between the cells they fit better",
        slides=("S34",),
        holds=rows[3].value > rows[2].value,
        because=f"AP75 is {rows[2].value:.3f} with RoIPool and {rows[3].value:.3f} with RoIAlign.",
        figure=bar("fast_pooling", ("how", "score"), [(row.what, row.value) for row in rows], title="Fast R-CNN"),
        rows=rows,
        note="A cell is 16 px here, an object 28 to 82 px.",
    )


def _own_proposals(results: Results) -> Claim:
    fast, faster = _scores(results, FAST, FASTER)
    return Claim(
        name="own-proposals-are-no-worse",
        says="A network that makes its own proposals needs no Selective Search",
        slides=("S35",),
        holds=(faster.measured[0].high or 0) >= fast.value,
        because=f"Faster R-CNN reaches {faster.value:.3f} by its own proposals, Fast R-CNN {fast.value:.3f} by 100 of "
        "Selective Search.",
        figure=bar("own_proposals", ("system", "mAP_2010"), [(row.what, row.value) for row in (fast, faster)],
                   title="Whose proposals"),
        rows=[fast, faster],
        note="The same map and pooling. Worse would be an interval below the other's score. Selective Search takes "
        "many times as long as the whole network (docs/benchmarks.md).",
    )  # fmt: skip
