import pytest
import torch

from lightning_modules.base.families import AnswererSpec
from lightning_modules.models.lstm_vqa import Config, Model


def _model(pool="mean"):
    torch.manual_seed(0)
    config = Config(embedding_channels=16, hidden_channels=24, fused_channels=20, pool=pool)
    return Model(config, AnswererSpec(vocabulary_size=11, num_answers=7)).eval()


IMAGES = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
QUESTIONS = torch.tensor([[4, 5, 6, 7], [8, 0, 0, 0], [9, 10, 4, 0], [4, 5, 6, 7]])
LENGTHS = [4, 1, 3, 4]


@pytest.mark.parametrize("pool", ["mean", "attention"])
def test_shape_and_dtype_under_autocast(pool):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = _model(pool)(IMAGES, QUESTIONS, LENGTHS, torch.tensor([0, 0, 1, 2]))
    assert logits.shape == (4, 7)
    assert logits.dtype == torch.float32


@pytest.mark.parametrize("pool", ["mean", "attention"])
def test_each_question_is_answered_on_its_own_image_whatever_the_batch(pool):
    model = _model(pool)
    question_image = torch.tensor([0, 0, 1, 2])
    together = model(IMAGES, QUESTIONS, LENGTHS, question_image)
    for q in range(4):
        image = IMAGES[question_image[q]][None]
        alone = model(image, QUESTIONS[q : q + 1, : LENGTHS[q]], LENGTHS[q : q + 1], torch.tensor([0]))
        torch.testing.assert_close(alone[0], together[q], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(together[0], together[3], atol=1e-4)  # same question, another image


def test_one_question_alone_can_be_trained_on():
    model = _model().train()
    logits = model(IMAGES[:1], QUESTIONS[:1], LENGTHS[:1], torch.tensor([0]))
    logits.sum().backward()
    assert torch.isfinite(logits).all()


def test_the_scale_of_the_feature_does_not_matter():
    """ "norm I": unit length, so a brighter copy of a feature map is the same image."""
    model = _model()
    question_image = torch.tensor([0, 0, 1, 2])
    expected = model(IMAGES, QUESTIONS, LENGTHS, question_image)
    model.center.weight.data *= 3
    model.center.bias.data *= 3
    torch.testing.assert_close(model(IMAGES, QUESTIONS, LENGTHS, question_image), expected)
