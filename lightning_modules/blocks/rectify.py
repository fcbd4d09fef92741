"""A spatial transformer with thin-plate splines for lines of text (1603.03915), as 1904.01906 has it.

A small network finds F points along the upper and the lower edge of the text; the picture is bent so that they lie on
straight edges. Shapes: B pictures (B, C, H, W).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_CHANNELS = (64, 128, 256, 512)
_HIDDEN = 256


class ThinPlateSpline(nn.Module):
    """(B, C, H, W) -> (B, C, *size), float32. It begins by leaving the picture as it is."""

    from_points: Tensor
    from_pixels: Tensor

    def __init__(self, channels: int, size: tuple[int, int], *, num_points: int = 20):
        """`num_points` is F, half of them on each edge."""
        super().__init__()
        self.size = size
        layers: list[nn.Module] = []
        for before, after in zip((channels, *_CHANNELS), _CHANNELS, strict=False):
            convolution = nn.Conv2d(before, after, 3, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers[:-1], nn.AdaptiveAvgPool2d(1))
        self.hidden = nn.Linear(_CHANNELS[-1], _HIDDEN)
        self.points = nn.Linear(_HIDDEN, 2 * num_points)
        on_edges = _edge_points(num_points)
        # Constants of the size, not of the training: left out of checkpoints.
        self.register_buffer("from_points", _inverse_system(on_edges).float(), persistent=False)
        self.register_buffer("from_pixels", _bases(_pixel_centers(size), on_edges).float(), persistent=False)
        self.restart()

    @torch.no_grad()
    def restart(self) -> None:
        """The points on the picture's edges, whatever it shows."""
        self.points.weight.zero_()
        self.points.bias.copy_(_edge_points(self.points.out_features // 2).flatten())

    def forward(self, images: Tensor) -> Tensor:
        found = torch.relu(self.hidden(self.features(images).flatten(1)))
        with torch.autocast(images.device.type, enabled=False):
            points = self.points(found.float()).unflatten(1, (-1, 2))
            system = self.from_points @ F.pad(points, (0, 0, 0, 3))  # (B, F + 3, 2)
            grid = (self.from_pixels @ system).unflatten(1, self.size)
            return F.grid_sample(images.float(), grid, padding_mode="border", align_corners=True)


def _edge_points(number: int) -> Tensor:
    """(F, 2): x and y in -1..1, the upper edge from left to right, then the lower one."""
    x = torch.linspace(-1, 1, number // 2, dtype=torch.float64)
    return torch.cat([torch.stack([x, torch.full_like(x, y)], dim=1) for y in (-1.0, 1.0)])


def _pixel_centers(size: tuple[int, int]) -> Tensor:
    """(H * W, 2): x and y in -1..1, row by row."""
    rows, columns = (
        (torch.arange(-length, length, 2, dtype=torch.float64) + 1) / length for length in size
    )  # fmt: skip
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1)


def _radial(distances: Tensor) -> Tensor:
    """r^2 log r, 0 at 0."""
    return torch.where(distances > 0, distances.square() * distances.clamp(min=1e-12).log(), 0.0)


def _bases(places: Tensor, points: Tensor) -> Tensor:
    """(N, 2) and (F, 2) -> (N, F + 3): 1, x, y and a radial function of the distance to each point."""
    ones = torch.ones(len(places), 1, dtype=places.dtype)
    return torch.cat([ones, places, _radial(torch.cdist(places, points))], dim=1)


def _inverse_system(points: Tensor) -> Tensor:
    """(F + 3, F + 3): of the equations that a spline through the points fulfils."""
    sides = torch.cat([torch.ones(len(points), 1, dtype=points.dtype), points], dim=1)
    bend = torch.cat([sides, _radial(torch.cdist(points, points))], dim=1)
    straight = torch.cat([torch.zeros(3, 3, dtype=points.dtype), sides.T], dim=1)
    return torch.linalg.inv(torch.cat([bend, straight]))
