"""What the `Backend` protocol promises, on small portable graphs; `Borrower` and `Trainer` where a backend is one."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx_ir as ir
import pytest

from modelport.core.backend import Backend, Borrower, Trainer
from modelport.core.errors import DataError, UnsupportedOpError
from modelport.core.signature import Arrays
from modelport.graph.signature import read_signature
from modelport.graph.weights import with_weights
from modelport.testing.conformance import find_backend
from modelport.testing.graphs import GRAPHS, draw, expected, weights

every_graph = pytest.mark.parametrize("graph", sorted(GRAPHS))


@pytest.fixture
def backend(modelport_backend: str) -> Backend:
    """The backend under test; an error where its framework is not installed."""
    return find_backend(modelport_backend)


def close(found: Arrays, wanted: Arrays, tolerance: float = 1e-5) -> None:
    """The same names, dtypes and shapes, and the values within a part of the largest."""
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        assert isinstance(found[name], np.ndarray), name
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        scale = np.abs(array).max(initial=1e-30)
        np.testing.assert_allclose(found[name], array, rtol=0, atol=tolerance * scale, err_msg=name)


def changed(arrays: Arrays) -> Arrays:
    """Other values for every weight, positive where they were."""
    return {name: np.ascontiguousarray(array * np.float32(1.25)) for name, array in arrays.items()}


def test_asking_a_backend_about_an_object_imports_no_framework(modelport_backend: str) -> None:
    code = (
        "import sys\n"
        "from modelport.core.registry import backends\n"
        "from modelport.testing.conformance import find_backend\n"
        "before = set(sys.modules)\n"
        f"backend = find_backend({modelport_backend!r})\n"
        "assert backend.owns(object()) is False\n"
        "assert backend.name and backend.formats is not None and backend.aliases is not None\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "loaded = sorted(new & set(backend.modules) - {'onnx', 'onnx_ir'})\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_backend_has_all_that_the_protocol_names(backend: Backend) -> None:
    assert isinstance(backend, Backend)
    names = [form.name for form in backend.formats]
    assert len(names) == len(set(names))
    assert all(suffix.startswith(".") for form in backend.formats for suffix in form.suffixes)
    assert all(form.open or form.write or form.read_weights for form in backend.formats)


def test_support_tells_what_build_would_do(backend: Backend) -> None:
    assert backend.support("Relu") == "native"
    assert backend.support("Frobnicate", "acme") == "unsupported"


@every_graph
def test_a_built_model_computes_the_graph_at_any_batch_size(backend: Backend, graph: str) -> None:
    model = GRAPHS[graph]()
    signature, native = read_signature(model), backend.build(model).native
    for batch in (1, 2, 7):
        inputs = draw(signature, batch)
        close(backend.run(native, inputs, signature), expected(model, inputs))


@every_graph
def test_building_leaves_the_graph_as_it_was(backend: Backend, graph: str) -> None:
    model = GRAPHS[graph]()
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    backend.build(model)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_a_backend_owns_what_it_builds_and_nothing_else(backend: Backend) -> None:
    assert backend.owns(backend.build(GRAPHS["perceptron"]()).native)
    assert not any(backend.owns(other) for other in (object(), None, "model", {}, np.zeros(3), type))


@every_graph
def test_nothing_in_the_small_graphs_needs_a_fallback(backend: Backend, graph: str) -> None:
    assert [note for note in backend.build(GRAPHS[graph]()).notes if note.kind == "fallback"] == []


@every_graph
def test_parameters_have_the_names_shapes_and_values_of_the_graph(backend: Backend, graph: str) -> None:
    model = GRAPHS[graph]()
    found, wanted = backend.parameters(backend.build(model).native), weights(model)
    assert sorted(found) == sorted(wanted)
    close({name: found[name] for name in wanted}, wanted, 1e-7)


@every_graph
def test_assigned_parameters_are_what_the_model_computes_with(backend: Backend, graph: str) -> None:
    model = GRAPHS[graph]()
    signature, native = read_signature(model), backend.build(model).native
    new = changed(weights(model))
    backend.assign(native, new)
    found = backend.parameters(native)
    close({name: found[name] for name in new}, new, 1e-7)
    inputs = draw(signature)
    close(backend.run(native, inputs, signature), expected(with_weights(model, new), inputs))


def test_the_arrays_of_parameters_are_copies(backend: Backend) -> None:
    native = backend.build(GRAPHS["perceptron"]()).native
    before = {name: array.copy() for name, array in backend.parameters(native).items()}
    new = changed(before)
    backend.assign(native, new)
    for array in new.values():
        array += 1
    close(backend.parameters(native), changed(before), 1e-7)


def test_wrong_parameter_names_and_shapes_are_all_named_and_nothing_changes(backend: Backend) -> None:
    native = backend.build(GRAPHS["perceptron"]()).native
    before = {name: array.copy() for name, array in backend.parameters(native).items()}
    wrong = changed(before)
    wrong["fc9.weight"] = wrong.pop("fc1.weight")
    wrong["fc2.bias"] = np.zeros(8, np.float32)
    with pytest.raises(DataError) as caught:
        backend.assign(native, wrong)
    assert all(name in str(caught.value) for name in ("fc9.weight", "fc1.weight", "fc2.bias"))
    close(backend.parameters(native), before, 0)


@every_graph
def test_export_and_build_again_keep_outputs_and_names(backend: Backend, graph: str) -> None:
    model = GRAPHS[graph]()
    signature, native = read_signature(model), backend.build(model).native
    inputs = draw(signature)
    exported = backend.export(native, inputs, signature).graph
    again = read_signature(exported)
    assert [(s.name, s.dtype) for s in again.inputs] == [(s.name, s.dtype) for s in signature.inputs]
    assert [s.name for s in again.outputs] == [s.name for s in signature.outputs]
    for batch in (2, 3):
        given = draw(signature, batch)
        close(expected(exported, given), expected(model, given))
        close(backend.run(backend.build(exported).native, given, again), expected(model, given))
    assert sorted(weights(exported)) == sorted(weights(model))


@every_graph
def test_an_exported_graph_is_portable_onnx(backend: Backend, graph: str) -> None:
    import onnx

    model = GRAPHS[graph]()
    signature, native = read_signature(model), backend.build(model).native
    exported = backend.export(native, draw(signature), signature).graph
    onnx.checker.check_model(ir.to_proto(exported), full_check=True)
    assert dict(exported.graph.opset_imports) == {"": 21}
    assert not exported.functions
    assert [spec.shape for spec in read_signature(exported).inputs] == [spec.shape for spec in signature.inputs]


@pytest.mark.parametrize("graph", sorted(set(GRAPHS) - {"nested"}))
def test_a_model_tells_its_signature(backend: Backend, graph: str) -> None:
    model = GRAPHS[graph]()
    (wanted,), native = read_signature(model).inputs, backend.build(model).native
    (found,) = backend.signature(native, draw(read_signature(model))[wanted.name]).inputs
    assert (found.name, found.dtype) == (wanted.name, wanted.dtype)
    assert found.shape is not None
    assert found.shape[1:] == (wanted.shape or ())[1:]


@every_graph
def test_inputs_by_name_are_taken_as_they_are(backend: Backend, graph: str) -> None:
    model = GRAPHS[graph]()
    signature = read_signature(model)
    inputs = draw(signature)
    close(backend.flatten(backend.build(model).native, dict(inputs), signature), inputs, 0)


def test_an_operator_that_nobody_knows_is_refused_by_name(backend: Backend) -> None:
    x = ir.val("x", dtype=ir.DataType.FLOAT, shape=("batch", 3))
    node = ir.node("Frobnicate", [x], domain="acme", name="the_node")
    node.outputs[0].name = "output"
    node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph([x], node.outputs, nodes=[node], opset_imports={"": 21, "acme": 1}, name="main")
    with pytest.raises(UnsupportedOpError, match="Frobnicate") as caught:
        backend.build(ir.Model(graph, ir_version=10))
    assert caught.value.op_type.endswith("Frobnicate")
    assert caught.value.node == "the_node"


def test_a_model_can_be_placed_on_the_cpu_and_on_no_device_that_is_not_there(backend: Backend) -> None:
    model = GRAPHS["perceptron"]()
    signature = read_signature(model)
    inputs = draw(signature)
    placed = backend.place(backend.build(model).native, "cpu")
    close(backend.run(placed, inputs, signature), expected(model, inputs))
    with pytest.raises(DataError, match="nowhere"):
        backend.place(placed, "nowhere")


@every_graph
def test_a_model_runs_alike_while_it_borrows_and_afterwards(backend: Backend, graph: str) -> None:
    if not isinstance(backend, Borrower):
        pytest.skip(f"{backend.name} is no Borrower")
    model = GRAPHS[graph]()
    signature, native = read_signature(model), backend.build(model).native
    inputs = draw(signature, 3)
    with backend.borrowing(native, model):
        close(backend.run(native, inputs, signature), expected(model, inputs))
    close(backend.run(native, inputs, signature), expected(model, inputs))


def _trainer(backend: Backend) -> Trainer:
    if not isinstance(backend, Trainer):
        pytest.skip(f"{backend.name} is no Trainer")
    return backend


@every_graph
def test_gradients_agree_with_differences_of_the_outputs(backend: Backend, graph: str) -> None:
    trainer, model = _trainer(backend), GRAPHS[graph]()
    signature, native = read_signature(model), backend.build(model).native
    inputs = draw(signature, 3)
    rng = np.random.default_rng(1)
    cotangents = {n: rng.standard_normal(y.shape).astype("float32") for n, y in expected(model, inputs).items()}
    found = trainer.gradients(native, inputs, cotangents, signature)
    trained = {name: array for name, array in weights(model).items() if "running" not in name}
    assert sorted(found) == sorted(trained)
    for name, array in trained.items():
        assert found[name].shape == array.shape
        direction = rng.standard_normal(array.shape)
        slope = _slope(model, name, direction, inputs, cotangents)
        assert np.sum(found[name] * direction) == pytest.approx(slope, rel=2e-3, abs=2e-4), name


def _slope(model: ir.Model, name: str, direction: np.ndarray, inputs: Arrays, cotangents: Arrays) -> float:
    """The derivative of `sum(output * cotangent)` along a direction, by central differences."""
    weight, step = weights(model)[name], 1e-2

    def value(sign: int) -> float:
        moved = with_weights(model, {name: (weight + sign * step * direction).astype("float32")})
        return sum(float(np.sum(y.astype("float64") * cotangents[n])) for n, y in expected(moved, inputs).items())

    return (value(1) - value(-1)) / (2 * step)


def test_a_parameter_that_no_output_depends_on_has_a_gradient_of_zeros(backend: Backend) -> None:
    trainer, model = _trainer(backend), GRAPHS["nested"]()
    signature, native = read_signature(model), backend.build(model).native
    inputs = draw(signature)
    cotangents = {name: np.zeros_like(array) for name, array in expected(model, inputs).items()}
    for array in trainer.gradients(native, inputs, cotangents, signature).values():
        assert not array.any()
