"""What `import modelport` offers, what it costs, and which room may import which."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import modelport as mp

SOURCE = Path(mp.__file__).parent
FRAMEWORKS = ("torch", "tensorflow", "keras", "onnx", "onnxruntime", "onnx_ir", "onnxscript", "numpy", "matplotlib")

FACE = [
    "CheckReport", "CompressReport", "DataError", "Distill", "FineTune", "FormatError", "IntegrityError",
    "MissingBackendError", "Model", "ModelPortError", "Note", "ParityError", "ParityReport", "ParityRow",
    "ProfileReport", "Prune", "Quantize", "Signature", "SignatureError", "StepError", "SweepReport", "SweepRow",
    "TensorSpec", "TransferReport", "UnsupportedModelError", "UnsupportedOpError", "UntrustedFileError", "check",
    "compare", "compress", "load", "profile", "save", "sweep", "transfer",
]  # fmt: skip


def test_the_public_face_is_exactly_this() -> None:
    assert mp.__all__ == FACE
    assert mp.__all__ == sorted(mp.__all__)


@pytest.mark.parametrize("name", FACE)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    assert getattr(mp, name).__doc__


def test_an_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="shrink"):
        mp.shrink  # noqa: B018


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_import_modelport_loads_no_framework(framework: str) -> None:
    code = f"import sys, modelport; sys.exit({framework!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("framework", ["torch", "tensorflow", "keras"])
def test_asking_every_backend_who_owns_an_object_loads_no_framework(framework: str) -> None:
    code = (
        "import sys\n"
        "from modelport.core import registry\n"
        "owners = [b.name for b in registry.backends() if b.owns(object())]\n"
        "supported = [b.formats for b in registry.backends()]\n"
        f"sys.exit(bool(owners) or {framework!r} in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


ROOMS = ("verbs", "trust", "compression", "training", "bundle", "backends", "graph", "core")
BELOW = {
    "core": (),
    "graph": ("core",),
    "backends": ("graph", "core"),
    "bundle": ("graph", "core"),
    "training": ("backends", "graph", "core"),
    "compression": ("training", "backends", "graph", "core"),
    "trust": ("core",),
    "verbs": ("trust", "compression", "bundle", "backends", "graph", "core"),
}
HANDLE = {"core/model.py": "modelport.verbs.save"}
"""`Model.save` is the verb itself: the one import that points up, inside the method."""


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_down_only(path: Path) -> None:
    inside = path.relative_to(SOURCE)
    room = inside.parts[0]
    if room not in BELOW:
        pytest.skip("the face, the command line and the shipped test suite may import every room")
    for name in _imports(path):
        if not name.startswith("modelport.") or name.startswith(HANDLE.get(str(inside), "-")):
            continue
        other = name.split(".")[1]
        assert other == room or other in BELOW[room], f"{inside} imports {name}"


@pytest.mark.parametrize("backend", ["torch", "keras", "onnx"])
def test_backends_never_import_one_another(backend: str) -> None:
    for path in (SOURCE / "backends" / backend).rglob("*.py"):
        for name in _imports(path):
            others = {"torch", "keras", "onnx"} - {backend}
            assert not any(name.startswith(f"modelport.backends.{other}") for other in others), f"{path}: {name}"


@pytest.mark.parametrize(("room", "foreign"), [
    ("core", ("torch", "tensorflow", "keras", "onnxruntime")),
    ("graph", ("torch", "tensorflow", "keras", "onnxruntime")),
    ("bundle", ("torch", "tensorflow", "keras")),
    ("compression", ("torch", "tensorflow", "keras")),
    ("trust", ("torch", "tensorflow", "keras", "onnxruntime")),
    ("verbs", ("torch", "tensorflow", "keras", "onnxruntime")),
    ("backends/torch", ("tensorflow", "keras", "onnxruntime")),
    ("backends/keras", ("torch", "onnxruntime")),
    ("backends/onnx", ("torch", "tensorflow", "keras")),
])  # fmt: skip
def test_a_room_imports_only_the_frameworks_it_may(room: str, foreign: tuple[str, ...]) -> None:
    for path in (SOURCE / room).rglob("*.py"):
        roots = {name.split(".")[0] for name in _imports(path)}
        assert not roots & set(foreign), path


def test_the_backends_have_the_same_rooms() -> None:
    def rooms(backend: str) -> set[str]:
        return {p.stem for p in (SOURCE / "backends" / backend).iterdir() if p.suffix == ".py" or p.name == "ops"}

    shared = {"__init__", "export", "build", "run", "parameters", "files", "device", "ops"}
    assert shared <= rooms("onnx")
    assert shared | {"layers", "train"} <= rooms("torch")
    assert shared | {"layers", "train"} <= rooms("keras")
