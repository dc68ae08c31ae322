"""The lecture as a book that runs: every formula beside code that is it, an exact number, an estimate and a check.

The chapters are plain Python files in this directory, in text and code cells (percent format). They are run cell by
cell; where all their assertions hold, one page is written that needs no network and no other file.
"""

from pathlib import Path

TAKES = "a minute"


def paths() -> dict[int, Path]:
    """The files of the chapters, by number, in order."""
    found = Path(__file__).parent.glob("chapter_*.py")
    return dict(sorted((int(path.stem.split("_")[1]), path) for path in found))


def title(path: Path) -> str:
    """The title of a chapter, which is its first heading."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return next(line.removeprefix("# # ") for line in lines if line.startswith("# # "))
