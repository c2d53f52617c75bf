"""The portable graph as a functional `keras.Model`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
from keras import ops

from modelport.backends.keras import build_recurrent as _recurrent  # noqa: F401 (registers its layers)
from modelport.backends.keras.absorb import Absorption, Owned, Weight
from modelport.backends.keras.build_layers import LAYERS, Place, dropout
from modelport.backends.keras.carrier import as_tensor, carried_dtype, carry, is_inline, zero_of
from modelport.backends.keras.heads import Heads, einsum_dense, find_heads
from modelport.backends.keras.layers import weights as layer_weights
from modelport.backends.keras.lengths import Lengths
from modelport.backends.keras.names import Names, depth, name_operations, operations, recursion
from modelport.backends.keras.ops.registry import OPS, CannotBuild, NeedsValues
from modelport.backends.keras.ops.tensors import KERAS_DTYPES, cast, dtype, keras_dtype, plus
from modelport.backends.keras.runtime import OnnxOp, call
from modelport.backends.keras.site import Site
from modelport.core.backend import Built
from modelport.core.errors import UnsupportedModelError, UnsupportedOpError
from modelport.core.report import Note
from modelport.core.signature import Signature, leaves, map_tree
from modelport.graph.expr import Expr
from modelport.graph.layers import recognize_layers
from modelport.graph.layout import to_channels_last
from modelport.graph.normal import drop_dead_nodes, normalize
from modelport.graph.shapes import ShapeInfo, infer
from modelport.graph.signature import graph_inputs, read_signature
from modelport.graph.weights import ROLES_KEY, roles

_SHALLOW = 700
"""How deep a model may be that Keras loads under Python's usual recursion limit of 1000."""


def build(graph: ir.Model) -> Built:
    """A functional `keras.Model` that computes a portable graph; the graph is left as it was.

    Raises:
        UnsupportedOpError: an operator has no counterpart in Keras; the message names it and its node.
        UnsupportedModelError: the graph has no inputs, or one of a dtype that Keras does not have.
    """
    signature = read_signature(graph)
    model, transposes = to_channels_last(recognize_layers(normalize(graph)))
    drop_dead_nodes(model)
    program = Program(model, signature, strict=ROLES_KEY in graph.metadata_props)
    native = program.model()
    if transposes:
        program.note("layout", "graph", f"{transposes} transposes remain between channels-first and channels-last")
    return Built(native, tuple(program.notes))


class Program:
    """One model during the build.

    Attributes:
        info: what is known of the shapes.
        lengths: sizes that Keras does not know, as tensors.
        notes: what did not cross as it was.
        names: of the layers.
        shared: the layers that may be called again, by what tells them apart.
    """

    def __init__(self, model: ir.Model, signature: Signature, strict: bool) -> None:
        self.graph, self.signature = model.graph, signature
        self.info: ShapeInfo = infer(model)
        self.notes: list[Note] = []
        self.lengths = Lengths(self._source_of)
        self._weights = roles(model)
        self._absorption = Absorption(model, self._weights, strict)
        self._owned = {node: owned for node in model.graph if (owned := self._absorption.owned(node)) is not None}
        self._heads = find_heads(self._owned, self.info)
        self._joined = {heads.reshape for heads in self._heads.values()}
        self.names = Names({owned.name for owned in self._owned.values()} | set(self._weights))
        self._values: dict[str, Any] = {}
        self.shared: dict[tuple[Any, ...], Any] = {}
        self._kept: list[Any] = []
        self._holding: list[tuple[Any, Owned | Weight]] = []
        self._inputs = {str(value.name): self._input(value) for value in graph_inputs(model.graph)}
        if not self._inputs:
            raise UnsupportedModelError("the graph has no inputs: a Keras model needs one.")
        self._zero = zero_of(next(iter(self._inputs.values())))

    def note(self, kind: Any, where: str, message: str) -> None:
        self.notes.append(Note(kind, where, message))

    def keep(self, layer: Any) -> None:
        """Leave a layer the name that it has."""
        self._kept.append(layer)

    def hold(self, layer: Any, part: Owned | Weight) -> None:
        """Remember whose weights a layer gets."""
        self.keep(layer)
        self._holding.append((layer, part))

    # Values.

    def _input(self, value: ir.Value) -> Any:
        kind = value.dtype
        if kind is None or int(kind) not in KERAS_DTYPES or value.shape is None:
            count = "unknown" if value.shape is None else len(value.shape)
            raise UnsupportedModelError(
                f"input {value.name!r} is {kind.name if kind else value.type} of rank {count}: a Keras input is a "
                f"tensor of a known rank and of one of the dtypes {sorted(set(KERAS_DTYPES.values()))}. "
                "Convert the input in the source model."
            )
        shape = tuple(dim if isinstance(dim, int) else None for dim in value.shape)
        # A layer's name leads its weights home, so where both have one name the input's layer is called otherwise.
        tensor = keras.Input(batch_shape=shape, dtype=keras_dtype(kind), name=self.names.fresh(str(value.name)))
        tensor.name = str(value.name)
        self._values[str(value.name)] = tensor
        return tensor

    def _source_of(self, symbol: str) -> tuple[Any, int] | None:
        """The tensor and the axis that have the size behind a symbol."""
        source = self.info.sources.get(symbol)
        if source is None or source.axis is None or source.value not in self._values:
            return None
        return self._values[source.value], source.axis

    def operand(self, value: ir.Value) -> Any:
        """A value as a Keras tensor or an array."""
        name = str(value.name)
        if name not in self._values:
            weight = self._absorption.weight(value)
            if weight is not None:
                self._values[name] = self._carried(weight.array, weight)
            elif value.const_value is not None:
                self._values[name] = value.const_value.numpy()
            else:
                self._values[name] = self._stacked(value)
        return self._values[name]

    def _stacked(self, value: ir.Value) -> Any:
        """A small tensor of sizes, from its elements."""
        array, kind = self.info.array(value), self.info.dtype(value)
        if array is None or kind is None:
            raise CannotBuild(f"{value.name!r} has no value")
        if not any(isinstance(size, Expr) for size in array.ravel()):
            return array.astype(kind.numpy())
        name = keras_dtype(kind)
        flat = [0 if isinstance(size, Expr) else size for size in array.ravel()]
        total: Any = np.array(flat, kind.numpy())
        for place, size in enumerate(array.ravel()):
            if isinstance(size, Expr):
                here = np.arange(len(flat)) == place
                total = plus(total, ops.multiply(cast(self.lengths.scalar(size), name), here.astype(kind.numpy())))
        return ops.reshape(total, array.shape)

    def tensor(self, value: ir.Value | None) -> Any:
        """A value as an operator takes it: a Keras tensor, or an array that is small enough for the configuration."""
        if value is None:
            return None
        found = self.operand(value)
        if isinstance(found, np.ndarray) and not is_inline(found):
            key = f"{value.name} (constant)"
            if key not in self._values:
                self._values[key] = self._constant(found, str(value.name))
            return self._values[key]
        return found

    def _constant(self, array: np.ndarray, name: str) -> Any:
        """A large constant as the weight of a layer that is not trained."""
        kind = carried_dtype(array)
        layer, tensor = carry(self.zero, array, self.names.fresh(name), kind, constant=True)
        layer.trainable = False
        layer.kernel.assign(array.astype(layer.kernel.numpy().dtype)[None])
        self.keep(layer)
        return cast(tensor, dtype(array))

    def _carried(self, array: np.ndarray, weight: Weight) -> Any:
        layer, tensor = carry(self._zero, array, self.names.claim(weight.name), dtype(array))
        if layer.name != weight.name:
            self.note("changed", weight.name, f"its layer is called {layer.name!r}: Keras takes no '/' in a name")
        self.hold(layer, weight)
        return tensor

    def taken(self, value: ir.Value | None, form: str) -> Any:
        """A value in the form in which an operator's function takes it.

        Raises:
            NeedsValues: the function needs numbers that only the run tells.
        """
        if value is None or form == "tensor":
            return self.tensor(value)
        known = self._values.get(str(value.name))
        if isinstance(known, np.ndarray) or value.const_value is not None:
            array = self.operand(value)
            return array if form == "array" else tuple(array.ravel().tolist())
        elements = self.info.elements(value)
        if elements is None or (form != "sizes" and any(isinstance(size, Expr) for size in elements)):
            raise NeedsValues(f"{value.name!r} is computed when the model runs")
        return elements if form != "array" else np.array(elements, value.dtype.numpy() if value.dtype else None)

    # Nodes.

    def run(self) -> None:
        """Build every node."""
        for node in self.graph:
            try:
                self._visit(node)
            except CannotBuild as error:
                raise self._unsupported(node, str(error)) from error
            except (ValueError, TypeError, NotImplementedError) as error:
                raise self._unsupported(node, f"Keras refuses it: {error}") from error

    @staticmethod
    def _unsupported(node: ir.Node, why: str) -> UnsupportedOpError:
        kind = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        message = (
            f"Keras has no counterpart for {kind} at node {node.name!r}: {why}. "
            "Replace the operator in the source model, or use the onnx backend."
        )
        return UnsupportedOpError(message, op_type=node.op_type, node=node.name or "")

    def _is_size(self, node: ir.Node) -> bool:
        """Whether a node's results are sizes; they become tensors only where one is asked for."""

        def follows(size: Any) -> bool:
            symbols = size.symbols() if isinstance(size, Expr) else ()
            return all(self._source_of(symbol) is not None for symbol in symbols)

        elements = [self.info.elements(value) for value in node.outputs]
        return all(found is not None and all(map(follows, found)) for found in elements)

    def _visit(self, node: ir.Node) -> None:
        if self._is_size(node) or node in self._joined:
            return
        results = self._layer(node)
        if results is None:
            results = self._operator(node)
        results = results if isinstance(results, (tuple, list)) else (results,)
        for value, result in zip(node.outputs, results, strict=False):
            self._values[str(value.name)] = result

    def _layer(self, node: ir.Node) -> Any:
        """The node as a call of a layer that owns its weights; `None` where there is no such layer."""
        if node.op_type == "Dropout" and not node.domain:
            return dropout(self, node, self.tensor(node.inputs[0]))
        if node in self._heads:
            return self._with_heads(node, self._heads[node])
        owned, make = self._owned.get(node), LAYERS.get((node.domain, node.op_type))
        if owned is None or make is None:
            return None
        first = owned.key not in self.shared
        try:
            result = make(Place(self, node, owned), self._symbolic(node.inputs[0]), **_attributes(node))
        except NeedsValues:
            return None
        if result is not None and first:
            self._noted(owned, node)
        return result

    def _symbolic(self, value: ir.Value | None) -> Any:
        """A value as a layer takes it: given an array it would compute at once, with weights that are not yet set."""
        found = self.tensor(value)
        return as_tensor(self._zero, found) if isinstance(found, np.ndarray) else found

    def _with_heads(self, node: ir.Node, heads: Heads) -> Any:
        """A Linear and the Reshape after it or before it, as one layer."""
        owned = self._owned[node]
        source = node.inputs[0] if heads.splits else heads.reshape.inputs[0]
        result = einsum_dense(Place(self, node, owned), self._symbolic(source), heads, self.info)
        self._noted(owned, node)
        if heads.splits:
            self._values[str(heads.reshape.outputs[0].name)] = result
        return result

    def _noted(self, owned: Owned, node: ir.Node) -> None:
        for weight in owned.weights.values():
            if weight.name in self._absorption.renamed:
                self.note("changed", weight.name, f"is now {self._absorption.renamed[weight.name]!r}")
        if not owned.trainable and node.op_type == "BatchNormalization":
            self.note(
                "changed", owned.name, "is frozen: Keras then uses its statistics in training too, and keeps them"
            )

    def _operator(self, node: ir.Node) -> Any:
        found = OPS.get((node.domain, node.op_type))
        if found is None:
            raise CannotBuild("it is not among the operators that are translated")
        attributes = _attributes(node)
        unknown = sorted(set(attributes) - found.keywords)
        if unknown and not found.takes_all:
            raise CannotBuild(f"its attributes {unknown} are not translated")
        try:
            if found.at_run_time:
                raise NeedsValues("the shape of its result depends on values")
            extra = {"site": Site(self, node), "outputs": _used(node), "result": self._result(node)}
            result = call(found, node.inputs, attributes, extra, self.taken)
        except NeedsValues as why:
            return self._at_run_time(node, attributes, str(why))
        results = result if isinstance(result, (tuple, list)) else (result,)
        return tuple(
            each if isinstance(each, (keras.KerasTensor, np.ndarray)) else np.asarray(each) for each in results
        )

    def _result(self, node: ir.Node) -> str:
        """The dtype of the first output; empty where it is not known."""
        return KERAS_DTYPES.get(int(self.info.dtype(node.outputs[0]) or 0), "")

    def _results(self, node: ir.Node) -> list[tuple[str, tuple[int | None, ...]]]:
        """Dtype and shape of every output that is used.

        Raises:
            CannotBuild: one of them is not known.
        """
        found: list[tuple[str, tuple[int | None, ...]]] = []
        for value in node.outputs[: _used(node)]:
            kind, dims = self.info.dtype(value), self.info.dims(value)
            if dims is None or int(kind or 0) not in KERAS_DTYPES:
                raise CannotBuild(f"the dtype or rank of {value.name!r} is not known, or is none that Keras has")
            found.append((keras_dtype(kind or 0), tuple(dim if isinstance(dim, int) else None for dim in dims)))
        return found

    def _at_run_time(self, node: ir.Node, attributes: dict[str, Any], why: str) -> Any:
        """The node in the custom layer that runs it eagerly."""
        results = self._results(node)
        given = [self.tensor(value) for value in node.inputs]
        tensors = [each for each in given if isinstance(each, keras.KerasTensor)]
        if not tensors:
            tensors, given = [as_tensor(self._zero, given[0])], ["tensor", *given[1:]]
        inputs = ["tensor" if isinstance(each, keras.KerasTensor) else each for each in given]
        name = self.names.fresh(node.name or node.op_type)
        layer = OnnxOp(node.op_type, node.domain, attributes, inputs, results, name=name)
        self.keep(layer)
        needs = "to load it from a .keras file, import modelport.backends.keras.runtime first"
        self.note("fallback", name, f"{node.op_type} runs in modelport's own layer, since {why}; {needs}")
        return layer(*tensors)

    # The model.

    def model(self) -> keras.Model:
        """The model, with its weights set."""
        self.run()
        outputs = {str(value.name): self._output(value) for value in self.graph.outputs}
        outputs = self._with_unused(outputs)
        inputs = self._nested_inputs()
        tensors = list(outputs.values())
        name_operations(tensors, self.names, self._kept)
        self._keep_inputs(tensors)
        deep = depth(tensors)
        if deep > _SHALLOW:
            limit = f"call sys.setrecursionlimit({deep + 1000}) before it is loaded from a .keras file"
            self.note("changed", "model", f"is {deep} operations deep, and Keras walks it recursively: {limit}")
        with recursion(2 * deep):
            model = keras.Model(inputs, map_tree(lambda name: outputs[name], self.signature.returns), name="model")
        self._assign()
        return model

    def _output(self, value: ir.Value) -> Any:
        found = self.operand(value)
        if isinstance(found, np.ndarray):
            found = as_tensor(self._zero, found) if is_inline(found) else self.tensor(value)
        return found

    def _with_unused(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """The outputs, with the weights that nothing uses tied to the first one: Keras keeps what an output needs."""
        held = {weight.name for _, part in self._holding for weight in _parts(part)}
        unused = [name for name in self._weights if name not in held]
        if not unused:
            return outputs
        nothing = None
        for name in unused:
            flat = ops.reshape(self.operand(self.graph.initializers[name]), (-1,))
            # The sum of no elements: it is 0 and has no gradient.
            empty = ops.sum(ops.cast(flat[(slice(0, 0),)], "float32"))
            nothing = empty if nothing is None else plus(nothing, empty)
        first = next(iter(outputs))
        tied = outputs[first]
        zero = cast(nothing, dtype(tied))
        outputs[first] = ops.logical_or(tied, zero) if dtype(tied) == "bool" else plus(tied, zero)
        return outputs

    def _keep_inputs(self, tensors: Iterable[Any]) -> None:
        """Say which inputs the outputs do not depend on; the model takes them all the same."""
        used = {id(operation) for operation in operations(tensors)}
        for name, tensor in self._inputs.items():
            if id(tensor._keras_history.operation) not in used:
                self.note("dropped", name, "no output depends on this input")

    def _nested_inputs(self) -> Any:
        """The inputs as the model takes them: one tensor, one nesting, or a list in the signature's order."""
        args = self.signature.args or ()
        if len(args) == 1 and not self.signature.kwargs:
            nested = map_tree(lambda name: self._inputs[name], args[0])
            return list(nested) if isinstance(nested, tuple) else nested
        order = [*leaves(args), *leaves(dict(self.signature.kwargs))]
        return [self._inputs[name] for name in order]

    def _assign(self) -> None:
        """Set the weights of the layers, and freeze those that are frozen."""
        for layer, part in self._holding:
            if isinstance(part, Weight):
                layer.kernel.assign(part.array[None])
                layer.trainable = part.role == "parameter"
                continue
            for each in layer_weights(layer):
                arrays = [_portable(part, name, each.layout.portable) for name in each.names]
                each.variable.assign(each.to_native(arrays))
            if not part.trainable:
                layer.trainable = False


def _parts(part: Owned | Weight) -> Iterable[Weight]:
    return (part,) if isinstance(part, Weight) else part.weights.values()


def _portable(owned: Owned, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A weight in the portable layout; zeros for a bias that the source does not have."""
    if name not in owned.weights and name.startswith("bias"):
        return np.zeros(shape, np.float32)
    array = owned.weights[name].array
    return array.T if owned.transposed else array


def _used(node: ir.Node) -> int:
    """How many outputs a node has, up to the last that has a name."""
    return max((i + 1 for i, value in enumerate(node.outputs) if value.name), default=1)


def _attributes(node: ir.Node) -> dict[str, Any]:
    """A node's attributes as Python values."""
    found: dict[str, Any] = {}
    for name, attribute in node.attributes.items():
        if attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
            raise CannotBuild("control flow has no counterpart in a functional model")
        value = attribute.value
        if isinstance(value, ir.TensorProtocol):
            value = value.numpy()
        found[name] = tuple(value) if isinstance(value, (list, tuple)) else value
    return found
