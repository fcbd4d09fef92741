"""Parts of a model in a form that torch's exporter takes, with the same weights and the same numbers.

What stands in its way: `PixelNorm`, which writes in place and looks at the memory it was given; packed sequences, which
ONNX does not know, though its recurrent operators take lengths; and torchvision's suppression by class and pooling from
several maps, which ask how many boxes there are.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
import torchvision
from torch import Tensor, nn
from torchvision.ops import MultiScaleRoIAlign, roi_align

from lightning_modules.blocks.language import RecurrentEncoder
from lightning_modules.blocks.pixels import PixelNorm
from lightning_modules.blocks.single_map import RoIMaxPool

OPSET = 18
# Rows of a gate in torch's order, and where ONNX has each: LSTM i f g o -> i o f c, GRU r z n -> z r h.
_GATES = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}


def exportable(model: nn.Module) -> nn.Module:
    """A copy on the CPU, in evaluation mode, its parts replaced. The model stays as it is."""
    return _replaced(copy.deepcopy(model).cpu().eval())


def _replaced(module: nn.Module) -> nn.Module:
    for name, child in list(module.named_children()):
        if isinstance(child, PixelNorm):
            setattr(module, name, PlainNorm(child))
        elif isinstance(child, RecurrentEncoder):
            setattr(module, name, OnnxRecurrentEncoder(child))
        elif isinstance(child, MultiScaleRoIAlign) and len(child.featmap_names) > 1:
            setattr(module, name, LevelRoIAlign(child))
        elif isinstance(child, RoIMaxPool):
            setattr(module, name, OnnxRoIMaxPool(child))
        else:
            _replaced(child)
    return module


class PlainNorm(nn.Module):
    """`PixelNorm` without its care for memory."""

    def __init__(self, norm: PixelNorm):
        super().__init__()
        self.register_buffer("scale", norm.scale[:, None, None].clone())
        self.register_buffer("offset", norm.offset[:, None, None].clone())

    def forward(self, images: Tensor) -> Tensor:
        return images.float() * cast(Tensor, self.scale) + cast(Tensor, self.offset)


class OnnxRecurrentEncoder(nn.Module):
    """`RecurrentEncoder` in ONNX's own operators, which take each row's length. It runs in an exported graph alone."""

    def __init__(self, encoder: RecurrentEncoder):
        super().__init__()
        self.out_channels = encoder.out_channels
        self.layers = nn.ModuleList(OnnxLayer(encoder.rnn, layer) for layer in range(encoder.rnn.num_layers))
        self.rnn = encoder.rnn  # for who goes on a step at a time

    def forward(self, steps: Tensor, lengths: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(N, T, C) and (N,) int64 -> as `RecurrentEncoder`."""
        states = []
        for layer in self.layers:
            steps, state = layer(steps, lengths)
            states.append(state)
        return steps, tuple(torch.stack(parts, dim=1) for parts in zip(*states, strict=True))


class OnnxLayer(nn.Module):
    """One layer of a stack, in both directions where it has them."""

    def __init__(self, rnn: nn.RNNBase, layer: int):
        super().__init__()
        self.kind = type(rnn).__name__
        assert rnn.batch_first and (self.kind != "RNN" or rnn.nonlinearity == "tanh"), "not what is exported"
        self.hidden, self.directions = rnn.hidden_size, 2 if rnn.bidirectional else 1
        weights: list[list[Tensor]] = [[], [], []]
        for suffix in ("", "_reverse")[: self.directions]:
            own = [getattr(rnn, f"{name}_l{layer}{suffix}") for name in ("weight_ih", "weight_hh")]
            biases = [getattr(rnn, f"{name}_l{layer}{suffix}", None) for name in ("bias_ih", "bias_hh")]
            flat = [torch.zeros(len(own[0])) if bias is None else bias for bias in biases]
            for into, rows in zip(weights, (*own, torch.stack(flat)), strict=True):
                into.append(self._reordered(rows))
        for name, parts in zip(("from_input", "from_hidden", "bias"), weights, strict=True):
            self.register_buffer(name, torch.stack(parts).detach().contiguous())

    def _reordered(self, rows: Tensor) -> Tensor:
        if rows.shape[0] == 2:  # both biases, which ONNX has in one row, one after the other
            return torch.cat([self._reordered(row[:, None])[:, 0] for row in rows])
        parts = rows.chunk(len(_GATES[self.kind]))
        return torch.cat([parts[i] for i in _GATES[self.kind]])

    def forward(self, steps: Tensor, lengths: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(N, T, C) and (N,) int64 -> outputs (N, T, RH), 0 behind a row's end, and the last state, each (N, RH)."""
        rows, length, _ = steps.shape
        num = self.directions
        attributes: dict[str, Any] = {"hidden_size": self.hidden}
        attributes |= {"direction": "bidirectional"} if num == 2 else {}
        attributes |= {"linear_before_reset": 1} if self.kind == "GRU" else {}
        state = [num, rows, self.hidden]
        weights: tuple[Any, ...] = (self.from_input, self.from_hidden, self.bias)
        outputs, *last = torch.onnx.ops.symbolic_multi_out(
            self.kind,
            (steps.transpose(0, 1), *weights, lengths.to(torch.int32)),
            attributes,
            dtypes=[torch.float32] * (3 if self.kind == "LSTM" else 2),
            shapes=[[length, num, rows, self.hidden], *[state] * (2 if self.kind == "LSTM" else 1)],
        )
        joined = outputs.permute(2, 0, 1, 3).flatten(2)
        return joined, tuple(part.transpose(0, 1).flatten(1) for part in last)


class LevelRoIAlign(nn.Module):
    """`MultiScaleRoIAlign` of several maps, whose scales are known."""

    def __init__(self, pool: MultiScaleRoIAlign):
        super().__init__()
        assert pool.scales is not None and pool.map_levels is not None
        self.names, self.scales, self.level_of = list(pool.featmap_names), list(pool.scales), pool.map_levels
        self.size, self.sampling_ratio = pool.output_size, pool.sampling_ratio

    def forward(self, features: Any, boxes: Sequence[Tensor], sizes: Any) -> Tensor:
        (own,) = boxes  # of one image
        rois = torch.cat([torch.zeros_like(own[:, :1]), own], dim=1)
        levels = self.level_of([own])
        out = own.new_zeros(own.shape[0], features[self.names[0]].shape[1], *self.size)
        for level, (name, scale) in enumerate(zip(self.names, self.scales, strict=True)):
            rows = torch.where(levels == level)[0]
            pooled = roi_align(features[name], rois[rows], self.size, scale, self.sampling_ratio)
            out = out.index_put((rows,), pooled)
        return out


class OnnxRoIMaxPool(nn.Module):
    """`RoIMaxPool` by ONNX's operator, which torch's exporter does not find. It runs in an exported graph alone."""

    def __init__(self, pool: RoIMaxPool):
        super().__init__()
        self.level, self.size, self.scale = pool.level, pool.size, pool.scale

    def forward(self, features: Any, boxes: Sequence[Tensor], sizes: Any) -> Tensor:
        (own,) = boxes  # of one image
        last_pixels = own - own.new_tensor([0.0, 0.0, 1.0, 1.0])
        rois = torch.cat([torch.zeros_like(own[:, :1]), last_pixels], dim=1)
        maps = features[self.level]
        pooled: Tensor = torch.onnx.ops.symbolic(
            "MaxRoiPool",
            (maps, rois),
            {"pooled_shape": [self.size, self.size], "spatial_scale": self.scale},
            dtype=torch.float32,
            shape=[own.shape[0], maps.shape[1], self.size, self.size],
        )
        return pooled


@contextmanager
def exportable_functions() -> Iterator[None]:
    """Within, functions that no exporter takes are replaced by ones that give the same."""
    import lightning_modules.ops.suppression as suppression

    changes: list[tuple[Any, str, Any]] = [
        (torchvision.ops.boxes, "batched_nms", nms_by_group),
        (suppression, "batched_nms", nms_by_group),
    ]
    of_models = {"s2vt": ("_read", _read_with_lengths), "fast_rcnn": ("distinct", _all_distinct)}
    for name, (function_name, function) in of_models.items():
        if (module := sys.modules.get(f"lightning_modules.models.{name}")) is not None:
            changes.append((module, function_name, function))
    before = [getattr(module, name) for module, name, _ in changes]
    counting = [module for name, module in sys.modules.items() if name.startswith(_WITH_TENSORS)]
    try:
        for module, name, function in changes:
            setattr(module, name, function)
        for module in counting:
            vars(module)["len"] = num_rows
        yield
    finally:
        for (module, name, _), function in zip(changes, before, strict=True):
            setattr(module, name, function)
        for module in counting:
            del vars(module)["len"]


_WITH_TENSORS = ("lightning_modules.models.", "lightning_modules.blocks.")


def num_rows(values: Any) -> int:
    """`len`, which makes of a tensor's rows the number that the example has: a graph for batches of that size alone."""
    return values.shape[0] if isinstance(values, Tensor) else len(values)


def nms_by_group(boxes: Tensor, scores: Tensor, groups: Tensor, iou: float) -> Tensor:
    """`torchvision.ops.batched_nms` by its own trick alone: boxes of each group are moved to where no other's are."""
    apart = torch.cat([boxes.flatten(), boxes.new_zeros(1)]).max() + 1
    kept: Tensor = torchvision.ops.nms(boxes + (groups.to(boxes) * apart)[:, None], scores, iou)
    return kept


def _read_with_lengths(lstm: nn.LSTM, inputs: Tensor, lengths: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """`s2vt._read`."""
    outputs, state = OnnxLayer(lstm, 0)(inputs, lengths)
    return outputs, state


def _all_distinct(rows: Tensor) -> tuple[Tensor, Tensor]:
    """`fast_rcnn.distinct`, which saves reading equal regions twice; here each is read."""
    places = torch.arange(rows.shape[0])
    return places, places


def padded(part: Tensor, most: int) -> Tensor:
    """(D, ..) -> (`most`, ..), 0 behind the end; of more the first."""
    return torch.cat([part, part.new_zeros(most, *part.shape[1:])])[:most]


def as_sizes(sizes: Sequence[tuple[int, int]] | None, images: Sequence[Tensor]) -> Tensor:
    """(B, 2) int64 heights and widths; the whole images by default."""
    return torch.tensor([tuple(image.shape[-2:]) for image in images] if sizes is None else [tuple(s) for s in sizes])
