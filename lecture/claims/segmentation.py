"""Segmentation: what resolution inside a network costs, and how it is brought back (rows S25 to S28)."""

from __future__ import annotations

import torch
from torch import nn

from lightning_modules.reports._plots import bar
from pipeline.measuring.claims import Claim, Measured, Results, Row
from pipeline.measuring.cost import forward_flop, saved_bytes

TITLE = "Resolution inside a network"
INTRODUCTION = (
    "Drawn scenes of 128 px with shapes of six classes; every pixel gets a class or background. The networks differ in "
    "where they are fine and where coarse: never coarse, coarse and enlarged again at once or in steps, or coarse and "
    "unpooled to where the maxima were."
)
SIDE = 128
FULL, DILATED, FCN8 = "full resolution", "full resolution, dilated", "FCN-8s"
WHOLE, ALONE, DECONVNET = "DeconvNet, whole images", "DeconvNet, crops of objects", "DeconvNet, crops of proposals"
RUNS = {
    FULL: "segment_full_a",
    DILATED: "segment_dilated_a",
    "FCN-32s": "segment_fcn32_a",
    "FCN-16s": "segment_fcn16_a",
    FCN8: "segment_fcn8_a",
    WHOLE: "segment_deconvnet_whole_a",
    ALONE: "segment_deconvnet_objects_a",
    DECONVNET: "segment_deconvnet_a",
}
CONTROL = "background everywhere: 0.119"


def claims(results: Results) -> list[Claim]:
    return [_expensive(results), _in_steps(results), _unpooled(results)]


def _iou(results: Results, *systems: str) -> list[Row]:
    return [results.row(f"{system}: mIoU", [RUNS[system]], "mean_iou", CONTROL) for system in systems]


def _number(what: str, system: str, name: str, value: float) -> Row:
    measured = Measured(run=RUNS[system], name=name, value=value, low=None, high=None, constant=None)
    return Row(what=f"{system}: {what}", measured=[measured])


def _costs(network: nn.Module) -> tuple[float, float]:
    """GFLOP of a prediction, and MB that a training step keeps of it; both follow from shapes alone."""
    images = torch.zeros((1, 3, SIDE, SIDE), dtype=torch.uint8)
    kept = saved_bytes(network, images.repeat(2, 1, 1, 1)) / 2  # a norm takes no single value for a batch
    return forward_flop(network, images) / 1e9, kept / 1e6


def _expensive(results: Results) -> Claim:
    systems = (FULL, DILATED, FCN8, WHOLE)
    costs = {system: _costs(results.network(RUNS[system])) for system in systems}
    flop = [_number("GFLOP an image", system, "gflop", costs[system][0]) for system in systems]
    kept = [_number("MB kept for the backward pass", system, "saved_mb", costs[system][1]) for system in systems]
    more_flop, more_kept = (costs[FULL][i] / costs[FCN8][i] for i in (0, 1))
    plain, dilated, fcn = (row.value for row in _iou(results, FULL, DILATED, FCN8))
    return Claim(
        name="full-resolution-is-expensive",
        says="Convolutions at the image's own resolution are very expensive",
        slides=("S26",),
        holds=more_flop >= 6 and more_kept > 5 and max(plain, dilated) <= fcn,
        because=f"Six layers of 32 channels cost {more_flop:.1f} times the FLOPs of FCN-8s, {more_kept:.1f} times its "
        f"memory, for a mIoU of {plain:.3f} ({dilated:.3f} dilated) against {fcn:.3f}.",
        figure=bar("segmentation_cost", ("system", "GFLOP"), [(s, costs[s][0]) for s in systems],
                   title="GFLOP of a prediction at 128 px"),
        rows=[*flop, *kept, *_iou(results, *systems)],
        note="2 FLOPs a multiply-add. A plain stack of six sees 13 pixels and can learn textures alone; dilated by up "
        "to 16 it sees 65 at the same cost. Both learn for half the epochs of the others, in more time. VGG-16 without "
        "its pools would cost 48.1 times as much as with them, by its shapes.",
    )  # fmt: skip


def _in_steps(results: Results) -> Claim:
    rows = _iou(results, "FCN-32s", "FCN-16s", FCN8)
    coarse, middle, fine = (row.value for row in rows)
    return Claim(
        name="finer-maps-bring-detail-back",
        says="Down- and upsampling inside the network: the finer the maps that are added on the way up, the better",
        slides=("S27",),
        holds=coarse < middle < fine,
        because=f"mIoU {coarse:.3f} from stride 32 at once, {middle:.3f} with stride 16, {fine:.3f} with stride 8.",
        figure=bar("fcn_strides", ("system", "mean IoU"), [(r.what, r.value) for r in rows], title="FCN by stride"),
        rows=rows,
        note="In the paper, on VOC 2011: 63.6, 65.0, 65.5.",
    )  # fmt: skip


def _unpooled(results: Results) -> Claim:
    rows = _iou(results, DECONVNET, ALONE, WHOLE, "FCN-32s")
    deconvnet, alone, whole, coarse = (row.value for row in rows)
    return Claim(
        name="switches-bring-detail-back",
        says="DeconvNet goes down to a vector and unpools to where the maxima were: finer than one enlargement",
        slides=("S28",),
        holds=deconvnet > coarse,
        because=f"mIoU {deconvnet:.3f} against {coarse:.3f} of FCN-32s. Trained on whole images it has {whole:.3f}, "
        f"after crops of objects alone, the first of its two stages, {alone:.3f}.",
        figure=bar("deconvnet", ("system", "mean IoU"), [(row.what, row.value) for row in rows], title="Mean IoU"),
        rows=rows,
        note="As in the paper: crops of objects first, then of proposals, each picture answered from its proposals' "
        "crops. The paper's starts from VGG-16; these small ones start from random weights. Two crops of 32 px a "
        "picture and epoch, eight epochs a stage; FCN-32s has four epochs of whole pictures.",
    )
