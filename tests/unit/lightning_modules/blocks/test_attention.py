import pytest
import torch

from lightning_modules.blocks.attention import AdditiveAttention, GeneralAttention, attend, step_mask


def test_equals_the_formula_location_by_location():
    torch.manual_seed(0)
    attention = AdditiveAttention(6, 4)
    features, query = torch.randn(2, 5, 6), torch.randn(2, 4)
    context, weights = attention(query, attention.keys(features), features)
    for n in range(2):
        scores = torch.stack([attention.score(torch.tanh(attention.key(x) + query[n])) for x in features[n]]).flatten()
        expected = scores.exp() / scores.exp().sum()
        torch.testing.assert_close(weights[n], expected)
        torch.testing.assert_close(context[n], sum(w * x for w, x in zip(expected, features[n], strict=True)))


def test_weights_are_float32_and_sum_to_one_under_autocast():
    attention = AdditiveAttention(6, 4)
    features = torch.randn(3, 7, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, weights = attention(torch.randn(3, 4), attention.keys(features), features)
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(3))


def test_scores_worked_out_by_hand():
    scores = torch.tensor([[0.0, 2.0, 3.0]]).log_().nan_to_num_(neginf=0.0)  # 0, ln 2, ln 3
    features = torch.eye(3).unsqueeze(0)
    context, weights = attend(scores, features)
    torch.testing.assert_close(weights, torch.tensor([[1 / 6, 1 / 3, 1 / 2]]))
    torch.testing.assert_close(context, weights)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(attend(scores[:, order], features)[1], weights[:, order])
    _, masked = attend(scores, features, torch.tensor([[True, True, False]]))
    torch.testing.assert_close(masked, torch.tensor([[1 / 3, 2 / 3, 0.0]]))
    assert attend(scores[:, :1], features[:, :1])[1].tolist() == [[1.0]]


def test_masked_places_get_nothing_at_all_and_pass_no_gradient_on():
    scores = torch.tensor([[1.0, 80.0, -2.0], [torch.inf, 0.0, 1.0], [5.0, 6.0, 7.0]], requires_grad=True)
    mask = torch.tensor([[True, False, True], [False, True, True], [False, False, False]])
    features = torch.randn(3, 3, 4, requires_grad=True)
    context, weights = attend(scores, features, mask)
    assert (weights[~mask] == 0).all()
    torch.testing.assert_close(weights[:2].sum(dim=1), torch.ones(2))
    assert (weights[2] == 0).all() and (context[2] == 0).all()  # a row that may look nowhere
    gradients = torch.autograd.grad((context * torch.randn(3, 4)).sum(), (scores, features))
    assert all(torch.isfinite(g).all() for g in gradients)
    assert (gradients[0][~mask] == 0).all() and (gradients[1][~mask] == 0).all()


@pytest.mark.parametrize(
    "make", [AdditiveAttention, GeneralAttention, lambda d, q: GeneralAttention(d, q, projected=False)]
)
def test_a_padded_row_is_what_it_is_alone(make):
    torch.manual_seed(0)
    attention = make(6, 6)
    features, query = torch.randn(3, 5, 6), torch.randn(3, 6)
    lengths = torch.tensor([5, 1, 3])
    mask = step_mask(lengths, 5)
    assert mask.sum(dim=1).tolist() == [5, 1, 3] and mask[2].tolist() == [True, True, True, False, False]
    context, weights = attention(query, attention.keys(features), features, mask)
    for n, length in enumerate(lengths.tolist()):
        alone = features[n : n + 1, :length]
        expected = attention(query[n : n + 1], attention.keys(alone), alone)
        torch.testing.assert_close(context[n], expected[0][0])
        torch.testing.assert_close(weights[n, :length], expected[1][0])


def test_general_and_dot_scores():
    features, query = torch.randn(2, 4, 3), torch.randn(2, 3)
    dot, general = GeneralAttention(3, 3, projected=False), GeneralAttention(3, 3)
    expected = torch.softmax(torch.einsum("nd,nld->nl", query, features), dim=1)
    torch.testing.assert_close(dot(query, dot.keys(features), features)[1], expected)
    expected = torch.softmax(torch.einsum("nq,qd,nld->nl", query, general.key.weight, features), dim=1)
    torch.testing.assert_close(general(query, general.keys(features), features)[1], expected)
    with pytest.raises(AssertionError, match="equal lengths"):
        GeneralAttention(3, 4, projected=False)
