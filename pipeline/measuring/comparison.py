"""The names of what is kept of a run so that it can be compared (`keeping.py`), and what makes two runs comparable."""

from __future__ import annotations

from pipeline.training.scores import MEASURED, RESAMPLES

__all__ = ["MEASURED", "PICTURES", "RESAMPLES", "RUN", "SAME", "TABLES"]
RUN, TABLES, PICTURES = "run.json", "tables", "pictures"
SAME = ("task", "dataset", "split", "metric", "metric_mode", "split_digest", "items_sha256")
# of measured.json: runs that agree in these were asked the same
