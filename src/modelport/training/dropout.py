"""Dropout whose draws are inputs: one recipe drops the same elements in every framework."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from modelport.core.signature import Signature
from modelport.core.training import Batch
from modelport.graph.shapes.expr import Expr
from modelport.graph.shapes.infer import ShapeInfo, infer
from modelport.graph.signature import KEY, read_signature, write_signature
from modelport.graph.splice import replace_outputs


@dataclass(frozen=True)
class _Draw:
    """One Dropout: the input that has its draw, the share that it drops, and the shape."""

    name: str
    ratio: float
    dtype: np.dtype
    dims: tuple[int | Expr, ...]


@dataclass
class Draws:
    """The draws of a graph's Dropouts.

    Attributes:
        seed: of the draws.
        signature: of the graph without them.
        draws: one per Dropout that is drawn for.
    """

    seed: int
    signature: Signature
    draws: list[_Draw] = field(default_factory=list)

    def training(self, batch: Batch, epoch: int, place: int) -> Batch:
        """A batch with what its Dropouts multiply by: 0 for the share that is dropped, else what keeps the mean."""
        rng = np.random.default_rng((self.seed, epoch, place))
        found = {draw.name: _drawn(draw, self._shape(draw, batch), rng) for draw in self.draws}
        return Batch({**batch.inputs, **found}, batch.targets)

    def inference(self, batch: Batch) -> Batch:
        """A batch whose Dropouts drop nothing."""
        found = {draw.name: np.ones(self._shape(draw, batch), draw.dtype) for draw in self.draws}
        return Batch({**batch.inputs, **found}, batch.targets)

    def _shape(self, draw: _Draw, batch: Batch) -> tuple[int, ...]:
        sizes = self.signature.sizes(batch.inputs)
        return tuple(dim.evaluate(sizes) if isinstance(dim, Expr) else int(dim) for dim in draw.dims)


def _drawn(draw: _Draw, shape: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    kept = rng.random(shape, np.float32) >= draw.ratio
    return kept.astype(draw.dtype) / draw.dtype.type(1 - draw.ratio if draw.ratio < 1 else 1)


def with_draws(graph: ir.Model, seed: int) -> tuple[ir.Model, Draws]:
    """A copy of a graph that takes the draws of its Dropouts as further inputs.

    A Dropout whose size only the run tells, or whose ratio does, stays as it is.

    Args:
        graph: in normal form; it stays as it is.
        seed: of the draws.
    """
    model, signature = graph.clone(), read_signature(graph)
    info, found = infer(model), Draws(seed, signature)
    known = {dim for spec in signature.inputs for dim in spec.shape or () if isinstance(dim, str)}
    for node in list(model.graph):
        draw = _draw(node, info, known, f"dropout/{len(found.draws)}")
        if draw is None:
            continue
        dims = [dim if isinstance(dim, int) else f"{draw.name}/{axis}" for axis, dim in enumerate(draw.dims)]
        value = ir.Value(name=draw.name, type=ir.TensorType(ir.DataType.from_numpy(draw.dtype)), shape=ir.Shape(dims))
        model.graph.inputs.append(value)
        replace_outputs([node.outputs[0]], "Mul", [node.inputs[0], value])
        model.graph.remove(node, safe=True)
        found.draws.append(draw)
    model.metadata_props.pop(KEY, None)
    write_signature(model, read_signature(model))
    return model, found


def _draw(node: ir.Node, info: ShapeInfo, known: set[str], name: str) -> _Draw | None:
    """What a node has to be told to drop; `None` where it is no Dropout of one result, or not all of it is known."""
    if node.op_type != "Dropout" or node.domain or node.inputs[0] is None:
        return None
    if any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
        return None
    given = node.inputs[1] if len(node.inputs) > 1 else None
    ratio = ir.tensor(np.float32(0.5)) if given is None else ir.convenience.get_const_tensor(given)
    dims, dtype = info.dims(node.inputs[0]), info.dtype(node.inputs[0])
    if ratio is None or dims is None or dtype is None:
        return None
    if any(isinstance(dim, Expr) and not dim.symbols() <= known for dim in dims):
        return None
    sizes = tuple(dim if isinstance(dim, Expr) else int(dim) for dim in dims)
    return _Draw(name, float(ratio.numpy().item()), dtype.numpy(), sizes)
