"""Kind: damage. A bundle that is not exactly what was saved is refused, and the message names the file."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import modelport as mp
from tests.nets import in_onnx

FILES = ("manifest.json", "model.onnx", "weights.safetensors")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "net.mport"
    mp.save(in_onnx.net(), path)
    return path


@pytest.fixture
def bundle(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "net.mport"))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(file=st.sampled_from(FILES), where=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255))
def test_a_flipped_byte_is_refused(bundle: Path, file: str, where: float, bits: int) -> None:
    original = (bundle / file).read_bytes()
    content = bytearray(original)
    content[int(where * len(content))] ^= bits
    (bundle / file).write_bytes(content)
    try:
        with pytest.raises(mp.IntegrityError, match=file):
            mp.load(bundle)
    finally:
        (bundle / file).write_bytes(original)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("kept", [0, 1, 7, 8, 100, 0.5, 0.99, -1])
def test_a_truncated_file_is_refused(bundle: Path, file: str, kept: float) -> None:
    content = (bundle / file).read_bytes()
    size = int(kept * len(content)) if isinstance(kept, float) else kept
    (bundle / file).write_bytes(content[:size])
    with pytest.raises(mp.IntegrityError, match=file):
        mp.load(bundle)


@pytest.mark.parametrize("file", FILES)
def test_bytes_at_the_end_are_refused(bundle: Path, file: str) -> None:
    with (bundle / file).open("ab") as stream:
        stream.write(b"\n")
    with pytest.raises(mp.IntegrityError, match=file):
        mp.load(bundle)


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_named(bundle: Path, file: str) -> None:
    (bundle / file).unlink()
    with pytest.raises(mp.IntegrityError, match=f"{file} is missing"):
        mp.load(bundle)


@pytest.mark.parametrize("extra", ["notes.txt", "native/model.pt", ".hidden"])
def test_a_file_that_the_manifest_does_not_list_is_refused(bundle: Path, extra: str) -> None:
    (bundle / extra).parent.mkdir(exist_ok=True)
    (bundle / extra).write_text("hello")
    with pytest.raises(mp.IntegrityError, match=f"{extra} is not in the manifest"):
        mp.load(bundle)


@pytest.mark.parametrize("file", FILES)
def test_a_link_in_the_place_of_a_file_is_refused(bundle: Path, file: str) -> None:
    os.rename(bundle / file, bundle.parent / file)
    (bundle / file).symlink_to(bundle.parent / file)
    with pytest.raises(mp.IntegrityError, match=file):
        mp.load(bundle)


@pytest.mark.parametrize("file", FILES)
def test_a_pipe_in_the_place_of_a_file_is_refused_and_does_not_block(bundle: Path, file: str) -> None:
    (bundle / file).unlink()
    os.mkfifo(bundle / file)
    with pytest.raises(mp.IntegrityError, match=file):
        mp.load(bundle)


def test_a_linked_directory_is_refused(bundle: Path) -> None:
    (bundle / "native").symlink_to(bundle.parent)
    with pytest.raises(mp.IntegrityError, match="native is not in the manifest"):
        mp.load(bundle)


def test_a_file_with_a_bundles_suffix_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.mport").write_bytes(b"not a directory")
    with pytest.raises(mp.IntegrityError, match=r"net\.mport"):
        mp.load(tmp_path / "net.mport")


def test_an_empty_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.mport").mkdir()
    with pytest.raises(mp.IntegrityError, match=r"manifest\.json is missing"):
        mp.load(tmp_path / "net.mport")
