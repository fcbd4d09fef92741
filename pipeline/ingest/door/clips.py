"""What is known of the parts of a clip: segments inside it, and classes of its frames."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

from contracts.raw import ItemKind, Problem, RawRecord
from contracts.records import Segment, end_s
from pipeline.ingest.door.rules import Refused

_SAME_S = 1e-6  # the end of a clip is reckoned


def clean_segments(
    raw: RawRecord, labels: Mapping[str, int], problems: list[Problem], fixes: Counter[str]
) -> tuple[Segment, ...]:
    """The segments of listed classes, clipped to the clip."""
    kept = []
    for number, segment in enumerate(raw.segments, start=1):
        try:
            kept.append(_inside(segment, raw, labels, fixes))
        except Refused as refused:
            problems.append(_problem(raw, refused, "segment", str(number)))
    return tuple(kept)


def _inside(segment: Segment, raw: RawRecord, labels: Mapping[str, int], fixes: Counter[str]) -> Segment:
    start, end = float(segment.start_s), float(segment.end_s)
    if segment.label not in labels:
        raise Refused("unknown_class", segment.label)
    if not (math.isfinite(start) and math.isfinite(end)) or end <= start:
        raise Refused("bad_segment", f"{start} s to {end} s")
    last = end_s(raw.times_s) if raw.times_s else 0.0
    clipped = (max(start, 0.0), min(end, last))
    if clipped[1] <= clipped[0]:
        raise Refused("segment_outside", f"{start} s to {end} s, the clip ends at {last} s")
    fixes["segment_clipped"] += max(clipped[0] - start, end - clipped[1]) > _SAME_S
    return Segment(start_s=clipped[0], end_s=clipped[1], label=segment.label)


def clean_frame_labels(
    raw: RawRecord, labels: Mapping[str, int], problems: list[Problem]
) -> tuple[tuple[str, ...], ...]:
    """The listed classes of each frame, each once; () where the frames are another number."""
    if len(raw.frame_labels) not in (0, len(raw.times_s)):
        what = f"labels of {len(raw.frame_labels)} frames of {len(raw.times_s)}"
        problems.append(_problem(raw, Refused("frame_labels_mismatch", what), "label", str(raw.image_id)))
        return ()
    for name in dict.fromkeys(name for names in raw.frame_labels for name in names if name not in labels):
        problems.append(_problem(raw, Refused("unknown_class", name), "label", name))
    return tuple(tuple(name for name in dict.fromkeys(names) if name in labels) for names in raw.frame_labels)


def _problem(raw: RawRecord, refused: Refused, kind: ItemKind, item_id: str) -> Problem:
    return Problem(
        reason=refused.reason, kind=kind, file=raw.annotation_file, item_id=item_id, key=raw.key, detail=refused.detail
    )
