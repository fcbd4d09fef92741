"""Masks of dependence side by side: which output hangs on which input, drawn from measured Jacobians."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from pipeline.measuring.charts import DPI


@dataclass(frozen=True, kw_only=True)
class Mask:
    """`size` (outputs, inputs) is 0 or more: exactly 0 where an output does not hang on an input. `inputs` names the
    columns."""

    title: str
    inputs: Sequence[str]
    size: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Masks:
    """A figure of `masks`, called `name` as plots are."""

    name: str
    title: str
    masks: Sequence[Mask]


def draw_masks(figure_of: Masks) -> Figure:
    """White is exactly 0; what is not is blue, the darker the larger (by logarithm), with the number in it."""
    masks = figure_of.masks
    widths = [max(2, len(mask.inputs)) for mask in masks]
    figure = Figure(figsize=(2.0 + 0.5 * sum(widths), 3.4), dpi=DPI, layout="constrained")
    figure.suptitle(figure_of.title, fontsize=11)
    for axes, mask in zip(figure.subplots(1, len(masks), width_ratios=widths), masks, strict=True):
        there = mask.size > 0
        shade = np.zeros(mask.size.shape)
        logs = np.log10(mask.size[there])
        shade[there] = 0.35 + 0.5 * np.clip((logs + 4) / 4, 0, 1)  # 1e-4 and less is the palest
        axes.imshow(shade, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.argwhere(there):
            number = (
                f"{mask.size[row, column]:.0e}" if mask.size[row, column] < 0.01 else f"{mask.size[row, column]:.2f}"
            )
            axes.text(column, row, number, ha="center", va="center", fontsize=5.5, color="white")
        axes.set_xticks(range(len(mask.inputs)), mask.inputs, fontsize=7, rotation=90)
        axes.set_yticks(range(len(mask.size)), [f"y{t + 1}" for t in range(len(mask.size))], fontsize=7)
        axes.set_xticks(np.arange(len(mask.inputs) + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(len(mask.size) + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="#999999", linewidth=0.6)
        axes.tick_params(which="both", length=0)
        axes.set_title(mask.title, fontsize=8)
    return figure
