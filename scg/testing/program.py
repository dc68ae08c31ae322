"""Programs as values: the text of a function with the arguments that it is run on, which prints as a complete
script."""

import ast
import hashlib
import inspect
import linecache
import re
import textwrap
import weakref
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import final

import numpy as np

from scg.core.aliases import Function, Operand, Statics, Tree
from scg.core.node import Node
from scg.core.tree import leaves
from scg.errors import ScgTypeError, ScgValueError, here
from scg.stochastic.graph import Graph, trace
from scg.stochastic.lifting import Argnums

IMPORTS = {  # the names that a source may use, each with the line that binds it
    "np": "import numpy as np",
    "special": "import scipy.special as special",
    "scg": "import scg",
    "dist": "from scg import distributions as dist",
}
WIDTH = 120
_COMPILED: weakref.WeakValueDictionary[str, Function] = weakref.WeakValueDictionary()


@final
@dataclass(frozen=True, eq=False, repr=False)
class Program:
    """``source``, the text of one function, with the arguments by name that it is run on.

        program = Program("def cost(x):\\n    return np.sum(np.tanh(x))", {"x": np.ones(3)})
        program()                      # its value on its own arguments
        program(np.zeros(3))           # on others, as the function
        scg.grad(program, program.argnums)(*program.args)
        print(program)                 # the script: imports, arguments, function, and a line that runs it

    The source may use the names in ``IMPORTS`` (``np``, ``special``, ``scg``, ``dist``), and imports of its own.
    Arguments are arrays and numbers, and dicts, lists and tuples of them; they are copied, and may not be written to.
    ``wrt`` names those to differentiate by: where not given, all whose leaves are floating-point. A function that has a
    parameter ``rng`` is given ``np.random.default_rng(seed)``. Its line numbers, in tracebacks and in scg's messages,
    are those of the script. Programs with one script are equal.

    Raises ScgValueError where the source is not one function of the arguments, ScgTypeError where an argument cannot be
    written down.
    """

    source: str
    arguments: Mapping[str, Tree]
    _: KW_ONLY
    seed: int = 0
    wrt: tuple[str, ...] | None = None
    function: Function = field(init=False)  # compiled once; programs with one script share it
    _head: str = field(init=False)  # what stands above the function

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", textwrap.dedent(self.source).strip("\n") + "\n")
        object.__setattr__(self, "arguments", {name: _frozen(name, value) for name, value in self.arguments.items()})
        object.__setattr__(self, "_head", self._above())
        object.__setattr__(self, "function", self._compiled())
        taken = [name for name in inspect.signature(self.function).parameters if name != "rng"]
        if taken != list(self.arguments):
            wanted, given = ", ".join(taken) or "no arguments", ", ".join(self.arguments) or "none"
            raise ScgValueError(f"{self.function.__name__} takes {wanted}; got {given} ({here()})")
        if unknown := set(self.wrt or ()) - set(taken):
            raise ScgValueError(
                f"wrt names {', '.join(sorted(unknown))}, but the arguments are {', '.join(taken)} ({here()})"
            )

    @property
    def args(self) -> tuple[object, ...]:
        """The arguments, by position."""
        return tuple(self.arguments.values())

    @property
    def argnums(self) -> Argnums:
        """Which of them are differentiated: one position, or a tuple of several."""
        wrt = (
            self.wrt
            if self.wrt is not None
            else [name for name, value in self.arguments.items() if _is_floating(value)]
        )
        found = tuple([list(self.arguments).index(name) for name in wrt])
        return found[0] if len(found) == 1 else found

    @property
    def stochastic(self) -> bool:
        """Whether the function takes ``rng``."""
        return "rng" in inspect.signature(self.function).parameters

    def bound(self, **names: object) -> Function:
        """The function compiled with other meanings of names: ``bound(np=autograd.numpy)``."""
        try:
            tree = ast.parse(self.source)
        except SyntaxError as error:
            raise ScgValueError(
                f"the source is not Python: {error.msg} at line {error.lineno} of\n{self.source}({here()})"
            ) from None
        ast.increment_lineno(tree, self._head.count("\n"))
        space: Statics = {"__name__": "program"}
        exec("\n".join(self._imports), space)
        space.update(names)
        exec(compile(tree, self._filename, "exec"), space)
        functions = [statement.name for statement in tree.body if isinstance(statement, ast.FunctionDef)]
        if len(functions) != 1:
            raise ScgValueError(f"the source must define one function, got {', '.join(functions) or 'none'} ({here()})")
        return space[functions[0]]

    def _compiled(self) -> Function:
        script, filename = self._head + self.source, self._filename
        function = _COMPILED.get(script)
        if function is None:
            function = _COMPILED[script] = self.bound()
            linecache.cache[filename] = (len(script), None, script.splitlines(keepends=True), filename)
            weakref.finalize(function, linecache.cache.pop, filename, None).atexit = False
        return function

    @property
    def _filename(self) -> str:
        return f"<program {hashlib.sha256((self._head + self.source).encode()).hexdigest()[:8]}>"

    def graph(self, seed: int | None = None) -> Graph:
        """``scg.trace`` of one run, with the samples of ``seed`` (its own where not given)."""
        return trace(self, *self.args, argnums=self.argnums, **self._rng(seed))

    def __call__(self, *args: object, **kwargs: object) -> Tree:
        """The function's result; on the program's own arguments where none are given, with its own seed where no
        ``rng`` is."""
        given = args or self.args
        own = {} if "rng" in kwargs or len(given) > len(self.arguments) else self._rng(None)
        return self.function(*given, **own, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.function)

    def _rng(self, seed: int | None) -> Statics:
        return {"rng": np.random.default_rng(self.seed if seed is None else seed)} if self.stochastic else {}

    @property
    def _imports(self) -> list[str]:
        used = [name for name in IMPORTS if re.search(rf"(?<![\w.]){name}\b", self.source)]
        return [line for name, line in IMPORTS.items() if name in [*used, "np", "scg"]]

    def _above(self) -> str:
        written = [f"{name} = {literal(value)}" for name, value in self.arguments.items()]
        return "\n".join([*self._imports, "", *written, "", "", ""])

    def __str__(self) -> str:
        name, given = self.function.__name__, ", ".join(self.arguments)
        argnums = "" if self.argnums == 0 else f"argnums={self.argnums}"
        if self.stochastic:
            given = ", ".join(filter(None, [name, given, argnums, f"rng=np.random.default_rng({self.seed})"]))
            return f"{self._head}{self.source}\n\nprint(scg.trace({given}))\n"
        called = ", ".join(filter(None, [name, argnums]))
        return f"{self._head}{self.source}\n\nprint(scg.value_and_grad({called})({given}))\n"

    __repr__ = __str__

    def _repr_pretty_(self, printer: Operand, cycle: bool) -> None:
        printer.text("\n" + str(self))  # Hypothesis would indent it: then it would not run

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Program) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (self.source, self.arguments, self.seed, self.wrt)


def _restored(source: str, arguments: Mapping[str, Tree], seed: int, wrt: tuple[str, ...] | None) -> Program:
    return Program(source, arguments, seed=seed, wrt=wrt)


def literal(value: object) -> str:
    """The text of an expression for ``value``, exact to the last bit, dtype and shape included.

    For arrays, numbers, strings, None, and dicts, lists and tuples of them. Raises ScgTypeError for anything else.
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join([f"{key!r}: {literal(item)}" for key, item in value.items()]) + "}"
    if type(value) is list:
        return "[" + ", ".join(map(literal, value)) + "]"
    if type(value) is tuple:
        return "(" + ", ".join(map(literal, value)) + ("," if len(value) == 1 else "") + ")"
    if value is None or isinstance(value, str):
        return repr(value)
    if isinstance(value, np.ndarray) and type(value) is np.ndarray and value.dtype.kind in "biufc":
        return _array(value)
    if isinstance(value, np.generic) and value.dtype.kind in "biufc":
        return f"np.{value.dtype.name}({_number(value)})"
    if type(value) in (bool, int, float, complex):
        return _number(value)
    kind = type(value).__name__
    raise ScgTypeError(
        f"a program's arguments are arrays, numbers, and dicts, lists and tuples of them; got {kind} ({here()})"
    )


def _array(x: np.ndarray) -> str:
    standard = {"f": np.float64, "i": np.int64, "c": np.complex128, "b": np.bool_}.get(x.dtype.kind)
    dtype = "" if x.dtype == standard else f", np.{x.dtype.name}"
    if not x.size:
        return f"np.empty({x.shape}, np.{x.dtype.name})"

    def rows(part: np.ndarray) -> str:
        return _number(part[()]) if not part.ndim else "[" + ", ".join(map(rows, part)) + "]"

    text = textwrap.fill(
        rows(np.asarray(x)), WIDTH, subsequent_indent=" " * 4, break_long_words=False, break_on_hyphens=False
    )
    return f"np.array({text}{dtype})"


def _number(x: Operand) -> str:
    if isinstance(x, (complex, np.complexfloating)):
        return f"complex({_number(x.real)}, {_number(x.imag)})"
    if isinstance(x, (float, np.floating)):
        if not np.isfinite(x):
            return "np.nan" if np.isnan(x) else "np.inf" if x > 0 else "-np.inf"
        short = float(str(x))  # the shortest text of a float32 is the nicer one
        return repr(short if type(x)(short) == x else float(x))
    return repr(x.item() if isinstance(x, np.generic) else x)


def _frozen(path: str, value: Tree) -> Tree:
    """``value`` with its arrays copied, read-only."""
    if isinstance(value, Mapping):
        return {key: _frozen(f"{path}[{key!r}]", item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)([_frozen(f"{path}[{i}]", item) for i, item in enumerate(value)])
    if type(value) is Node or (isinstance(value, np.ndarray) and value.dtype.kind not in "biufc"):
        raise ScgTypeError(f"{path}: a program's arguments are arrays of numbers, got {value!r} ({here()})")
    if isinstance(value, np.ndarray):
        value = np.array(value)
        value.flags.writeable = False
    return value


def _is_floating(value: object) -> bool:
    kinds = {np.asarray(leaf).dtype.kind for _, leaf in leaves(value)}
    return kinds == {"f"}
