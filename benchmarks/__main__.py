"""List the benchmarks: what each measures."""

import ast
import re
from pathlib import Path

BENCHMARKS = (
    "rows",
    "growth",
    "chain",
    "draws",
    "walk",
    "imports",
    "elimination",
    "evidence",
    "training_step",
    "unbiased",
    "verdicts",
    "variance",
    "peers.coins",
    "peers.parity",
)


def main() -> None:
    """Print a line for each benchmark. Nothing is imported: other libraries may be missing, and take their time to
    load."""
    for name in BENCHMARKS:
        file = Path(__file__).parent / name.replace(".", "/")
        file = file / "command.py" if file.is_dir() else file.with_suffix(".py")
        text = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").removeprefix(
            f"python -m benchmarks.{name}: "
        )
        print(
            f"python -m benchmarks.{name:<14} {text[:1].upper()}{re.split(r'[:.]|(?<=[?])', text[1:], maxsplit=1)[0]}"
        )
    print("\n--help shows the options of each. What they found: benchmarks/README.md.")


if __name__ == "__main__":
    main()
