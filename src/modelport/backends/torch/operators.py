"""Operators that keep whole what torch.export would take apart, and their ONNX form.

`torch.export` unrolls recurrent layers over a fixed number of steps, and its decompositions turn the Dropout of an
evaluated model into a copy. Before that happens a traced program is given the operators of this room instead, which
say the same and cross into ONNX as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxscript
import torch
from torch.overrides import TorchFunctionMode

from modelport.backends.torch import whole
from modelport.backends.torch.translations import TRANSLATIONS
from modelport.backends.torch.translations.constants import constant, ints
from modelport.backends.torch.translations.quantization import SIMULATED
from modelport.core.errors import UnsupportedOpError
from modelport.graph.layers.recurrent_emit import emit_recurrent

DOMAIN = "modelport"
RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")

_REST = "bool has_biases, int num_layers, float dropout, bool train, bool bidirectional, bool batch_first"
_LIBRARY = torch.library.Library(DOMAIN, "DEF")
for _name in RECURRENT:
    _results = "(Tensor, Tensor, Tensor)" if _name == "lstm" else "(Tensor, Tensor)"
    _LIBRARY.define(f"{_name}(Tensor x, Tensor[] hx, Tensor[] params, {_REST}) -> {_results}")
_LIBRARY.define("dropout(Tensor x, float p) -> Tensor")
_LIBRARY.define("feature_dropout(Tensor x, float p) -> Tensor")
_LIBRARY.define(
    "attention(Tensor query, Tensor key, Tensor value, Tensor? attn_mask, float dropout_p, bool is_causal, "
    "float? scale) -> Tensor"
)


def _recurrent_shapes(states: int) -> Callable[..., tuple[torch.Tensor, ...]]:
    def shapes(
        x: torch.Tensor, hx: Any, params: Sequence[torch.Tensor], biases: bool, layers: int, p: float, train: bool,
        bidirectional: bool, batch_first: bool,
    ) -> tuple[torch.Tensor, ...]:  # fmt: skip
        directions, hidden = 2 if bidirectional else 1, params[1].shape[1]
        batch = x.shape[0 if batch_first else 1]
        state = x.new_empty((layers * directions, batch, hidden))
        return x.new_empty((x.shape[0], x.shape[1], directions * hidden)), *(state.clone() for _ in range(states))

    return shapes


for _name in RECURRENT:
    torch.library.register_fake(f"{DOMAIN}::{_name}", _recurrent_shapes(2 if _name == "lstm" else 1), lib=_LIBRARY)
for _name in ("dropout", "feature_dropout"):
    torch.library.register_fake(f"{DOMAIN}::{_name}", lambda x, p: torch.empty_like(x), lib=_LIBRARY)
torch.library.register_fake(
    f"{DOMAIN}::attention",
    lambda query, key, value, attn_mask, dropout_p, is_causal, scale: query.new_empty(
        (*torch.broadcast_shapes(query.shape[:-2], value.shape[:-2]), query.shape[-2], value.shape[-1])
    ),
    lib=_LIBRARY,
)


class WholeRecurrentLayers(TorchFunctionMode):
    """While it is entered, recurrent layers call this room's operators, so their number of steps may be dynamic."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        # A packed sequence has its batch sizes, a tensor, where these have the parameters.
        if name in RECURRENT and func is getattr(torch._VF, name) and not isinstance(args[3], torch.Tensor):
            return recurrent_operator(name)(args[0], _listed(args[1]), *args[2:])
        if (simulated := SIMULATED.get(func)) is not None:
            return simulated(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def recurrent_operator(name: str) -> Any:
    """The operator of a recurrent layer, by the name of torch's own (`"lstm"`)."""
    return getattr(torch.ops.modelport, name).default


def _listed(hx: Any) -> list[torch.Tensor]:
    return [hx] if isinstance(hx, torch.Tensor) else list(hx)


def translations() -> dict[Any, Callable[..., Any]]:
    """What `torch.onnx.export` needs to know: an ONNX form for every operator of this room."""
    table: dict[Any, Callable[..., Any]] = {recurrent_operator(name): _placeholder(name) for name in RECURRENT}
    table[torch.ops.modelport.dropout.default] = _dropout
    table[torch.ops.modelport.feature_dropout.default] = _feature_dropout
    table[torch.ops.modelport.attention.default] = _attention
    table[torch.ops.modelport.whole.default] = whole.translate
    return table | TRANSLATIONS


def _dropout(x: Any, p: float) -> Any:
    op = onnxscript.opset21
    value, _mask = op.Dropout(x, op.Constant(value_float=p))
    return value


def _feature_dropout(x: Any, p: float) -> Any:
    """The first two axes are drawn for, the others dropped together: see `graph.layers.spatial_dropout`."""
    op, rank = onnxscript.opset21, len(x.shape)
    if rank < 3:
        return _dropout(x, p)
    sizes = op.Where(constant(np.arange(rank) >= 2, ir.DataType.BOOL), ints(1), op.Shape(x))
    one = ir.serde.serialize_tensor(ir.tensor(np.ones(1, x.dtype.numpy()), x.dtype))
    return op.Mul(x, _dropout(op.ConstantOfShape(sizes, value=one), p))


def _attention(
    query: Any, key: Any, value: Any, attn_mask: Any, dropout_p: float, is_causal: bool, scale: float | None
) -> Any:
    """Attention as its own operators, so that its Softmax and Dropout stay visible."""
    op = onnxscript.opset21
    if scale is None:
        scale = 1.0 / math.sqrt(query.shape[-1])
    # Both factors get the root of the scale: float16 products stay in range.
    factor = constant(math.sqrt(scale), query.dtype)
    axes = list(range(len(key.shape)))
    transposed = op.Transpose(key, perm=[*axes[:-2], axes[-1], axes[-2]])
    scores = op.MatMul(op.Mul(query, factor), op.Mul(transposed, factor))
    if is_causal:
        scores = op.Add(scores, _causal_mask(op, query, key))
    if attn_mask is not None:
        if attn_mask.dtype == ir.DataType.BOOL:
            zero, out = (constant(number, query.dtype) for number in (0.0, -math.inf))
            attn_mask = op.Where(attn_mask, zero, out)
        scores = op.Add(scores, attn_mask)
    weights = op.Softmax(scores, axis=-1)
    if dropout_p:
        weights = _dropout(weights, dropout_p)
    return op.MatMul(weights, value)


def _causal_mask(op: Any, query: Any, key: Any) -> Any:
    """(queries, keys): 0 up to the diagonal, minus infinity above it."""
    sizes = [op.Shape(x, start=len(x.shape) - 2, end=len(x.shape) - 1) for x in (query, key)]
    full = op.Expand(constant(-math.inf, query.dtype), op.Concat(*sizes, axis=0))
    return op.Trilu(full, op.Constant(value_int=1), upper=1)


@cache
def _schema(name: str) -> onnx.defs.OpSchema:
    schema = onnx.defs.OpSchema
    kinds = ["tensor(float)", "tensor(float16)", "tensor(double)", "tensor(bfloat16)"]
    variadic = schema.FormalParameter("inputs", "T", param_option=schema.FormalParameterOption.Variadic)
    outputs = [schema.FormalParameter(f"output_{i}", "T") for i in range(3 if name == "lstm" else 2)]
    integers = ("states", "has_biases", "num_layers", "bidirectional", "batch_first")
    attributes = [schema.Attribute(key, schema.AttrType.INT, required=True) for key in integers]
    attributes.append(schema.Attribute("dropout", schema.AttrType.FLOAT, required=True))
    return schema(
        name, DOMAIN, 1, inputs=[variadic], outputs=outputs, type_constraints=[("T", kinds, "")], attributes=attributes
    )  # fmt: skip


def _placeholder(name: str) -> Callable[..., Any]:
    """Stands in the graph until `lower_recurrent` writes ONNX's operators: a translation cannot use a tape."""
    operator = onnxscript.values.Op(onnxscript.values.Opset(DOMAIN, 1), name, _schema(name))

    def translate(
        x: Any, hx: Any, params: Any, has_biases: bool, num_layers: int, dropout: float, train: bool,
        bidirectional: bool, batch_first: bool,
    ) -> Any:  # fmt: skip
        return operator(
            x,
            *hx,
            *params,
            states=len(hx),
            has_biases=int(has_biases),
            num_layers=num_layers,
            bidirectional=int(bidirectional),
            batch_first=int(batch_first),
            dropout=float(dropout),
        )

    return translate


def lower_recurrent(model: ir.Model) -> None:
    """Write every placeholder of a recurrent layer as ONNX's LSTM, GRU or RNN, in place.

    Raises:
        UnsupportedOpError: an LSTM projects its outputs (`proj_size`), for which ONNX has no operator.
    """
    for node in list(model.graph):
        if node.domain != DOMAIN or node.op_type not in RECURRENT:
            continue
        tape = ir.tape.Tape()
        results = _emit(tape, node)
        for created in tape.nodes:
            created.metadata_props.update(node.metadata_props)
        model.graph.insert_before(node, tape.nodes)
        for old, new in zip(node.outputs, results, strict=True):
            new.name, new.type, new.shape = old.name, old.type, old.shape
            old.name = None
            old.replace_all_uses_with(new, replace_graph_outputs=True)
        model.graph.remove(node, safe=True)


def _emit(tape: ir.tape.Tape, node: ir.Node) -> list[ir.Value]:
    kind = "RNN" if node.op_type.startswith("rnn") else node.op_type.upper()
    settings = {key: attribute.value for key, attribute in node.attributes.items()}
    states, biases = settings["states"], settings["has_biases"]
    x, *rest = node.inputs
    suffixes = [
        f"_l{layer}{direction}"
        for layer in range(settings["num_layers"])
        for direction in ("", "_reverse")[: 1 + settings["bidirectional"]]
    ]
    leaves = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")[: 4 if biases else 2]
    names = [leaf + suffix for suffix in suffixes for leaf in leaves]
    if len(names) != len(rest) - states:
        raise UnsupportedOpError(
            f"the LSTM {node.name} projects its outputs (proj_size > 0), for which ONNX has no operator: use an LSTM "
            "without proj_size and a Linear after it.",
            op_type="LSTM",
            node=str(node.name),
        )
    h0, c0 = (*rest[:states], None, None)[:2]
    results = emit_recurrent(
        tape,
        kind,  # type: ignore[arg-type]
        x,
        dict(zip(names, rest[states:], strict=True)),
        hidden_size=rest[states + 1].shape[1],
        num_layers=settings["num_layers"],
        bidirectional=bool(settings["bidirectional"]),
        batch_first=bool(settings["batch_first"]),
        dropout=settings["dropout"],
        nonlinearity="relu" if node.op_type == "rnn_relu" else "tanh",
        h0=h0,
        c0=c0,
        name=str(node.name),
    )
    return [value for value in results if value is not None]
