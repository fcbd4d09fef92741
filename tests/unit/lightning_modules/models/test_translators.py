"""Both translators: the papers' sizes, their start, what is read in which order, and where they look."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from contracts.errors import ConfigError
from lightning_modules.base.families import TranslatorSpec
from lightning_modules.models import attention_translator, vector_translator
from lightning_modules.models.attention_translator import PaperEncoder, gru_step
from lightning_modules.models.vector_translator import reversed_words

SPEC = TranslatorSpec(source_vocabulary_size=11, target_vocabulary_size=13)
SOURCES, LENGTHS = torch.tensor([[4, 5, 6, 3], [7, 3, 0, 0]]), [4, 2]
TARGETS = torch.tensor([[2, 4, 12], [2, 5, 0]])
SMALL = {"encoder_channels": 6, "embedding_channels": 5, "attention_channels": 7, "output_channels": 4}
LOOKS = [
    {"attention": "additive", "decoder_channels": 8},
    {"attention": "additive", "decoder_channels": 8, "encoder": "gru_paper"},
    {"attention": "dot", "decoder_channels": 12},
    {"attention": "general", "decoder_channels": 8},
]


def looking(**settings: object) -> attention_translator.Model:
    torch.manual_seed(0)
    return attention_translator.Model(attention_translator.Config(**{**SMALL, **settings}), SPEC).eval()


def counted(model: nn.Module, *, biases: bool) -> int:
    return sum(p.numel() for name, p in model.named_parameters() if ("bias" in name) == biases)


def test_the_size_of_the_attention_paper() -> None:
    """Without biases, K = 30,000: words 2 x 18.6 M, encoder 9.72 M, decoder 10.86 M, W_s 1 M, attention 3.001 M, output
    3.62 M, W_o 15 M."""
    config = attention_translator.Config(
        embedding_channels=620, encoder_channels=1000, decoder_channels=1000, attention_channels=1000,
        output_channels=500,
    )  # fmt: skip
    spec = TranslatorSpec(source_vocabulary_size=30_000, target_vocabulary_size=30_000)
    with torch.device("meta"):
        assert counted(attention_translator.Model(config, spec), biases=False) == 80_401_000


def test_the_size_of_the_vector_paper() -> None:
    """320 M of words and softmax, eight layers of 8 M; torch's cells have two biases each, 64,000 in all."""
    config = vector_translator.Config(layers=4, embedding_channels=1000, hidden_channels=1000)
    spec = TranslatorSpec(source_vocabulary_size=160_000, target_vocabulary_size=80_000)
    with torch.device("meta"):
        model = vector_translator.Model(config, spec)
    assert counted(model, biases=False) == 384_000_000
    assert counted(model, biases=True) == 64_000 + 80_000


def test_the_papers_start() -> None:
    """v_a = 0: every word is looked at alike, whatever the state; padding not at all."""
    model = looking(attention="additive", decoder_channels=8, start="paper")
    _, attention = model.decode(*model.encode(SOURCES, LENGTHS), TARGETS)
    torch.testing.assert_close(attention[0], torch.full((3, 4), 1 / 4))
    torch.testing.assert_close(attention[1], torch.tensor([[1 / 2, 1 / 2, 0, 0]]).expand(3, 4))
    for square in (*model.from_hidden.weight[:16].split(8), model.candidate.weight):
        torch.testing.assert_close(square @ square.T, torch.eye(8), atol=1e-5, rtol=0)
    assert not model.vocabulary.bias.any() and 0.005 < model.vocabulary.weight.std() < 0.02
    vector = vector_translator.Model(vector_translator.Config(start="paper", hidden_channels=8), SPEC)
    largest = max(float(parameter.detach().abs().max()) for parameter in vector.parameters())
    assert 0.07 < largest <= 0.08


@pytest.mark.parametrize("settings", LOOKS, ids=lambda settings: "-".join(map(str, settings.values())))
def test_every_weight_starts_by_the_seed(settings: dict[str, object], memory_full_of_nan: None) -> None:
    assert all(parameter.isfinite().all() for parameter in looking(**settings).parameters())


@pytest.mark.parametrize("settings", LOOKS, ids=lambda settings: "-".join(map(str, settings.values())))
def test_where_it_looks(settings: dict[str, object]) -> None:
    model = looking(**settings)
    with torch.no_grad():
        memory, state = model.encode(SOURCES, LENGTHS)
        _, attention = model.decode(memory, state, TARGETS)
    torch.testing.assert_close(attention.sum(dim=2), torch.ones(2, 3))
    assert not attention[1, :, 2:].any(), "exactly nowhere behind the end"
    order = torch.tensor([2, 0, 3, 1])
    features, keys, mask = memory
    turned = (features[:1, order], keys[:1, order], mask[:1, order])
    _, other = model.decode(turned, tuple(part[:1] for part in state), TARGETS[:1])
    torch.testing.assert_close(other, attention[:1, :, order], msg="places have no order of their own")
    _, alone = model.decode(*model.encode(torch.tensor([[3]]), [1]), TARGETS[:1])
    assert alone.flatten().tolist() == [1.0] * 3, "one word to look at"


def test_without_attention_all_words_have_one_context() -> None:
    model = looking(attention="none", decoder_channels=8)
    (context,), _ = model.encode(SOURCES, LENGTHS)
    outputs, (last,) = model.encoder(model.embed_source(SOURCES), LENGTHS)
    torch.testing.assert_close(context, torch.cat([last[:, 0, :6], last[:, 0, 6:]], dim=1))
    torch.testing.assert_close(context[1, :6], outputs[1, 1, :6], msg="the last word, not the padded last")
    assert model.decode(*model.encode(SOURCES, LENGTHS), TARGETS)[1].shape == (2, 3, 0)


def test_a_word_is_read_from_the_state_before_it() -> None:
    """The appendix's s_{i-1}: what the state becomes with a word changes nothing of what is said of that word."""
    model = looking(attention="additive", decoder_channels=8)
    memory, state = model.encode(SOURCES, LENGTHS)
    before, _, _ = model.step(memory, state, TARGETS[:, 0])
    with torch.no_grad():
        model.candidate.weight.mul_(3)
    after, _, _ = model.step(memory, state, TARGETS[:, 0])
    assert torch.equal(before, after)


def test_the_papers_gru_by_hand() -> None:
    """s = 0.5, U = 2, r = z = sigmoid(0) = 1/2, x = 0.1: 0.25 + 0.5 tanh(0.1 + 2 * 0.25)."""
    candidate = nn.Linear(1, 1, bias=False)
    nn.init.constant_(candidate.weight, 2.0)
    gates = torch.tensor([[0.3, -0.2, 0.1]])
    new = gru_step(torch.tensor([[0.5]]), gates, torch.tensor([[-0.3, 0.2]]), candidate)
    torch.testing.assert_close(new, 0.25 + 0.5 * torch.tanh(torch.tensor([[0.6]])))


def test_the_papers_encoder_reads_both_ways_and_no_padding() -> None:
    torch.manual_seed(1)
    encoder = PaperEncoder(3, 2)
    for parameter in encoder.parameters():
        nn.init.normal_(parameter)
    steps = torch.randn(2, 4, 3)
    outputs, (last,) = encoder(steps, [4, 2])
    alone, (its_last,) = encoder(steps[1:, :2], [2])
    torch.testing.assert_close(outputs[1:, :2], alone)
    torch.testing.assert_close(last[1:], its_last)
    assert not outputs[1, 2:].any()
    torch.testing.assert_close(last[:, 0, :2], torch.stack([outputs[0, 3, :2], outputs[1, 1, :2]]))
    torch.testing.assert_close(last[:, 0, 2:], outputs[:, 0, 2:])


def test_words_are_reversed_and_nothing_else() -> None:
    assert reversed_words(SOURCES, LENGTHS).tolist() == [[6, 5, 4, 3], [7, 3, 0, 0]]
    assert reversed_words(torch.tensor([[7, 8, 3, 0], [3, 0, 0, 0]]), [3, 1]).tolist() == [[8, 7, 3, 0], [3, 0, 0, 0]]
    torch.manual_seed(0)
    model = vector_translator.Model(vector_translator.Config(reverse=True, hidden_channels=6), SPEC)
    forward = vector_translator.Model(vector_translator.Config(hidden_channels=6), SPEC)
    forward.load_state_dict(model.state_dict())
    torch.testing.assert_close(model.encode(SOURCES, LENGTHS), forward.encode(SOURCES[:, [2, 1, 0, 3]][:1].repeat(2, 1)
        .index_copy(0, torch.tensor([1]), SOURCES[1:]), LENGTHS))  # fmt: skip


@pytest.mark.parametrize("context", ["init", "every_step"])
def test_the_vector_is_read_once_or_at_each_step(context: str) -> None:
    torch.manual_seed(0)
    config = vector_translator.Config(hidden_channels=6, embedding_channels=5, layers=2, context=context)
    model = vector_translator.Model(config, SPEC).eval()
    (vector,), state = model.encode(SOURCES, LENGTHS)
    assert [tuple(part.shape) for part in (vector, *state)] == [(2, 6), (2, 2, 6), (2, 2, 6)]
    before, _ = model.decode((vector,), state, TARGETS)
    after, _ = model.decode((vector + 1,), state, TARGETS)
    assert torch.equal(before, after) == (context == "init")
    other, _ = model.decode((vector,), tuple(part + 1 for part in state), TARGETS)
    assert not torch.allclose(before, other)


def test_lengths_that_are_not_equal_have_no_dot_product() -> None:
    with pytest.raises(ConfigError, match="decoder_channels: 256"):
        attention_translator.Config(attention="dot", encoder_channels=128, decoder_channels=128)
