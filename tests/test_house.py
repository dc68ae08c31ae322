"""The house: one list of layers that covers every module, no private names across modules, names that hide nothing, and
an import that leaves the process as it was."""

import ast
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
OTHERS = {"_replace", "_fields", "_getframe", "_core", "_ones_like", "_ufuncs", "_zeta", "_processes"}
"""Underscore names of Python, NumPy and SciPy: of named tuples, of ``sys``, and what the next test looks for."""


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
    return [
        ast.unparse(n)
        for n in ast.walk(tree)
        if isinstance(n, ast.Attribute)
        and is_private(n.attr)
        and not is_self(n.value)
        and n.attr not in own | OTHERS
        and not n.attr.startswith("_repr_")
    ]


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def is_self(node):
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_module_reads_anothers_underscore_names(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert private_imports(tree) == [] and private_attributes(tree) == []


@pytest.mark.parametrize(
    "text", ["from scg.core.node import _a", "def f(node):\n    return node._hidden", "x = other._y"]
)
def test_what_is_private_is_noticed(text):
    tree = ast.parse(text)
    assert private_imports(tree) or private_attributes(tree)


def test_the_private_names_of_numpy_and_scipy_that_are_used_are_there():
    umath = np._core.umath
    assert isinstance(umath._ones_like, np.ufunc) and isinstance(umath.clip, np.ufunc)
    assert np._core.strings is not None and isinstance(sp._ufuncs._zeta, np.ufunc)
    assert isinstance(np.random.random.__self__, np.random.RandomState)


def test_every_public_package_lists_its_names_and_no_function_hides_a_module():
    for name in ("", "distributions", "estimators", "exact", "extend", "testing", "variance"):
        package = scg if not name else getattr(scg, name)
        assert package.__all__ and all(hasattr(package, n) for n in package.__all__)
        assert len(set(package.__all__)) == len(package.__all__)
    modules = {".".join(p.relative_to(ROOT).with_suffix("").parts) for p in FILES}
    for name in scg.__all__:
        if not isinstance(getattr(scg, name), types.ModuleType):
            assert f"scg.{name}" not in modules
    assert set(dir(scg)) == {*scg.__all__, "__version__"}


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
        print(peak)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 40e6
