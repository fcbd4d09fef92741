"""A `Graph` as an ONNX file, written by torch's own exporter, and as something that runs.

A graph of one image is put into an ONNX `Scan`, which runs it for each image of a batch; its weights stand outside.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from contracts.errors import SightlineError
from pipeline.predicting.graphs._family import Graph
from pipeline.predicting.graphs._parts import OPSET, exportable_functions

if TYPE_CHECKING:
    import onnx


class ExportFailed(SightlineError):
    """A model whose graph the exporter does not take, or that no runtime loads."""


class _Flat(nn.Module):
    """A graph's function as a module. The model is a part of it, so that its weights are weights of the file."""

    def __init__(self, model: nn.Module, function: Callable[..., tuple[Tensor, ...]]):
        super().__init__()
        self.model, self.function = model, function

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return self.function(*inputs)


def write_graph(graph: Graph, model: nn.Module, path: Path) -> None:
    """Write `graph`, of `model`, to `path`.

    Raises:
        ExportFailed: torch cannot export it.
    """
    import onnx

    names = (lambda values: [f"{v.name}_of_one" for v in values]) if graph.is_per_image else _names
    try:
        with torch.no_grad(), exportable_functions(), quiet():
            program = torch.onnx.export(
                _Flat(model, graph.function).eval(),
                # A state may begin as one tensor twice, and the exporter would make one input of it.
                tuple(tensor.clone() for tensor in graph.example),
                dynamo=True,
                opset_version=OPSET,
                input_names=names(graph.inputs),
                output_names=names(graph.outputs),
                dynamic_shapes=None if graph.is_per_image else _dynamic(graph),
                verbose=False,
            )
    except Exception as error:  # the exporter raises whatever the model leads it to
        raise ExportFailed(
            "torch's exporter does not take this model",
            value=_shortened(error),
            where=graph.name,
            fix="see docs/export.md for what can be exported",
        ) from error
    assert program is not None
    proto = program.model_proto
    if graph.is_per_image:
        proto = scanned(proto, graph)
    onnx.save(proto, str(path))


def _names(values: Any) -> list[str]:
    return [value.name for value in values]


def _dynamic(graph: Graph) -> tuple[tuple[dict[int, Any], ...]]:
    dims: dict[str, Any] = {}
    for value in graph.inputs:
        for name in value.axes.values():
            dims.setdefault(name, torch.export.Dim(name, min=1))
    return (tuple({axis: dims[name] for axis, name in value.axes.items()} for value in graph.inputs),)


def _shortened(error: BaseException) -> str:
    """The innermost cause in a line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:300]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The exporter tells of itself, on stdout and in the logs of three libraries."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.CRITICAL)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def scanned(proto: onnx.ModelProto, graph: Graph) -> onnx.ModelProto:
    """The graph of one image run for each of a batch: inputs and outputs get a first axis, "batch"."""
    from onnx import helper

    body = proto.graph
    weights = list(body.initializer)
    del body.initializer[:]
    for value, output, like in zip(graph.outputs, body.output, _outputs_of_one(graph), strict=True):
        del value
        output.type.tensor_type.shape.CopyFrom(helper.make_tensor_type_proto(1, like).tensor_type.shape)

    def outer(value: Any, inner: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
        sides = [d.dim_value for d in inner.type.tensor_type.shape.dim]
        return helper.make_tensor_value_info(value.name, inner.type.tensor_type.elem_type, ["batch", *sides])

    inputs = [outer(value, inner) for value, inner in zip(graph.inputs, body.input, strict=True)]
    outputs = [outer(value, inner) for value, inner in zip(graph.outputs, body.output, strict=True)]
    scan = helper.make_node("Scan", _names(graph.inputs), _names(graph.outputs), body=body, num_scan_inputs=len(inputs))
    main = helper.make_graph([scan], "batch", inputs, outputs, initializer=weights)
    return helper.make_model(
        main,
        opset_imports=proto.opset_import,
        ir_version=proto.ir_version,
        functions=proto.functions,
        producer_name=proto.producer_name,
        producer_version=proto.producer_version,
    )


def _outputs_of_one(graph: Graph) -> list[tuple[int, ...]]:
    with torch.no_grad():
        return [tuple(out.shape) for out in graph.function(*graph.example)]


class Session:
    """A file in ONNX Runtime, called with tensors on the CPU.

    Attributes:
        output_names: in order.

    Raises:
        ExportFailed: it does not load.
    """

    def __init__(self, path: Path, threads: int | None = None):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.log_severity_level = 3  # errors; it warns of constants in subgraphs
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # of a dozen types of its own
            raise ExportFailed(
                "ONNX Runtime does not load the file", value=_shortened(error), where=str(path)
            ) from error
        self.input_names = [value.name for value in self._session.get_inputs()]
        self.output_names = [value.name for value in self._session.get_outputs()]

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        given = {name: value.contiguous().numpy() for name, value in zip(self.input_names, inputs, strict=True)}
        return [torch.from_numpy(array) for array in self._session.run(None, given)]

    def described(self) -> dict[str, list[dict[str, Any]]]:
        """Inputs and outputs with shapes, any length by what it counts, and types."""
        ends = {"inputs": self._session.get_inputs(), "outputs": self._session.get_outputs()}
        return {
            end: [{"name": v.name, "shape": v.shape, "dtype": v.type[7:-1]} for v in values]
            for end, values in ends.items()
        }


def write_graphs(graphs: list[Graph], model: nn.Module, folder: Path) -> Mapping[str, Session]:
    """`<folder>/<name>.onnx` of each, loaded."""
    runs = {}
    for graph in graphs:
        path = folder / f"{graph.name}.onnx"
        write_graph(graph, model, path)
        runs[graph.name] = Session(path)
    return runs
