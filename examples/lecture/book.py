"""Chapters: read from percent format, run cell by cell, written as notebooks."""

import ast
import base64
import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jupytext
import matplotlib
import matplotlib.pyplot as plt
import nbformat

from examples.lecture import paths
from scg import files

ANSWER = "answer"  # the tag of cells that are folded away
STYLE = {"svg.hashsalt": "scg", "figure.figsize": (6.4, 3.2), "figure.constrained_layout.use": True, "font.size": 9}


@dataclass(frozen=True)
class Cell:
    """A cell: text in Markdown or code, its tags, and the line of the file on which it starts."""

    kind: str
    source: str
    tags: tuple[str, ...]
    line: int

    @property
    def claims(self) -> int:
        """How many assertions the cell makes."""
        return sum(isinstance(s, ast.Assert) for s in ast.walk(ast.parse(self.source))) if self.kind == "code" else 0


@dataclass(frozen=True)
class Shown:
    """Something that a cell has shown: printed text, or a figure as SVG with its title."""

    kind: str  # text or svg
    data: str
    title: str = ""

    @property
    def address(self) -> str:
        """The figure itself as an address."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.data.encode()).decode()


@dataclass(frozen=True)
class Chapter:
    """A chapter: its number, the name of its file, its cells."""

    number: int
    name: str
    cells: tuple[Cell, ...]


class ClaimError(Exception):
    """A claim of the book that does not hold, or a cell that does not run; says where."""


def read(number: int) -> Chapter:
    """The chapter, its cells as they stand in its file."""
    path = paths()[number]
    text = path.read_text(encoding="utf-8")
    cells, position = [], 0
    for cell in jupytext.reads(text, fmt="py:percent").cells:
        first = f"# {cell.source.splitlines()[0]}" if cell.cell_type == "markdown" else cell.source
        position = text.index(first, position)
        tags = tuple(cell.metadata.get("tags", ()))
        cells.append(Cell(cell.cell_type, cell.source, tags, text.count("\n", 0, position) + 1))
        position += len(first)
    return Chapter(number, path.stem, tuple(cells))


def run(chapter: Chapter, short: bool = False) -> list[list[Shown]]:
    """Run the code in one namespace; for each cell what it has shown.

    A chapter may define SHORT in its first cell of code, a dict of names and values: with ``short`` they replace those
    that the cell gave them (fewer epochs, for the tests). Raises ClaimError, which names the line, where a cell raises.
    """
    space: dict[str, Any] = {"__name__": "__main__"}
    found = []
    with matplotlib.rc_context(STYLE):
        plt.switch_backend("Agg")
        for cell in chapter.cells:
            found.append([] if cell.kind == "markdown" else _shown(cell, chapter, space))
            if short:
                space.update(space.pop("SHORT", {}))
    return found


def _shown(cell: Cell, chapter: Chapter, space: dict[str, Any]) -> list[Shown]:
    """Run one cell of code; its last expression is shown as in a notebook."""
    name = f"examples/lecture/{chapter.name}.py"
    tree = ast.parse("\n" * (cell.line - 1) + cell.source, name)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(tree, name, "exec"), space)
            if last is not None:
                value = eval(compile(ast.Expression(last.value), name, "eval"), space)
        figures = list(_figures())
    except Exception as error:
        at, trace = cell.line, error.__traceback__
        while trace is not None:
            at = trace.tb_lineno if trace.tb_frame.f_code.co_filename == name else at
            trace = trace.tb_next
        raise ClaimError(
            f"chapter {chapter.number}, {name}:{at}: {type(error).__name__}: {error or 'the claim does not hold'}"
        ) from error
    finally:
        plt.close("all")
    text = printed.getvalue()
    if hasattr(value, "_repr_svg_"):
        figures.append(Shown("svg", value._repr_svg_(), f"The graph: {type(value).__name__}"))
    elif value is not None:
        text += f"{value!r}\n"
    return ([Shown("text", text)] if text else []) + figures


def _figures() -> Iterator[Shown]:
    """The open figures; each needs a title, which is what somebody hears who cannot see it."""
    for number in plt.get_fignums():
        figure, out = plt.figure(number), io.StringIO()
        title = figure.get_suptitle() or next((a.get_title() for a in figure.axes if a.get_title()), "")
        if not title:
            raise ValueError("a figure without a title; give it one by ax.set_title(...)")
        figure.savefig(out, format="svg", metadata={"Date": None})
        yield Shown("svg", out.getvalue(), title)


def write_notebook(chapter: Chapter, shown: list[list[Shown]], directory: Path) -> Path:
    """The chapter and what it has shown as DIRECTORY/NAME.ipynb."""
    made = nbformat.v4.new_notebook()
    for k, (cell, results) in enumerate(zip(chapter.cells, shown, strict=True)):
        build = {"markdown": nbformat.v4.new_markdown_cell, "code": nbformat.v4.new_code_cell}[cell.kind]
        source, metadata = cell.source, {"tags": list(cell.tags)} if cell.tags else {}
        if ANSWER in cell.tags and cell.kind == "markdown":
            source = f"<details><summary>The answer</summary>\n\n{source}\n\n</details>"
        elif ANSWER in cell.tags:
            metadata["jupyter"] = {"source_hidden": True, "outputs_hidden": True}
        node = build(source, id=f"cell-{k}", metadata=metadata)
        for result in results:
            node.outputs.append(
                nbformat.v4.new_output("stream", name="stdout", text=result.data)
                if result.kind == "text"
                else nbformat.v4.new_output("display_data", data={"image/svg+xml": result.data})
            )
        made.cells.append(node)
    path = directory / f"{chapter.name}.ipynb"
    files.write(path, nbformat.writes(made).encode())
    return path
