"""Random graphs by the thousand: `python -m tests.properties.fuzz --backend torch --examples 10000 --seed 1`.

Graphs are drawn in batches of 100, each from a seed of its own; a failure names the seed of its batch, and
`--batch SEED` runs that batch alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

from tests.properties.agreement import Findings, campaign

BATCH = 100
BATCHES_OF_A_PROCESS = 10
"""Then a fresh one goes on: what frameworks keep of models that are gone adds up, and a crash costs no more."""


class Progress:
    """What was found on one backend so far, printed as it comes."""

    def __init__(self, backend: str, expected: int) -> None:
        self.total, self._backend, self._expected = Findings(), backend, expected
        self._begun, self._lock = time.monotonic(), Lock()

    def add(self, found: Findings) -> None:
        with self._lock:
            self.total.add(found)
            for failure in found.failures:
                print(f"\n{failure}\n", flush=True)
            rate = self.total.examples / (time.monotonic() - self._begun)
            counts = f"{self.total.examples} of {self._expected} graphs, {len(self.total.failures)} failed, "
            counts += f"{self.total.refused} refused, {len(self.total.operators)} operators"
            print(f"{self._backend}: {counts}, {rate:.1f} graphs/s", flush=True)


def fuzz(backend: str, seeds: Sequence[int], processes: int) -> Findings:
    """Run batches, several processes side by side."""
    progress = Progress(backend, BATCH * len(seeds))
    parts = [seeds[start : start + BATCHES_OF_A_PROCESS] for start in range(0, len(seeds), BATCHES_OF_A_PROCESS)]

    def follow(part: Sequence[int]) -> None:
        for found in _in_a_process(backend, part):
            progress.add(found)

    with ThreadPoolExecutor(processes) as pool:
        list(pool.map(follow, parts))
    return progress.total


def _in_a_process(backend: str, seeds: Sequence[int]) -> Iterator[Findings]:
    """The findings of each batch, from a process of its own; what it had not done when it died is a failure."""
    command = [sys.executable, "-m", "tests.properties.fuzz", "--backend", backend, "--report", *map(str, seeds)]
    env = {"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1", **os.environ}
    done = 0
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=env) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            fields = json.loads(line)
            yield Findings(**{**fields, "operators": Counter(fields["operators"])})
            done += 1
        status = process.wait()
        errors.seek(0)
        told = errors.read()[-2000:]
    if done < len(seeds):
        yield Findings(failures=[f"{backend}, seed {seeds[done]}: its process ended with status {status}\n{told}"])


def report(backend: str, seeds: Sequence[int]) -> None:
    """The process that runs batches: a line of JSON for each; what frameworks print goes to standard error."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for seed in seeds:
        print(json.dumps(vars(campaign(backend, seed, BATCH))), file=out, flush=True)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="compare random graphs with ONNX's reference evaluator")
    parser.add_argument("--backend", action="append", help="torch, keras or onnx; all of them by default")
    parser.add_argument("--examples", type=int, default=10_000, help="how many graphs per backend")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other graphs")
    parser.add_argument("--batch", type=int, help="one batch by the seed that a failure names")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--report", type=int, nargs="+", metavar="SEED", help="run these batches and print JSON")
    options = parser.parse_args(arguments)
    backends = options.backend or ["onnx", "torch", "keras"]
    if options.report:
        report(backends[0], options.report)
        return 0
    first = options.seed * 10**6
    seeds = [options.batch] if options.batch is not None else range(first, first + -(-options.examples // BATCH))
    results = [fuzz(name, seeds, options.processes) for name in backends]
    return int(any(found.failures for found in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
