"""A policy as an ONNX graph, built node by node; the observation statistics are a part of it."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._errors import require_extra
from .dense import Dense
from .inputs import Inputs
from .metadata import ACTION, Metadata, as_text

# Old enough for what runs on robots; nothing newer is used.
OPSET, IR_VERSION = 17, 8


def to_onnx(dense: Dense, inputs: Inputs, facts: Metadata) -> bytes:
    """The model: an input for each leaf `[batch, ...]`, the output `action`, and the facts as `metadata`.

    Raises:
        ImportError: without the extra `export`.
        ValueError: if an input has the name of the output.
    """
    onnx = _onnx()
    if ACTION in inputs.shapes:
        raise ValueError(f"the observation has a part {ACTION!r}, which is the name of the output.")
    nodes = _Nodes(onnx)
    seen, *_ = [name for name in inputs.shapes if name != inputs.mask]
    outputs = _network(nodes, dense, seen, inputs.dtypes[seen])
    if dense.bounds is None:
        _choose(nodes, outputs, inputs.mask)
    else:
        squashed = nodes.add("Mul", nodes.add("Tanh", outputs), dense.bounds.range)
        below = nodes.add("Min", squashed, dense.bounds.limit)
        nodes.add("Max", below, -dense.bounds.limit, output=ACTION)
    kind = onnx.TensorProto.INT32 if dense.bounds is None else onnx.TensorProto.FLOAT
    shape = ["batch"] if dense.bounds is None else ["batch", len(dense.bounds.limit)]
    value = onnx.helper.make_tensor_value_info
    element = onnx.helper.np_dtype_to_tensor_dtype
    graph = onnx.helper.make_graph(
        nodes.nodes,
        "policy",
        [
            value(name, element(inputs.dtypes[name]), ["batch", *inputs.shapes[name]])
            for name in inputs.shapes
        ],
        [value(ACTION, kind, shape)],
        nodes.constants,
    )
    opsets = [onnx.helper.make_opsetid("", OPSET)]
    model = onnx.helper.make_model(
        graph, producer_name="reppo_fx", opset_imports=opsets, ir_version=IR_VERSION
    )
    onnx.helper.set_model_props(model, {"metadata": as_text(facts)})
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    return data


def run_onnx(data: bytes, leaves: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """The action of a model by ONNX's own reference implementation."""
    evaluator = importlib.import_module("onnx.reference").ReferenceEvaluator
    with np.errstate(over="ignore", invalid="ignore"):  # its sigmoid goes by way of exp(x)
        (action,) = evaluator(_onnx().load_from_string(data)).run(None, leaves)
    found: NDArray[Any] = action
    return found


class _Nodes:
    """Nodes and constants of a graph, as they are added; names are numbers."""

    def __init__(self, onnx: ModuleType) -> None:
        self._onnx = onnx
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(
        self, kind: str, *inputs: str | NDArray[Any], output: str | None = None, **attributes: Any
    ) -> str:
        """The name of a node's output; an array among its inputs becomes a constant."""
        names = [each if isinstance(each, str) else self._constant(each) for each in inputs]
        output = output or f"node_{len(self.nodes)}"
        self.nodes.append(self._onnx.helper.make_node(kind, names, [output], **attributes))
        return output

    def _constant(self, array: NDArray[Any]) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(self._onnx.numpy_helper.from_array(np.asarray(array), name))
        return name

    def cast(self, name: str, dtype: type, output: str | None = None) -> str:
        """In another element type."""
        to = self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.add("Cast", name, to=to, output=output)


def _network(nodes: _Nodes, dense: Dense, seen: str, dtype: np.dtype[Any]) -> str:
    x = seen if dtype == np.float32 else nodes.cast(seen, np.float32)
    x = nodes.add("Div", nodes.add("Sub", x, dense.mean), dense.std)
    for number, (weight, bias) in enumerate(zip(dense.weights, dense.biases, strict=True)):
        if number:
            x = _norm(nodes, dense, x, number - 1)
            x = nodes.add("Mul", x, nodes.add("Sigmoid", x))
        x = nodes.add("Add", nodes.add("MatMul", x, weight), bias)
    return x


def _norm(nodes: _Nodes, dense: Dense, x: str, number: int) -> str:
    if dense.norm == "none":
        return x
    if dense.norm == "layer":
        x = nodes.add("Sub", x, nodes.add("ReduceMean", x, axes=[-1], keepdims=1))
    square = nodes.add("ReduceMean", nodes.add("Mul", x, x), axes=[-1], keepdims=1)
    root = nodes.add("Sqrt", nodes.add("Add", square, np.array(1e-6, np.float32)))
    x = nodes.add("Mul", nodes.add("Div", x, root), dense.scales[number])
    return nodes.add("Add", x, dense.shifts[number]) if dense.shifts else x


def _choose(nodes: _Nodes, logits: str, mask: str | None) -> None:
    """The largest logit among actions that are not ruled out; a mask that rules out all rules out none."""
    if mask is not None:
        some = nodes.add("ReduceMax", nodes.cast(mask, np.int32), axes=[-1], keepdims=1)
        allowed = nodes.add("Or", mask, nodes.add("Not", nodes.cast(some, np.bool_)))
        logits = nodes.add("Where", allowed, logits, np.array(-np.inf, np.float32))
    number = nodes.add("ArgMax", logits, axis=-1, keepdims=0)
    nodes.cast(number, np.int32, output=ACTION)


def _onnx() -> ModuleType:
    try:
        return importlib.import_module("onnx")
    except ModuleNotFoundError as error:
        if error.name != "onnx":
            raise
        raise require_extra("onnx", "export") from error
