"""README and the API pages: their code runs and shows what it says; commands, links and tables are true."""

import ast
import doctest
import functools
import importlib
import inspect
import io
import re
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest

import scg
from examples import __main__ as listing
from scg import distributions as dist
from scg.extend import Estimator
from tests.support.house import contract

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = ['pip install -e ".[examples]" && python -m examples.vae', 'pip install -e ".[test]" && python -m pytest']
NUMBER = re.compile(r"(?<![\w.])-?\d+\.\d+(?:e[+-]?\d+)?")
VARY = 0.05  # what is shown of a sampled figure may change by this much with the stream of a generator
PAGES = [
    "bridge",
    "estimators",
    "objectives",
    "transforms",
    "plans",
    "errors",
    "extend",
]  # modules whose docstrings have code


def blocks_of(text):
    """(language, text) of the fenced blocks."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


BLOCKS = blocks_of(README)


def runs(blocks):
    """(code, what it should print) for the Python blocks; a text block after one is its output."""
    following = [*blocks[1:], ("", "")]
    return [
        (code, after if kind == "text" else "")
        for (language, code), (kind, after) in zip(blocks, following, strict=True)
        if language == "python"
    ]


def differ(printed, shown):
    """Why printed output is not what is shown: words are compared exactly, decimal numbers to VARY; None where they
    agree."""
    if NUMBER.sub("#", printed) != NUMBER.sub("#", shown):
        return f"printed:\n{printed}\nshown:\n{shown}"
    pairs = zip(NUMBER.findall(printed), NUMBER.findall(shown), strict=True)
    return next(
        (f"{a} printed, {b} shown" for a, b in pairs if abs(float(a) - float(b)) > VARY * abs(float(b)) + 1e-30), None
    )


def run_all(blocks):
    """Run the blocks in order in one namespace; the first disagreement, or None."""
    space = {"__name__": "__main__"}
    for code, shown in runs(blocks):
        with redirect_stdout(io.StringIO()) as out:
            exec(compile(code, "model.py", "exec"), space)
        found = differ(out.getvalue(), shown)
        if found:
            return found
    return None


def test_the_snippets_run_and_print_what_is_shown():
    assert len(runs(BLOCKS)) >= 4 and sum(kind == "text" for kind, _ in BLOCKS) == sum(
        bool(shown) for _, shown in runs(BLOCKS)
    )
    assert run_all(BLOCKS) is None


@pytest.mark.parametrize(
    "old, new",
    [
        ("b ~ Bernoulli", "c ~ Bernoulli"),
        ("7.81e-5", "8.81e-5"),
    ],
)
def test_output_that_is_not_printed_is_noticed(old, new):
    assert any(old in text for kind, text in BLOCKS if kind == "text")
    assert run_all([(kind, text.replace(old, new) if kind == "text" else text) for kind, text in BLOCKS]) is not None


def test_there_are_exactly_two_commands_to_set_up():
    assert [text.strip() for kind, text in BLOCKS if kind not in ("python", "text")] == COMMANDS


def test_every_example_is_named_and_no_other():
    named = set(re.findall(r"python -m examples\.(\w+)", README))
    assert named == set(listing.EXAMPLES)


@pytest.mark.parametrize("page", PAGES)
def test_the_snippets_of_a_page_run_and_print_what_is_shown(page):
    blocks = blocks_of(importlib.import_module(f"scg.{page}").__doc__)
    assert runs(blocks) and run_all(blocks) is None


DOCTESTS = [path for path in (ROOT / "scg").rglob("*.py") if ">>> " in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", DOCTESTS, ids=lambda path: path.stem)
def test_the_examples_of_docstrings_run_and_show_what_they_print(path):
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    found = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert found.attempted and not found.failed


def test_every_page_with_code_is_run():
    with_code = {
        path.parent.name if path.name == "__init__.py" else path.stem
        for path in (ROOT / "scg").rglob("*.py")
        if "```python" in (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "")
    }
    assert with_code == set(PAGES)


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md", "benchmarks/README.md"]
)
def test_links_lead_somewhere(name):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / name).read_text(encoding="utf-8"))
    assert all(((ROOT / name).parent / link).exists() for link in links)


def test_contributors_are_told_of_every_room():
    told = set(re.findall(r"`scg/(\w+)(?:/|\.py)`", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))
    assert told == {room for layer in contract() for room in layer}


def test_the_table_of_rooms_is_the_contract():
    table = README[README.index("| room | |") :].split("\n\n")[0].splitlines()[2:]
    assert [re.findall(r"`(\w+)`", row.split("|")[1]) for row in table] == contract()


def test_contributing_names_rooms_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rooms = re.findall(r"`((?:scg|tests)/[\w/.]*)`", text)
    assert len(rooms) > 12 and all((ROOT / room).exists() for room in rooms)


def test_what_is_called_scg_something_exists():
    pages = [README, *[importlib.import_module(f"scg.{page}").__doc__ for page in (*PAGES, "distributions")]]
    for name in {name for text in pages for name in re.findall(r"\bscg\.((?:\w+\.)*\w+)", text)}:
        found = scg
        for part in name.split("."):
            if not hasattr(found, part):
                __import__(f"{found.__name__}.{part}")
            assert hasattr(found, part), name
            found = getattr(found, part)


def public_names():
    """(qualified name, object) of what users meet: the names of ``scg`` and of its public packages and modules."""
    for home in ("", "distributions", "estimators", "exact", "extend", "testing", "variance", "objectives", "special"):
        module = importlib.import_module(f"scg.{home}" if home else "scg")
        names = getattr(module, "__all__", None) or [
            n
            for n, v in vars(module).items()
            if not n.startswith("_") and getattr(v, "__module__", "") == module.__name__
        ]
        yield from ((f"{home or 'scg'}.{name}", getattr(module, name)) for name in names)


@pytest.mark.parametrize("name, found", list(public_names()), ids=lambda x: x if isinstance(x, str) else "")
def test_every_public_name_has_a_docstring_of_its_own(name, found):
    doc = inspect.getdoc(found) if not isinstance(found, scg.extend.AxisMap) else inspect.getdoc(type(found))
    assert doc and len(doc) >= 8 and not doc.startswith(f"{getattr(found, '__name__', '?')}("), name


def test_the_estimators_are_biased_where_the_table_says_so():
    page = scg.estimators.__doc__
    rows = page[page.index("| estimator |") :].split("\n\n")[0].splitlines()[2:]
    told = {
        name: row.split("|")[-2].strip() == "yes" for row in rows for name in re.findall(r"`(\w+)\(", row.split("|")[1])
    }
    assert told == {name: not getattr(scg.estimators, name).unbiased for name in told} and sum(told.values()) == 3
    methods = [n for n in scg.estimators.__all__ if issubclass(getattr(scg.estimators, n), Estimator)]
    baselines = re.findall(r"`(\w+)\(", page[page.index("Baselines of the score function") :].split("\n\n")[0])
    assert set(told) == set(methods) and set(baselines) | {"Baseline"} == set(scg.estimators.__all__) - set(methods)


def test_every_distribution_is_listed():
    families = {
        n
        for n in dist.__all__
        if isinstance(getattr(dist, n), type) and issubclass(getattr(dist, n), dist.Distribution)
    } - {"Distribution"}
    assert families == {name for name in re.findall(r"`(\w+)`", dist.__doc__) if name[0].isupper()}


REFUSED = {  # the rows of the table, in its order
    "np.asarray(node)": lambda x: np.asarray(x),
    "buffer[0] = node": lambda x: np.zeros(2).__setitem__(0, x[0]),
    "node[0] = 1": lambda x: x.__setitem__(0, 1),
    "array[node]": lambda x: np.arange(3.0)[np.astype(x, int)],
    "np.histogram(node)": lambda x: np.histogram(x),
    "integers as parameters": lambda x: scg.grad(lambda n: n)(1),
    "float(node)": lambda x: float(x[0]),
    "buffer += node": lambda x: np.zeros(2).__iadd__(x),
    "out=buffer": lambda x: np.add(x, 1, out=np.zeros(2)),
    "np.take(array, node)": lambda x: np.take(np.arange(3.0), np.astype(x, int)),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_said_to_be_refused_is(what):
    page = scg.errors.__doc__
    table = page[page.index("| refused |") :].split("\n\n")[0]
    assert what in table
    with pytest.raises((scg.ScgError, ValueError)):
        REFUSED[what](scg.parameter(np.array([1.0, 2.0])))


def test_what_is_to_be_written_in_its_place_works():
    x = scg.parameter(np.array([2.0, 0.0]))
    index, table = np.argsort(x), np.array([5.0, 7.0])
    for taken in (scg.parameter(table)[index], np.take_along_axis(table, index, 0)):
        np.testing.assert_array_equal(taken.value, [7, 5])
    assert isinstance(np.stack([x[0], x[1]]), scg.Node) and isinstance(np.where([True, False], 1, x), scg.Node)


def test_the_conventions_are_as_said():
    grad = scg.grad
    zero, zeros = np.array(0.0), np.zeros(2)
    assert (
        grad(np.abs)(zero) == grad(np.rint)(np.array(0.3)) == grad(np.sign)(zero) == grad(np.floor)(np.array(1.5)) == 0
    )
    for at_origin in (np.linalg.norm, lambda x: np.hypot(x[0], x[1]), lambda x: np.arctan2(x[0], x[1])):
        np.testing.assert_array_equal(grad(at_origin)(zeros), zeros)
    np.testing.assert_allclose(grad(np.max)(np.ones(3)), np.full(3, 1 / 3), rtol=1e-15)
    assert grad(lambda x: np.clip(x, 0, 1))(zero) == 0.5
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(
            grad(lambda x: np.sum(np.where(x > 0, np.sqrt(x), 0)))(np.array([-1.0, 0.0, 4.0])), [0, 0, 0.25]
        )
        assert grad(np.sqrt)(zero) == np.inf
    assert grad(lambda x: np.sum(np.sin(x)))(np.ones(2, np.float32)).dtype == np.float32
    z = scg.parameter(np.array([0.5, 2.0]))
    w = z + 1j * np.array([1.0, -1.0])
    # Parseval
    np.testing.assert_allclose(scg.gradients(np.sum(np.abs(np.fft.fft(w)) ** 2), z), 2 * 2 * z.value, rtol=1e-14)


# --- which estimator to take

_STANDS_FOR = {
    "optimizer=...": "optimizer=functools.partial(scg.optim.Adam, learning_rate=0.01)",
    "fn, ": "lambda phi, z: phi * np.tanh(z), np.array(0.1), ",
    "(k)": "(2)",
}
_SAMPLES = {
    "continuous": lambda t: dist.Normal(t, 1.0),
    "coins": lambda t: dist.Bernoulli(logits=t),
    "few values": lambda t: dist.Bernoulli(logits=t),
    "categories": lambda t: dist.OneHotCategorical(logits=np.stack([t, -t, 0 * t], axis=-1)),
    "counts": lambda t: dist.Poisson(np.exp(t)),
    "": lambda t: dist.Bernoulli(logits=t),
}


def table_of_estimators():
    text = README.split("| the sample, and the cost | take | because |\n")[1]
    rows = [line.split(" | ") for line in text.splitlines()[1:][: text.splitlines()[1:].index("")]]
    return [(row[0].strip("| "), call) for row in rows for call in re.findall(r"`([A-Z].*?\))`", row[1])]


@pytest.mark.parametrize("sample, call", table_of_estimators())
def test_what_the_table_of_estimators_says_runs(sample, call):
    """A gradient of the kind of sample that its row is of."""
    for text, meant in _STANDS_FOR.items():
        call = call.replace(text, meant)
    estimator = eval(call, {**vars(scg), "scg": scg, "np": np, "functools": functools})
    of = next(kind for words, kind in _SAMPLES.items() if words in sample)
    if isinstance(estimator, scg.Reparameterized):
        of = _SAMPLES["continuous"]

    def cost(t, rng):
        z = scg.sample(of(t), estimator, rng=rng, name="z")
        if "jumps" in sample:
            return np.sum(np.where(np.sum(z) > 0, z, 0.0))
        return np.sum(0.1 * z) ** 2 + np.sum(z * z)

    graph = scg.trace(cost, np.array([0.3, -0.2]), rng=np.random.default_rng(0))
    g = graph.gradients(rng=np.random.default_rng(1), replicates=3)
    assert g.shape == (3, 2) and np.isfinite(g).all()
    if sample == "second derivatives" and not isinstance(estimator, scg.Marginalize):
        assert np.isfinite(scg.hessian(cost)(np.array([0.3, -0.2]), np.random.default_rng(0))).all()
