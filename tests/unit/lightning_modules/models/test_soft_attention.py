import pytest
import torch

from lightning_modules.base.families import CaptionerSpec
from lightning_modules.models.soft_attention import Config, Model


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = Config(embedding_channels=16, hidden_channels=24, attention_channels=12)
    return Model(config, CaptionerSpec(vocabulary_size=11)).eval()


@pytest.fixture
def images():
    return torch.randint(0, 256, (3, 3, 64, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_shapes_and_attention_sums(model, images):
    features = model.encode(images)
    assert features.shape[0] == 3
    assert features.shape[-2:] == (4, 3)  # c4: stride 16
    tokens = torch.randint(4, 11, (5, 6))
    logits, attention = model.decode(features, tokens, torch.tensor([0, 0, 1, 2, 2]))
    assert logits.shape == (5, 6, 11)
    assert attention.shape == (5, 6, 12)
    torch.testing.assert_close(attention.sum(-1), torch.ones(5, 6))


@pytest.mark.parametrize(("gate", "size"), [("scalar", 1), ("channel", 160)])
def test_the_gate_on_the_context(images, gate, size):
    """Beta closed, no context reaches the LSTM; the paper has one number a word, 1502.03044 section 4.2.1."""
    torch.manual_seed(0)
    model = Model(
        Config(embedding_channels=16, hidden_channels=24, attention_channels=12, gate=gate),
        CaptionerSpec(vocabulary_size=11),
    )
    decoder = model.eval().decoder
    assert decoder.hidden_sizes[-1] == size == model.backbone.channels["c4"] ** (gate == "channel")
    memory, state = model.start(model.encode(images))
    gates = decoder.word_gates(decoder.embed(torch.tensor([4, 5, 6])))
    open_context = decoder._recur(memory, state, gates)[1]
    with torch.no_grad():
        query, beta = decoder.from_hidden(state[0])[:, 96:108], decoder.from_hidden(state[0])[:, 108:]
        context, _ = decoder.attention(query, memory[1], memory[0])
        torch.testing.assert_close(open_context, torch.sigmoid(beta) * context)
        decoder.from_hidden.bias[108:] = -1e4
        assert not decoder._recur(memory, state, gates)[1].any()


def test_hoisted_decoding_equals_one_step_at_a_time(model, images):
    features = model.encode(images)
    tokens = torch.randint(4, 11, (4, 7))
    caption_image = torch.tensor([2, 0, 1, 1])
    logits, attention = model.decode(features, tokens, caption_image)
    memory, state = model.start(features[caption_image])
    for t in range(7):
        step_logits, state, step_attention = model.step(memory, state, tokens[:, t])
        torch.testing.assert_close(step_logits, logits[:, t], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(step_attention, attention[:, t], atol=1e-5, rtol=1e-5)


def test_one_step_equals_the_papers_equations(model, images):
    d = model.decoder
    grid = model.encode(images[:1])
    places = grid[0].flatten(1).T  # (L, D)
    mean = torch.tanh(d.initial(places.mean(0)))
    hidden, cell = mean[:24], mean[24:]
    word = d.embed(torch.tensor(5))
    from_hidden = d.from_hidden(hidden)
    scores = d.attention.score(torch.tanh(d.attention.key(places) + from_hidden[96 : 96 + 12]))[:, 0]
    alpha = torch.softmax(scores, 0)
    context = torch.sigmoid(from_hidden[96 + 12 :]) * (alpha @ places)  # beta * z
    i, f, o, g = (d.word_gates(word) + from_hidden[:96] + d.context_gates(context)).chunk(4)
    cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
    hidden = torch.sigmoid(o) * torch.tanh(cell)
    deep = torch.tanh(word + d.output_hidden(hidden) + d.output_context(context))
    logits, attention = model.decode(grid, torch.tensor([[5]]), torch.tensor([0]))
    torch.testing.assert_close(logits[0, 0], d.vocabulary(deep), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(attention[0, 0], alpha, atol=1e-5, rtol=1e-5)


def test_later_words_do_not_change_earlier_logits(model, images):
    features, where = model.encode(images), torch.tensor([0])
    a, _ = model.decode(features, torch.tensor([[2, 5, 6, 7]]), where)
    b, _ = model.decode(features, torch.tensor([[2, 5, 0, 0]]), where)
    torch.testing.assert_close(a[:, :2], b[:, :2])
    assert not torch.allclose(a[:, 2:], b[:, 2:], atol=1e-3)


def test_logits_and_attention_are_float32_under_autocast(model, images):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, attention = model.decode(model.encode(images), torch.full((3, 2), 4), torch.arange(3))
    assert logits.dtype == attention.dtype == torch.float32


def test_c5_gives_a_coarser_grid(images):
    model = Model(Config(features="c5"), CaptionerSpec(vocabulary_size=11)).eval()
    assert model.encode(images).shape[-2:] == (2, 2)
