"""What is in a bundle, who opens it, and what comes back."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import safetensors.numpy

import modelport as mp
from modelport.bundle.program import write_program
from modelport.bundle.store import read_bundle
from modelport.core import registry
from modelport.graph.external import mapping_of
from tests.nets import in_onnx


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    mp.save(in_onnx.net(), tmp_path / "net.mport")
    return tmp_path / "net.mport"


def test_a_bundle_is_one_program_one_copy_of_the_weights_and_a_manifest(bundle: Path) -> None:
    assert sorted(p.name for p in bundle.iterdir()) == ["manifest.json", "model.onnx", "weights.safetensors"]
    weights = sum(np.prod(tensor.dims) * 4 for tensor in in_onnx.net().graph.initializer if tensor.name != "shape")
    assert (bundle / "weights.safetensors").stat().st_size < weights + 1024
    assert (bundle / "model.onnx").stat().st_size < 2048


def test_onnx_runtime_opens_the_program_as_it_is(bundle: Path) -> None:
    session = onnxruntime.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
    expected = mp.load(bundle)(in_onnx.example())
    np.testing.assert_allclose(session.run(None, {"x": in_onnx.example()})[0], expected, rtol=1e-6)
    onnx.checker.check_model(str(bundle / "model.onnx"))


def test_safetensors_opens_every_weight_under_its_name_and_nothing_else(bundle: Path) -> None:
    stored = safetensors.numpy.load_file(bundle / "weights.safetensors")
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in in_onnx.net().graph.initializer if t.name != "shape"}
    assert stored.keys() == weights.keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(stored[name], array)


def test_a_weight_that_nothing_uses_is_kept_and_comes_back(bundle: Path) -> None:
    program = onnx.load(bundle / "model.onnx", load_external_data=False)
    assert "spare.weight" not in [tensor.name for tensor in program.graph.initializer]
    assert mp.load(bundle).parameters()["spare.weight"].shape == (3, 3)


def test_the_outputs_survive_at_every_batch_size(bundle: Path) -> None:
    loaded = mp.load(bundle)
    for batch in (1, 2, 7):
        report = mp.compare(in_onnx.net(), loaded, in_onnx.example(batch), tolerance=0)
        assert report.ok, report


def test_opening_copies_no_weights(bundle: Path) -> None:
    graph = read_bundle(bundle).graph
    for name in ("fc.weight", "fc.bias", "spare.weight"):
        assert mapping_of(graph.graph.initializers[name].const_value) is not None
    native = mp.load(bundle).native
    sizes = {t.name: len(t.raw_data) for t in native.graph.initializer}
    assert sizes == {"fc.weight": 0, "fc.bias": 0, "spare.weight": 0, "shape": 24}


def test_the_signature_and_the_history_come_back(bundle: Path) -> None:
    loaded = mp.load(bundle)
    assert str(loaded.signature) == "(x: float32(batch, 32)) -> (y: float32(batch, 8, 8))"
    assert [event["verb"] for event in loaded.history] == ["save", "load"]
    assert loaded.history[0]["parity"]["ok"]


def test_saving_to_the_bundle_that_the_weights_are_mapped_from_works(bundle: Path) -> None:
    loaded = mp.load(bundle)
    expected = loaded(in_onnx.example())
    mp.save(loaded, bundle)
    np.testing.assert_array_equal(mp.load(bundle)(in_onnx.example()), expected)


def test_a_loaded_model_keeps_its_weights_when_another_bundle_takes_its_place(bundle: Path) -> None:
    loaded = mp.load(bundle)
    expected = mp.load(bundle)(in_onnx.example())
    mp.save(in_onnx.net(scale=2.0), bundle)
    np.testing.assert_array_equal(loaded(in_onnx.example()), expected)
    assert not np.allclose(mp.load(bundle)(in_onnx.example()), expected)


def test_a_copy_of_the_program_is_refused_when_its_weights_are_replaced(bundle: Path) -> None:
    copy = onnx.ModelProto()
    copy.CopyFrom(mp.load(bundle).native)
    mp.save(in_onnx.net(scale=2.0), bundle)
    gc.collect()
    registry.backend("onnx").signature(in_onnx.net())  # what nobody holds any more is let go
    with pytest.raises(mp.IntegrityError, match="not the file any more"):
        mp.compare(in_onnx.net(), copy, in_onnx.example())


def test_the_example_is_not_in_the_bundle_but_its_sizes_are(tmp_path: Path) -> None:
    mp.save(in_onnx.net(), tmp_path / "net.mport", example=in_onnx.example(5))
    manifest = json.loads((tmp_path / "net.mport" / "manifest.json").read_text())
    assert manifest["sizes"] == {"batch": 5}
    loaded = mp.load(tmp_path / "net.mport")
    assert loaded.example is not None
    assert loaded.example["x"].shape == (5, 32)


def test_the_frameworks_own_file_lies_beside_the_program_where_it_is_asked_for(tmp_path: Path) -> None:
    mp.save(in_onnx.net(), tmp_path / "net.mport", native=True)
    beside = mp.load(tmp_path / "net.mport" / "native" / "model.onnx")
    np.testing.assert_array_equal(beside(in_onnx.example()), mp.load(tmp_path / "net.mport")(in_onnx.example()))


def test_a_program_that_is_not_the_model_is_a_parity_error_and_the_old_bundle_stays(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (bundle / "manifest.json").read_bytes()

    def spoiled(folder: Path, graph: ir.Model) -> object:
        weight = graph.graph.initializers["fc.weight"]
        assert weight.const_value is not None
        weight.const_value = ir.Tensor(weight.const_value.numpy() * 1.01, name="fc.weight")
        return write_program(folder, graph)

    monkeypatch.setattr("modelport.bundle.program.write_program", spoiled)
    with pytest.raises(mp.ParityError, match="'y' changed by"):
        mp.save(in_onnx.net(), bundle)
    assert (bundle / "manifest.json").read_bytes() == before
    assert [p.name for p in bundle.parent.iterdir()] == ["net.mport"]


def test_weights_go_into_a_model_of_ones_own_by_name(bundle: Path) -> None:
    own = in_onnx.net(scale=0.0)
    loaded = mp.load(bundle, into=own)
    assert loaded.native is own
    np.testing.assert_array_equal(loaded(in_onnx.example()), mp.load(bundle)(in_onnx.example()))


def test_weights_that_do_not_fit_name_every_problem_and_change_nothing(bundle: Path) -> None:
    own = in_onnx.net(scale=0.0)
    own.graph.initializer[1].name = own.graph.node[0].input[2] = "fc.offset"
    with pytest.raises(mp.DataError, match=r"missing 'fc\.offset'; unknown 'fc\.bias'"):
        mp.load(bundle, into=own)
    assert not np.any(onnx.numpy_helper.to_array(own.graph.initializer[0]))


def test_weights_only_files_say_that_they_need_a_model(bundle: Path, tmp_path: Path) -> None:
    mp.save(mp.load(bundle), tmp_path / "net.safetensors")
    with pytest.raises(mp.FormatError, match="into="):
        mp.load(tmp_path / "net.safetensors")
    own = mp.load(tmp_path / "net.safetensors", into=in_onnx.net(scale=0.0))
    np.testing.assert_array_equal(own(in_onnx.example()), mp.load(bundle)(in_onnx.example()))


def test_a_newer_format_says_to_upgrade(bundle: Path) -> None:
    from modelport.bundle.manifest import Manifest

    manifest = Manifest.from_bytes((bundle / "manifest.json").read_bytes(), "manifest.json")
    object.__setattr__(manifest, "version", 2)
    (bundle / "manifest.json").write_bytes(manifest.to_bytes())
    with pytest.raises(mp.FormatError, match="pip install --upgrade modelport"):
        mp.load(bundle)


def test_a_missing_path_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="check the path"):
        mp.load(tmp_path / "nothing.mport")
    with pytest.raises(mp.ModelPortError, match="does not exist: create it"):
        mp.save(in_onnx.net(), tmp_path / "no" / "net.mport")


def test_a_directory_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(b"meow")
    with pytest.raises(mp.FormatError, match="is not replaced"):
        mp.save(in_onnx.net(), tmp_path / "photos", format="bundle")
    assert (tmp_path / "photos" / "cat.png").read_bytes() == b"meow"


def test_a_bundle_goes_to_a_url_and_comes_back(bundle: Path) -> None:
    pytest.importorskip("fsspec")
    loaded = mp.load(bundle)
    for url in ("memory://models/net.mport", "memory://models/net.onnx"):
        mp.save(loaded, url)
        np.testing.assert_array_equal(mp.load(url)(in_onnx.example()), loaded(in_onnx.example()))
    with pytest.raises(mp.FormatError, match="check the URL"):
        mp.load("memory://models/none.mport")
    with pytest.raises(mp.FormatError, match="a kind that fsspec does not know"):
        mp.load("nosuch://models/net.mport")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float8_e4m3fn", "int4", "bool", "float64", "uint8"])
def test_weights_of_every_dtype_come_back(dtype: str, tmp_path: Path) -> None:
    import ml_dtypes

    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    weight = ir.Tensor((np.arange(15).reshape(3, 5) % 2).astype(kind), name="w")
    net = in_onnx.net()
    graph = ir.from_proto(net)
    value = ir.Value(name="w", shape=ir.Shape((3, 5)), type=ir.TensorType(weight.dtype), const_value=weight)
    graph.graph.register_initializer(value)
    graph.metadata_props["modelport.roles"] = json.dumps(
        {"w": "frozen", "fc.weight": "parameter", "fc.bias": "parameter"}
    )
    mp.save(graph, tmp_path / "net.mport")
    found = mp.load(tmp_path / "net.mport").parameters()["w"]
    assert found.dtype == kind
    np.testing.assert_array_equal(found.astype("float32"), weight.numpy().astype("float32"))
