"""Kind: code in a pickle. A `.joblib` or `.pkl` file is refused and named, and nothing in it runs."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest

import modelport as mp
from modelport.trust.pickles import pickled_globals
from tests.nets import in_onnx


class Attack:
    """Runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)], ids=str)
def test_a_joblib_file_is_refused_and_what_it_imports_is_named(compress: Any, tmp_path: Path) -> None:
    joblib.dump({"weights": np.ones(1000), "attack": Attack(tmp_path / "ran")}, tmp_path / "net.joblib", compress)
    with pytest.raises(mp.UntrustedFileError, match=r"posix\.system"):
        mp.load(tmp_path / "net.joblib")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_of_any_protocol_is_refused(protocol: int, tmp_path: Path) -> None:
    (tmp_path / "net.pkl").write_bytes(pickle.dumps(Attack(tmp_path / "ran"), protocol))
    with pytest.raises(mp.ModelPortError):
        mp.load(tmp_path / "net.pkl")
    assert pickled_globals(tmp_path / "net.pkl") == ("posix.system",)
    assert not (tmp_path / "ran").exists()


def test_a_pickle_with_another_suffix_runs_nothing(tmp_path: Path) -> None:
    from modelport.verbs.formats import formats

    for suffix in sorted({suffix for found in formats() for suffix in found.format.suffixes}):
        if suffix == ".mport":
            continue
        path = tmp_path / f"net{suffix}"
        path.write_bytes(pickle.dumps(Attack(tmp_path / "ran")))
        with pytest.raises(mp.ModelPortError):
            mp.load(path)
        with pytest.raises(mp.ModelPortError):
            mp.load(path, into=in_onnx.net())
        assert not (tmp_path / "ran").exists(), suffix


def test_a_small_file_that_decompresses_to_a_large_one_is_looked_at_in_part(tmp_path: Path) -> None:
    joblib.dump(np.zeros(20_000_000), tmp_path / "net.joblib", ("gzip", 1))
    with pytest.raises(mp.UntrustedFileError):
        mp.load(tmp_path / "net.joblib")


def test_a_trusted_pickle_opens_on_the_backend_that_owns_the_object(tmp_path: Path) -> None:
    mp.save(in_onnx.net(), tmp_path / "net.joblib")
    with pytest.raises(mp.UntrustedFileError, match="ModelProto"):
        mp.load(tmp_path / "net.joblib")
    loaded = mp.load(tmp_path / "net.joblib", trust=True)
    assert loaded.backend == "onnx"
    assert loaded(in_onnx.example()).shape == (2, 8, 8)


def test_a_trusted_pickle_of_no_model_is_refused(tmp_path: Path) -> None:
    joblib.dump({"weights": np.ones(3)}, tmp_path / "net.joblib")
    with pytest.raises(mp.UnsupportedModelError, match=r"builtins\.dict"):
        mp.load(tmp_path / "net.joblib", trust=True)


def test_a_damaged_trusted_pickle_is_refused(tmp_path: Path) -> None:
    joblib.dump(np.ones(1000), tmp_path / "net.joblib")
    (tmp_path / "net.joblib").write_bytes((tmp_path / "net.joblib").read_bytes()[:100])
    with pytest.raises(mp.IntegrityError):
        mp.load(tmp_path / "net.joblib", trust=True)
