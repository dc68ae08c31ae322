"""The house: one list of layers that covers every module, no private names across modules, names that hide nothing, and
an import that leaves the process as it was."""

import ast
import functools
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import scipy.special as sp

import scg
from tests.support.house import contract

pytestmark = pytest.mark.fast

ROOT = Path(scg.__file__).parents[1]
FILES = sorted((ROOT / "scg").rglob("*.py"))
OTHERS = {"_replace", "_fields", "_getframe", "_core", "_ones_like", "_ufuncs", "_zeta", "_implementation"} | {
    "_processes",
    "_result_queue",
    "_writer",
    "_validate_args",
}
"""Underscore names of Python, NumPy, SciPy and PyTorch: of named tuples, of ``sys``, of pools of processes, and what a
test below looks for."""


def test_the_layers_name_every_room_once():
    rooms = [room for layer in contract() for room in layer]
    tree = [p.stem if p.is_file() else p.name for p in (ROOT / "scg").iterdir()]
    assert sorted(rooms) == sorted(name for name in tree if not name.startswith("_") and name != "py")


def private_imports(tree):
    return [
        f"{node.module}.{a.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("scg")
        for a in node.names
        if is_private(a.name)
    ]


def private_attributes(tree):
    """Underscore attributes that are read of another object and defined nowhere in the file itself."""
    own = {n.name for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    own |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and is_self(n.value)}
    own |= {n.arg for n in ast.walk(tree) if isinstance(n, ast.keyword) and n.arg}
    by_name = [
        ast.unparse(n)
        for n in ast.walk(tree)
        if any([is_private(name) and name not in own | OTHERS for name in names_in_text(n)])
    ]
    return by_name + [
        ast.unparse(n)
        for n in ast.walk(tree)
        if isinstance(n, ast.Attribute)
        and is_private(n.attr)
        and not is_self(n.value)
        and n.attr not in own | OTHERS
        and not n.attr.startswith("_repr_")
    ]


def names_in_text(node):
    """The names of attributes that are written as text: getattr(x, "name") and the like, and vars(x)["name"]."""
    texts = []
    if (
        is_call_of(node, "getattr", "hasattr", "setattr", "delattr")
        and len(node.args) > 1
        and not is_self(node.args[0])
    ):
        texts = [node.args[1]]
    if isinstance(node, ast.Subscript) and is_call_of(node.value, "vars") and not is_self(node.value.args[0]):
        texts = [node.slice]
    return [text.value for text in texts if isinstance(text, ast.Constant) and isinstance(text.value, str)]


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


@functools.cache
def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def is_self(node):
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


@pytest.mark.slow
def test_no_module_reads_anothers_underscore_names():
    trees = {str(path.relative_to(ROOT)): parsed(path) for path in FILES}
    found = {path: private_imports(tree) + private_attributes(tree) for path, tree in trees.items()}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "text",
    [
        "from scg.core.node import _a",
        "def f(node):\n    return node._hidden",
        "x = other._y",
        "x = getattr(other, '_y', None)",
        "vars(other)['_y'] = 1",
    ],
)
def test_what_is_private_is_noticed(text):
    tree = ast.parse(text)
    assert private_imports(tree) or private_attributes(tree)


def identities(tree):
    """Where a file compares a primitive with one that another file declares, by identity, by membership or by name; or
    looks it up in a table."""
    made = {
        t.id: None
        for n in ast.walk(tree)
        if isinstance(n, (ast.Assign, ast.AnnAssign))
        for t in (n.targets if isinstance(n, ast.Assign) else [n.target])
        if isinstance(t, ast.Name) and is_call_of(n.value, "primitive", "smooth_primitive")
    }
    variables = {
        t.id
        for n in ast.walk(tree)
        if isinstance(n, ast.Assign) and isinstance(n.value, (ast.Attribute, ast.Tuple))
        for target in n.targets
        for t, v in zip(*[x.elts if isinstance(x, ast.Tuple) else [x] for x in (target, n.value)], strict=False)
        if isinstance(t, ast.Name) and isinstance(v, ast.Attribute) and v.attr == "primitive"
    }

    def is_primitive(x):
        if isinstance(x, ast.Attribute) and x.attr in ("name", "fn"):
            x = x.value
        return isinstance(x, ast.Attribute) and x.attr == "primitive" or isinstance(x, ast.Name) and x.id in variables

    def is_known(x):
        parts = x.elts if isinstance(x, (ast.Tuple, ast.List, ast.Set)) else [x]
        return all([isinstance(p, ast.Constant) and p.value is None or getattr(p, "id", "") in made for p in parts])

    found = []
    for n in ast.walk(tree):
        if isinstance(n, ast.Compare):
            sides = [n.left, *n.comparators]
            if any(map(is_primitive, sides)) and not all(is_primitive(s) or is_known(s) for s in sides):
                found.append(n)
        elif isinstance(n, ast.Subscript) and is_primitive(n.slice):
            found.append(n)
        elif isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute) and n.func.attr == "get":
            found += [n] if any(map(is_primitive, n.args)) else []
    return [ast.unparse(n) for n in found]


def is_call_of(x, *names):
    return isinstance(x, ast.Call) and isinstance(x.func, ast.Name) and x.func.id in names


# the passes of plans name the callables that they rewrite
TESTED = [p for p in FILES if p.relative_to(ROOT / "scg").parts[:-1] not in (("plans", "passes"), ("primitives",))]


@pytest.mark.slow
def test_no_module_compares_a_primitive_with_that_of_another():
    found = {str(path.relative_to(ROOT)): identities(parsed(path)) for path in TESTED}
    assert {path: places for path, places in found.items() if places} == {}


@pytest.mark.parametrize(
    "text",
    [
        "node.primitive is layout.alias",
        "node.primitive not in (box, draw)",
        "node.primitive.name == 'draw'",
        "rule, x = node.primitive, 3\nrule in TABLE",
        "made = node.primitive\nmade is box",
        "node.primitive.fn is np.add",
        "node.primitive is IMPLEMENTATIONS[np.add]",
        "TABLE[node.primitive]",
        "TABLE.get(node.primitive)",
    ],
)
def test_a_comparison_of_primitives_is_noticed(text):
    assert identities(ast.parse(text))


@pytest.mark.parametrize("text", ["mine = primitive(f)\nnode.primitive is mine", "node.primitive.axes is elementwise"])
def test_a_module_knows_its_own_primitives_and_the_facts_of_all(text):
    assert not identities(ast.parse(text))


def test_the_private_names_of_numpy_and_scipy_that_are_used_are_there():
    umath = np._core.umath
    assert isinstance(umath._ones_like, np.ufunc) and isinstance(umath.clip, np.ufunc)
    assert np._core.strings is not None and np._core.defchararray is not None and isinstance(sp._ufuncs._zeta, np.ufunc)
    assert isinstance(np.random.random.__self__, np.random.RandomState) and np.sum._implementation is not None


def test_every_public_package_lists_its_names_and_no_function_hides_a_module():
    rooms = [getattr(scg, name) for name in scg.__all__ if isinstance(getattr(scg, name), types.ModuleType)]
    for package in (scg, *rooms):
        assert package.__all__ and all(hasattr(package, n) for n in package.__all__), package
        assert len(set(package.__all__)) == len(package.__all__)
    modules = {".".join(p.relative_to(ROOT).with_suffix("").parts) for p in FILES}
    for name in scg.__all__:
        if not isinstance(getattr(scg, name), types.ModuleType):
            assert f"scg.{name}" not in modules
    assert set(dir(scg)) == {*scg.__all__, "__version__"}


@pytest.mark.slow
def test_what_not_every_program_needs_is_imported_when_it_is_asked_for():
    code = """if True:
        import sys, scipy.special
        known = set(sys.modules)  # older versions of SciPy import more of themselves
        import scg
        later = [f"scg.{name}" for name in ("bridge", "exact", "plans", "testing", "variance")]
        assert not {*later, "scg.elimination", "scipy.sparse", "scipy.linalg"} & (set(sys.modules) - known)
        from scg import exact, compile
        assert scg.exact is exact is sys.modules["scg.exact"] and scg.compile is compile is scg.plans.compile
        try:
            scg.nothing
        except AttributeError as error:
            assert "nothing" in str(error)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_importing_leaves_the_process_as_it_was_and_allocates_little():
    code = """if True:
        import os, signal, sys, threading, tracemalloc, warnings
        import numpy as np, scipy.special, scipy.integrate, scipy.stats
        def state():
            handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
            affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
            numpys = np.geterr(), np.get_printoptions(), np.random.get_state()[1].tolist()
            pythons = warnings.filters[:], sys.getrecursionlimit(), sys.gettrace(), sys.getprofile(), sys.path[:]
            return numpys, pythons, handlers, affinity, threading.active_count(), dict(os.environ), os.getcwd()
        before = state()
        tracemalloc.start()
        import scg
        peak = tracemalloc.get_traced_memory()[1]
        assert state() == before
        assert all([getattr(scg, name) is not None for name in scg.__all__]) and state() == before
        print(peak)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 40e6
