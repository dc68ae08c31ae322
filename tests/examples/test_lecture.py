"""The book: all claims of every chapter hold, its cells are of one form, and nothing is missing on its page."""

import base64
import io
import re
import xml.etree.ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import numpy as np
import pytest
from fontTools.ttLib import TTFont

from examples.lecture import __main__ as command
from examples.lecture import book, formulas, page, tools

pytestmark = pytest.mark.usefixtures("figures")

ROOT = Path(__file__).parents[2]
NUMBERS = sorted(book.paths())
FREE = {"setup", "exercise"}  # tags of cells that claim nothing
LINES = 14  # of a cell: the formula's, at most ten, with what prints and checks it


class Links(HTMLParser):
    """Addresses, targets and figures of a page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.targets, self.sources, self.figures = [], [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.targets += [attrs["id"]] if "id" in attrs else []
        self.links += [attrs["href"]] if "href" in attrs else []
        self.sources += [attrs["src"]] if "src" in attrs else []
        self.figures += tag == "figure"
        assert tag not in ("script", "link", "iframe", "object"), tag
        assert tag != "img" or attrs["alt"]


def faults(text, runs):
    """What is missing on a page of these runs, in words."""
    found = Links(text)
    figures = sum(result.kind == "svg" for _, shown in runs for results in shown for result in results)
    missing = [f"no place for the link {a}" for a in found.links if a[:1] == "#" and a[1:] not in found.targets]
    missing += [f"a link to a file: {a}" for a in found.links if not a.startswith(("#", "https://"))]
    missing += [f"an address twice: {a}" for a in found.targets if found.targets.count(a) > 1]
    missing += [f"a source outside: {a[:40]}" for a in found.sources if not a.startswith("data:image/svg+xml;base64,")]
    if not found.figures == len(found.sources) == figures:
        missing.append(f"{found.figures} figures of {figures}")
    for source in found.sources:
        xml.etree.ElementTree.fromstring(base64.b64decode(source.partition(",")[2]))
    for math in re.findall(r"<math.*?</math>", text, re.DOTALL):
        xml.etree.ElementTree.fromstring(math)
        missing += [f"LaTeX that was not converted: {math}"] if "\\" in math else []
    prose = re.sub(r"<(pre|code|math|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    missing += ["a formula that is not closed"] if "$" in prose else []
    missing += ["a number that is none"] if re.search(r"\b(nan|inf)\b", " ".join(_printed(runs))) else []
    return missing + [f"output: {p[:40]}" for p in _printed(runs) if page.html.escape(p) not in text]


def _printed(runs):
    return [result.data for _, shown in runs for results in shown for result in results if result.kind == "text"]


@pytest.mark.parametrize("number", NUMBERS)
def test_every_claim_holds_and_every_cell_is_short_shows_something_and_is_on_the_page(number):
    chapter = book.read(number)
    shown = book.run(chapter, short=True)
    text = page.page([(chapter, shown)])
    assert faults(text, [(chapter, shown)]) == []
    assert "<details>" in text and "<blockquote>" in text and "<math" in text
    assert chapter.number == number and sum("exercise" in cell.tags for cell in chapter.cells) >= 1
    for cell, results in zip(chapter.cells, shown, strict=True):
        if cell.kind == "code" and not FREE & set(cell.tags):
            lines = [line for line in cell.source.splitlines() if line.strip()]
            assert cell.claims == 1 and len(lines) <= LINES and results, cell.source


@pytest.mark.parametrize("number", NUMBERS)
def test_lines_of_cells_are_those_of_the_file(number):
    lines = book.paths()[number].read_text(encoding="utf-8").splitlines()
    for cell in book.read(number).cells:
        start = "# " if cell.kind == "markdown" else ""
        assert lines[cell.line - 1] == start + cell.source.splitlines()[0]


def test_the_command_writes_a_page_and_a_notebook(tmp_path, capsys):
    assert command.main(["--chapter", "1", "--notebooks", "--out", str(tmp_path)]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["chapter-1.html", "chapter_1_evidence.ipynb"]
    notebook = nbformat.read(tmp_path / "chapter_1_evidence.ipynb", as_version=4)
    nbformat.validate(notebook)
    for cell, made in zip(book.read(1).cells, notebook.cells, strict=True):
        folded = "answer" in cell.tags and cell.kind == "markdown"
        assert ("<details>" in made.source) == folded and cell.source in made.source
    assert "claims hold" in capsys.readouterr().out


@pytest.mark.long
@pytest.mark.parametrize("number", NUMBERS)
def test_notebooks_run_in_a_kernel_and_show_what_the_page_shows(number, tmp_path):
    nbclient = pytest.importorskip("nbclient")
    chapter = book.read(number)
    shown = book.run(chapter)
    notebook = nbformat.read(book.write_notebook(chapter, shown, tmp_path), as_version=4)
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(ROOT)}}).execute()
    for cell, results in zip(notebook.cells, shown, strict=True):
        text = "".join(r.data for r in results if r.kind == "text")
        out = cell.get("outputs", [])
        found = "".join(o.text if o.output_type == "stream" else o.data.get("text/plain", "") for o in out)
        assert all(line in found for line in text.splitlines()), (cell.source, found)


@pytest.mark.fast
@pytest.mark.parametrize("argv, word", [(["--chapter", "99"], "no chapter 99"), (["--out", ""], "empty name")])
def test_a_chapter_that_is_not_there_and_an_empty_directory_are_refused(argv, word, capsys):
    with pytest.raises(SystemExit):
        command.main(argv)
    assert word in capsys.readouterr().err


def chapter_of(tmp_path, monkeypatch, *code):
    """A chapter of these cells."""
    path = tmp_path / "chapter_1_made.py"
    path.write_text("# %% [markdown]\n# # Title\n\n" + "\n\n".join(f"# %%\n{c}" for c in code) + "\n", encoding="utf-8")
    monkeypatch.setattr(book, "paths", lambda: {1: path})
    return book.read(1)


@pytest.mark.fast
@pytest.mark.parametrize(
    "code, word",
    [
        ("x = 1\nassert x == 2", "chapter_1_made.py:6: AssertionError"),
        ("import matplotlib.pyplot as plt\nplt.subplots()", "a figure without a title"),
    ],
)
def test_a_claim_that_does_not_hold_is_told_with_its_line(tmp_path, monkeypatch, capsys, code, word):
    chapter_of(tmp_path, monkeypatch, code)
    out = tmp_path / "out"
    assert command.main(["--out", str(out)]) == 1
    assert word in capsys.readouterr().err and not list(out.iterdir())


@pytest.mark.fast
def test_what_is_missing_on_a_page_is_noticed(tmp_path, monkeypatch):
    chapter = chapter_of(
        tmp_path, monkeypatch, "import matplotlib.pyplot as plt\nplt.figure()\nplt.title('t');print(.5)"
    )
    runs = [(chapter, book.run(chapter))]
    text = page.page(runs)
    assert faults(text, runs) == []
    for old, new in [
        ("0.5", "0.6"),
        ('id="chapter-1"', 'id="chapter-2"'),
        ("<figure>", "<div>"),
        ("</main>", '<a href="figure.png">a</a><p>$x</p></main>'),
    ]:
        assert old in text and faults(text.replace(old, new), runs) != []


@pytest.mark.fast
def test_the_font_of_the_formulas_has_what_they_use_and_grows():
    made = formulas.mathml(r"\left[ \frac{h x}{\theta} \right] \ln x \sim y", display=True)
    assert "mspace" in made and "\u223c" in page.html.unescape(made)
    font = TTFont(io.BytesIO(base64.b64decode(formulas.font(made).partition(",")[2])))
    assert set(map(ord, "[]h\u210ex\U0001d465\u03b8\U0001d703")) <= set(font.getBestCmap())
    assert font["MATH"].table.MathVariants.VertGlyphCoverage.glyphs
    with pytest.raises(ValueError, match="has no \u4e2d"):
        formulas.font("<math><mi>\u4e2d</mi></math>")


@pytest.mark.fast
def test_formulas_have_the_spaces_of_tex_and_bases_keep_their_exponents():
    def shape(latex):
        root = xml.etree.ElementTree.fromstring(formulas.mathml(latex, display=False))
        assert all(len(e) == 2 for e in root.iter() if e.tag.endswith(("msup", "msub", "mfrac")))
        return " ".join(e.tag.rpartition("}")[2] for e in root[0])

    assert shape(r"z \ln x") == "mi mspace mi mspace mi" and shape(r"\ln(x)") == "mi mo mi mo"
    assert shape(r"a \cos^2 x") == "mi mspace msup mspace mi" and shape(r"\nabla \ln p") == "mo mspace mi mspace mi"
    assert shape("f'(z)") == "mrow mo mi mo" and shape(r"+ \ln x") == "mo mi mspace mi"


@pytest.mark.fast
def test_a_line_does_not_begin_with_the_comma_after_a_formula(tmp_path, monkeypatch):
    chapter = chapter_of(tmp_path, monkeypatch, "1")
    cell = book.Cell("markdown", "of $z$ or $x$, or $y$ and", (), 1)
    text = page.page([(replace(chapter, cells=(*chapter.cells, cell)), [[], [], []])])
    assert len(re.findall(r'<span class="whole">(?:(?!</math>).)*</math></span>,</span>', text)) == 1
    assert text.count('class="whole"') == 1


@pytest.mark.fast
def test_short_forms_replace_what_the_cell_has_set(tmp_path, monkeypatch):
    chapter = chapter_of(tmp_path, monkeypatch, "N = 5\nSHORT = {'N': 2}", "N")
    assert [book.run(chapter, short)[2][0].data for short in (False, True)] == ["5\n", "2\n"]


@pytest.mark.fast
def test_intervals_hold_the_mean_in_95_percent_and_agreement_notices_a_shift():
    samples = np.random.default_rng(0).normal(1.0, 2.0, size=(100, 4000))
    mean, half = samples.mean(axis=0), tools.CONFIDENT * tools.error(samples)
    assert abs(np.mean(np.abs(mean - 1) < half) - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 4000) + 0.005  # s for sigma
    assert tools.agrees(1.0, samples[:, 0]) and not tools.agrees(3.0, samples[:, 0])
    assert tools.beside("a", 1.0, samples[:, 0]).count("±") == 1
