"""Weights that are there already, laid over those that a training would begin with: of Sightline's checkpoints, of
other software's files, of torchvision.

What of them was taken, what the model keeps as initialised and what nobody asked for is told by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import torch
import torchvision
from torch import Tensor, nn

from contracts.errors import ConfigError, DataError
from lightning_modules.base.updates import find_part
from lightning_modules.blocks.backbones import Backbone, _state_dict
from pipeline.settings.train_config import InitConfig

if TYPE_CHECKING:
    from lightning_modules.base.module import TaskModule

_SHOWN = 5
_WRAPPED = ("state_dict", "model", "model_state_dict", "weights")  # keys under which others' files hold weights
_COUNTER = "num_batches_tracked"  # of a batch norm: it changes nothing where there is a momentum
Weights = dict[str, Tensor]


class Loaded(TypedDict):
    """What was taken of the weights that a run starts from.

    `tensors` and `values` count what was loaded, `of_tensors` what the parts have. `kept`: names that stay as
    initialised, each with the reason; `unused`: names of the given ones that fit nowhere.
    """

    tensors: int
    of_tensors: int
    values: int
    kept: dict[str, str]
    unused: list[str]


def weights_of_file(path: Path) -> Weights:
    """Name -> tensor of a file: Sightline's checkpoint, Lightning's, or a plain `state_dict`, as torch saves them.

    Raises:
        DataError: it cannot be read without running code in it, or holds no weights.
    """
    try:
        document = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the bytes lead it to
        raise DataError(
            "the file of weights cannot be read; no code in it was run",
            value=str(error)[:200],
            where=str(path),
            allowed="a dictionary of tensors, as `torch.save(model.state_dict(), path)` writes it",
        ) from error
    for key in _WRAPPED:
        if isinstance(document, Mapping) and isinstance(document.get(key), Mapping):
            document = document[key]
    weights = {n: v for n, v in document.items() if isinstance(v, Tensor)} if isinstance(document, Mapping) else {}
    if not weights:
        raise DataError("there are no weights in this file", where=str(path), allowed="a dictionary of tensors")
    return weights


def weights_of_torchvision(name: str) -> Weights:
    """Published weights by torchvision's name, from torch's cache or the network.

    Raises:
        ConfigError: torchvision has none of this name, or they cannot be had.
    """
    try:
        weights = torchvision.models.get_weight(name)
    except (KeyError, ValueError) as error:
        raise ConfigError(
            "torchvision has no such weights", value=name, where="init.from", allowed="such as ResNet18_Weights.DEFAULT"
        ) from error
    return dict(_state_dict(name.partition("_")[0], weights))


def lay_over(module: TaskModule, given: Mapping[str, Tensor], init: InitConfig) -> Loaded:
    """Put `given` in the place of the module's weights, in the parts that `init` names.

    Raises:
        ConfigError: the model has no such part.
        DataError: they do not fit, or with `strict: false` none of them does; the module is as it was.
    """
    parts = init.parts or (_backbones(module.model) if init.kind == "torchvision" else ())
    for part in parts:
        find_part(module.model, part, "init.parts")
    own = {name: value for name, value in module.state_dict().items() if _is_in(name, parts)}
    renamed = _named_as_here(module.model, own, given)
    taken = {name: renamed[name] for name in own if name in renamed and renamed[name].shape == own[name].shape}
    kept = {
        name: f"{_shape(renamed.get(name))} there and {_shape(own[name])} here"
        for name in own.keys() - taken.keys()
        if name in renamed or not name.endswith(_COUNTER)
    }
    unused = [name for name in renamed if name not in own and _is_in(name, parts)]
    if not taken or (init.strict and (kept or unused)):
        raise _unfit(init, taken, kept, unused)
    module.load_state_dict(taken, strict=False)
    return Loaded(
        tensors=len(taken),
        of_tensors=len(taken) + len(kept),
        values=sum(value.numel() for value in taken.values()),
        kept=dict(sorted(kept.items())),
        unused=sorted(unused),
    )


def told(loaded: Loaded) -> str:
    """In one line."""
    text = f"{loaded['tensors']} of {loaded['of_tensors']} tensors, {loaded['values']:,} values"
    if loaded["kept"]:
        text += f"; as initialised: {_listed([f'{name} ({why})' for name, why in loaded['kept'].items()])}"
    return text + (f"; not used: {_listed(loaded['unused'])}" if loaded["unused"] else "")


def _named_as_here(model: nn.Module, own: Weights, given: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """`given` by the names of this module. Sightline's have them; others' lack what stands before the name here, have
    something before theirs, or are torchvision's classifiers, whose layers stand in our backbone's order."""
    if any(name in own for name in given):
        return given
    bare = {name.partition(".")[2]: value for name, value in given.items()}  # of `module.` or `model.`
    for names in (given, bare):
        before = Counter(name.removesuffix(f".{one}") for name in own for one in names if name.endswith(f".{one}"))
        prefix, count = before.most_common(1)[0] if before else ("", 0)
        if 2 * count > len(own):  # not a few layers that happen to be called like others
            return {f"{prefix}.{name}": value for name, value in names.items()}
    return _in_order(model, given) or given


def _in_order(model: nn.Module, given: Mapping[str, Tensor]) -> Weights:
    """A classifier of torchvision and our backbone have the same layers one after the other; its head comes last."""
    backbones = _backbones(model)
    if len(backbones) != 1:
        return {}
    part = model.get_submodule(backbones[0])
    names = [name for name in part.state_dict() if not name.endswith(_COUNTER)]
    values = [(name, value) for name, value in given.items() if not name.endswith(_COUNTER)]
    alike = zip(names, values, strict=False)
    fits = len(names) <= len(values) and all(a.rpartition(".")[2] == b.rpartition(".")[2] for a, (b, _) in alike)
    head = dict(values[len(names) :])
    found = {f"model.{backbones[0]}.{name}": value for name, (_, value) in zip(names, values, strict=False)}
    return found | head if fits else {}


def _backbones(model: nn.Module) -> tuple[str, ...]:
    return tuple(name for name, part in model.named_modules() if isinstance(part, Backbone))


def _is_in(name: str, parts: tuple[str, ...]) -> bool:
    return not parts or any(name.startswith(f"model.{part}.") for part in parts)


def _unfit(init: InitConfig, taken: Mapping[str, Any], kept: Mapping[str, str], unused: list[str]) -> DataError:
    differing = [f"{name.removeprefix('model.')} is {why}" for name, why in sorted(kept.items())]
    differing += [f"{name.removeprefix('model.')} is there and not here" for name in sorted(unused)]
    return DataError(
        f"the weights of {init.source} do not fit this model",
        value=_listed(differing) if taken else f"none of them does: {_listed(differing)}",
        where=f"init.parts: {', '.join(init.parts) or 'all of the model'}",
        allowed="parts that are built alike: the same backbone, the same vocabulary, as many classes",
        fix="name parts that both have, such as parts: [backbone]"
        + ("; strict: false takes what fits" if taken and init.strict else ""),
    )


def _listed(texts: list[str]) -> str:
    return "; ".join(texts[:_SHOWN]) + (f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else "")


def _shape(value: Tensor | None) -> str:
    return "nothing" if value is None else f"{tuple(value.shape)}"
