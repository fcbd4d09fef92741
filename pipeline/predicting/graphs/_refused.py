"""Why a model, or a whole family of them, is not exported: a sentence each, shown as it stands.

A model stands here or its family has a file beside this one: a test holds every model to it.
"""

from __future__ import annotations

from torch import nn

from lightning_modules.base.families import Spec
from pipeline.predicting.graphs._family import BaseFamily, family_name, family_of

MODELS = {
    "rcnn": "R-CNN cuts every region out of the stored picture, runs its network over each and judges them by support "
    "vector machines, in blocks whose number follows the picture: a pipeline of programs, not one graph",
}
FAMILIES = {
    "teller": "it reads questions and answers word by word in a loop of Python, whose length an exported graph would "
    "fix to that of one example",
}


def reason_for(name: str, spec_class: type[Spec], model: nn.Module | None = None) -> str | None:
    """Why the model called `name` is not exported; None: it is.

    Args:
        model: also asked what its settings stand in the way of.
    """
    if name in MODELS:
        return MODELS[name]
    family = family_name(spec_class.protocol)
    if family in FAMILIES:
        return FAMILIES[family]
    found: BaseFamily | None = family_of(spec_class.protocol)
    if found is None:
        return f"nobody has said yet how a {family.replace('_', ' ')} becomes a graph"
    return None if model is None else found.reason(model)
