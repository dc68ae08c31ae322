"""What the benchmarks share: interleaved rounds, medians, a table, and a JSON file that is never half written."""

import gc
import importlib.metadata
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def interleaved(subjects: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds that each subject takes, round by round: A B C A B C ..., so that a slow minute of the machine slows all
    of them.

    One unmeasured round goes first. Garbage is collected before each measurement and not during the warm-up of another.
    """
    for run in subjects.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds):
        for name, run in subjects.items():
            gc.collect()
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def medians(seconds: Mapping[str, Sequence[float]], scale: float = 1.0) -> dict[str, float]:
    """The median of each subject, times ``scale``."""
    return {name: scale * statistics.median(values) for name, values in seconds.items()}


def peak_bytes() -> int:
    """The largest resident size that this process has had so far.

    From the memory map's own high-water mark where the system keeps one: ``ru_maxrss`` of a child also counts the
    parent it was spawned from.
    """
    try:
        status = Path("/proc/self/status").read_text()
        return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if platform.system() == "Darwin" else 1024 * peak


def versions(*packages: str) -> dict[str, str | None]:
    """The installed version of each package; None where it is missing."""

    def version(package: str) -> str | None:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return None

    return {"python": platform.python_version(), **{package: version(package) for package in packages}}


def table(rows: Sequence[Sequence[Any]]) -> str:
    """Rows of cells as aligned text, the first row its heading, numbers to three digits."""
    cells = [
        [
            (
                f"{cell:.3g}"
                if isinstance(cell, float) and cell < 1000
                else f"{cell:.0f}"
                if isinstance(cell, float)
                else str(cell)
            )
            for cell in row
        ]
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *[cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]]
        )
        for row in cells
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def save(record: Any, path: str | os.PathLike[str]) -> None:
    """Write JSON to ``path``, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".json")
    try:
        with os.fdopen(handle, "w") as file:
            json.dump(record, file, indent=1)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
