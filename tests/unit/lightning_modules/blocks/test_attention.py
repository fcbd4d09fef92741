import torch

from lightning_modules.blocks.attention import AdditiveAttention


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
