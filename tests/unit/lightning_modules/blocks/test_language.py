import torch

from lightning_modules.blocks.language import LSTMEncoder


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
    _, (hidden, cell) = encoder.lstm(torch.tanh(encoder.embed(tokens)))
    expected = torch.cat([hidden[0, 0], hidden[1, 0], cell[0, 0], cell[1, 0]])
    torch.testing.assert_close(encoder(tokens, [4])[0], expected)


def test_word_order_matters():
    encoder = _encoder()
    a, b = encoder(torch.tensor([[4, 5, 6], [6, 5, 4]]), [3, 3])
    assert not torch.allclose(a, b, atol=1e-3)
