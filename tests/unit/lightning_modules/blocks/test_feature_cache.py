"""Blocks come back as they were written, whether they fit into memory or not."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_modules.blocks import feature_cache
from lightning_modules.blocks.feature_cache import FeatureCache


@pytest.mark.parametrize("in_memory", [100, 1 << 20])
def test_blocks_come_back_in_their_order_and_as_halves(monkeypatch, in_memory):
    monkeypatch.setattr(feature_cache, "_IN_MEMORY", in_memory)
    rng = np.random.default_rng(0)
    blocks = [rng.normal(0, 1, (count, 5)).astype(np.float32) for count in (3, 0, 40, 1)]
    with FeatureCache(5) as cache:
        for block in blocks:
            cache.append(block)
        again = list(cache)
        next(iter(cache))
        cache.append(blocks[0])  # reading, even in part, does not move where it writes
        assert cache.counts == [3, 0, 40, 1, 3] and cache.num_bytes == 47 * 5 * 2
        assert [block.shape for block in again] == [block.shape for block in blocks]
        for block, read in zip(blocks, again, strict=True):
            assert read.dtype == np.float32
            np.testing.assert_array_equal(read, block.astype(np.float16))
        np.testing.assert_array_equal(cache.rows()[-3:], again[0])


def test_what_a_half_cannot_hold_is_its_largest_number():
    with FeatureCache(2) as cache:
        cache.append(np.array([[1e9, -1e9]], np.float32))
        assert cache.rows().tolist() == [[65504, -65504]]


def test_nothing_was_written():
    with FeatureCache(4) as cache:
        assert cache.rows().shape == (0, 4) and list(cache) == []
