"""The signature and the roles live in the graph's metadata and survive a file."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from modelport.core.errors import DataError, SignatureError
from modelport.core.signature import Signature, TensorSpec
from modelport.graph.signature import dtype_name, graph_inputs, ir_dtype, read_signature, write_signature
from modelport.graph.weights import aliases, roles, set_aliases, set_roles, trainable
from tests.graph.running import model_of, tensor, weight


def sum_of_two() -> ir.Model:
    tape = ir.tape.Tape()
    a, b = tensor("a", ["batch", 3]), tensor("b", [None, 3])
    return model_of(tape, [a, b], [tape.op("Add", [a, b])])


def test_a_written_signature_is_read_back_after_serialisation():
    model = sum_of_two()
    specs = (TensorSpec("a", "float32", ("batch", 3)), TensorSpec("b", "bfloat16", ("batch", 3)))
    outputs = (TensorSpec("output_0", "float32", ("batch", 3)),)
    signature = Signature(specs, outputs, ({"p": "a", "q": [None, "b"]},), {}, {"logits": ("output_0",)})

    write_signature(model, signature)

    assert read_signature(ir.from_proto(ir.to_proto(model))) == signature


def test_a_foreign_graph_takes_positional_arguments_and_names_its_unknown_dims():
    signature = read_signature(sum_of_two())

    assert signature.args == ("a", "b")
    assert signature.returns == "output_0"
    assert [spec.shape for spec in signature.inputs] == [("batch", 3), ("b_dim0", 3)]
    assert signature.outputs[0].shape is None


def test_an_initializer_listed_as_an_input_is_no_input():
    model = sum_of_two()
    model.graph.inputs[1].const_value = ir.tensor(np.ones((2, 3), np.float32))
    model.graph.register_initializer(model.graph.inputs[1])

    assert [value.name for value in graph_inputs(model.graph)] == ["a"]
    assert [spec.name for spec in read_signature(model).inputs] == ["a"]


def test_a_signature_of_other_names_is_refused():
    spec = TensorSpec("x", "float32", ("batch", 3))
    with pytest.raises(SignatureError, match="inputs are \\['a', 'b'\\], the signature's \\['x'\\]"):
        write_signature(sum_of_two(), Signature((spec,), (spec,)))


def test_metadata_that_is_no_signature_is_refused():
    model = sum_of_two()
    model.metadata_props["modelport.signature"] = "[1]"
    with pytest.raises(SignatureError, match="not a signature"):
        read_signature(model)


@pytest.mark.parametrize("dtype", [dtype for dtype in ir.DataType if dtype != ir.DataType.UNDEFINED], ids=str)
def test_every_dtype_has_a_name_of_its_own(dtype):
    assert ir_dtype(dtype_name(dtype)) == dtype


def test_a_sequence_input_is_named_as_one():
    model = sum_of_two()
    model.graph.inputs[1].type = ir.SequenceType(ir.TensorType(ir.DataType.FLOAT))
    assert read_signature(model).inputs[1].dtype == "sequence(float32)"


def norm_of_scaled() -> ir.Model:
    tape = ir.tape.Tape()
    x = tensor("x", ["batch", 2])
    stats = [weight(tape, name, np.ones(2, np.float32)) for name in ("scale", "shift", "mean", "var")]
    half = weight(tape, "half", np.float32(0.5))
    big = tape.op("Resize", [x, None, weight(tape, "scales", np.ones(2, np.float32))])
    y = tape.op("BatchNormalization", [tape.op("Mul", [big, half]), *stats])
    return model_of(tape, [x], [y])


def test_a_foreign_graph_has_parameters_buffers_and_constants():
    expected = {"scale": "parameter", "shift": "parameter", "mean": "buffer", "var": "buffer"}
    assert roles(norm_of_scaled()) == expected
    assert trainable(norm_of_scaled()) == ("scale", "shift")


def test_roles_and_aliases_survive_serialisation():
    model = norm_of_scaled()
    set_roles(model, {"scale": "frozen", "shift": "parameter"})
    set_aliases(model, {"tied": "scale"})

    again = ir.from_proto(ir.to_proto(model))

    assert roles(again) == {"scale": "frozen", "shift": "parameter"}
    assert trainable(again) == ("shift",)
    assert aliases(again) == {"tied": "scale"}


def test_roles_and_aliases_of_no_initializer_are_refused():
    model = norm_of_scaled()
    with pytest.raises(DataError, match="no initializers \\['other'\\]"):
        set_roles(model, {"other": "parameter"})
    with pytest.raises(DataError, match="no roles"):
        set_roles(model, {"scale": "weight"})
    with pytest.raises(DataError, match="tied"):
        set_aliases(model, {"tied": "other"})


def mixed() -> Signature:
    return Signature(
        (
            TensorSpec("items", "sequence(float32)", ("n", 2)),
            TensorSpec("maybe", "optional(int64)", ()),
            TensorSpec("word", "str", ("n",)),
        ),
        (TensorSpec("parts", "sequence(str)", None), TensorSpec("size", "int64", ())),
    )


def test_sequences_optionals_and_strings_are_inputs_in_order():
    items = [np.ones((3, 2), "float32"), np.ones((1, 2), "float32")]
    bound = mixed().bind((items, None, np.array(["a"])))
    assert [item.shape for item in bound["items"]] == [(3, 2), (1, 2)]
    assert bound["maybe"] is None
    assert bound["word"].dtype == object
    assert bound["word"].tolist() == ["a"]
    assert mixed().bind({"items": [], "maybe": np.array(4), "word": ["b"]})["maybe"] == 4


@pytest.mark.parametrize(
    ("items", "maybe", "says"),
    [
        (np.ones((3, 2), "float32"), None, "pass a list"),
        ([np.ones(2, "float32")], None, "rank 1"),
        ([np.ones((3, 4), "float32")], None, "size 4"),
        ([], np.array(1.5), "dtype float64"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(items: object, maybe: object, says: str):
    with pytest.raises(SignatureError, match=says):
        mixed().bind((items, maybe, ["a"]))


def test_sequences_are_drawn_and_what_a_model_returns_is_unpacked():
    drawn = mixed().draw({"n": 3})
    assert [item.shape for item in drawn["items"]] == [(3, 2), (3, 2)]
    assert mixed().sizes(drawn) == {"n": 3}
    assert mixed().unpack((["x", "y"], 2)) == {"parts": ["x", "y"], "size": 2}
    with pytest.raises(SignatureError, match="returned"):
        mixed().unpack((["x", "y"],))


def test_drawn_inputs_have_the_values_of_the_example():
    signature = Signature((TensorSpec("x", "float32", ("batch", 3)),), ())
    example = {"x": np.array([[0.25, 0.5, 1.0]], "float32")}
    assert set(signature.draw({"batch": 20}, like=example)["x"].ravel()) == {0.25, 0.5, 1.0}
    constant = signature.draw({"batch": 20}, like={"x": np.zeros((1, 3), "float32")})["x"]
    assert constant.dtype == "float32"
    assert constant.std() > 0.5
