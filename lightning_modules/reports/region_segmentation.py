"""Segmentation of crops: drawn and plotted as segmentation is."""

from __future__ import annotations

from lightning_modules.reports import segmentation


class Report(segmentation.Report):
    """Confusions, IoU by class, and where the wrong pixels lie."""
