"""The door: the only way from a `RawRecord` to a `Record`. Fixes by a stated rule, or refuses and says why."""

from pipeline.door.admit import Admission, admit
from pipeline.door.images import CleanImage, upright_image
from pipeline.door.rules import FIXES, PROBLEMS, RULES
from pipeline.door.shrink import Shrink

__all__ = ["FIXES", "PROBLEMS", "RULES", "Admission", "CleanImage", "Shrink", "admit", "upright_image"]
