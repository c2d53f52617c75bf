"""Recurrent layers add two biases where one says all: trained both, they move twice as fast as where there is one."""

from __future__ import annotations

import re

import numpy as np
import onnx_ir as ir

from modelport.graph.weights import parts, roles, with_weights

_SECOND = re.compile(r"bias_hh(_l\d+(?:_reverse)?)$")


def with_single_biases(graph: ir.Model) -> tuple[ir.Model, frozenset[str]]:
    """A graph whose recurrent layers have their bias in the first of the two, and the names of the second ones.

    Keras keeps the sum of the two only, so that one recipe has one result where the second stays zero. A GRU whose
    reset gate comes after the product has a second bias of its own, which stays.

    Args:
        graph: in normal form; it stays as it is.
    """
    pairs: dict[str, str] = {}
    known = roles(graph)
    for node in graph.graph.all_nodes():
        alone = node.op_type in ("LSTM", "RNN") or (
            node.op_type == "GRU" and not node.attributes.get_int("linear_before_reset", 0)
        )
        if not alone or node.domain or len(node.inputs) < 4:
            continue
        for second in (str(part.name) for part in parts(node.inputs[3])):
            first = _SECOND.sub(r"bias_ih\1", second)
            if first != second and first in known and second in known:
                pairs[second] = first
    weights = graph.graph.initializers
    arrays: dict[str, np.ndarray] = {}
    for second, first in pairs.items():
        left, right = weights[first].const_value, weights[second].const_value
        if left is not None and right is not None:
            arrays[first] = left.numpy() + right.numpy()
            arrays[second] = np.zeros_like(right.numpy())
    return with_weights(graph, arrays), frozenset(pairs)
