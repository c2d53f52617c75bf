"""Random graphs by the thousand: `python -m tests.properties.fuzz --backend torch --examples 10000 --seed 1`.

Graphs are drawn in batches of 100, each from a seed of its own, in processes of their own; a failure names the seed of
its batch, and `--batch SEED` runs that batch alone.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

from tests.properties.agreement import Findings, campaign

BATCH = 100
BATCHES_OF_A_PROCESS = 10
"""Then a fresh one goes on: what frameworks keep of models that are gone adds up."""


def fuzz(backend: str, seeds: Iterable[int], processes: int) -> Findings:
    """Run batches in several processes and say how far it is; failures are printed as they come."""
    total, begun, seeds = Findings(), time.monotonic(), list(seeds)
    pool = ProcessPoolExecutor(processes, get_context("spawn"), max_tasks_per_child=BATCHES_OF_A_PROCESS)
    with pool:
        batches = {pool.submit(campaign, backend, seed, BATCH): seed for seed in seeds}
        for done in as_completed(batches):
            found = done.result()
            total.add(found)
            for failure in found.failures:
                print(f"\n{failure}\n", flush=True)
            rate = total.examples / (time.monotonic() - begun)
            counts = f"{total.examples} of {BATCH * len(seeds)} graphs, {len(total.failures)} failed, "
            counts += f"{total.refused} refused, {len(total.operators)} operators"
            print(f"{backend}: {counts}, {rate:.1f} graphs/s", flush=True)
    return total


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="compare random graphs with ONNX's reference evaluator")
    parser.add_argument("--backend", action="append", help="torch, keras or onnx; all of them by default")
    parser.add_argument("--examples", type=int, default=10_000, help="how many graphs per backend")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other graphs")
    parser.add_argument("--batch", type=int, help="one batch by the seed that a failure names")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args(arguments)
    count = -(-options.examples // BATCH)
    seeds = [options.batch] if options.batch is not None else range(options.seed * 10**6, options.seed * 10**6 + count)
    results = [fuzz(name, seeds, options.processes) for name in options.backend or ("onnx", "torch", "keras")]
    return int(any(found.failures for found in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
