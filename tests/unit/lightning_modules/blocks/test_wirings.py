"""Each wiring by what its outputs hang on, by padding, and by writing step by step."""

from __future__ import annotations

import pytest
import torch

from lightning_modules.blocks.wirings import WIRINGS, Wired

READ, WRITTEN, OUT = 3, 3, 2


def made(wiring, **settings) -> Wired:
    torch.manual_seed(0)
    other = {"written_channels": 5} if wiring == "encode_decode" else {}
    return Wired(wiring, 4, 6, out_channels=OUT, **{"layers": 2, **other, **settings}).double()


def given(wiring, rows=1):
    """Inputs, with their lengths, of whole rows."""
    generator = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(rows, *shape, generator=generator, dtype=torch.float64)  # noqa: E731
    read = 1 if wiring in ("one_one", "one_many") else READ
    steps = draw(read, 4)
    if wiring == "one_many":
        return steps, [read] * rows, draw(WRITTEN - 1, 4), [WRITTEN - 1] * rows
    if wiring == "encode_decode":
        return steps, [read] * rows, draw(WRITTEN, 5), [WRITTEN] * rows
    return steps, [read] * rows, None, None


ALL, TRIL = torch.ones(3, 3, dtype=torch.bool), torch.ones(3, 3, dtype=torch.bool).tril()
# Rows outputs, columns what was read, then what was written.
MASKS = {
    "one_one": ALL[:1, :1],
    "one_many": TRIL,  # x, then what was written: y_1 of x alone
    "many_one": ALL[:1],
    "encode_decode": torch.cat([ALL, TRIL], dim=1),  # the first of what was written stands before the text
    "aligned": TRIL,
}


@pytest.mark.parametrize("cell", ["elman", "lstm", "gru"])
@pytest.mark.parametrize("wiring", WIRINGS)
def test_outputs_hang_on_what_the_wiring_says_and_on_nothing_else(wiring, cell):
    network = made(wiring, cell=cell)
    steps, lengths, written, written_lengths = given(wiring)
    inputs = [steps] if written is None else [steps, written]
    jacobians = torch.autograd.functional.jacobian(
        lambda *parts: network(parts[0], lengths, *(parts[1:] or (None,)), written_lengths)[0], tuple(inputs)
    )
    found = torch.cat([jacobian[:, :, 0].abs().sum(dim=(1, 3)) for jacobian in jacobians], dim=1)
    assert torch.equal(found > 0, MASKS[wiring]), found


@pytest.mark.parametrize("cell", ["elman", "lstm"])
@pytest.mark.parametrize("wiring", WIRINGS)
def test_a_padded_batch_gives_each_row_what_it_gets_alone(wiring, cell):
    network = made(wiring, cell=cell, bidirectional=wiring in ("many_one", "encode_decode", "aligned"))
    steps, _, written, _ = given(wiring, rows=3)
    lengths = [1, 1, 1] if steps.shape[1] == 1 else [2, 3, 1]
    before = {"one_many": [2, 0, 1], "encode_decode": [1, 2, 3]}.get(wiring)
    together = network(steps, lengths, written, before)
    assert together.shape == (3, 1 if wiring in ("one_one", "many_one") else 3, OUT)
    for n, length in enumerate(lengths):
        part = None if written is None else written[n : n + 1, : before[n]]
        alone = network(steps[n : n + 1, :length], [length], part, before and before[n : n + 1])[0]
        torch.testing.assert_close(together[n, : len(alone)], alone, atol=1e-12, rtol=0)


@pytest.mark.parametrize("cell", ["elman", "lstm"])
@pytest.mark.parametrize("wiring", ["one_many", "encode_decode"])
def test_writing_step_by_step_gives_what_all_at_once_gives(wiring, cell):
    network = made(wiring, cell=cell)
    steps, lengths, written, written_lengths = given(wiring, rows=2)
    expected = network(steps, lengths, written, written_lengths)
    first, state = network.start(steps, lengths)
    outputs = [first] if wiring == "one_many" else []
    for t in range(written.shape[1]):
        output, state = network.step(written[:, t], state)
        outputs.append(output)
    torch.testing.assert_close(torch.stack(outputs, dim=1), expected, atol=1e-12, rtol=0)


def test_all_steps_share_one_set_of_weights():
    """Elman 6 (4 + 6) + 2 * 6, then 6 (6 + 6) + 2 * 6 in the second layer, and the head, for any number of steps."""
    count = sum(p.numel() for p in made("aligned", cell="elman").parameters())
    assert count == 6 * (4 + 6) + 12 + 6 * (6 + 6) + 12 + OUT * 6 + OUT
    assert {name.split(".")[0] for name, _ in made("one_many").named_parameters()} == {"reader", "head"}


def test_what_a_wiring_cannot_do_is_refused():
    with pytest.raises(AssertionError, match="no other end"):
        made("one_many", bidirectional=True)
    with pytest.raises(AssertionError, match="one kind of vector"):
        made("aligned", written_channels=5)
    with pytest.raises(AssertionError, match="one vector"):
        made("one_one")(torch.zeros(1, 2, 4, dtype=torch.float64), [2])
    with pytest.raises(AssertionError):
        made("aligned")(*given("encode_decode")[:2], torch.zeros(1, 2, 4), [2])
    with pytest.raises(AssertionError, match="writes nothing"):
        made("aligned").step(torch.zeros(1, 4), ())
