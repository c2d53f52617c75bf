"""`import modelport` against `import numpy`, as whole processes in turn: prints the median ratio.

Usage: python benchmarks/import_time.py [PAIRS]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time


def seconds(statement: str) -> float:
    """Wall time of a fresh interpreter that runs one statement."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - started


def main(pairs: int) -> None:
    for statement in ("import modelport", "import numpy"):
        seconds(statement)
    ours, theirs = zip(*((seconds("import modelport"), seconds("import numpy")) for _ in range(pairs)), strict=True)
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    print(f"import modelport {statistics.median(ours):.3f} s, import numpy {statistics.median(theirs):.3f} s, "
          f"median ratio of {pairs} pairs {ratio:.2f}")  # fmt: skip


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
