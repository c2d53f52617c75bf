"""What lies in torch's files, found out by looking only: nothing is unpickled, compiled or imported.

`torch.export.load` falls back to a full unpickler, evaluates the sizes in a program as Python and calls whatever the
program names below `torch`; so a program counts as safe only if every part of it is of a kind known to be data.
"""

from __future__ import annotations

import ast
import json
import pickletools
import re
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How a file of `torch.save` began before torch 1.6."""

_STORAGES = ("Bool", "Byte", "Char", "Short", "Int", "Long", "Half", "Float", "Double", "BFloat16", "ComplexFloat",
             "ComplexDouble", "Untyped")  # fmt: skip
_REBUILD = ("parameter", "parameter_with_state", "tensor", "tensor_v2", "tensor_v3", "meta_tensor_no_storage")
TENSOR_NAMES = frozenset(
    {
        "collections.OrderedDict",
        "torch.Size",
        "torch.Tensor",
        "torch.device",
        "torch.nn.parameter.Parameter",
        "torch.nn.parameter.Buffer",
        "torch.serialization._get_layout",
        "torch._tensor._rebuild_from_type_v2",
        "torch.storage.UntypedStorage",
        "torch.storage.TypedStorage",
        *(f"torch._utils._rebuild_{name}" for name in _REBUILD),
        *(f"torch.{name}Storage" for name in _STORAGES),
    }
)
"""All that a pickle of tensors names; torch's dtypes come on top."""


def members(path: Path) -> dict[str, int]:
    """The files in a zip archive of torch by their path below its one top folder, with their sizes; empty if none.

    Names that differ in case only count as twice the same, because torch's reader takes them so.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, OSError):
        return {}
    tops = {info.filename.partition("/")[0] for info in infos}
    names = [info.filename.partition("/")[2] for info in infos]
    if len(tops) != 1 or len({name.casefold() for name in names}) != len(names):
        return {}
    return {name: info.file_size for name, info in zip(names, infos, strict=True)}


def is_program(path: Path) -> bool:
    """Whether a file is an ExportedProgram (`torch.export.save`)."""
    return any(name.startswith("models/") for name in members(path)) or _starts_program(path)


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript module (`torch.jit.save`)."""
    found = members(path)
    return "constants.pkl" in found and any(name.startswith("code/") for name in found)


def is_pickle(path: Path) -> bool:
    """Whether a file was written by `torch.save`: a state dict, a checkpoint or a whole module."""
    found = members(path)
    return ("data.pkl" in found and "constants.pkl" not in found) or _starts_with(path, LEGACY_MAGIC)


def unsafe_pickle(path: Path) -> str:
    """Why unpickling a file of `torch.save` could run code; empty if it names tensors only."""
    if _starts_with(path, LEGACY_MAGIC):
        return _unsafe_names(_names_of(path.read_bytes()))
    return _unsafe_names(_names_of(_read(path, "data.pkl")))


def unsafe_torchscript(path: Path) -> str:
    """TorchScript is code: what it holds is compiled when it is loaded and run when it is called."""
    sources = sorted(name for name in members(path) if name.startswith("code/") and name.endswith(".py"))
    return f"TorchScript is compiled and run: {len(sources)} source files, {', '.join(sources[:3])}"


_PLAIN = re.compile(
    r"data/weights/weight_\d+|data/constants/tensor_\d+|data/(weights|constants)/\w+_config\.json|models/[\w.-]+\.json|"
    r"data/sample_inputs/[\w.-]+\.pt|archive_format|archive_version|byteorder|version|\.data/\w+|extra/[\w./-]+"
)


def unsafe_program(path: Path) -> str:
    """Why loading an ExportedProgram could run code; empty if all its parts are data."""
    found = members(path)
    if not found:
        return "the archive is not one that torch.export.save writes"
    strange = sorted(name for name in found if not _PLAIN.fullmatch(name))
    if strange:
        return f"parts that are compiled or unpickled: {', '.join(strange[:3])}"
    reasons = (reason for name in found for reason in [_unsafe_part(path, name)] if reason)
    return next(reasons, "")


def _unsafe_part(path: Path, name: str) -> str:
    if name.startswith("data/sample_inputs/"):
        content = _read(path, name)
        reason = _unsafe_names(_names_in_zip(content)) if content else ""
        return f"{name}: {reason}" if reason else ""
    if not name.endswith(".json"):
        return ""
    try:
        content = json.loads(_read(path, name))
    except (ValueError, RecursionError):
        return f"{name} is not JSON"
    check = _unsafe_graph if name.startswith("models/") else _unsafe_payload
    reason = next(check(content), "")
    return f"{name}: {reason}" if reason else ""


def _unsafe_payload(config: Any) -> Iterator[str]:
    for owner, key, value in _walk(config):
        if key == "use_pickle" and value:
            yield f"a pickled tensor {owner.get('path_name')!r}"
        if key == "path_name" and not re.fullmatch(r"(weight|tensor)_\d+", str(value)):
            yield f"an object {value!r}"


def _unsafe_graph(program: Any) -> Iterator[str]:
    for _, key, value in _walk(program):
        if key in ("target", "as_operator") and isinstance(value, str) and not _is_operator(value):
            yield f"it calls {value!r}"
        if key == "expr_str" and not _is_arithmetic(str(value), frozenset()):
            yield f"a size is computed by {value!r}"
        if key == "guards_code":
            for guard in value or []:
                if not _is_arithmetic(str(guard), _SIZES):
                    yield f"a check runs {guard!r}"
        if key in ("in_spec", "out_spec", "treespec") and isinstance(value, str) and "default_factory" in value:
            yield "its inputs or outputs import a factory"


def _walk(tree: Any) -> Iterator[tuple[dict[str, Any], str, Any]]:
    """Every entry of every dict in a JSON tree, with the dict."""
    pending = [tree]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            for key, value in item.items():
                yield item, key, value
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)


_NAMESPACES = ("aten", "prims", "higher_order", "quantized_decomposed", "torchvision")
_ARITHMETIC = frozenset(
    {
        *("add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "pos", "pow", "abs", "lshift", "rshift"),
        *("eq", "ne", "lt", "le", "gt", "ge", "and_", "or_", "xor", "invert", "not_", "getitem"),
    }
)


def _is_operator(target: str) -> bool:
    """Whether a call's target is a tensor operator or plain arithmetic; `aten.from_file` opens files."""
    namespaces = "|".join(_NAMESPACES)
    if re.fullmatch(rf"torch\.ops\.({namespaces})\.\w+(\.\w+)?", target):
        return not target.startswith("torch.ops.aten.from_file")
    if re.fullmatch(r"torch\._?sym_\w+|math\.(ceil|floor|sqrt|trunc|pow|log|log2|exp)", target):
        return True
    return target.startswith("_operator.") and target.removeprefix("_operator.") in _ARITHMETIC


_FUNCTIONS = frozenset(
    {
        *("Symbol", "Integer", "Float", "Rational", "Identity", "Add", "Mul", "Pow", "Mod", "PythonMod", "Abs"),
        *("FloorDiv", "CleanDiv", "CeilDiv", "CeilToInt", "FloorToInt", "TruncToInt", "RoundToInt", "ToFloat"),
        *("IntTrueDiv", "FloatTrueDiv", "LShift", "RShift", "PowByNatural", "ModularIndexing", "Where", "Max", "Min"),
        *("Eq", "Ne", "Lt", "Le", "Gt", "Ge", "Equality", "Unequality", "StrictLessThan", "LessThan"),
        *("StrictGreaterThan", "GreaterThan", "And", "Or", "Not"),
    }
)
_SIZES = frozenset({"size", "stride", "storage_offset", "dim", "shape", "ndim"})
_NODES = (
    *(ast.Expression, ast.Constant, ast.Name, ast.Attribute, ast.Subscript, ast.Call, ast.keyword, ast.Load),
    *(ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.operator, ast.unaryop, ast.boolop, ast.cmpop),
)


def _is_arithmetic(text: str, attributes: frozenset[str]) -> bool:
    """Whether an expression only computes: known functions, and of attributes only the ones that are named."""
    try:
        nodes = list(ast.walk(ast.parse(text.strip(), mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return all(isinstance(node, _NODES) and _is_plain(node, attributes) for node in nodes)


def _is_plain(node: ast.AST, attributes: frozenset[str]) -> bool:
    if isinstance(node, ast.Attribute):
        return node.attr in attributes
    if isinstance(node, ast.Call):
        known = node.func.id in _FUNCTIONS if isinstance(node.func, ast.Name) else isinstance(node.func, ast.Attribute)
        return known
    if isinstance(node, ast.Name):
        return bool(re.fullmatch(r"[A-Za-z]\w*", node.id)) and "__" not in node.id
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return bool(re.fullmatch(r"\w+", node.value))
    return True


def _unsafe_names(names: Iterable[str]) -> str:
    strange = sorted({name for name in names if not _is_tensor_name(name)})
    if not strange:
        return ""
    found = ", ".join(strange[:5])
    if any("nn.modules" in name or name.startswith("__main__.") for name in strange):
        return f"a pickled module, which names {found}; save its state_dict() instead"
    return f"a pickle that names {found}"


def _is_tensor_name(name: str) -> bool:
    dtype = re.fullmatch(r"torch\.(u?int\d+|float\w*|bfloat16|half|double|bool|complex\d+)", name)
    return name in TENSOR_NAMES or dtype is not None


def _names_in_zip(content: bytes) -> Iterator[str]:
    import io

    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            pickles = [name for name in archive.namelist() if name.casefold().endswith(".pkl")]
            if len(pickles) != 1:
                yield f"{len(pickles)} pickles"
            for name in pickles:
                yield from _names_of(archive.read(name))
    except zipfile.BadZipFile:
        yield from _names_of(content)


def _names_of(content: bytes) -> Iterator[str]:
    """The importable names in one or more pickles, one after the other; what hides its name is named for that."""
    position = 0
    while position < len(content) and content[position : position + 1] == b"\x80":
        strings: list[str] = []
        try:
            for opcode, argument, at in pickletools.genops(content[position:]):
                end = (at or 0) + 1
                if opcode.name in ("GLOBAL", "INST"):
                    yield str(argument).replace(" ", ".")
                elif opcode.name == "STACK_GLOBAL":
                    yield ".".join(strings[-2:]) if len(strings) > 1 else "a computed name"
                elif opcode.name.startswith("EXT"):
                    yield "an extension code"
                elif opcode.name.endswith("UNICODE"):
                    strings.append(str(argument))
                elif opcode.name not in ("MEMOIZE", "BINPUT", "LONG_BINPUT", "FRAME"):
                    strings.clear()
        except Exception as exc:
            yield f"something unreadable ({exc})"
            return
        position += end
    if position == 0:
        yield "something that is no pickle"


def _read(path: Path, name: str) -> bytes:
    with zipfile.ZipFile(path) as archive:
        full = next(entry for entry in archive.namelist() if entry.partition("/")[2] == name)
        return archive.read(full)


def _starts_with(path: Path, magic: bytes) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def _starts_program(path: Path) -> bool:
    """Programs of torch before 2.8 have their parts at the top of the archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return "serialized_exported_program.json" in archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return False
