"""What ``import scg`` takes beyond NumPy and SciPy: processor time of fresh processes, whose bytecode is there."""

import argparse
import os
import subprocess
import sys
import tempfile

from benchmarks.timing import RESULTS, save, table, versions

SUBJECTS = {
    "NumPy": "import numpy",
    "NumPy and scipy.special": "import numpy, scipy.special",
    "scg": "import scg",
    "scg, and all that it imports when asked for": "import scg; [getattr(scg, name) for name in scg.__all__]",
}
CODE = "import time; start = time.process_time(); {}; print(time.process_time() - start)"


def measured(rounds: int) -> dict[str, float]:
    """The least processor seconds of each import, over interleaved rounds after one that is not measured."""
    least = dict.fromkeys(SUBJECTS, float("inf"))
    with tempfile.TemporaryDirectory() as cache:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = cache
        for k in range(rounds + 1):
            for name, code in SUBJECTS.items():
                command = [sys.executable, "-c", CODE.format(code)]
                run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
                least[name] = min(least[name], float(run.stdout)) if k else least[name]
    return least


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.imports", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, metavar="R", help="interleaved rounds (default 7)")
    parser.add_argument(
        "--out",
        default=RESULTS / "imports.json",
        metavar="FILE",
        help="where the numbers go as JSON (default benchmarks/results/imports.json)",
    )
    options = parser.parse_args()
    found = measured(options.rounds)
    floor = found["NumPy and scipy.special"]
    print(f"\nprocessor seconds of an import, least of {options.rounds} rounds")
    print(table([["", "seconds", "beyond"], *[[name, s, max(s - floor, 0.0)] for name, s in found.items()]]))
    save({"versions": versions("numpy", "scipy"), "seconds": found}, options.out)


if __name__ == "__main__":
    main()
