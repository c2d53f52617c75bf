"""The command line: `modelport transfer|check|compare|profile|inspect`, each with `--json`.

Exit status: 0 where the answer is yes, 1 where it is no (not safe, not supported, not equal), 2 where modelport refuses
or the arguments are wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from modelport.core.errors import DataError, ModelPortError

if TYPE_CHECKING:
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
