"""The page: one file of HTML that needs no network. Figures and the font are part of it."""

import html
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from examples.lecture import formulas
from examples.lecture.book import ANSWER, Cell, Chapter, Shown

TITLE = "Stochastic computation graphs: the lecture as a book that runs"
STYLE = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")

Run = tuple[Chapter, list[list[Shown]]]


def page(runs: Sequence[Run]) -> str:
    """The page of chapters and what their cells have shown."""
    body, contents = [], []
    for chapter, shown in runs:
        sections = _Sections(chapter.number)
        cells = list(zip(chapter.cells, shown, strict=True))
        parts = []
        for folded, group in groupby(cells, key=lambda pair: ANSWER in pair[0].tags):
            inner = "\n".join(_cell(cell, results, sections) for cell, results in group)
            parts.append(f"<details><summary>The answer</summary>\n{inner}\n</details>" if folded else inner)
        body.append("<section>\n" + "\n".join(parts) + "\n</section>")
        contents.append(sections.contents())
    face = f'@font-face {{ font-family: "Formulas"; src: url("{formulas.font("".join(contents + body))}"); }}'
    code = HtmlFormatter(style="default").get_style_defs(".code")
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{html.escape(TITLE)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>\n{face}\n{code}\n{STYLE}</style>\n</head>\n<body>\n"
        f'<nav aria-label="Contents"><p><a href="#top">{html.escape(TITLE)}</a></p>\n<ol>\n'
        + "\n".join(contents)
        + f'\n</ol></nav>\n<main id="top">\n<header><h1>{html.escape(TITLE)}</h1></header>\n'
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


class _Sections:
    """The headings of a chapter, each with an address of its own."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.found: list[tuple[str, str, str]] = []  # tag, address, HTML

    def add(self, tag: str, inner: str) -> str:
        """The heading; a chapter's title is one level below the page's."""
        words = re.sub(r"[^a-z0-9]+", "-", re.sub(r"<[^>]*>", "", inner).lower()).strip("-")
        address = f"chapter-{self.number}" if tag == "h1" else f"chapter-{self.number}-{words}"
        self.found.append((tag, address, inner))
        level = int(tag[1]) + 1
        shown = f"{self.number} {inner}" if tag == "h1" else inner
        return f'<h{level} id="{address}">{shown}</h{level}>'

    def contents(self) -> str:
        """The chapter in the table of contents."""
        links = [(tag, f'<a href="#{address}">{inner}</a>') for tag, address, inner in self.found]
        title = next(link for tag, link in links if tag == "h1")
        below = "".join(f"<li>{link}</li>" for tag, link in links if tag == "h2")
        return f'<li value="{self.number}">{title}' + (f"<ol>{below}</ol>" if below else "") + "</li>"


def _cell(cell: Cell, results: Sequence[Shown], sections: _Sections) -> str:
    if cell.kind == "markdown":
        text = MARKDOWN.render(cell.source)
        # a line does not begin with the comma after a formula
        text = re.sub(
            r"(<span class=\"math inline\">(?:(?!</span>).)*</span>[-.,;:?!)]+)", r'<span class="whole">\1</span>', text
        )
        return re.sub(r"<(h[1-3])>(.*?)</\1>", lambda m: sections.add(m[1], m[2]), text, flags=re.DOTALL)
    code = highlight(cell.source, PythonLexer(), HtmlFormatter(cssclass="code"))
    return "\n".join([code, *_results(results)])


def _results(results: Sequence[Shown]) -> Iterator[str]:
    for result in results:
        if result.kind == "text":
            yield f'<pre class="out">{html.escape(result.data)}</pre>'
        else:
            yield f'<figure><img alt="{html.escape(result.title)}" src="{result.address}"></figure>'


MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable("table")
MARKDOWN.use(
    dollarmath_plugin,
    renderer=lambda latex, options: formulas.mathml(latex, options["display_mode"]),
    allow_labels=False,
    double_inline=True,
)
