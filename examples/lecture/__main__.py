"""The command: ``python -m examples.lecture --help``."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from examples.lecture import __doc__ as DESCRIPTION
from examples.lecture import paths, title
from examples.options import Help, directory, natural
from scg import files

EXTRA = 'pip install -e ".[lecture]"'


def main(argv: Sequence[str] | None = None) -> int:
    """Run the chapters, check their claims and write the page; the exit status."""
    chapters = "chapters:\n" + "\n".join(f"  {number}  {title(path)}" for number, path in paths().items())
    parser = argparse.ArgumentParser(
        prog="python -m examples.lecture", description=DESCRIPTION, epilog=chapters, formatter_class=Help
    )
    parser.add_argument("--chapter", metavar="N", type=natural, help="this one alone, as DIR/chapter-N.html")
    parser.add_argument(
        "--out", metavar="DIR", type=directory, default="runs/lecture", help="where the page goes, as index.html"
    )
    parser.add_argument("--notebooks", action="store_true", help="write each chapter as a notebook, too (.ipynb)")
    options = parser.parse_args(argv)
    try:
        from examples.lecture import book, page
    except ModuleNotFoundError as error:
        print(f"error: the page needs {error.name}, which is not installed: {EXTRA}", file=sys.stderr)
        return 1
    known = book.paths()
    if options.chapter is not None and options.chapter not in known:
        parser.error(
            f"argument --chapter: there is no chapter {options.chapter}; there are {', '.join(map(str, known))}"
        )
    out, runs = Path(options.out), []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for number in known if options.chapter is None else [options.chapter]:
            start = time.perf_counter()
            chapter = book.read(number)
            shown = book.run(chapter)
            claims = sum(cell.claims for cell in chapter.cells)
            print(f"chapter {number}: {claims} claims hold  [{time.perf_counter() - start:.1f} s]")
            runs.append((chapter, shown))
            if options.notebooks:
                print(f"  {book.write_notebook(chapter, shown, out)}")
        path = out / ("index.html" if options.chapter is None else f"chapter-{options.chapter}.html")
        files.write(path, page.page(runs).encode())
    except (OSError, book.ClaimError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"page: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
