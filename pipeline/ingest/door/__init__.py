"""The door: the only way from a `RawRecord` to a `Record`. Fixes by a stated rule, or refuses and says why."""

from pipeline.ingest.door.admit import Admission, admit
from pipeline.ingest.door.config import DEFAULT_DOOR, DoorConfig
from pipeline.ingest.door.images import CleanImage, upright_image
from pipeline.ingest.door.rules import FIXES, PROBLEMS, RULES, in_words
from pipeline.ingest.door.shrink import Shrink

__all__ = [
    "DEFAULT_DOOR",
    "FIXES",
    "PROBLEMS",
    "RULES",
    "Admission",
    "CleanImage",
    "DoorConfig",
    "Shrink",
    "admit",
    "in_words",
    "upright_image",
]
