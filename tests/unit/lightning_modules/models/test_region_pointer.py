"""Pointing: a box's score is that of what is in it and where it is."""

from __future__ import annotations

import torch

from lightning_modules.base.families import PointerSpec
from lightning_modules.models.region_pointer import Config, Model

IMAGES = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
QUESTIONS, LENGTHS, OF = torch.tensor([[4, 5, 6], [8, 0, 0]]), [3, 1], torch.tensor([0, 1])
BOXES = torch.tensor([[0.0, 0, 20, 20], [30, 30, 60, 64], [5, 40, 25, 60], [40, 0, 64, 24]])
BOX_OF = torch.tensor([0, 0, 1, 1])


def small(**settings) -> Model:
    torch.manual_seed(0)
    return Model(Config(embedding_channels=8, hidden_channels=12, **settings), PointerSpec(vocabulary_size=11)).eval()


def point(model: Model, images=IMAGES, questions=QUESTIONS, order=(0, 1, 2, 3)) -> torch.Tensor:
    rows = list(order)
    return model(images, questions, LENGTHS, OF, BOXES[rows], BOX_OF[rows])


def test_permuting_candidates_permutes_scores() -> None:
    model, order = small(), [3, 0, 2, 1]
    assert point(model).dtype == torch.float32
    torch.testing.assert_close(point(model, order=order), point(model)[order], atol=1e-6, rtol=1e-5)


def test_a_region_is_the_mean_over_its_box_and_five_numbers() -> None:
    """On a map that says of each place its column, a box's mean is its middle's."""
    model = small()
    columns = torch.arange(4.0).expand(2, 160, 4, 4)
    model.backbone = _Maps(columns)
    regions = model._regions(IMAGES, torch.tensor([[16.0, 0, 48, 64]]), torch.tensor([1]))
    torch.testing.assert_close(regions[0, :160], torch.full((160,), 1.5))  # x 32 of 64: between places 1 and 2
    torch.testing.assert_close(regions[0, 160:], torch.tensor([0.25, 0, 0.75, 1, 0.5]))


class _Maps(torch.nn.Module):
    def __init__(self, maps: torch.Tensor):
        super().__init__()
        self.maps = maps

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"c4": self.maps}


def test_blind_to_the_image_all_boxes_are_the_same() -> None:
    blind = small(blind_to="image")
    scores = point(blind)
    torch.testing.assert_close(scores[[0, 2]], scores[[1, 3]])
    assert torch.equal(point(blind, images=IMAGES.flip(0)), scores)


def test_blind_to_the_question_no_word_counts() -> None:
    blind = small(blind_to="question")
    assert torch.equal(point(blind), point(blind, questions=QUESTIONS.flip(0)))
    assert not torch.allclose(point(small()), point(small(), questions=QUESTIONS.flip(0)), atol=1e-5)
