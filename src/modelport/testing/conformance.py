"""Running the ONNX cases on a backend, through the `Backend` protocol alone."""

from __future__ import annotations

import gc
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import IO, Any, Literal

from modelport.core.backend import Backend
from modelport.core.errors import ModelPortError
from modelport.core.registry import backend as registered
from modelport.testing.onnx_cases import Case, all_cases

Verdict = Literal["native", "fallback", "refused", "wrong", "broken"]
"""Passed natively; passed with a fallback; refused by one of modelport's errors; other outputs; another exception, a
crash or a hang."""

PASSED: tuple[Verdict, ...] = ("native", "fallback")

SECONDS = 60.0
"""How long one case may take before its process is ended."""


@dataclass(frozen=True)
class Outcome:
    """What became of one case on one backend."""

    case: str
    verdict: Verdict
    reason: str = ""

    @property
    def passed(self) -> bool:
        return self.verdict in PASSED


def find_backend(name: str) -> Backend:
    """A registered backend by name, or an object by `package.module:OBJECT`.

    Raises:
        MissingBackendError: no backend has that name, or its framework is not installed.
    """
    module, colon, attribute = name.partition(":")
    return getattr(import_module(module), attribute) if colon else registered(name)


def run_case(backend: Backend, case: Case) -> Outcome:
    """Build a case's model, run it on its inputs and compare."""
    try:
        fallback = _run(backend, case)
    except ModelPortError as error:
        return Outcome(case.name, "refused", _told(error))
    except AssertionError as error:
        return Outcome(case.name, "wrong", _told(error))
    except Exception as error:  # any exception of a framework is a finding, and the next case must still run
        return Outcome(case.name, "broken", _told(error))
    return Outcome(case.name, "fallback" if fallback else "native")


def _told(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)}"[:300]


def _run(backend: Backend, case: Case) -> bool:
    """Whether the backend fell back for some operator."""
    import onnx_ir as ir

    from modelport.graph.signature import read_signature

    graph = ir.from_proto(case.model())
    signature = read_signature(graph)
    built = backend.build(graph)
    for inputs, expected in case.runs():
        given = {spec.name: value for spec, value in zip(signature.inputs, inputs, strict=False)}
        outputs = backend.run(built.native, given, signature)
        case.check(expected, [outputs[spec.name] for spec in signature.outputs])
    return any(note.kind == "fallback" for note in built.notes)


def forget_sessions() -> None:
    """Drop what Keras keeps of the models built so far."""
    if (keras := sys.modules.get("keras")) is not None:
        keras.backend.clear_session()


# A process of its own runs the cases, so that a crash or a hang of a framework costs one case.


def serve(name: str, cases: Sequence[Case], out: IO[str]) -> None:
    """Run cases and write a line before and after each."""
    backend = find_backend(name)
    for index, case in enumerate(cases):
        print(json.dumps({"begin": case.name}), file=out, flush=True)
        print(json.dumps(asdict(run_case(backend, case))), file=out, flush=True)
        forget_sessions()
        if index == 0:
            # The framework and the cases stay: a collection need not walk them again after every case.
            gc.freeze()


def run_shard(name: str, shard: int = 0, shards: int = 1) -> list[Outcome]:
    """Run every `shards`-th case on a backend."""
    return run_cases(name, [case.name for case in all_cases()[shard::shards]])


def run_cases(name: str, cases: Sequence[str], seconds: float = SECONDS) -> list[Outcome]:
    """Run cases on a backend, each for so many seconds at most.

    Raises:
        RuntimeError: the process ended before its first case; the message has what it wrote.
    """
    outcomes: list[Outcome] = []
    while len(outcomes) < len(cases):
        outcomes += _run_until_it_ends(name, cases[len(outcomes) :], seconds)
    return outcomes


def _run_until_it_ends(name: str, cases: Sequence[str], seconds: float) -> list[Outcome]:
    """The outcomes of one process; the last one is of the case in which it ended, where it did."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    env = {"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-m", "modelport.testing.conformance", name]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdin=-1, stdout=-1, stderr=errors, text=True, env=env) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(list(cases)))
        process.stdin.close()
        outcomes, begun, hung = _follow(process.stdout, seconds)
        if hung:
            process.kill()
        status = process.wait()
        errors.seek(0)
        if not outcomes and not begun:
            raise RuntimeError(f"the cases did not start on {name!r}:\n{errors.read()[-3000:]}")
    if begun:
        why = f"took more than {seconds:g} s" if hung else f"its process ended with status {status}"
        outcomes.append(Outcome(begun, "broken", why))
    return outcomes


def _follow(stream: IO[str], seconds: float) -> tuple[list[Outcome], str, bool]:
    """The outcomes as they come, the case that is not over, and whether it took too long."""
    outcomes: list[Outcome] = []
    begun = ""
    for line in _lines(stream, seconds):
        if line is None:
            return outcomes, begun, True
        event = json.loads(line)
        begun = event.get("begin", "")
        if not begun:
            outcomes.append(Outcome(**event))
    return outcomes, begun, False


def _lines(stream: IO[str], seconds: float) -> Iterator[str | None]:
    """The lines of a stream as they come; `None` where none came in time."""
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in stream:
            lines.put(line)
        lines.put("")

    threading.Thread(target=read, daemon=True).start()
    # Making the cases and importing the framework comes before the first line.
    limit = seconds + 120
    while True:
        try:
            line = lines.get(timeout=limit)
        except queue.Empty:
            yield None
            return
        if not line:
            return
        limit = seconds
        yield line


def summary(outcomes: dict[str, list[Outcome]]) -> str:
    """The table of passed, failed, native and fallback cases per backend."""
    from modelport.core.report import table

    rows: list[tuple[Any, ...]] = []
    for name, found in sorted(outcomes.items()):
        counts = {verdict: sum(o.verdict == verdict for o in found) for verdict in Verdict.__args__}  # type: ignore[attr-defined]
        passed = counts["native"] + counts["fallback"]
        failed = len(found) - passed
        rows.append((name, len(found), passed, failed, *counts.values()))
    return table(
        "ONNX backend test data",
        ("backend", "cases", "passed", "failed", "native", "fallback", "refused", "wrong", "broken"),
        rows,
    )


def main(name: str) -> None:
    """The process that runs cases: results go to standard output, what frameworks print to standard error."""
    wanted = set(json.load(sys.stdin))
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(name, [case for case in all_cases() if case.name in wanted], out)


if __name__ == "__main__":
    main(*sys.argv[1:])
