"""Detection of given regions: drawn and plotted as detection is."""

from __future__ import annotations

from lightning_modules.reports import detection


class Report(detection.Report):
    """Precision over recall, AP by class, confusions and kinds of errors."""
