"""The portable graph as a functional `keras.Model`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
from keras import ops

from modelport.backends.keras import build_recurrent as _recurrent  # noqa: F401 (registers its layers)
from modelport.backends.keras.absorb import Absorption, Owned, Weight
from modelport.backends.keras.assembly import assemble
from modelport.backends.keras.border import carrier_array, plain_array
from modelport.backends.keras.build_layers import DROPOUTS, LAYERS, Place, dropout
from modelport.backends.keras.carrier import as_tensor, carried_dtype, carry, is_inline, stored
from modelport.backends.keras.dynamic.evaluate import attributes, implementation, kinds, used
from modelport.backends.keras.dynamic.table import DYNAMIC
from modelport.backends.keras.heads import Heads, einsum_dense, find_heads
from modelport.backends.keras.lengths import Lengths
from modelport.backends.keras.names import Names, label_operations
from modelport.backends.keras.ops.registry import OPS, CannotBuild, NeedsValues, Op, call
from modelport.backends.keras.ops.tensors import KERAS_DTYPES, cast, dtype, keras_dtype, plus, zero_of
from modelport.backends.keras.parts import exposed, needed, part, put_on_host, settle_hosts
from modelport.backends.keras.regions import groups
from modelport.backends.keras.runtime import OnnxGraph, keras_type
from modelport.backends.keras.site import Site
from modelport.backends.keras.whole import build_whole, why_whole
from modelport.core.backend import Built
from modelport.core.errors import UnsupportedOpError
from modelport.core.report import Note
from modelport.core.signature import Signature
from modelport.graph.host import host_computes
from modelport.graph.layers.recognize import recognize_layers
from modelport.graph.layout.channels_last import to_channels_last
from modelport.graph.names import scoped
from modelport.graph.normal import drop_dead_nodes, normalize
from modelport.graph.shapes.expr import Expr
from modelport.graph.shapes.infer import ShapeInfo, infer
from modelport.graph.signature import graph_inputs, read_signature
from modelport.graph.weights import ROLES_KEY, roles
from modelport.graph.widen import WIDENED, widen_recurrent


def build(graph: ir.Model) -> Built:
    """A `keras.Model` that computes a portable graph; the graph is left as it was.

    It is functional, of Keras' layers and operators. What they lack is in layers of modelport's (`OnnxGraph`), or the
    whole model is one of modelport's (`OnnxModel`), and a note says so.

    Raises:
        UnsupportedOpError: nothing can compute an operator; the message names it and its node.
    """
    signature = read_signature(graph)
    normal = normalize(graph)
    widened = widen_recurrent(normal)
    if why := why_whole(normal):
        return build_whole(normal, signature, why)
    model, transposes = to_channels_last(recognize_layers(normal))
    drop_dead_nodes(model)
    program = Program(model, signature, strict=ROLES_KEY in graph.metadata_props)
    program.run()
    native = assemble(program)
    for name in widened:
        program.note("changed", name, WIDENED)
    if transposes:
        program.note("layout", "graph", f"{transposes} transposes remain between channels-first and channels-last")
    return Built(native, tuple(program.notes))


class Program:
    """One model during the build.

    Attributes:
        info: what is known of the shapes.
        lengths: sizes that Keras does not know, as tensors.
        notes: what did not cross as it was.
        weights: the roles of the graph's weights.
        names: of the layers.
        shared: the layers that may be called again, by what tells them apart.
        kept: operations that have their names.
        labels: what the other operations stand for, by their ids.
        holding: layers, and whose weights they get.
        inputs: the model's inputs by name.
        zero: a scalar that depends on an input, and is 0.
    """

    def __init__(self, model: ir.Model, signature: Signature, strict: bool) -> None:
        self.graph, self.signature = model.graph, signature
        self._opsets = dict(model.graph.opset_imports)
        self.info: ShapeInfo = infer(model)
        self.info.write()
        self.notes: list[Note] = []
        self.lengths = Lengths(self._source_of)
        self.weights = roles(model)
        self._absorption = Absorption(model, self.weights, strict)
        self._owned = {node: owned for node in model.graph if (owned := self._absorption.owned(node)) is not None}
        self._groups = groups(model.graph, _is_held)
        parted = {node for group in self._groups if len(group) > 1 for node in group}
        heads = find_heads(self._owned, self.info)
        self._heads = {node: each for node, each in heads.items() if not parted & {node, each.reshape}}
        self._joined = {heads.reshape for heads in self._heads.values()}
        self.names = Names({owned.name for owned in self._owned.values()} | set(self.weights))
        self._values: dict[str, Any] = {}
        self.shared: dict[tuple[Any, ...], Any] = {}
        self.kept: list[Any] = []
        self.labels: dict[int, str] = {}
        self.holding: list[tuple[Any, Owned | Weight]] = []
        self.inputs = {str(value.name): self._input(value) for value in graph_inputs(model.graph)}
        self.zero = zero_of(next(iter(self.inputs.values())))

    def note(self, kind: Any, where: str, message: str) -> None:
        self.notes.append(Note(kind, where, message))

    def calls(self, owned: Owned) -> int:
        """How many nodes call a layer."""
        return sum(each.key == owned.key for each in self._owned.values())

    def keep(self, layer: Any) -> None:
        """Leave a layer the name that it has."""
        self.kept.append(layer)

    def hold(self, layer: Any, part: Owned | Weight) -> None:
        """Remember whose weights a layer gets."""
        self.keep(layer)
        self.holding.append((layer, part))

    # Values.

    def _input(self, value: ir.Value) -> Any:
        assert value.shape is not None
        shape = tuple(dim if isinstance(dim, int) else None for dim in value.shape)
        # A layer's name leads its weights home, so where both have one name the input's layer is called otherwise.
        tensor = keras.Input(batch_shape=shape, dtype=keras_type(value), name=self.names.fresh(str(value.name)))
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
                self._values[name] = self._carried(carrier_array(weight.array), weight)
            elif value.const_value is not None:
                self._values[name] = carrier_array(value.const_value.numpy())
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
        layer.kernel.assign(stored(array.astype(kind)))
        self.keep(layer)
        return cast(tensor, dtype(array))

    def _carried(self, array: np.ndarray, weight: Weight) -> Any:
        layer, tensor = carry(self.zero, array, self.names.claim(weight.name), dtype(array))
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
        """Build every node.

        Raises:
            UnsupportedOpError: nothing can compute one of them; the message names it.
        """
        for group in self._groups:
            try:
                if len(group) > 1:
                    self._at_run_time(group, "its values are sequences, optionals or of a rank that only the run tells")
                else:
                    self._visit(group[0])
            except CannotBuild as error:
                raise self._unsupported(group[0], str(error)) from error
            except (ValueError, TypeError, NotImplementedError) as error:
                raise self._unsupported(group[0], f"Keras refuses it: {error}") from error

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
        label_operations(results, scoped(node.name or node.op_type), self.labels)

    def _layer(self, node: ir.Node) -> Any:
        """The node as a call of a layer that owns its weights; `None` where there is no such layer."""
        if (node.domain, node.op_type) in DROPOUTS:
            return dropout(self, node, self._symbolic(node.inputs[0]))
        if node in self._heads:
            return self._with_heads(node, self._heads[node])
        owned, make = self._owned.get(node), LAYERS.get((node.domain, node.op_type))
        if owned is None or make is None:
            return None
        first = owned.key not in self.shared
        try:
            result = make(Place(self, node, owned), self._symbolic(node.inputs[0]), **attributes(node))
        except NeedsValues:
            return None
        if result is not None and first:
            self._noted(owned, node)
        return result

    def _symbolic(self, value: ir.Value | None) -> Any:
        """A value as a layer takes it: given an array it would compute at once, with weights that are not yet set."""
        found = self.tensor(value)
        return as_tensor(self.zero, found) if isinstance(found, np.ndarray) else found

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
        try:
            if found is None:
                raise CannotBuild("Keras has no such operator")
            attributes = _plain_attributes(node, found)
            if ir.DataType.STRING in kinds(node):
                raise NeedsValues("Keras computes with no strings")
            extra = {
                "site": Site(self, node),
                "outputs": used(node),
                "result": self._result(node),
                "kinds": kinds(node),
            }
            result = call(found, node.inputs, attributes, extra, self.taken)
        except CannotBuild as why:
            self._settle(node, why)
            return self._at_run_time([node], str(why))
        results = result if isinstance(result, (tuple, list)) else (result,)
        return tuple(
            each if isinstance(each, (keras.KerasTensor, np.ndarray)) else plain_array(each) for each in results
        )

    def _settle(self, node: ir.Node, why: CannotBuild) -> None:
        """Choose what computes a node when the model runs.

        Raises:
            UnsupportedOpError: nothing can.
        """
        if (node.domain, node.op_type) in DYNAMIC:
            return
        # What only lacks a size or a value does what it does here once they are there.
        lacks = isinstance(why, NeedsValues) and ir.DataType.STRING not in kinds(node)
        if not (lacks and implementation(node) is not None and not host_computes(node, self._opsets)):
            put_on_host(node, self._opsets, str(why))

    def _result(self, node: ir.Node) -> str:
        """The dtype of the first output; empty where it is not known."""
        return KERAS_DTYPES.get(int(self.info.dtype(node.outputs[0]) or 0), "")

    def _at_run_time(self, nodes: Sequence[ir.Node], why: str) -> Any:
        """Some nodes in the custom layer that computes them when the model runs; their results, which are kept."""
        hosted = settle_hosts(nodes, self._opsets)
        given = {value: self.tensor(value) for value in needed(nodes)}
        inputs = [value for value, each in given.items() if isinstance(each, keras.KerasTensor)]
        tensors = [given[value] for value in inputs]
        if not inputs:
            # Keras lets in what depends on an input; the layer has no use for it.
            inputs, tensors = [next(iter(graph_inputs(self.graph)))], [next(iter(self.inputs.values()))]
        outputs = exposed(nodes, self.graph)
        if unknown := [str(value.name) for value in outputs if not _is_held(value)]:
            raise CannotBuild(f"{why}, and the dtype or the rank of {unknown} is not known")
        name = self.names.fresh(nodes[0].name or nodes[0].op_type)
        known = {value: each for value, each in given.items() if isinstance(each, np.ndarray)}
        layer = OnnxGraph(part(nodes, inputs, outputs, self._opsets, known), name=name)
        self.keep(layer)
        kinds_ = ", ".join(dict.fromkeys(node.op_type for node in nodes))
        needs = "to load it from a .keras file, import modelport.backends.keras.runtime first"
        if hosted:
            self.note("fallback", name, f"{', '.join(hosted)} runs on the host, outside Keras, since {why}; {needs}")
        else:
            self.note("custom", name, f"{kinds_} runs in modelport's own layer, since {why}; {needs}")
        results = layer(*tensors)
        results = results if isinstance(results, tuple) else (results,)
        self._values.update({str(value.name): result for value, result in zip(outputs, results, strict=True)})
        return tuple(self._values.get(str(value.name)) for value in nodes[-1].outputs)


def _is_held(value: ir.Value) -> bool:
    """Whether a functional model can hold a value."""
    return keras_type(value) is not None and value.shape is not None


def _plain_attributes(node: ir.Node, found: Op) -> dict[str, Any]:
    """A node's attributes as Python values.

    Raises:
        CannotBuild: the operator's function does not take them.
    """
    unknown = sorted(set(node.attributes) - found.keywords)
    if unknown and not found.takes_all:
        raise CannotBuild(f"its attributes {unknown} are not translated")
    return attributes(node)
