"""Tables, words and counts: what stands before a net that reads categories or text."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from modelport.backends.keras.lower.context import Context
from modelport.backends.keras.lower.lowering import Resource
from modelport.backends.keras.lower.table import layer, op

_ML = "ai.onnx.ml"

_FEW = 4096
"""A table of more numbers than this is a LabelEncoder, which frameworks have to run on the host."""


def _entries(handle: Any, keys: Any, values: Any) -> tuple[np.ndarray, np.ndarray]:
    """What a table of TensorFlow holds."""
    import tensorflow as tf

    found = tf.raw_ops.LookupTableExportV2(table_handle=handle, Tkeys=keys, Tvalues=values)
    return np.asarray(found[0]), np.asarray(found[1])


def _encoded(g: Context, x: ir.Value, keys: np.ndarray, values: np.ndarray, default: Any) -> ir.Value:
    """A LabelEncoder: what a table says of each element; `default` for one that it does not have."""
    settings: dict[str, Any] = {}
    for side, array in (("keys", keys), ("values", values)):
        kind = "strings" if array.dtype == object else "floats" if array.dtype.kind == "f" else "int64s"
        settings[f"{side}_{kind}"] = [_plain(item) for item in array.ravel().tolist()]
    kind = "string" if values.dtype == object else "float" if values.dtype.kind == "f" else "int64"
    y = g("LabelEncoder", x, domain=_ML, **settings, **{f"default_{kind}": _plain(default)})
    y.type = ir.TensorType({"string": ir.DataType.STRING, "float": ir.DataType.FLOAT}.get(kind, ir.DataType.INT64))
    y.shape = x.shape
    return y


def _plain(item: Any) -> Any:
    return item.decode() if isinstance(item, bytes) else item


@op("LookupTableFindV2", static=(2,), needs=(1,))
def lookup(g: Context, x: ir.Value, default: np.ndarray) -> ir.Value:
    source = g.frame.source(g.op.inputs[0])
    if not isinstance(source, Resource):
        raise g.fail("a table is read that the model does not hold")
    keys, values = _entries(source.handle, g.op.inputs[1].dtype, g.op.outputs[0].dtype)
    x = x if x.dtype in (ir.DataType.STRING, ir.DataType.FLOAT) else g.int64(x)
    if keys.dtype != object and values.dtype != object and len(keys) <= _FEW:
        return g.cast(_compared(g, x, keys, values, default), g.result_dtype())
    found = _encoded(g, x, keys, values, np.asarray(default).ravel().tolist()[0])
    return found if values.dtype == object else g.cast(found, g.result_dtype())


def _compared(g: Context, x: ir.Value, keys: np.ndarray, values: np.ndarray, default: np.ndarray) -> ir.Value:
    """A short table of numbers, by operators that every framework has: each element is compared with every key."""
    equal = g("Equal", g("Unsqueeze", x, [-1]), keys.astype((x.dtype or ir.DataType.INT64).numpy()))
    found = g("Cast", equal, to=ir.DataType.INT64.value)
    found.type = ir.TensorType(ir.DataType.INT64)
    kind = values.dtype if values.dtype.kind == "f" else np.dtype(np.int64)
    chosen = g("Gather", values.astype(kind), g("ArgMax", found, axis=-1, keepdims=0), axis=0)
    there = g("Greater", g("ReduceMax", found, [-1], keepdims=0), np.asarray(0, np.int64))
    result = g("Where", there, chosen, np.asarray(default, kind).reshape(()))
    result.type = ir.TensorType(ir.DataType.from_numpy(kind))
    return result


@op("StringLower", "StringUpper")
def change_case(g: Context, x: ir.Value) -> ir.Value:
    return _case(g, x, g.op.type.removeprefix("String").upper())


def _case(g: Context, x: ir.Value, action: str) -> ir.Value:
    flat = g("Reshape", x, [-1])
    y = g("Reshape", g("StringNormalizer", flat, case_change_action=action, locale="C"), g("Shape", x))
    y.type, y.shape = x.type, x.shape
    return y


@op("DenseBincount", needs=(0, 2))
def dense_bincount(g: Context, x: ir.Value, weights: ir.Value) -> ir.Value:
    depth = g.op.outputs[0].shape.as_list()[-1]
    if depth is None:
        raise g.fail("how many numbers are counted depends on data")
    dtype, weighted = g.result_dtype(), 0 not in (g.shape(2) or ())
    ids, size = g.int64(x), np.asarray(depth, np.int64)
    # A one-hot that has no place for an id is all zeros; a negative id would be counted from the end.
    inside = g("Where", g("Less", ids, 0), size, ids)
    rows = g("OneHot", inside, size, np.asarray([0, 1], dtype.numpy()), axis=-1)
    rows.type = ir.TensorType(dtype)
    if weighted and not g.attr("binary_output"):
        rows = g("Mul", rows, g("Unsqueeze", weights, [-1]))
    return g("ReduceMax" if g.attr("binary_output") else "ReduceSum", rows, [-2], keepdims=0)


_HASHES = "it hashes by FarmHash or SipHash, and ONNX has no such operator: give the model the hashed numbers"


def _is_a_hash(layer: Any, arguments: dict[str, Any]) -> str:
    return _HASHES


@layer("Hashing", "HashedCrossing", refuses=_is_a_hash)
def hashing(g: Context, **_: Any) -> ir.Value:
    raise g.fail(_HASHES)


@op("StringToHashBucketFast", "StringToHashBucketStrong", "StringToHashBucket", needs=())
def hash_bucket(g: Context) -> ir.Value:
    raise g.fail(_HASHES)


def _text_refuses(layer: Any, arguments: dict[str, Any]) -> str:
    if layer._standardize not in (None, "lower"):
        return (
            f"standardize={layer._standardize!r} replaces by regular expressions, which ONNX has not: set it to "
            "'lower' or None, and take the punctuation out before the model"
        )
    if layer._split != "whitespace" or layer._ngrams is not None:
        return "ONNX splits text at white space only, and makes no n-grams"
    if layer._output_mode != "int" or layer._ragged:
        return f"output_mode={layer._output_mode!r} has no operators; use 'int' and encode the numbers after it"
    return ""


@layer("TextVectorization", refuses=_text_refuses)
def text_vectorization(g: Context, inputs: ir.Value) -> ir.Value:
    import tensorflow as tf

    text, lookup_layer = g.layer, g.layer._lookup_layer
    x = g("Reshape", inputs, [-1])
    x.type = ir.TensorType(ir.DataType.STRING)
    if text._standardize == "lower":
        x = g("StringNormalizer", x, case_change_action="LOWER", locale="C")
        x.type = ir.TensorType(ir.DataType.STRING)
    words = g.many("StringSplit", [x], 2)[0]
    words.type, words.shape = ir.TensorType(ir.DataType.STRING), ir.Shape([None, None])
    keys, values = _entries(lookup_layer.lookup_table.resource_handle, tf.string, tf.int64)
    # What a row has no word for is an empty string; its number is 0.
    keys, values = np.append(keys, np.asarray([b""], object)), np.append(values, 0)
    ids = _encoded(g, words, keys, values, lookup_layer._default_value)
    length = text._output_sequence_length
    if length is None:
        return ids
    padded = g("Pad", ids, [0, 0, 0, int(length)])
    return g("Slice", padded, [0], [int(length)], [1])


@op("AsString")
def as_string(g: Context, x: ir.Value) -> ir.Value:
    if g.dtype(0).is_floating_point() or g.attr("width") > 0 or g.attr("fill"):
        raise g.fail("whole numbers are written as text, without a width; how floats are written is TensorFlow's own")
    return g("Cast", x, to=ir.DataType.STRING.value)
