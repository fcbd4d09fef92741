"""Text classification: one class of a whole text, whose tokens are read in their order.

Batch: `tokens` (B, T) int64, padded with 0; `lengths` (B,) int64; `labels` (B,) int64, 0..C-1, absent in prediction.
B texts of at most T tokens, C classes. Model: `SequenceClassifier`.
Prediction: `probs` (C,) float32. Truth: `label`, 0..C-1, `length`, tokens, and `text`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from contracts.ranges import COUNT, check_ranges
from contracts.records import DataSpec, Record
from contracts.text import UNKNOWN
from lightning_modules.base.families import SequenceClassifierSpec
from lightning_modules.base.labels import label_positions, only_label
from lightning_modules.base.task import BaseTask, Batch, Example, Mean, Prediction, Truth
from lightning_modules.metrics.classification import measure_classification
from lightning_modules.metrics.measurement import Measurement, ratio_of_sums

_MAX_LENGTHS = 20  # of which accuracy is told apart
