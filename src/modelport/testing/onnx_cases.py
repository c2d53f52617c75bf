"""The ONNX backend test data: the cases inside the `onnx` package, read as its own runner reads them."""

from __future__ import annotations

import glob
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test import loader
from onnx.backend.test.runner import Runner

from modelport.graph.chance import RANDOM

KINDS = ("simple", "pytorch-converted", "pytorch-operator")
"""The kinds of case that lie on disk; those of kind "node" are made by code."""

Values = list[Any]
"""The inputs or outputs of one run: arrays, or what a sequence or an optional holds."""


@dataclass(frozen=True)
class Case:
    """One model with inputs and the outputs it must have.

    Attributes:
        name: unique among all cases (`"test_abs"`).
        kind: `"node"`, `"simple"`, `"pytorch-converted"` or `"pytorch-operator"`.
        rtol: the relative tolerance.
        atol: the absolute tolerance.
        source: onnx's own record of the case.
    """

    name: str
    kind: str
    rtol: float
    atol: float
    source: Any

    def model(self) -> onnx.ModelProto:
        if self.source.model is not None:
            return self.source.model
        return onnx.load(os.path.join(self.source.model_dir, "model.onnx"))

    @property
    def is_random(self) -> bool:
        """Whether the model draws random numbers, so that no other implementation has its outputs."""
        model = self.model()
        nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
        return any(node.op_type in RANDOM or (node.op_type == "Dropout" and len(node.input) > 2) for node in nodes)

    def runs(self) -> Iterator[tuple[Values, Values]]:
        """Inputs and expected outputs, once per data set."""
        if self.source.data_sets is not None:
            for inputs, outputs in self.source.data_sets:
                yield [_plain(item) for item in inputs], [_plain(item) for item in outputs]
            return
        graph = self.model().graph
        for folder in sorted(glob.glob(os.path.join(self.source.model_dir, "test_data_set*"))):
            yield _read(folder, "input", graph.input), _read(folder, "output", graph.output)

    def check(self, expected: Values, found: Values) -> None:
        """Compare dtypes, shapes and values as onnx's runner does.

        Raises:
            AssertionError: they differ.
        """
        for index, (want, have) in enumerate(zip(expected, found, strict=True)):
            if isinstance(want, np.ndarray) and want.dtype != object and have.dtype != want.dtype:
                raise AssertionError(f"output {index} has dtype {have.dtype}, expected {want.dtype}")
            # The runner would look into the elements of a sequence for arrays, which one of rank 0 does not hold.
            pair = (want, have) if isinstance(want, list) and isinstance(have, list) else ([want], [have])
            Runner.assert_similar_outputs(*pair, rtol=self.rtol, atol=self.atol)


def _plain(item: Any) -> Any:
    if isinstance(item, onnx.TensorProto):
        return numpy_helper.to_array(item)
    return np.asarray(item) if isinstance(item, np.generic) else item


def _read(folder: str, kind: str, infos: Any) -> Values:
    count = len(glob.glob(os.path.join(folder, f"{kind}_*.pb")))
    return [_read_value(os.path.join(folder, f"{kind}_{index}.pb"), infos[index].type) for index in range(count)]


def _read_value(path: str, kind: onnx.TypeProto) -> Any:
    with open(path, "rb") as file:
        data = file.read()
    if kind.HasField("sequence_type"):
        return numpy_helper.to_list(onnx.SequenceProto.FromString(data))
    if kind.HasField("optional_type"):
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(data))
    return numpy_helper.to_array(onnx.TensorProto.FromString(data))


@cache
def all_cases() -> tuple[Case, ...]:
    """Every case, sorted by name; those of kind "node" are computed, which takes some seconds."""
    with warnings.catch_warnings():
        # Making the cases of casts and of logarithms overflows on purpose.
        warnings.simplefilter("ignore", RuntimeWarning)
        found = [("node", case) for case in loader.load_node_model_tests()]
    for kind in KINDS:
        found += [(kind, case) for case in loader.load_model_tests(kind=kind)]
    cases = [Case(case.name, kind, case.rtol, case.atol, case) for kind, case in found]
    return tuple(sorted(cases, key=lambda case: case.name))
