"""Operators as every opset since 7 writes them compute on every backend what they computed then."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx.reference import ReferenceEvaluator

from modelport.core.errors import ModelPortError
from modelport.core.registry import backend
from modelport.core.signature import Arrays
from modelport.graph.normal import NORMAL_OPSET, normalize
from modelport.graph.signature import read_signature
from tests.graph.opset_cases import cases, changed

CASES = list(cases())

TOGETHER = 40
"""How many nodes are built as one model; one by one, building costs more than running."""

REFUSED: dict[str, set[str]] = {
    "onnx": {"GlobalLpPool", "MaxRoiPool", "RoiAlign"},
    "torch": set(),
    "keras": {"MaxRoiPool"},
}
"""Operators that a backend says it does not have; ONNX Runtime has no kernels for the newest form of these."""


@cache
def normal_form(index: int) -> ir.Model:
    written, opset = CASES[index]
    return normalize(ir.from_proto(written.model(opset)))


@cache
def expected(index: int) -> list[Any] | None:
    """The outputs of ONNX Runtime, else of onnx's reference, at the old opset; `None` where neither has it."""
    written, opset = CASES[index]
    if written.gives is not None:
        return [written.gives]
    model = written.model(opset)
    for run in (in_onnxruntime, in_reference):
        found = run(model, written.feed())
        if found is not None:
            return found
    return None


def in_onnxruntime(model: onnx.ModelProto, feed: Arrays) -> list[Any] | None:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    errors = ort.capi.onnxruntime_pybind11_state
    try:
        session = ort.InferenceSession(model.SerializeToString(), options)
    except (errors.NotImplemented, errors.Fail, errors.InvalidGraph):
        return None
    return session.run(None, feed)


def in_reference(model: onnx.ModelProto, feed: Arrays) -> list[Any] | None:
    try:
        return ReferenceEvaluator(model).run(None, feed)
    except (RuntimeError, TypeError):
        return None


def assert_same(got: list[Any], want: list[Any]) -> None:
    for mine, theirs in zip(got, want, strict=True):
        assert mine.dtype == theirs.dtype
        assert mine.shape == theirs.shape
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


def said(index: int) -> str:
    written, opset = CASES[index]
    return f"{written.label} at opset {opset}"


def test_every_way_of_writing_an_operator_has_a_case() -> None:
    later = {("OptionalGetElement", 15), ("OptionalHasElement", 15)}  # they take optionals only, as the Optional of 15
    assert changed() - {(written.op_type, opset) for written, opset in CASES} == later


_computed: dict[bytes, list[Any]] = {}


def key(index: int) -> bytes:
    """What tells a normal form from others: many opsets lead to the same one."""
    return ir.to_proto(normal_form(index).graph).SerializeToString(deterministic=True)


def computed(index: int) -> list[Any]:
    """The outputs of the onnx backend for the normal form."""
    if key(index) not in _computed:
        framework, normal = backend("onnx"), normal_form(index)
        signature = read_signature(normal)
        outputs = framework.run(framework.build(normal).native, CASES[index][0].feed(), signature)
        _computed[key(index)] = [outputs[spec.name] for spec in signature.outputs]
    return _computed[key(index)]


@pytest.mark.parametrize("index", range(len(CASES)), ids=said)
def test_the_normal_form_of_an_old_operator_computes_what_it_computed(index: int) -> None:
    written, _ = CASES[index]

    assert normal_form(index).graph.opset_imports[""] == NORMAL_OPSET
    want = expected(index)
    if want is None or written.random or written.op_type in REFUSED["onnx"]:
        onnx.checker.check_model(ir.to_proto(normal_form(index)))
    else:
        assert_same(computed(index), want)


def distinct() -> list[int]:
    """One case of every normal form."""
    seen: dict[bytes, int] = {}
    for index, (written, _) in enumerate(CASES):
        if written.random or not written.feed() or expected(index) is None:
            continue
        seen.setdefault(key(index), index)
    return list(seen.values())


def chunks(name: str) -> Iterator[list[int]]:
    """Cases whose values have names of their own, to be built together."""
    left = [index for index in distinct() if CASES[index][0].op_type not in REFUSED[name]]
    while left:
        labels: dict[str, int] = {}
        for index in left:
            labels.setdefault(CASES[index][0].label, index)
        chosen = list(labels.values())[:TOGETHER]
        left = [index for index in left if index not in chosen]
        yield chosen


def apart(index: int) -> ir.Model:
    """The normal form with names of its own for what lies between its inputs and its outputs."""
    model = normal_form(index).clone()
    for graph in model.graphs():
        inside = [value for node in graph for value in node.outputs] + list(graph.initializers.values())
        for value in inside:
            if not value.is_graph_output() and value.name:
                value.name = f"{CASES[index][0].label}/{value.name}"
    return model


def side_by_side(indices: list[int]) -> ir.Model:
    merged = onnx.GraphProto(name="side_by_side")
    for index in indices:
        proto = ir.to_proto(apart(index).graph)
        for part in ("node", "input", "output", "initializer", "value_info"):
            getattr(merged, part).extend(getattr(proto, part))
    opsets = [onnx.helper.make_opsetid("", NORMAL_OPSET)]
    return ir.from_proto(onnx.helper.make_model(merged, opset_imports=opsets, ir_version=10))


@pytest.mark.parametrize("name", ["torch", "keras"])
def test_every_old_form_computes_the_same_on_a_backend(name: str) -> None:
    framework, wrong = backend(name), []
    for indices in chunks(name):
        graph = side_by_side(indices)
        signature = read_signature(graph)
        feed = {key: array for index in indices for key, array in CASES[index][0].feed().items()}
        outputs = framework.run(framework.build(graph).native, feed, signature)
        names = iter(signature.outputs)
        for index in indices:
            want = expected(index)
            assert want is not None
            got = [outputs[next(names).name] for _ in want]
            try:
                assert_same(got, want)
            except AssertionError as error:
                wrong.append(f"{said(index)}: {error}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", ["torch", "keras"])
def test_what_a_backend_does_not_have_is_refused_by_name(name: str) -> None:
    for op_type in REFUSED[name]:
        index = next(index for index, (written, _) in enumerate(CASES) if written.op_type == op_type)
        with pytest.raises(ModelPortError, match=rf"{op_type}.*the_{op_type}"):
            backend(name).build(normal_form(index))
