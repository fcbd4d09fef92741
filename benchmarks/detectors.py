"""What detectors cost: all of ours side by side, torchvision's own beside ours of the same weights, and where the time
of R-CNN, Fast R-CNN and Faster R-CNN goes by the number of regions.

An image at a time, float32, random weights, in processor time of one thread: the process's own, so that other work on
the machine changes it little. FLOPs are 2 a multiply-add. At 128 px, with a small backbone, what is not convolution
weighs far more than on photographs; and Selective Search is Python and Cython here, not C.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import cv2
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import Figure
from contracts.searching import Search
from lightning_modules.base.families import DetectorSpec, InstanceSegmenterSpec, RegionDetectorSpec
from lightning_modules.blocks.pixels import to_channels_last
from lightning_modules.blocks.torchvision_detectors import build_torchvision
from lightning_modules.models import (
    fast_rcnn,
    faster_rcnn,
    grid_boxes,
    mask_rcnn,
    rcnn,
    retinanet,
    ssd,
    torchvision_detector,
    torchvision_instances,
    yolo,
)
from lightning_modules.ops.proposing import search_regions
from lightning_modules.ops.windows import random_boxes
from pipeline.ingest.worlds import voc_scenes

SIDE, CLASSES, REGIONS = 128, 6, 100
NUMBERS = (25, 50, 100, 200, 400)
WARM, REPEATS = 2, 7
LARGE_SIDE = 320
PAPER = {"levels": ("c4",), "pyramid": False, "pooling": "max", "anchors": (0.22, 0.36, 0.58)}
Predict = Callable[[], Any]


def measure() -> list[Figure]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            return [*_side_by_side(), *_by_regions(), *_rpn_share(), *_beside_torchvision()]
    finally:
        torch.set_num_threads(threads)


def _ms(predict: Predict, repeats: int = REPEATS) -> float:
    spent = []
    for i in range(WARM + repeats):
        start = time.process_time()
        predict()
        if i >= WARM:
            spent.append(time.process_time() - start)
    return 1000 * statistics.median(spent)


def _gflop(predict: Predict) -> float:
    with FlopCounterMode(display=False) as counter:
        predict()
    return counter.get_total_flops() / 1e9


def _images(side: int) -> Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (1, side, side, 3), dtype=torch.uint8, generator=random).permute(0, 3, 1, 2)


def _ready(model: nn.Module) -> nn.Module:
    return to_channels_last(model).eval()


def _regions(number: int, side: int = SIDE) -> list[Tensor]:
    return [torch.from_numpy(random_boxes((side, side), number, seed=0, min_side=12))]


def _detectors() -> Iterator[tuple[str, nn.Module, Predict]]:
    spec = DetectorSpec(num_foreground_classes=CLASSES, image_size=SIDE)
    masks = InstanceSegmenterSpec(num_foreground_classes=CLASSES, image_size=SIDE)
    given = RegionDetectorSpec(num_foreground_classes=CLASSES, image_size=SIDE)
    images = _images(SIDE)
    whole: dict[str, Callable[[], nn.Module]] = {
        "Faster R-CNN, one map": lambda: faster_rcnn.Model(faster_rcnn.Config(**PAPER), spec),
        "Faster R-CNN, pyramid": lambda: faster_rcnn.Model(faster_rcnn.Config(), spec),
        "Mask R-CNN": lambda: mask_rcnn.Model(mask_rcnn.Config(), masks),
        "SSD": lambda: ssd.Model(ssd.Config(), spec),
        "RetinaNet": lambda: retinanet.Model(retinanet.Config(), spec),
        "YOLOv1": lambda: yolo.Model(yolo.Config(), spec),
        "grid_boxes": lambda: grid_boxes.Model(grid_boxes.Config(), spec),
    }
    for name, make in whole.items():
        torch.manual_seed(0)
        model = _ready(make())
        yield name, model, lambda model=model: model(images, detect=True)
    for name, model in _of_regions(given).items():
        regions = _regions(REGIONS)
        yield f"{name}, {REGIONS} regions", model, lambda model=model, r=regions: model(images, r, detect=True)


def _of_regions(spec: RegionDetectorSpec) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {
        "R-CNN": _ready(rcnn.Model(rcnn.Config(), spec)),
        "Fast R-CNN": _ready(fast_rcnn.Model(fast_rcnn.Config(), spec)),
    }


def _side_by_side() -> Iterator[Figure]:
    for name, model, predict in _detectors():
        what = f"{name}, {SIDE} px"
        yield Figure(what=f"{what}: prediction", value=_ms(predict), unit="ms")
        yield Figure(what=f"{what}: prediction", value=_gflop(predict), unit="GFLOP")
        yield Figure(what=f"{what}: parameters", value=sum(p.numel() for p in model.parameters()) / 1e6, unit="M")


def _by_regions() -> Iterator[Figure]:
    """Proposals are searched once, whoever looks at them: the first of the stacked times."""
    images, spec = _images(SIDE), RegionDetectorSpec(num_foreground_classes=CLASSES, image_size=SIDE)
    yield Figure(what=f"Selective Search, fast, {SIDE} px scene", value=_search_ms(), unit="ms")
    models = _of_regions(spec)
    for number in NUMBERS:
        regions = _regions(number)
        spent, flop = {}, {}
        for name, model in models.items():

            def predict(model: nn.Module = model, regions: list[Tensor] = regions) -> Any:
                return model(images, regions, detect=True)

            spent[name], flop[name] = _ms(predict), _gflop(predict)
        for unit, found in (("ms", spent), ("GFLOP", flop)):
            yield Figure(
                what=f"Fast R-CNN, {number} regions", value=found["Fast R-CNN"], unit=unit, beside="R-CNN",
                other=found["R-CNN"], goal="5 x at 100" if number == REGIONS else "",
            )  # fmt: skip


@cache
def _search_ms() -> float:
    scene = voc_scenes.scene_of(voc_scenes.Config(), "val", 0)
    data = cv2.imencode(".png", scene.image)[1].tobytes()
    search = Search(scales=(25, 50), min_side=8, max_boxes=REGIONS)
    return _ms(lambda: search_regions(data, scene.image.shape[:2], search), repeats=3)


def _rpn_share() -> Iterator[Figure]:
    spec = DetectorSpec(num_foreground_classes=CLASSES, image_size=SIDE)
    torch.manual_seed(0)
    model: Any = _ready(faster_rcnn.Model(faster_rcnn.Config(**PAPER), spec))
    batch = model._batch(_images(SIDE), None)
    features = model.pyramid(model.backbone(batch.tensors))
    proposing = _ms(lambda: model._propose(batch, features, None))
    yield Figure(
        what="Faster R-CNN: its proposals", value=proposing, unit="ms", beside="Selective Search", other=_search_ms(),
        goal="20 x",
    )  # fmt: skip
    whole = _ms(lambda: model(_images(SIDE), detect=True))
    yield Figure(what="Faster R-CNN: its proposals", value=proposing, unit="ms", beside="all of it", other=whole)


def _beside_torchvision() -> Iterator[Figure]:
    """Both letterbox nothing here: the image has the size that torchvision's transform is told to make."""
    for module, spec_class, names in (
        (torchvision_detector, DetectorSpec, ("fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn", "ssd300_vgg16")),
        (torchvision_instances, InstanceSegmenterSpec, ("maskrcnn_resnet50_fpn",)),
    ):
        for name in names:
            side = 300 if name.startswith("ssd") else LARGE_SIDE
            config = module.Config(architecture=name, norm="frozen")
            torch.manual_seed(0)
            theirs: Any = build_torchvision(config, CLASSES + (not name.startswith("retinanet")))
            if not name.startswith("ssd"):
                theirs.transform.min_size, theirs.transform.max_size = (side,), side
            torch.manual_seed(0)
            ours = module.Model(config, spec_class(num_foreground_classes=CLASSES, image_size=side))
            images, floats = _images(side), [_images(side)[0].float() / 255]
            ours, theirs = _ready(ours), _ready(theirs)
            yield Figure(
                what=f"{name}, {side} px: ours", value=_ms(lambda ours=ours, x=images: ours(x, detect=True), 5),
                unit="ms", beside="torchvision", other=_ms(lambda theirs=theirs, x=floats: theirs(x), 5),
                goal=">= 1 x",
            )  # fmt: skip
