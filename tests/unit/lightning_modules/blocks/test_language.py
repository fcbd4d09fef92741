import pytest
import torch

from lightning_modules.blocks.language import LSTMEncoder, RecurrentEncoder


def _encoder():
    torch.manual_seed(0)
    return LSTMEncoder(9, embedding=6, hidden=5, layers=2, dropout=0.0)


def test_padding_changes_nothing():
    encoder = _encoder()
    sentences = [[4, 5, 6], [7], [8, 4, 4, 5, 6]]
    padded = torch.zeros(3, 8, dtype=torch.int64)
    for row, sentence in zip(padded, sentences, strict=True):
        row[: len(sentence)] = torch.tensor(sentence)
    together = encoder(padded, [3, 1, 5])
    assert together.shape == (3, encoder.out_channels) == (3, 20)
    for row, sentence in zip(together, sentences, strict=True):
        torch.testing.assert_close(row, encoder(torch.tensor([sentence]), [len(sentence)])[0])


def test_holds_hidden_and_cell_state_of_all_layers():
    encoder = _encoder()
    tokens = torch.tensor([[4, 5, 6, 7]])
    _, (hidden, cell) = encoder.lstm.rnn(torch.tanh(encoder.embed(tokens)))
    expected = torch.cat([hidden[0, 0], hidden[1, 0], cell[0, 0], cell[1, 0]])
    torch.testing.assert_close(encoder(tokens, [4])[0], expected)


def test_word_order_matters():
    encoder = _encoder()
    a, b = encoder(torch.tensor([[4, 5, 6], [6, 5, 4]]), [3, 3])
    assert not torch.allclose(a, b, atol=1e-3)


@pytest.mark.parametrize("cell", ["elman", "lstm", "gru"])
@pytest.mark.parametrize(("layers", "bidirectional"), [(1, False), (2, False), (2, True)])
def test_a_padded_sequence_is_encoded_as_it_is_alone(cell, layers, bidirectional):
    torch.manual_seed(0)
    encoder = RecurrentEncoder(3, 4, layers=layers, cell=cell, bidirectional=bidirectional)
    steps, lengths = torch.randn(3, 7, 3), [2, 5, 1]  # longer than the longest, as a slot of a fixed size is
    outputs, state = encoder(steps, lengths)
    assert outputs.shape == (3, 7, encoder.out_channels)
    assert len(state) == (2 if cell == "lstm" else 1)
    for n, length in enumerate(lengths):
        alone, alone_state = encoder(steps[n : n + 1, :length], [length])
        torch.testing.assert_close(outputs[n, :length], alone[0])
        assert (outputs[n, length:] == 0).all()
        for part, alone_part in zip(state, alone_state, strict=True):
            assert part.shape == (3, layers, encoder.out_channels)
            torch.testing.assert_close(part[n], alone_part[0])
        # The top layer's state is what it gave last: forwards at the end, backwards at the beginning.
        torch.testing.assert_close(state[0][n, -1, :4], outputs[n, length - 1, :4])
        if bidirectional:
            torch.testing.assert_close(state[0][n, -1, 4:], outputs[n, 0, 4:])


def test_one_layer_has_no_place_for_dropout_and_two_have_one():
    torch.manual_seed(0)
    steps = torch.randn(2, 5, 3)
    for layers, is_random in ((1, False), (2, True)):
        encoder = RecurrentEncoder(3, 4, layers=layers, dropout=0.5)
        one, other = encoder(steps, [5, 5])[0], encoder(steps, [5, 5])[0]
        assert torch.equal(one, other) is not is_random
