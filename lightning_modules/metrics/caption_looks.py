"""What a captioner with hard attention scores when it looks in other ways than it is judged by."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace

from lightning_modules.metrics.caption_scores import references_of
from lightning_modules.metrics.captions import CaptionMetrics
from lightning_modules.metrics.item_metric import Id, Item, ItemMetric, by_groups, part, texts
from lightning_modules.metrics.measurement import Measurement
from lightning_modules.metrics.ptb_tokenizer import comparable_tokens

_NAMES = ("Bleu_4", "CIDEr")


class CaptionLookScores(ItemMetric):
    """`Bleu_4/<look>` and `CIDEr/<look>`, as `CaptionScores` has them, of captions written in another way.

    Prediction: `looks`, {name: caption}, which may be absent. Truth: `captions`. What not all images have is left out.
    """

    def keep(self, prediction: Item, truth: Item) -> tuple[dict[str, str], list[str]]:
        looks = part(prediction, "looks", "prediction") if "looks" in prediction else {}
        return dict(looks), texts(truth, "captions", "truth")

    def measure_kept(
        self, kept: Mapping[Id, tuple[dict[str, str], list[str]]], groups: Mapping[Id, Hashable]
    ) -> list[Measurement]:
        names = sorted(set.intersection(*(set(looks) for looks, _ in kept.values()))) if kept else []
        if not names:
            return []
        keys, references = references_of({key: captions for key, (_, captions) in kept.items()})
        metrics = CaptionMetrics(references)
        measured = [
            _called(metrics.measure(comparable_tokens([kept[key][0][name] for key in keys])), name) for name in names
        ]
        return by_groups(measured, {key: groups[key] for key in keys})


def _called(measured: Measurement, look: str) -> Measurement:
    resample = measured.resample
    assert resample is not None
    names = {name: f"{name}/{look}" for name in _NAMES}
    return replace(
        measured,
        values={new: measured.values[old] for old, new in names.items()},
        resample=lambda weights: {new: values[old] for values in [resample(weights)] for old, new in names.items()},
    )
