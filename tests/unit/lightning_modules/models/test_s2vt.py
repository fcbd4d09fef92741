"""S2VT: the paper's size, the same two LSTMs for reading and writing, and what the control cannot see."""

from __future__ import annotations

import pytest
import torch

from lightning_modules.base.families import ClipCaptionerSpec
from lightning_modules.blocks.recurrent import LSTMCell
from lightning_modules.models.s2vt import Config, Decoder, Model

SMALL = Config(backbone="tiny", features=6, embedding=5, hidden=4, dropout=0.0)


def decoder(mode: str = "s2vt") -> Decoder:
    torch.manual_seed(0)
    config = Config(backbone="tiny", features=6, embedding=5, hidden=4, dropout=0.0, mode=mode)  # type: ignore[arg-type]
    return Decoder(config, vocabulary_size=9).eval()


def test_the_papers_size() -> None:
    """s2vt.prototxt with its 46,168 words, on the meta device: no memory."""
    with torch.device("meta"):
        made = Decoder(Config(backbone="tiny", features=4096, embedding=500, hidden=1000), vocabulary_size=46_168)
    second_biases = 2 * 4 * 1000  # caffe has one bias a gate, torch two
    assert sum(p.numel() for p in made.parameters()) - second_biases == 87_358_668


def test_it_is_the_paper_step_by_step() -> None:
    """Two explicit cells, one input a step: frames with null words, then null frames with words, state carried over."""
    net = decoder()
    features, tokens = torch.randn(1, 3, 6), torch.tensor([[2, 7, 5]])
    one, two = LSTMCell.of(net.first), LSTMCell.of(net.second)
    first, second = one.start(1), two.start(1)
    null_word, expected = torch.zeros(1, 5), []
    for t in range(3):
        seen, first = one(net.embed_frame(features[:, t]), first)
        _, second = two(torch.cat([seen, null_word, torch.zeros(1, 1)], dim=1), second)
    for t in range(3):
        seen, first = one(net.embed_frame(torch.zeros(1, 6)), first)
        word = net.embed_word(tokens[:, t])
        written, second = two(torch.cat([seen, word, torch.ones(1, 1)], dim=1), second)
        expected.append(net.vocabulary(written))
    logits = net.write(*net.read(features, [3]), tokens, torch.tensor([0]))
    torch.testing.assert_close(logits[0], torch.cat(expected), atol=1e-6, rtol=1e-5)


def test_a_word_depends_on_every_frame_and_on_words_before_it() -> None:
    net = decoder()
    features = torch.randn(1, 3, 6, requires_grad=True)
    tokens = torch.tensor([[2, 7, 5]])
    logits = net.write(*net.read(features, [3]), tokens, torch.tensor([0]))
    (gradient,) = torch.autograd.grad(logits[0, 0].square().sum(), features)
    assert (gradient.abs().sum(dim=2) > 0).all()
    changed = net.write(*net.read(features, [3]), torch.tensor([[2, 7, 8]]), torch.tensor([0]))
    assert torch.equal(changed[:, :2], logits[:, :2]) and not torch.equal(changed[:, 2], logits[:, 2])


@pytest.mark.parametrize(("mode", "knows_order"), [("s2vt", True), ("mean_pool", False)])
def test_the_control_knows_no_order_and_has_the_same_layers(mode: str, knows_order: bool) -> None:
    net, features = decoder(mode), torch.randn(1, 4, 6)
    tokens, clip = torch.tensor([[2, 7]]), torch.tensor([0])
    straight, backwards = (net.write(*net.read(x, [4]), tokens, clip) for x in (features, features.flip(1)))
    assert torch.allclose(straight, backwards, atol=1e-6) != knows_order
    assert [p.shape for p in net.parameters()] == [p.shape for p in decoder().parameters()]


def test_padding_of_clips_changes_nothing() -> None:
    torch.manual_seed(0)
    net = Model(SMALL, ClipCaptionerSpec(vocabulary_size=9)).eval()
    features = torch.randn(2, 5, 6)
    features[0, 2:] = 7.0
    for part, alone in zip(net.start(features, [2, 5]), net.start(features[:1, :2], [2]), strict=True):
        for tensor, expected in zip(part, alone, strict=True):
            torch.testing.assert_close(tensor[:1], expected)
