"""The command line: `modelport transfer|compress|check|compare|profile|inspect`, each with `--json`.

Exit status: 0 where the answer is yes, 1 where it is no (not safe, not supported, not equal), 2 where modelport refuses
or the arguments are wrong, 130 where it is interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from modelport.core.errors import DataError, ModelPortError, StepError

if TYPE_CHECKING:
    from modelport.core.steps import Step
    from modelport.verbs.dynamic import Dynamic


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], tuple[Any, bool]] = options.run
    try:
        answer, yes = run(options)
    except ModelPortError as error:
        if options.json:
            print(json.dumps({"error": type(error).__name__, "message": str(error)}))
        else:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    print(json.dumps(answer.to_json(), default=str) if options.json else answer)
    return 0 if yes else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="modelport", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    transfer = _command(commands, "transfer", _transfer, "move a model to another framework and prove parity")
    transfer.add_argument("model", help="a bundle or a framework's own file")
    transfer.add_argument("output", help="where to write; the suffix says the format (.mport, .onnx, .keras, .pt2, …)")
    transfer.add_argument("--to", help="the backend to go to; the output's suffix decides where it is not given")
    _loading(transfer)
    _sizes(transfer)

    compress = _command(commands, "compress", _compress, "make a model smaller and faster, and say what it cost")
    compress.add_argument("model", help="a bundle or a framework's own file")
    compress.add_argument("output", help="where to write; a suffix of another framework transfers the result there")
    _steps_as_written(compress)
    _loading(compress)
    _sizes(compress)

    check = _command(commands, "check", _check, "what a transfer would keep, drop or refuse")
    check.add_argument("model")
    check.add_argument("--to", required=True, help="the backend it would go to")
    _loading(check)
    _sizes(check)

    compare = _command(commands, "compare", _compare, "parity of two models' outputs and gradients")
    compare.add_argument("model")
    compare.add_argument("other")
    compare.add_argument("--tolerance", type=float, help="the relative error that an output may have")
    _loading(compare)

    profile = _command(commands, "profile", _profile, "parameters, operations, memory and latency by layer")
    profile.add_argument("model", help="a bundle or a framework's own file")
    profile.add_argument("--batch", type=int, help="rows of every input; 1 where the model takes any number")
    profile.add_argument("--runs", type=int, help="how many runs are timed")
    _loading(profile)
    _sizes(profile)

    inspect = _command(commands, "inspect", _inspect, "what a file is: signature, parameters, size, versions, safety")
    inspect.add_argument("file")
    return parser


def _command(commands: Any, name: str, run: Any, told: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=told, description=told)
    command.add_argument("--json", action="store_true", help="print the report as JSON")
    command.set_defaults(run=run)
    return command


class _InOrder(argparse.Action):
    """Keeps an option behind those before it: steps are done as they are written, each with the settings after it."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        namespace.steps = [*namespace.steps, (self.dest, self.const if self.nargs == 0 else values)]


def _steps_as_written(command: argparse.ArgumentParser) -> None:
    command.set_defaults(steps=[])
    group = command.add_argument_group("steps", "done in the order in which they are given, each with what follows it")

    def add(option: str, told: str, **settings: Any) -> None:
        group.add_argument(option, action=_InOrder, default=argparse.SUPPRESS, help=told, **settings)

    add("--quantize", "store weights in fewer bits: int8, uint8, …", metavar="PRECISION")
    add("--prune", "take away a share of the weights (0.5), or n of every m (2:4)", metavar="RATIO")
    add("--exclude", "a node or layer that the step leaves as it is; may be given again", metavar="NAME")
    add("--calibration", "for --quantize: inputs to observe, a .npy or a .npz by input name", metavar="FILE")
    add("--method", "for --quantize: how a range follows from what was observed: minmax, entropy, percentile")
    add("--per-tensor", "for --quantize: one scale per weight", dest="per_channel", nargs=0, const=False)
    add("--structured", "for --prune: whole channels, heads and neurons", nargs=0, const=True)
    add("--scope", "for --prune: whether the ratio is of all weights together (global) or of each layer (layer)")
    add("--importance", "for --prune: what is least: l1, l2, taylor")
    add("--data", "for --prune with taylor: a .npz of inputs by name and of their classes as y", metavar="FILE")


def _loading(command: argparse.ArgumentParser) -> None:
    command.add_argument("--example", help="inputs: a .npy of the only input, or a .npz by input name")
    command.add_argument("--trust", action="store_true", help="open a file even if it could run code")


def _sizes(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--dynamic",
        action="append",
        default=[],
        metavar="[INPUT:]AXIS=NAME",
        help="an axis of every input, or of one, that may have any size, as in 1=sequence; may be given again",
    )


def _dynamic(given: Sequence[str]) -> Dynamic:
    """What `dynamic=` of a verb takes: names by axis for every input, and in a dict for one."""
    named: dict[int | str, Any] = {}
    for text in given:
        where, _, name = text.rpartition("=")
        of, _, axis = where.rpartition(":")
        try:
            number = int(axis)
        except ValueError:
            number = None
        if number is None or not name:
            raise DataError(f"--dynamic {text}: not an axis and its name, as in 1=sequence or input:1=sequence")
        if of:
            named.setdefault(of, {})[number] = name
        else:
            named[number] = name
    return named


def _example(path: str | None) -> Any:
    if path is None:
        return None
    try:
        data = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a .npy or .npz file of arrays: {error}") from error
    if isinstance(data, np.ndarray):
        return data
    with data:
        return {name: data[name] for name in data.files}


def _subject(options: argparse.Namespace, path: str) -> Any:
    from modelport.verbs.subject import subject

    dynamic = _dynamic(getattr(options, "dynamic", ()))
    return subject(path, example=_example(options.example), dynamic=dynamic, trust=options.trust)


def _transfer(options: argparse.Namespace) -> tuple[Any, bool]:
    from modelport.core.report import TransferReport
    from modelport.verbs.load import target_of
    from modelport.verbs.save import save
    from modelport.verbs.transfer import transfer

    model = _subject(options, options.model)
    to = options.to or target_of(options.output) or model.backend
    moved = transfer(model, to=to)
    save(moved, options.output)
    report: TransferReport = moved.report
    return report, True


def _compress(options: argparse.Namespace) -> tuple[Any, bool]:
    from modelport.core.compressed import CompressReport
    from modelport.verbs.compress import compress
    from modelport.verbs.save import save

    steps = _steps(options.steps)
    small = compress(_subject(options, options.model), *steps, progress=not options.json and sys.stderr.isatty())
    save(small, options.output)
    report: CompressReport = small.report
    return report, True


def _steps(given: Sequence[tuple[str, Any]]) -> list[Step]:
    """The steps that were written, each with the settings behind it."""
    from modelport.core.steps import Prune, Quantize

    if not given:
        raise StepError("compress needs a step, as in --quantize int8 or --prune 0.5.")
    found: list[tuple[type[Step], dict[str, Any]]] = []
    for name, value in given:
        if name == "quantize":
            found.append((Quantize, {"precision": value}))
        elif name == "prune":
            found.append((Prune, _share(value)))
        elif not found or name not in {field.name for field in fields(found[-1][0])}:
            option = "--per-tensor" if name == "per_channel" else f"--{name}"
            wrong = f"is no setting of --{found[-1][0].__name__.lower()}" if found else "stands before every step"
            raise StepError(f"{option} {wrong}: write it behind the step that it is for.")
        elif name == "exclude":
            found[-1][1].setdefault(name, []).append(value)
        else:
            read = {"calibration": _example, "data": _pair}.get(name)
            found[-1][1][name] = read(value) if read else value
    return [kind(**{**settings, "exclude": tuple(settings.get("exclude", ()))}) for kind, settings in found]


def _share(text: str) -> dict[str, Any]:
    """What `Prune` takes for 0.5 or 2:4."""
    try:
        if ":" in text:
            zeros, run = (int(part) for part in text.split(":"))
            return {"n_m": (zeros, run)}
        return {"ratio": float(text)}
    except ValueError as error:
        raise StepError(f"--prune {text}: neither a share, as in 0.5, nor a pattern, as in 2:4.") from error


def _pair(path: str) -> tuple[Any, Any]:
    """Inputs and classes of one file."""
    inputs = _example(path)
    if not isinstance(inputs, dict) or "y" not in inputs or len(inputs) < 2:
        raise DataError(f"{path}: not a .npz of inputs by name and of their classes as y.")
    classes = inputs.pop("y")
    return inputs, classes


def _check(options: argparse.Namespace) -> tuple[Any, bool]:
    from modelport.verbs.check import check

    report = check(_subject(options, options.model), to=options.to)
    return report, report.ok


def _compare(options: argparse.Namespace) -> tuple[Any, bool]:
    from modelport.verbs.compare import TOLERANCE, compare

    tolerance = TOLERANCE if options.tolerance is None else options.tolerance
    x = _example(options.example)
    report = compare(_subject(options, options.model), _subject(options, options.other), x, tolerance=tolerance)
    return report, report.ok


def _profile(options: argparse.Namespace) -> tuple[Any, bool]:
    from modelport.verbs.profile import RUNS, profile

    runs = RUNS if options.runs is None else options.runs
    return profile(_subject(options, options.model), batch=options.batch, runs=runs), True


def _inspect(options: argparse.Namespace) -> tuple[Any, bool]:
    from modelport.verbs.inspect import inspect

    report = inspect(options.file)
    return report, report.safe


if __name__ == "__main__":
    sys.exit(main())
