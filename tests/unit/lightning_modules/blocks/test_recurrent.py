"""Cells by hand-computed values, by torch's fused layers and by how outputs hang on inputs."""

import pytest
import torch
from torch import nn

from lightning_modules.blocks.recurrent import (
    ElmanCell,
    LSTMCell,
    LSTMState,
    layers_of,
    lstm_gates,
    set_forget_bias,
    unroll,
)

ONE_THEN_NOTHING = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1)


def test_elman_by_hand():
    """h_t = tanh(.5 h + x); dh_3/dx_1 = .5^2 (1 - h_1^2)(1 - h_2^2)(1 - h_3^2)."""
    cell = ElmanCell(1, 1)
    nn.init.constant_(cell.from_hidden.weight, 0.5)
    nn.init.constant_(cell.from_input.weight, 1.0)
    steps = ONE_THEN_NOTHING.clone().requires_grad_()
    outputs, last = unroll(cell, steps, cell.start(1))
    assert outputs.flatten().tolist() == pytest.approx([0.761594, 0.363399, 0.179726], abs=1e-6)
    assert torch.equal(last, outputs[:, -1])
    assert float(torch.autograd.grad(outputs[0, 2, 0], steps)[0][0, 0, 0]) == pytest.approx(0.0881846, abs=1e-6)


def test_an_lstm_without_weights_halves_its_cell():
    cell = LSTMCell(1, 1)
    nn.init.zeros_(cell.gates.weight)
    outputs, last = unroll(cell, torch.zeros(1, 2, 1), LSTMState(torch.zeros(1, 1), torch.ones(1, 1)))
    assert outputs.flatten().tolist() == pytest.approx([0.231059, 0.122459], abs=1e-6)
    assert last.cell.item() == pytest.approx(0.25)


def test_lstm_by_hand():
    """Only the candidate reads the input (W_xg = 1), and the forget gate's bias is 1."""
    cell = LSTMCell(1, 1, bias=True)
    for parameter in cell.parameters():
        nn.init.zeros_(parameter)
    with torch.no_grad():
        cell.gates.weight[3, 1] = 1.0  # rows i, f, o, g; columns h, x
        cell.gates.bias[1] = 1.0
    state, cells, hiddens = cell.start(1), [], []
    for inputs in ONE_THEN_NOTHING.unbind(dim=1):
        output, state = cell(inputs, state)
        hiddens.append(output.item())
        cells.append(state.cell.item())
    assert cells == pytest.approx([0.380797, 0.278385, 0.203516], abs=1e-6)
    assert hiddens == pytest.approx([0.181700, 0.135705, 0.100376], abs=1e-6)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("fused", "explicit"), [(nn.RNN, ElmanCell), (nn.LSTM, LSTMCell)])
def test_cells_equal_torchs(fused, explicit, bias):
    torch.manual_seed(0)
    layer = fused(3, 5, batch_first=True, bias=bias)
    cell = explicit.of(layer)
    steps = torch.randn(4, 11, 3)
    outputs, last = unroll(cell, steps, cell.start(4))
    expected, expected_last = layer(steps)
    torch.testing.assert_close(outputs, expected, atol=1e-6, rtol=0)
    if isinstance(last, LSTMState):
        torch.testing.assert_close(last.cell, expected_last[1][0], atol=1e-6, rtol=0)
    for grown in (outputs, expected):
        grown.square().sum().backward()
    first_of_torch = layer.weight_hh_l0.grad[0]  # of the input gate, the first in both orders
    ours = cell.from_hidden.weight.grad[0] if isinstance(cell, ElmanCell) else cell.gates.weight.grad[0, :5]
    torch.testing.assert_close(ours, first_of_torch, atol=1e-5, rtol=1e-4)


def test_numbers_of_weights():
    def count(module):
        return sum(p.numel() for p in module.parameters())

    assert count(ElmanCell(10, 20)) == 20 * (10 + 20)
    assert count(ElmanCell(10, 20, bias=True)) == 20 * (10 + 20) + 20
    assert count(LSTMCell(10, 20)) == 4 * 20 * (10 + 20)
    assert count(LSTMCell(10, 20, bias=True)) == 4 * 20 * (10 + 20) + 80
    weight = LSTMCell(10, 25).gates.weight
    assert 0.19 < weight.max() <= 0.2 and -0.2 <= weight.min() < -0.19  # 1 / sqrt(25)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("started", [False, True])
def test_gates_are_recovered_from_outputs(bias, started):
    torch.manual_seed(1)
    lstm = nn.LSTM(3, 5, batch_first=True, bias=bias)
    steps = torch.randn(4, 9, 3)
    state = LSTMState(torch.randn(4, 5), torch.randn(4, 5)) if started else None
    outputs, _ = lstm(steps, None if state is None else (state.hidden.unsqueeze(0), state.cell.unsqueeze(0)))
    found = lstm_gates(lstm, steps, outputs, state)
    cell = LSTMCell.of(lstm)
    now = state or cell.start(4)
    for t, inputs in enumerate(steps.unbind(dim=1)):
        for recovered, expected in zip(found, cell.look(inputs, now), strict=True):
            torch.testing.assert_close(recovered[:, t], expected, atol=1e-6, rtol=0)
        _, now = cell(inputs, now)
    torch.testing.assert_close(found.output * torch.tanh(found.cell), outputs, atol=1e-6, rtol=0)


def test_a_stack_is_asked_layer_by_layer_and_not_at_once():
    two = nn.LSTM(3, 5, num_layers=2, batch_first=True)
    with pytest.raises(AssertionError, match="one layer"):
        lstm_gates(two, torch.zeros(1, 2, 3), torch.zeros(1, 2, 5))
    with pytest.raises(AssertionError, match="one layer"):
        ElmanCell.of(nn.RNN(3, 5, bidirectional=True))


def test_the_forget_bias_counts_once():
    lstm = nn.LSTM(2, 3, num_layers=2, batch_first=True)
    before = {name: p.clone() for name, p in lstm.named_parameters()}
    set_forget_bias(lstm, 1.0)
    for layer in range(2):
        both = getattr(lstm, f"bias_ih_l{layer}") + getattr(lstm, f"bias_hh_l{layer}")
        assert both[3:6].tolist() == [1.0, 1.0, 1.0]
        untouched = torch.tensor([0, 1, 2, 6, 7, 8, 9, 10, 11])
        was = before[f"bias_ih_l{layer}"] + before[f"bias_hh_l{layer}"]
        torch.testing.assert_close(both[untouched], was[untouched])
        assert torch.equal(getattr(lstm, f"weight_hh_l{layer}"), before[f"weight_hh_l{layer}"])
    with pytest.raises(AssertionError, match="without biases"):
        set_forget_bias(nn.LSTM(2, 3, bias=False), 1.0)


@pytest.mark.parametrize("make", [ElmanCell, LSTMCell])
def test_an_output_hangs_on_its_own_and_earlier_steps_alone(make):
    torch.manual_seed(2)
    cell = make(2, 3)
    steps = torch.randn(1, 4, 2)
    jacobian = torch.autograd.functional.jacobian(lambda x: unroll(cell, x, cell.start(1))[0].sum(dim=(0, 2)), steps)
    hangs = jacobian[:, 0].abs().sum(dim=-1) > 0  # (output step, input step)
    assert torch.equal(hangs, torch.ones(4, 4, dtype=torch.bool).tril())


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("fused", "explicit"), [(nn.RNN, ElmanCell), (nn.LSTM, LSTMCell)])
def test_a_stack_of_explicit_cells_equals_torchs_layers(fused, explicit, bias):
    """Layer l reads h^{l-1}_t: the outputs of one are the steps of the next."""
    torch.manual_seed(3)
    stack = fused(3, 5, num_layers=3, batch_first=True, bias=bias)
    steps = torch.randn(4, 7, 3)
    expected, last = stack(steps)
    drawn = torch.get_rng_state()
    layers = layers_of(stack)
    assert torch.equal(torch.get_rng_state(), drawn), "looking draws no random number"
    outputs = steps
    for index, layer in enumerate(layers):
        cell = explicit.of(layer)
        outputs, state = unroll(cell, outputs, cell.start(4))
        hidden, expected_hidden = (state.hidden, last[0]) if isinstance(state, LSTMState) else (state, last)
        torch.testing.assert_close(hidden, expected_hidden[index], atol=1e-6, rtol=0)
    torch.testing.assert_close(outputs, expected, atol=1e-6, rtol=0)
    assert all(
        own.data_ptr() != p.data_ptr() for layer in layers for own in layer.parameters() for p in stack.parameters()
    )


def test_numbers_of_torchs_weights():
    """What the fused layers have, without biases as in the equations and with torch's two."""
    counts = {
        (layer, bias): sum(p.numel() for p in layer(10, 20, bias=bias).parameters())
        for layer in (nn.RNN, nn.LSTM, nn.GRU)
        for bias in (False, True)
    }
    assert [counts[layer, True] for layer in (nn.RNN, nn.LSTM, nn.GRU)] == [640, 2560, 1920]
    assert counts[nn.RNN, False] == 20 * (10 + 20) and counts[nn.LSTM, False] == 4 * 20 * (10 + 20)


def test_the_start_of_an_elman_network():
    """U(+-1/sqrt(H)) has a spectral radius of about 1/sqrt(3) = 0.577, and a largest singular value of twice it."""
    torch.manual_seed(4)
    weight = ElmanCell(8, 400).from_hidden.weight.detach().double()
    assert float(torch.linalg.eigvals(weight).abs().max()) == pytest.approx(3**-0.5, abs=0.03)
    assert float(torch.linalg.matrix_norm(weight, 2)) == pytest.approx(2 * 3**-0.5, abs=0.03)
