"""A save that is killed leaves the old bundle or the new one; saves at the same time leave one of theirs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import modelport as mp
from modelport.bundle import files
from tests.nets import in_onnx

WRITER = """
import os, signal, sys
from pathlib import Path
import onnx_ir as ir
from modelport.bundle import files, store
from modelport.bundle.manifest import Manifest
from modelport.bundle.program import write_program
from modelport.core.signature import Signature
from modelport.graph.signature import read_signature
from tests.nets import in_onnx

path = Path(sys.argv[1])
if sys.argv[2] == "without exchange":
    files._exchange = lambda first, second: False

def write(scale):
    graph = ir.from_proto(in_onnx.net(scale))
    with files.replacing(path) as new:
        new.mkdir()
        unused = write_program(new, graph)
        store.seal(new, Manifest("onnx", read_signature(graph)), unused)

def scale_on_disk():
    return float(store.read_bundle(path).graph.graph.initializers["spare.weight"].const_value.numpy()[0, 0])
"""

KILLED_AT_EVERY_STEP = (
    WRITER
    + """
STEPS = ["mkdir", "open", "close", "fsync", "rename", "replace", "unlink", "rmdir"]

def killed_at(step, after):
    calls = 0
    def dying(function):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == step and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*args, **kwargs)
            if calls == step and after:
                os.kill(os.getpid(), signal.SIGKILL)
            return result
        return call
    for name in STEPS:
        setattr(os, name, dying(getattr(os, name)))
    files._exchange = dying(files._exchange)

def in_child(work):
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
    return os.waitpid(child, 0)[1]

write(1.0)
old, step, seen = 1.0, 0, []
while True:
    step += 1
    new = old + 1.0
    for after in (False, True):
        def work():
            killed_at(step, after)
            write(new)
        status = in_child(work)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, status
        found = scale_on_disk()
        assert found in (old, new), (step, after, found, old, new)
        seen.append(found == new)
        old, new = found, found + 1.0
    if not os.WIFSIGNALED(status):
        break
assert step > 20 and True in seen and False in seen, (step, seen)
write(0.5)
assert os.listdir(path.parent) == [path.name], os.listdir(path.parent)
print(step)
"""
)

WRITING_ALL_THE_TIME = (
    WRITER
    + """
print("ready", flush=True)
scale = 1.0
while True:
    scale += 1.0
    write(scale)
"""
)


def _run(code: str, path: Path, how: str) -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]
    return subprocess.Popen([sys.executable, "-c", code, path, how], cwd=root, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("how", ["exchange", "without exchange"])
def test_a_save_killed_at_any_step_leaves_the_old_bundle_or_the_new_one(how: str, tmp_path: Path) -> None:
    with _run(KILLED_AT_EVERY_STEP, tmp_path / "net.mport", how) as driver:
        assert driver.wait(120) == 0


@pytest.mark.parametrize("how", ["exchange", "without exchange"])
def test_a_save_killed_at_a_random_time_leaves_a_whole_bundle(how: str, tmp_path: Path) -> None:
    path = tmp_path / "net.mport"
    mp.save(in_onnx.net(), path, check=False)
    rng = np.random.default_rng(0)
    for _ in range(4):
        with _run(WRITING_ALL_THE_TIME, path, how) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(rng.uniform(0.01, 0.2))
            writer.send_signal(signal.SIGKILL)
        assert mp.load(path)(in_onnx.example()).shape == (2, 8, 8)
    mp.save(in_onnx.net(), path, check=False)
    assert os.listdir(tmp_path) == ["net.mport"]


@pytest.mark.parametrize("how", ["exchange", "without exchange"])
def test_saves_and_loads_at_the_same_time_never_see_half_a_bundle(how: str, tmp_path: Path) -> None:
    path = tmp_path / "net.mport"
    mp.save(in_onnx.net(), path, check=False)
    writers = [_run(WRITING_ALL_THE_TIME, path, how) for _ in range(2)]
    try:
        for writer in writers:
            assert writer.stdout is not None
            writer.stdout.readline()
        end = time.monotonic() + 2.0
        while time.monotonic() < end:
            try:
                assert mp.load(path).parameters()["spare.weight"].shape == (3, 3)
            except mp.FormatError:
                # Without an exchange the old bundle is away for a moment before the new one is there.
                assert how == "without exchange"
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()
    mp.save(in_onnx.net(), path, check=False)
    assert os.listdir(tmp_path) == ["net.mport"]


def test_what_was_there_stays_when_writing_fails(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")

    def fail() -> None:
        with files.replacing(tmp_path / "a.txt") as new:
            new.write_text("new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (tmp_path / "a.txt").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("old", ["nothing", "file", "directory"])
@pytest.mark.parametrize("new", ["file", "directory"])
def test_anything_takes_the_place_of_anything(
    old: str, new: str, exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(path: Path, kind: str, text: str) -> None:
        if kind == "file":
            path.write_text(text)
        elif kind == "directory":
            path.mkdir()
            (path / "inside").write_text(text)

    if not exchange:
        monkeypatch.setattr(files, "_exchange", lambda first, second: False)
    make(tmp_path / "thing", old, "old")
    with files.replacing(tmp_path / "thing") as place:
        make(place, new, "new")
    inside = tmp_path / "thing" / "inside" if new == "directory" else tmp_path / "thing"
    assert inside.read_text() == "new"
    assert os.listdir(tmp_path) == ["thing"]


def test_a_link_keeps_pointing_to_what_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "latest").symlink_to(tmp_path / "run")
    with files.replacing(tmp_path / "latest") as new:
        new.mkdir()
        (new / "inside").write_text("new")
    assert (tmp_path / "latest").is_symlink()
    assert (tmp_path / "run" / "inside").read_text() == "new"


def test_the_work_of_a_save_that_is_still_writing_is_left_alone(tmp_path: Path) -> None:
    with files.replacing(tmp_path / "a.txt") as new:
        new.write_text("first")
        with files.replacing(tmp_path / "a.txt") as other:
            other.write_text("second")
        assert (tmp_path / "a.txt").read_text() == "second"
        assert new.read_text() == "first"
    assert (tmp_path / "a.txt").read_text() == "first"


def test_weights_beside_a_program_are_in_place_before_it_and_go_with_it(tmp_path: Path) -> None:
    for digest in ("0" * 16, "1" * 16):
        with files.replacing(tmp_path / "net.onnx") as new:
            new.write_text(digest)
            new.with_name(f"net.onnx.{digest}.data").write_text(digest)
        assert sorted(os.listdir(tmp_path)) == ["net.onnx", f"net.onnx.{digest}.data"]
