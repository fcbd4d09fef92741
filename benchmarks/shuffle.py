"""How well windows of shards shuffle an epoch whose shards were written in the order of classes. No timing."""

from __future__ import annotations

import numpy as np

from benchmarks import Figure
from pipeline.loading.sampling import epoch_order

NUM_SHARDS, SHARD_SAMPLES, NUM_CLASSES, BATCH, EPOCHS = 100, 128, 100, 32, 5
SIZES = [SHARD_SAMPLES] * NUM_SHARDS
NUM_SAMPLES = NUM_SHARDS * SHARD_SAMPLES


def measure() -> list[Figure]:
    full = [np.random.default_rng(epoch).permutation(NUM_SAMPLES) for epoch in range(EPOCHS)]
    data = f"{NUM_SHARDS} shards of {SHARD_SAMPLES} in the order of {NUM_CLASSES} classes"
    figures = []
    for window in (1, 4, 16, NUM_SHARDS):
        orders = [epoch_order(SIZES, seed=0, epoch=epoch, window=window, batch_size=BATCH) for epoch in range(EPOCHS)]
        figures += [
            Figure(
                what=f"{name}, {data}, window {window}",
                value=float(np.mean([of(order) for order in orders])),
                unit=unit,
                beside="a full shuffle",
                other=float(np.mean([of(order) for order in full])),
            )
            for name, unit, of in (
                (f"distinct classes in a batch of {BATCH}", "classes", _distinct),
                ("mean distance of a sample from where it was written", "samples", _displacement),
                ("samples of a batch whose nearest in it was written within 32 of it", "%", _close),
            )
        ]
    return figures


def _distinct(order: np.ndarray) -> float:
    classes = order * NUM_CLASSES // NUM_SAMPLES
    return float(np.mean([len(np.unique(batch)) for batch in classes.reshape(-1, BATCH)]))


def _displacement(order: np.ndarray) -> float:
    return float(np.abs(order - np.arange(NUM_SAMPLES)).mean())


def _close(order: np.ndarray) -> float:
    """Of the samples of a batch in the order of the files, those that lie close behind the one before."""
    batches = np.sort(order.reshape(-1, BATCH), axis=1)
    return float(100 * (np.diff(batches, axis=1) < BATCH).mean())
