"""What an image shows, said of the whole image (row S24)."""

from __future__ import annotations

import torch

from lightning_modules.reports._plots import bar
from pipeline.measuring.claims import Claim, Measured, Results, Row
from pipeline.measuring.cost import forward_flop

TITLE = "What an image shows"
INTRODUCTION = (
    "Drawn scenes of one to four shapes. A network says of each class whether the image shows it; where, it is neither "
    "told nor asked. The chapters after this one ask for places."
)
RUN, CONTROL, SIDE = "classify_multilabel_a", "each class's share of the images: 0.225", 64


def claims(results: Results) -> list[Claim]:
    score, eleven = (
        results.row(f"classes of an image: {name}", [RUN], name, CONTROL) for name in ("mAP_2010", "mAP_2007")
    )
    by_class = [(row["class"], float(row["AP"])) for row in results.table(RUN, "class_ap")]
    network = results.network(RUN)
    cost = forward_flop(network, torch.zeros((1, 3, SIDE, SIDE), dtype=torch.uint8)) / 1e9
    flop = Measured(run=RUN, name="gflop", value=cost, low=None, high=None, constant=None)
    return [
        Claim(
            name="a-network-says-what-is-there",
            says="A convolutional network, its maps smaller and smaller, says which classes an image shows",
            slides=("S24",),
            holds=score.value >= 0.95,
            because=f"Mean average precision {score.value:.3f}; chance is {score.measured[0].constant or 0:.3f}.",
            figure=bar("class_ap", ("class", "average precision"), by_class, title="Average precision by class"),
            rows=[score, eleven, Row(what="GFLOP an image", measured=[flop])],
            note="As VOC's classification is measured. VGG-16 reaches 89.3 on VOC 2007 in its paper, from ImageNet and "
            "with SVMs, for 30.9 GFLOP at 224 px; 2 FLOPs a multiply-add.",
        )
    ]
