"""The tests themselves: the fast part touches every room, helpers stand in ``tests/support``, every test asserts
something."""

import ast
import functools
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.drawn import drawn, share

pytestmark = pytest.mark.fast

HERE = Path(__file__).parent
PATHS = sorted(HERE.rglob("*.py"))
FILES = [path for path in PATHS if path.name.startswith("test_")]
ELSEWHERE = {
    "errors": "core/test_errors",
    "special": "primitives/test_special",
    "extend": "test_house",
    "elimination": "exact/test_elimination",
}
"""Modules of scg that another room tests."""


@functools.cache
def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def definitions(tree):
    return {n.name: n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.ClassDef))}


def cases(tree):
    return {name: node for name, node in definitions(tree).items() if name.startswith("test")}


def is_marked(node, mark):
    return any(ast.unparse(d).startswith(f"pytest.mark.{mark}") for d in node.decorator_list)


def fast(tree):
    """Names of the fast tests of a file."""
    whole = any(isinstance(n, ast.Assign) and ast.unparse(n) == "pytestmark = pytest.mark.fast" for n in tree.body)
    found = [name for name, node in cases(tree).items() if whole or is_marked(node, "fast")]
    return [name for name in found if not is_marked(cases(tree)[name], "slow")]


def test_every_folder_of_tests_has_fast_ones():
    for folder in {path.parent for path in FILES}:
        assert any(fast(parsed(path)) for path in FILES if path.parent == folder), folder


def test_every_room_of_the_package_has_fast_tests():
    package = HERE.parent / "scg"
    rooms = {p.stem for p in package.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()} - {"__init__"}
    for room in rooms:
        own = HERE / room, HERE / f"test_{room}.py", HERE / f"{ELSEWHERE.get(room)}.py"
        assert any(fast(parsed(path)) for path in FILES if path.parent == own[0] or path in own[1:]), room


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(HERE)))
def test_no_test_is_fast_and_long(path):
    long = {name for name, node in cases(parsed(path)).items() if is_marked(node, "long")}
    assert not long & set(fast(parsed(path)))


def test_no_test_module_imports_another():
    imported = {n.module or "" for p in PATHS for n in ast.walk(parsed(p)) if isinstance(n, ast.ImportFrom)}
    assert not [name for name in imported if name.startswith("tests.") and ".test_" in name]


# what raises where a claim does not hold: of pytest, of Hypothesis, of NumPy and of scg.testing
ASSERTING = {"raises", "warns", "fail", "find"}


def asserts(node, helpers):
    """Whether a function asserts, or names a function that does."""
    names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    names |= {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
    return (
        any(isinstance(n, ast.Assert) for n in ast.walk(node))
        or bool(names & (helpers | ASSERTING))
        or any(name.startswith(("assert_", "check_")) for name in names)
    )


def asserting(found, helpers=frozenset()):
    """Of some definitions those that assert, by way of one another and of helpers too."""
    known = set(helpers)
    while more := {name for name, node in found.items() if name not in known and asserts(node, known)}:
        known |= more
    return known


@functools.cache
def helpers():
    """Names of what asserts in ``tests/support``."""
    support = [parsed(path) for path in PATHS if path.is_relative_to(HERE / "support")]
    return frozenset().union(*[asserting(definitions(tree)) for tree in support])


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(HERE)))
def test_every_test_asserts(path):
    assert not set(cases(parsed(path))) - asserting(definitions(parsed(path)), helpers())


def test_what_asserts_nothing_is_noticed():
    lines = "def test_a(): f(1)", "def f(x): return x", "def test_b(): g(1)", "def g(x): assert x"
    tree = ast.parse("\n".join(lines))
    assert set(cases(tree)) - asserting(definitions(tree)) == {"test_a"}


@pytest.mark.parametrize("percent", [25, 100])
def test_a_share_of_the_examples_is_that_of_the_profile(percent, monkeypatch):
    whole, fifth = settings.get_profile("long"), settings.get_profile("ordinary")
    assert (whole.max_examples, fifth.max_examples) == (100, 20)
    monkeypatch.setattr("tests.support.drawn.settings", Of(percent))
    assert (share(400), share(10), share(3)) == (4 * percent, max(5, 10 * percent // 100), 3)
    assert drawn(400) == 4 * percent


class Of:
    """Settings of a profile of so many in a hundred examples, of which the number is all that is made."""

    def __init__(self, percent):
        self.default = settings(max_examples=percent)

    def __call__(self, max_examples):
        return max_examples
