"""The image enters by W_ih v: the equation, the counts of NeuralTalk2, and what follows where it does not enter."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from contracts.errors import ConfigError
from lightning_modules.base.families import CaptionerSpec
from lightning_modules.blocks.decoding import beam_search, sample
from lightning_modules.blocks.vgg import VGG16FC7
from lightning_modules.models.recurrent_captioner import Config, Decoder, Model

V, E, H, D = 11, 16, 24, 10
SMALL = Config(embedding_channels=E, hidden_channels=H, dropout=0.0)
INJECTS = ("first", "every", "token", "none")


def decoder(inject: str = "first", cell: str = "lstm") -> Decoder:
    torch.manual_seed(0)
    config = replace(SMALL, inject=inject, cell=cell)  # type: ignore[arg-type]
    return Decoder(config, image_channels=D, vocabulary_size=V).eval()


def image(rows: int = 3) -> torch.Tensor:
    return torch.randn(rows, D, generator=torch.Generator().manual_seed(1))


TOKENS = torch.tensor([[2, 5, 6, 7], [2, 8, 9, 4], [2, 4, 4, 10]])


@pytest.mark.parametrize("cell", ["elman", "lstm"])
@pytest.mark.parametrize("inject", INJECTS)
def test_steps_equal_torchs_layer_with_the_image_among_its_inputs(cell, inject):
    """`W_hx x + W_ih v` is one matrix times both: torch's layer reads the word and, where it enters, the image."""
    d = decoder(inject, cell)
    rnn = (nn.LSTM if cell == "lstm" else nn.RNN)(E + D, H, batch_first=True)
    with torch.no_grad():
        from_image = d.from_image.weight if d.from_image is not None else torch.zeros(len(d.from_word.weight), D)
        rnn.weight_ih_l0.copy_(torch.cat([d.from_word.weight, from_image], dim=1))
        rnn.bias_ih_l0.copy_(d.from_word.bias)
        rnn.weight_hh_l0.copy_(d.from_hidden.weight)
        rnn.bias_hh_l0.copy_(d.from_hidden.bias)
        v = image()
        words, seen = d.embed(TOKENS), v.unsqueeze(1).repeat(1, 4, 1)
        if inject == "token":
            words = torch.cat([d.image_token(v).unsqueeze(1), words], dim=1)
            seen = torch.zeros(3, 5, D)
        elif inject == "first":
            seen[:, 1:] = 0
        outputs = rnn(torch.cat([words, seen], dim=2))[0][:, -4:]
        expected = d.vocabulary(outputs)
        torch.testing.assert_close(d(d.start(v), TOKENS), expected, atol=1e-5, rtol=1e-5)
        state = d.start(v)
        for t in range(4):
            logits, state = d.step(state, TOKENS[:, t])
            torch.testing.assert_close(logits, expected[:, t], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("inject", INJECTS)
def test_with_w_ih_zero_all_images_have_one_caption(inject):
    d = decoder(inject)

    def captions() -> list[list[int]]:
        found = beam_search(
            lambda tokens, state: (*d.step(state, tokens), torch.ones(len(tokens), 1)),
            d.start(50 * image(8)), num_inputs=8, beam_size=1, max_length=6, begin=2, end=3,
        )  # fmt: skip
        return found.tokens.tolist()

    differing = len(set(map(tuple, captions())))
    assert (differing > 1) == (inject != "none"), "large images move the words unless they do not enter"
    with torch.no_grad():
        for layer in (d.from_image, d.image_token):
            if layer is not None:
                layer.weight.zero_()
    assert len(set(map(tuple, captions()))) == 1


def test_first_and_every_differ_from_the_second_word_on():
    first, every = decoder("first"), decoder("every")
    every.load_state_dict(first.state_dict())
    a, b = first(first.start(image()), TOKENS), every(every.start(image()), TOKENS)
    torch.testing.assert_close(a[:, 0], b[:, 0])
    assert not torch.allclose(a[:, 1], b[:, 1], atol=1e-3)


@pytest.mark.parametrize("vocabulary", [100, 9568])
def test_neuraltalk2s_language_model_has_so_many_parameters(vocabulary):
    """2,101,248 of the LSTM and 1,025 a word, of which the paper's V has one more for START and END."""
    config = Config(embedding_channels=512, hidden_channels=512, inject="none")
    d = Decoder(config, image_channels=512, vocabulary_size=vocabulary)
    assert sum(p.numel() for p in d.parameters()) == 2_101_248 + 1_025 * vocabulary


def test_an_untrained_model_without_output_weights_knows_nothing():
    d = decoder()
    with torch.no_grad():
        d.vocabulary.weight.zero_()
        d.vocabulary.bias.zero_()
        logits = d(d.start(image()), TOKENS)
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), TOKENS.flatten())
    assert loss.item() == pytest.approx(math.log(V), abs=1e-6)


def test_colder_draws_become_greedy():
    d = decoder("every")
    with torch.no_grad():
        d.vocabulary.weight.mul_(20)  # so that no two words are nearly alike
    settings = {"num_inputs": 6, "max_length": 7, "begin": 2, "end": 3}

    def step(tokens, state):
        return *d.step(state, tokens), torch.ones(len(tokens), 1)

    greedy = beam_search(step, d.start(image(6)), beam_size=1, **settings)
    cold, warm = (
        sample(step, d.start(image(6)), temperature=t, generator=torch.Generator().manual_seed(3), **settings)
        for t in (1e-3, 3.0)
    )
    assert cold.tokens.tolist() == greedy.tokens.tolist() != warm.tokens.tolist()


def test_temperature_by_hand():
    """p = (.5, .25, .25): at T = .5 (2/3, 1/6, 1/6), at T = 2 (.4142, .2929, .2929)."""
    logits = torch.tensor([0.5, 0.25, 0.25]).log().repeat(20_000, 1)
    for temperature, expected in ((0.5, (0.6667, 0.1667, 0.1667)), (2.0, (0.4142, 0.2929, 0.2929))):
        drawn = sample(
            lambda tokens, state: (logits, state, state), torch.zeros(20_000, 1), temperature=temperature,
            generator=torch.Generator().manual_seed(0), num_inputs=20_000, max_length=1, begin=0, end=0,
        )  # fmt: skip
        shares = drawn.tokens.flatten().bincount(minlength=3) / 20_000
        torch.testing.assert_close(shares, torch.tensor(expected), atol=0.01, rtol=0)


def test_vgg_16_up_to_fc7():
    """138,357,544 less the last layer's 4,097,000; frozen, it drops nothing out, in training either."""
    with torch.device("meta"):
        assert sum(p.numel() for p in VGG16FC7().parameters()) == 134_260_544
    cut = VGG16FC7.__new__(VGG16FC7)
    nn.Module.__init__(cut)
    cut.features, cut.avgpool = nn.Conv2d(3, 8, 1), nn.AdaptiveAvgPool2d(4)  # its own layers take half a gigabyte
    cut.classifier = nn.Sequential(nn.Linear(128, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.Dropout())
    x = torch.randn(2, 3, 32, 32)
    assert cut(x)["fc7"].shape == (2, 4096, 1, 1)
    assert not torch.equal(cut.train()(x)["fc7"], cut(x)["fc7"])
    cut.requires_grad_(False)
    assert torch.equal(cut(x)["fc7"], cut.eval()(x)["fc7"])


def test_fc7_is_of_vgg_alone():
    with pytest.raises(ConfigError, match=r"fc7 is a layer of VGG-16: 'resnet18'"):
        Config(features="fc7", backbone="resnet18")
    Config(features="fc7", backbone="vgg16")


def test_one_place_an_image():
    torch.manual_seed(0)
    model = Model(SMALL, CaptionerSpec(vocabulary_size=V)).eval()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    features = model.encode(images)
    assert features.shape == (2, 224, 1, 1)
    torch.testing.assert_close(features[..., 0, 0], model.backbone(model.normalise(images))["c5"].mean((2, 3)))
    _, attention = model.decode(features, TOKENS, torch.tensor([0, 1, 1]))
    assert attention.shape == (3, 4, 1) and bool((attention == 1).all())
