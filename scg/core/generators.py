"""Generators of random numbers: which ones a function holds, and whether it drew from one beside ``scg.sample``."""

import functools
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import BuiltinMethodType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, final

import numpy as np

from scg.core.aliases import Function, Result
from scg.core.ambient import WATCH
from scg.errors import NOT_THE_USERS, PACKAGE, here, location

GLOBAL = np.random.random.__self__  # type: ignore[attr-defined]
PYTHON = random.random.__self__  # type: ignore[attr-defined]
AnyGenerator = (
    np.random.Generator | np.random.RandomState | random.Random | np.random.BitGenerator | np.random.SeedSequence
)
_KINDS = AnyGenerator.__args__  # type: ignore[attr-defined]
_GLOBALS = {"random", "rvs"}  # names by which functions take numbers from the global generators
_SOURCES = {
    "default_rng",
    "RandomState",
    "Random",
    "Generator",
    "PCG64",
    "Philox",
    "SeedSequence",
    "urandom",
    "secrets",
}
_SOURCES |= {
    "deepcopy",
    "loads",
    "spawn",
    "jumped",
    "bit_generator",
    "value",
    "time",
    "perf_counter",
    "perf_counter_ns",
}
_MOST = 10_000  # objects that are looked through


def held_generators(*holders: object) -> list[AnyGenerator]:
    """Generators in functions, objects and structures: in closures, defaults, globals that are named, also of a module
    of the user's, attributes, items, and in functions that these hold.

    NumPy's and Python's global ones count where a function names ``random``, or ``rvs`` as SciPy's distributions: other
    threads may draw from them meanwhile.
    """
    return list(_seen(holders)[0].values())


def names_sources(*holders: object) -> bool:
    """Whether functions, in what they hold and call, name a source of numbers that are no nodes: what makes generators,
    as ``default_rng``, or copies them, as ``deepcopy``, a clock, or ``value``, a number of a node."""
    return bool(_seen(holders)[1] & _SOURCES)


def _seen(holders: Iterable[object]) -> tuple[dict[int, AnyGenerator], set[str]]:
    """The generators that are held, by identity, and the names in the functions, and of what they hold."""
    found: dict[int, AnyGenerator] = {}
    named: set[str] = set()
    seen: set[int] = set()
    stack: list[Any] = list(holders)
    while stack and len(seen) < _MOST:
        x = stack.pop()
        if callable(x):  # under another name, too
            named.add(str(getattr(x, "__name__", "")))
        if id(x) in seen or isinstance(x, (type, ModuleType, np.ndarray, str, bytes, int, float)):
            continue
        seen.add(id(x))
        if isinstance(x, _KINDS):
            found[id(x)] = x
        elif isinstance(x, functools.partial):
            stack += [x.func, *x.args, *x.keywords.values()]
        elif isinstance(x, (MethodType, BuiltinMethodType)):
            stack += [getattr(x, "__func__", None), x.__self__]
        elif isinstance(x, FunctionType):
            # scg itself holds none, but functions that do
            names = set() if x.__code__.co_filename.startswith(PACKAGE) else _names(x.__code__)
            named |= names
            if names & _GLOBALS:
                found |= {id(GLOBAL): GLOBAL, id(PYTHON): PYTHON}
            found_by_name = [x.__globals__[name] for name in names if name in x.__globals__]
            own = [vars(y) for y in found_by_name if isinstance(y, ModuleType) and _is_users(y)]
            stack += [*found_by_name, *[module[name] for module in own for name in names if name in module]]
            stack += [cell.cell_contents for cell in x.__closure__ or () if cell != CellType()]
            stack += [*(x.__defaults__ or ()), *(x.__kwdefaults__ or {}).values()]
        elif isinstance(x, (list, tuple, set, frozenset)):
            stack += list(x)[:_MOST]
        elif isinstance(x, dict):
            stack += list(x.values())[:_MOST]
        elif callable(getattr(x, "__wrapped__", None)):
            stack.append(x.__wrapped__)
        else:
            stack += [*getattr(x, "__dict__", {}).values(), *([type(x).__call__] if callable(x) else [])]
    return found, named


def _is_users(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and not NOT_THE_USERS[file] and "site-packages" not in file


def _names(code: CodeType) -> set[str]:
    codes, names = [code], set()
    while codes:
        code = codes.pop()
        names |= set(code.co_names)
        codes += [c for c in code.co_consts if isinstance(c, CodeType)]
    return names


def state_of(generator: AnyGenerator) -> object:
    """The state of a generator, to be compared with an earlier one."""
    if isinstance(generator, random.Random):
        return generator.getstate()
    if isinstance(generator, np.random.SeedSequence):
        return generator.n_children_spawned
    if isinstance(generator, np.random.RandomState):
        return _comparable(generator.get_state(legacy=False))
    bits = generator.bit_generator if isinstance(generator, np.random.Generator) else generator
    return _comparable(bits.state)


def states_of(values: Iterable[object]) -> list[tuple[np.random.BitGenerator, object]]:
    """What stands behind each generator among ``values``, and its state, to ask ``have_moved`` of later."""
    return [(v.bit_generator, v.bit_generator.state) for v in values if isinstance(v, np.random.Generator)]


def have_moved(states: Iterable[tuple[np.random.BitGenerator, object]]) -> bool:
    """Whether numbers were taken from a generator since then."""
    return any([_comparable(bits.state) != _comparable(state) for bits, state in states])


def _comparable(state: object) -> object:
    if type(state) is dict:
        return {name: _comparable(part) for name, part in state.items()}
    return state.tobytes() if isinstance(state, np.ndarray) else state


@final
class Watch:
    """Whether a function that is being traced draws numbers beside ``scg.sample``: then a generator moved between two
    samples that are nodes."""

    def __init__(self, fn: Function, generators: Iterable[AnyGenerator], outer: "Watch | Apart | None" = None):
        self._outer = outer
        self._name = getattr(fn, "__name__", type(fn).__name__)
        self.code = getattr(fn, "__code__", None)
        self._known = {_key(g): (g, state_of(g)) for g in generators}
        self._depth = 0
        self.found: str | None = None

    def draw(self, rng: np.random.Generator, fn: Function, *args: object) -> Result:
        """``fn(*args)``, which draws from ``rng`` and makes nodes of the numbers."""
        if self._depth == 0:
            self._look(_key(rng), "")
        self._depth += 1
        try:
            return fn(*args) if self._outer is None else self._outer.draw(rng, fn, *args)
        finally:
            self._depth -= 1
            if self._depth == 0:
                self._known[_key(rng)] = rng, state_of(rng)

    def close(self) -> None:
        """Look at all generators a last time, and tell the watch around this one."""
        for key in self._known:
            self._look(key, "after its last draw")
        outer = self._outer
        if isinstance(outer, Watch):
            outer.found = outer.found or self.found
            outer._known |= {key: (g, state_of(g)) for key, (g, _) in self._known.items()}

    def _look(self, key: int, when: str) -> None:
        if self.found is None and key in self._known:
            generator, state = self._known[key]
            if state_of(generator) != state:
                line = location(self.code, -1) if self.code is not None else "unknown line"
                self.found = (
                    f"{self._name} ({line}) takes numbers from a {type(generator).__name__} itself,"
                    f" {when or f'before the draw at {here()}'}"
                )


@final
class Apart:
    """In the place of a watch: all that becomes a node is drawn from generators of its own, equal for equal seeds, and
    what a function draws otherwise from those that it has."""

    def __init__(self, seed: int):
        self._seed, self._states, self._inside = seed, dict[type, Any](), False

    def draw(self, rng: np.random.Generator, fn: Function, *args: object) -> Result:
        """``fn(*args)``, which draws from ``rng``."""
        if self._inside:
            return fn(*args)
        bits = rng.bit_generator
        kind, before = type(bits), bits.state
        bits.state = self._states.get(kind) or kind(self._seed).state
        self._inside = True
        try:
            return fn(*args)
        finally:
            self._states[kind], bits.state, self._inside = bits.state, before, False


@contextmanager
def drawing_apart(seed: int) -> Iterator[None]:
    """Within the block all that becomes a node is drawn ``Apart``."""
    token = WATCH.set(Apart(seed))
    try:
        yield
    finally:
        WATCH.reset(token)


@contextmanager
def watching(fn: Function, *arguments: object) -> Iterator[Watch]:
    """Within the block a watch over the generators that ``fn`` and its arguments hold; ``watch.found`` says afterwards
    what it saw."""
    outer = WATCH.get()
    watch = Watch(fn, held_generators(fn, *arguments), outer)
    token = WATCH.set(watch)
    try:
        yield watch
    finally:
        WATCH.reset(token)
        watch.close()


def _key(generator: object) -> int:
    return id(generator.bit_generator) if isinstance(generator, np.random.Generator) else id(generator)
