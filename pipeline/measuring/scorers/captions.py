"""COCO captions: the annotation file, results `[{image_id, caption}]` (https://cocodataset.org/#format-results).

The official code scores the images that the results name, and CIDEr's document frequencies come from those: results
with some images left out have another score. Here every image that has captions must have exactly one result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from contracts.errors import DataError
from lightning_modules.metrics.captions import CaptionMetrics
from lightning_modules.metrics.captions_java import measure_java
from lightning_modules.metrics.measurement import Measurement
from lightning_modules.metrics.ptb_tokenizer import comparable_tokens
from pipeline.measuring.scorers import Inputs, Scores
from pipeline.measuring.scorers._files import check_same_ids, read_entries

JAVA_METRICS = ("METEOR", "SPICE")


def score(inputs: Inputs) -> Scores:
    """`Bleu_1` .. `Bleu_4`, `ROUGE_L`, `CIDEr`, `METEOR`, `SPICE` as coco-caption names them.

    Raises:
        DataError: a file that cannot be read, or results that do not caption each image once.
    """
    annotations = read_entries(inputs.truth, id_name="id", name="annotations")
    references: dict[int | str, list[str]] = {}
    for i in range(len(annotations)):
        references.setdefault(annotations.id(i, "image_id"), []).append(annotations.text(i, "caption"))
    if not references:
        raise DataError("this file has no captions", where=f"{inputs.truth}: annotations")
    results = read_entries(inputs.predictions, id_name="image_id")
    captions = {image: results.text(i, "caption") for i, image in enumerate(results.ids())}
    check_same_ids(references, captions, name="image_id", truth_file=inputs.truth, given_file=inputs.predictions)
    hypotheses = [captions[image] for image in references]
    return Scores(measurements=_measure(list(references.values()), hypotheses, inputs.use_java))


def _measure(references: Sequence[Sequence[str]], hypotheses: Sequence[str], use_java: bool) -> list[Measurement]:
    """What needs no Java, then METEOR and SPICE or why there is none."""
    own = CaptionMetrics([comparable_tokens(texts) for texts in references]).measure(comparable_tokens(hypotheses))
    if not use_java:
        return [replace(own, not_computed={**own.not_computed, **dict.fromkeys(JAVA_METRICS, "--no-java was given")})]
    return [own, *measure_java(references, hypotheses)]
