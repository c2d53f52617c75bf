"""What scikit-learn's models become computes in torch as it does in ONNX Runtime, where it is numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from modelport.backends.torch import BACKEND
from modelport.backends.torch.build import build
from modelport.graph.signature import read_signature
from tests.graph.running import run

RNG = np.random.default_rng(7)
X = RNG.standard_normal((6, 4)).astype("float32")
ROWS = RNG.standard_normal((3, 4)).astype("float32").ravel().tolist()

TREES: dict[str, Any] = {
    "nodes_treeids": [0, 0, 0, 0, 0, 1, 1, 1],
    "nodes_nodeids": [0, 1, 2, 3, 4, 0, 1, 2],
    "nodes_featureids": [0, 2, 0, 0, 0, 3, 0, 0],
    "nodes_modes": ["BRANCH_LEQ", "BRANCH_GT", "LEAF", "LEAF", "LEAF", "BRANCH_LEQ", "LEAF", "LEAF"],
    "nodes_values": [0.1, -0.2, 0, 0, 0, 0.3, 0, 0],
    "nodes_truenodeids": [1, 2, 0, 0, 0, 1, 0, 0],
    "nodes_falsenodeids": [4, 3, 0, 0, 0, 2, 0, 0],
    "nodes_missing_value_tracks_true": [1, 0, 0, 0, 0, 0, 0, 0],
}
ENDS = {"treeids": [0, 0, 0, 1, 1], "nodeids": [2, 3, 4, 1, 2], "weights": [0.2, 0.5, 0.7, 0.1, 0.4]}


def _targets(kind: str, ids: list[int]) -> dict[str, Any]:
    return {f"{kind}_{name}": value for name, value in {**ENDS, "ids": ids}.items()}


CASES: dict[str, tuple[str, dict[str, Any], int]] = {
    "scaler": ("Scaler", {"offset": [1.0, 2, 3, 4], "scale": [0.5, 2, 1, 3]}, 1),
    "normalizer_max": ("Normalizer", {"norm": "MAX"}, 1),
    "normalizer_l1": ("Normalizer", {"norm": "L1"}, 1),
    "normalizer_l2": ("Normalizer", {"norm": "L2"}, 1),
    "linear_regressor": ("LinearRegressor", {"coefficients": ROWS[:8], "intercepts": [1.0, 2], "targets": 2}, 1),
    "linear_classifier": (
        "LinearClassifier",
        {"coefficients": ROWS, "intercepts": [0.1, 0.2, 0.3], "classlabels_ints": [5, 7, 9],
         "post_transform": "SOFTMAX"},
        2,
    ),
    "linear_classifier_of_two": (
        "LinearClassifier",
        {"coefficients": ROWS[:4], "intercepts": [0.1], "classlabels_ints": [0, 1], "post_transform": "LOGISTIC"},
        2,
    ),
    "linear_classifier_of_words": (
        "LinearClassifier",
        {"coefficients": ROWS, "intercepts": [0.1, 0.2, 0.3], "classlabels_strings": ["a", "b", "c"]},
        2,
    ),
    "label_encoder": (
        "LabelEncoder", {"keys_floats": [float(X[0, 0]), float(X[1, 2])], "values_int64s": [3, 4]}, 1,
    ),
    "imputer": ("Imputer", {"imputed_value_floats": [9.0], "replaced_value_float": float(X[2, 1])}, 1),
    "feature_vectorizer": ("FeatureVectorizer", {"inputdimensions": [3]}, 1),
    "tree_regressor": (
        "TreeEnsembleRegressor", {**TREES, **_targets("target", [0, 0, 0, 1, 1]), "n_targets": 2,
                                  "base_values": [0.5, -0.5]}, 1,
    ),
    "tree_regressor_average": (
        "TreeEnsembleRegressor",
        {**TREES, **_targets("target", [0] * 5), "n_targets": 1, "aggregate_function": "AVERAGE"}, 1,
    ),
    "tree_classifier": (
        "TreeEnsembleClassifier",
        {**TREES, **_targets("class", [0, 1, 2, 1, 0]), "classlabels_int64s": [3, 1, 2],
         "post_transform": "SOFTMAX"}, 2,
    ),
    "tree_classifier_of_two": (
        "TreeEnsembleClassifier", {**TREES, **_targets("class", [0] * 5), "classlabels_int64s": [0, 1]}, 2,
    ),
    "svm_regressor": (
        "SVMRegressor",
        {"coefficients": [0.5, -0.5], "kernel_params": [0.25, 0.0, 3.0], "kernel_type": "RBF", "n_supports": 2,
         "rho": [0.1], "support_vectors": ROWS[:8]}, 1,
    ),
}  # fmt: skip
HOSTED = {"linear_classifier_of_words", "svm_regressor"}


def _model(name: str) -> ir.Model:
    op_type, attributes, outputs = CASES[name]
    names = ["y", "scores"][:outputs]
    node = helper.make_node(op_type, ["x"], names, domain="ai.onnx.ml", **attributes)
    given = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ("batch", 4))
    graph = helper.make_graph([node], "g", [given], [onnx.ValueInfoProto(name=name) for name in names])
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return ir.from_proto(onnx.shape_inference.infer_shapes(model))


@pytest.mark.parametrize("name", CASES)
def test_a_classical_model_computes_as_onnx_runtime_does(name: str) -> None:
    model, x = _model(name), X.copy()
    if name.startswith("tree"):
        x[0, 0] = np.nan
    if name == "normalizer_max":
        # ONNX Runtime takes the largest number, onnx's evaluator (and scikit-learn) the one that is farthest from zero.
        x = np.abs(x)
    built = build(model)
    found = BACKEND.run(built.native, {"x": x}, read_signature(model))
    for expected, value in zip(run(model, {"x": x}), found.values(), strict=True):
        assert value.dtype == (object if name.endswith("words") and value.ndim == 1 else expected.dtype)
        if value.dtype == object:
            assert value.tolist() == expected.tolist()
        else:
            np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
    assert [note.kind for note in built.notes] == (["fallback"] if name in HOSTED else [])


def test_random_operators_draw_from_torch_and_say_that_a_seed_is_not_theirs() -> None:
    model = ir.from_onnx_text("""<ir_version: 10, opset_import: ["" : 21]>
    g (float[2000, 2] p) => (float[2000, 2] coins, float[2000, 2] even, float[2000, 2] bell, int32[2000, 3] picks) {
      coins = Bernoulli <seed = 3.0> (p)
      even = RandomUniformLike <low = 2.0, high = 4.0> (p)
      bell = RandomNormal <shape = [2000, 2], mean = 1.0, scale = 0.5> ()
      logs = Log (p)
      picks = Multinomial <sample_size = 3> (logs)
    }""")
    built = build(model)
    p = np.tile(np.array([[0.2, 0.8]], "float32"), (2000, 1))
    found = BACKEND.run(built.native, {"p": p}, read_signature(model))
    np.testing.assert_allclose(found["coins"].mean(0), [0.2, 0.8], atol=0.06)
    np.testing.assert_allclose([found["even"].min(), found["even"].max()], [2, 4], atol=0.02)
    np.testing.assert_allclose([found["bell"].mean(), found["bell"].std()], [1, 0.5], atol=0.05)
    assert found["picks"].mean() == pytest.approx(0.8, abs=0.06)
    assert [(note.kind, note.where) for note in built.notes] == [("changed", "coins")]
