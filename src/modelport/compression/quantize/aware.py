"""Quantization-aware training: floats learn with the rounding in place, which gradients pass as if it were not there.

A pair of QuantizeLinear and DequantizeLinear becomes `s * (c + e)` with `c = clip(x / s)` and `e = round(c) - c`. The
gradient of the sum is that of c alone, the straight-through estimator (Jacob et al. 2018, section 3), where e is seen
as a constant. Integers have no gradients in any framework, so e goes through one, in steps of 2^-20.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from modelport.compression.masks import zeros
from modelport.compression.outcome import Outcome
from modelport.compression.quantize.inference import inference_form
from modelport.compression.quantize.run import quantize
from modelport.core.signature import Signature
from modelport.core.steps import FineTune, Quantize
from modelport.graph.names import unique_name
from modelport.graph.normal import drop_dead_nodes, normalize
from modelport.graph.splice import insert, take_place
from modelport.graph.weights import roles, set_roles, with_weights
from modelport.training.finetune import finetune

_FINE = 2.0**20
_LIMITS = {ir.DataType.INT8: (-128, 127), ir.DataType.UINT8: (0, 255)}
_SUFFIX = "_quantized"


def quantize_aware(
    graph: ir.Model,
    step: Quantize,
    train: FineTune,
    signature: Signature,
    rounded: Callable[[ir.Model], Outcome],
    *,
    backend: str,
    masked: Collection[str],
) -> Outcome:
    """The graph in 8 bits, its weights trained with the rounding in place first.

    Args:
        graph: in normal form; it is left as it was.
        step: how to quantize.
        train: how to train.
        signature: of the graph, which the calibration data fit.
        rounded: what puts the trained graph into integers.
        backend: the one to train on; another one where it cannot.
        masked: the portable names of weights whose zeros stay.

    Raises:
        DataError: data do not fit the graph.
        StepError: see `quantize` and `training.finetune.finetune`.
    """
    floats = inference_form(graph)
    first = quantize(floats, step, signature)
    trained = finetune(with_rounding(first.graph, floats), train, backend=backend, masks=zeros(floats, masked))
    return replace(rounded(with_weights(floats, trained.weights)), epochs=trained.epochs)


def with_rounding(quantized: ir.Model, floats: ir.Model) -> ir.Model:
    """A graph that rounds as a quantized one does and whose weights are floats again, which can be trained.

    Args:
        quantized: what ONNX Runtime's quantizer made of `floats`; it stays as it is.
        floats: has the weights by the names that they had.
    """
    model = quantized.clone()
    known = roles(floats)
    added: dict[str, ir.Value] = {}
    for node in list(model.graph):
        if node.op_type == "DequantizeLinear" and not node.domain:
            _Pair(model, node, floats, added).replace()
    for value in added.values():
        model.graph.register_initializer(value)
    drop_dead_nodes(model)
    set_roles(model, {name: role for name, role in known.items() if name in model.graph.initializers})
    return normalize(model)


class _Pair:
    """A DequantizeLinear, with the QuantizeLinear before it or the integers that it reads."""

    def __init__(self, model: ir.Model, node: ir.Node, floats: ir.Model, added: dict[str, ir.Value]) -> None:
        self._model, self._node, self._floats, self._added = model, node, floats, added
        self._result = node.outputs[0]

    def replace(self) -> None:
        """Put floats that are rounded in the place of integers."""
        integers = self._node.inputs[0]
        assert integers is not None
        assert self._node.graph is not None
        before = integers.producer()
        if before is None:
            source = self._weight(integers)
        else:
            source = before.inputs[0] if before.op_type == "QuantizeLinear" else None
        if source is None:
            return
        zero = self._node.inputs[2] if len(self._node.inputs) > 2 else None
        dtype = integers.dtype if zero is None else zero.dtype
        floats = self._rounded(source, dtype, zero) if dtype in _LIMITS else source
        if self._result.is_graph_output():
            take_place(self._result, floats)
        else:
            self._result.replace_all_uses_with(floats)
        self._node.graph.remove(self._node, safe=True)

    def _weight(self, integers: ir.Value) -> ir.Value | None:
        """The floats that a weight or a bias was."""
        name = str(integers.name).removesuffix(_SUFFIX)
        found = self._floats.graph.initializers.get(name)
        if found is None or found.const_value is None:
            return None
        if name not in self._added:
            tensor = found.const_value
            self._added[name] = ir.Value(
                name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape), const_value=tensor
            )
        return self._added[name]

    def _rounded(self, source: ir.Value, dtype: Any, zero: ir.Value | None) -> ir.Value:
        scale = self._node.inputs[1]
        assert scale is not None
        assert scale.const_value is not None
        offset = 0 if zero is None or zero.const_value is None else int(zero.const_value.numpy().max())
        low, high = (limit - offset for limit in _LIMITS[dtype])
        step = self._constant("step", self._along(scale.const_value.numpy(), source))
        fine = self._constant("fine", np.float32(_FINE))
        clipped = self._op(
            "Clip", self._op("Div", source, step), self._constant("low", np.float32(low)),
            self._constant("high", np.float32(high)),
        )  # fmt: skip
        error = self._op("Sub", self._op("Round", clipped), clipped)
        counted = self._op("Cast", self._op("Round", self._op("Mul", error, fine)), to=ir.DataType.INT32)
        error = self._op("Div", self._op("Cast", counted, to=ir.DataType.FLOAT), fine)
        return self._op("Mul", self._op("Add", clipped, error), step)

    def _along(self, scale: np.ndarray, source: ir.Value) -> np.ndarray:
        """Scales with the axes of what they scale."""
        if scale.ndim == 0 or source.const_value is None:
            return scale
        shape = [1] * len(source.const_value.shape)
        shape[self._node.attributes.get_int("axis", 1)] = -1
        return scale.reshape(shape)

    def _constant(self, label: str, array: np.ndarray | np.float32) -> ir.Value:
        name = unique_name(f"{self._node.name}/{label}", self._model.graph.initializers)
        tensor = ir.tensor(np.asarray(array, np.float32), name=name)
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape), const_value=tensor)
        self._model.graph.register_initializer(value)
        return value

    def _op(self, op_type: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        return insert(self._node, op_type, inputs, attributes)
