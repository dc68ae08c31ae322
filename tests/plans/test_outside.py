"""What a compiled function looks up outside its arguments: another value there is another plan; what no plan can know
is refused with its line."""

import array
import contextlib
import contextvars
import cProfile
import datetime
import functools
import itertools
import os
import random
import sys
import time
import types
import warnings
from collections import ChainMap, UserList

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scg
from scg.errors import PlanError
from tests.support.compiled import agree
from tests.support.drawn import drawn

SCALE, TABLE, NAMES = 1.0, {"a": 1.0, "b": [2.0, 3.0]}, ["a"]
X = np.linspace(-1.0, 1.0, 5)


class Base:
    shift = 0.5


class Model(Base):
    factor = 2.0

    def __init__(self):
        self.rate, self.weights, self.parts, self.inner = (
            1.0,
            np.ones(5),
            [1.0, (2.0, 3.0)],
            types.SimpleNamespace(depth=2.0),
        )

    @property
    def twice(self):
        return 2 * self.rate

    def term(self, x):
        return np.sum(x * self.weights) * self.twice

    def __call__(self, x):
        return np.sum(x) * self.shift


class Slotted:
    __slots__ = ("level",)

    def __init__(self):
        self.level = 1.0


class Maker(type):
    width = 1.0


class Made(metaclass=Maker):
    pass


def helper(x, by=2.0):
    return np.sum(x**2) * SCALE * by


def set_global(name, value):
    globals()[name] = value


def _places():
    """(a term of a function, what changes the place that it looks up), on state of its own."""
    model, slotted, data, hyper, schedule = (
        Model(),
        Slotted(),
        np.arange(5.0),
        {"rate": 1.0},
        [lambda t: 1.0 / (1 + t), 0],
    )
    beta, fn, swap = 1.0, np.sum, {"f": np.exp}
    layers, user, numbers = ChainMap({"rate": 1.0}), UserList([1.0]), array.array("d", [1.0, 2.0])
    octets, view, objects = bytearray(b"ab"), memoryview(bytearray(b"ab")), np.array([1.0, None], object)

    def set_beta(v):
        nonlocal beta
        beta = v

    def set_fn(v):
        nonlocal fn
        fn = (np.sum, np.mean, np.max)[int(v) % 3]

    return {
        "global": (lambda x: np.sum(x) * SCALE, lambda v: set_global("SCALE", v)),
        "global of a helper": (lambda x: helper(x), lambda v: set_global("SCALE", v)),
        "closure": (lambda x: np.sum(x) * beta, set_beta),
        "function of a closure": (lambda x: fn(x), set_fn),
        "attribute": (lambda x: np.sum(x) * model.rate, lambda v: setattr(model, "rate", v)),
        "property": (model.term, lambda v: setattr(model, "rate", v)),
        "array rebound": (model.term, lambda v: setattr(model, "weights", np.full(5, v))),
        "array in place": (model.term, lambda v: model.weights.fill(v)),
        "class attribute": (lambda x: np.sum(x) * Model.factor, lambda v: setattr(Model, "factor", v)),
        "attribute of a base class": (model, lambda v: setattr(Base, "shift", v)),
        "instance over class": (lambda x: np.sum(x) * model.factor, lambda v: setattr(model, "factor", v)),
        "nested attribute": (lambda x: np.sum(x) * model.inner.depth, lambda v: setattr(model.inner, "depth", v)),
        "element of a list": (lambda x: np.sum(x) * model.parts[0], lambda v: model.parts.__setitem__(0, v)),
        "length of a list": (lambda x: np.sum(x) * len(model.parts), lambda v: model.parts.append(v)),
        "slot": (lambda x: np.sum(x) * slotted.level, lambda v: setattr(slotted, "level", v)),
        "entry": (lambda x: np.sum(x) * hyper["rate"], lambda v: hyper.update(rate=v)),
        "new entry": (lambda x: np.sum(x) * hyper.get("decay", 1.0), lambda v: hyper.update(decay=v)),
        "nested entry": (lambda x: np.sum(x) * TABLE["b"][1], lambda v: TABLE["b"].__setitem__(1, v)),
        "name that is computed": (
            lambda x: np.sum(x) * getattr(model, "ra" + "te"),
            lambda v: setattr(model, "rate", v),
        ),
        "attribute that may be there": (
            lambda x: np.sum(x) * getattr(model, "extra", 1.0),
            lambda v: setattr(model, "extra", v),
        ),
        "attribute that may be missing": (
            lambda x: np.sum(x) * (model.more if hasattr(model, "more") else 1.0),
            lambda v: setattr(model, "more", v),
        ),
        "schedule in a list": (lambda x: np.sum(x) * schedule[0](schedule[1]), lambda v: schedule.__setitem__(1, v)),
        "function in a dict": (
            lambda x: np.sum(swap["f"](x)),
            lambda v: swap.update(f=(np.exp, np.sin, np.cos)[int(v) % 3]),
        ),
        "default": (functools.partial(lambda x, m: np.sum(x) * m.rate, m=model), lambda v: setattr(model, "rate", v)),
        "array that NumPy alone computes with": (lambda x: np.sum(x) * np.max(data), lambda v: data.fill(v)),
        "array given to nodes": (lambda x: np.sum(x * data), lambda v: data.fill(v)),
        "chain of dicts": (lambda x: np.sum(x) * layers["rate"], lambda v: layers.update(rate=v)),
        "list of a user's kind": (lambda x: np.sum(x) * user[0], lambda v: user.__setitem__(0, v)),
        "array of Python's own": (lambda x: np.sum(x) * numbers[0], lambda v: numbers.__setitem__(0, v)),
        "bytes": (lambda x: np.sum(x) * octets[0], lambda v: octets.__setitem__(0, int(v))),
        "view of bytes": (lambda x: np.sum(x) * view[0], lambda v: view.__setitem__(0, int(v))),
        "array of objects": (lambda x: np.sum(x) * objects[0], lambda v: objects.__setitem__(0, v)),
        "metaclass": (lambda x: np.sum(x) * Made.width, lambda v: setattr(Maker, "width", v)),
        "global by its name": (lambda x: np.sum(x) * globals()["SCALE"], lambda v: set_global("SCALE", v)),
        "missing key": (lambda x: np.sum(x) * _or_one(TABLE, "c"), lambda v: TABLE.update(c=v)),
        "comprehension": (
            lambda x: sum([np.sum(x) * part for part in model.parts if isinstance(part, float)]),
            lambda v: model.parts.append(v),
        ),
    }


def _or_one(table, key):
    try:
        return table[key]
    except KeyError:
        return 1.0


@pytest.fixture(autouse=True)
def _restored():
    before = SCALE, dict(TABLE, b=list(TABLE["b"])), Model.factor, Base.shift
    Maker.width = 1.0
    yield
    set_global("SCALE", before[0])
    TABLE.clear()
    TABLE.update(before[1])
    Model.factor, Base.shift = before[2:]


@pytest.mark.parametrize("name", _places())
def test_another_value_there_is_another_plan(name):
    fn, change = _places()[name]
    for plain in (fn, scg.value_and_grad(fn), lambda x: fn(x)):
        compiled = scg.compile(plain)
        for value in (3.0, 5.0, 5.0, 7.0):
            for k in range(2):
                agree(compiled(X + k), plain(X + k), f"{name} = {value}")
            change(value)
        agree(compiled(X), plain(X), name)
        assert compiled.plainly == 0 and 1 <= compiled.recorded <= 5
        count = compiled.recorded
        agree(compiled(X), plain(X), name)
        assert compiled.recorded == count  # the same again: the plan holds


@drawn(60)
@given(st.data())
def test_functions_of_several_places_in_any_order_of_changes(data):
    places = _places()
    chosen = data.draw(st.lists(st.sampled_from(sorted(places)), min_size=1, max_size=4, unique=True))
    terms = [places[name] for name in chosen]
    plain = lambda x: sum([term(x) for term, _ in terms])
    plain = scg.value_and_grad(plain) if data.draw(st.booleans()) else plain
    compiled = scg.compile(plain)
    for _ in range(data.draw(st.integers(2, 6))):
        x = X * data.draw(st.sampled_from([1.0, -2.0]))
        agree(compiled(x), plain(x), f"{chosen}")
        if data.draw(st.booleans()):
            data.draw(st.sampled_from(terms))[1](data.draw(st.sampled_from([1.0, 2.5, 4.0])))
    assert compiled.plainly == 0 and compiled.recorded >= 1


def test_unrelated_changes_keep_the_plan():
    model = Model()
    compiled = scg.compile(model.term)
    for k in range(6):
        agree(compiled(X), model.term(X), "term")
        model.loss, model.inner.depth, Model.factor = float(k), float(k), float(k)
        model.rate = float(str(model.rate))  # an equal number
        set_global("SCALE", float(k))
    assert compiled.recorded == 1 and compiled.plainly == 0


def test_a_schedule_that_changes_in_each_call_runs_plainly_after_a_while_and_says_so():
    model = Model()
    plain = lambda x: np.sum(x) * model.rate
    compiled = scg.compile(plain)
    with pytest.warns(RuntimeWarning, match="runs plainly from now on: .*rate"):
        for k in range(20):
            model.rate = 1.0 / (1 + k)
            agree(compiled(X), plain(X), f"call {k}")
    assert compiled.recorded < 12


def test_equal_numbers_of_other_kinds_are_told_apart():
    hyper = {"a": 0.0}
    plain = lambda x: np.sum(np.arctan2(x * 0, hyper["a"]))
    compiled = scg.compile(plain)
    for value in (0.0, -0.0, 0, float("nan"), float("nan"), np.float32(0), False):
        hyper["a"] = value
        agree(compiled(X), plain(X), repr(value))
    assert compiled.recorded == 6


# what a function changes


def _counts(model):
    def fn(x):
        model.rate += 1.0
        return np.sum(x) * model.rate

    return fn


def _appends(model):
    def fn(x):
        model.parts.append(1.0)
        return np.sum(x)

    return fn


def _fills(model):
    def fn(x):
        model.weights[0] += 1.0
        return np.sum(x) * np.sum(model.weights)

    return fn


def _keeps(model):
    def fn(x):
        model.last = x * 2
        return np.sum(model.last)

    return fn


def _rebinds(model):
    count = 0

    def fn(x):
        nonlocal count
        count += 1
        return np.sum(x) * count

    return fn


def _moves_on(model):
    steps = itertools.count()
    return lambda x: np.sum(x) * next(steps)


def _notes_on_itself(model):
    def fn(x):
        fn.calls = getattr(fn, "calls", 0) + 1
        return np.sum(x) * fn.calls

    return fn


def _notes_on_a_wrapper(model):
    @contextlib.contextmanager
    def counted():
        counted.calls = getattr(counted, "calls", 0) + 1
        yield counted.calls

    def fn(x):
        with counted() as calls:
            return np.sum(x) * calls

    return fn


@pytest.mark.parametrize(
    "make", [_counts, _appends, _fills, _keeps, _rebinds, _moves_on, _notes_on_itself, _notes_on_a_wrapper]
)
def test_a_function_that_changes_what_is_outside_is_refused_and_leaves_it(make):
    model = Model()
    fn = make(model)
    before = repr(vars(model))
    with pytest.raises(PlanError, match=r"outside itself|iterator"):
        scg.compile(fn)(X)
    if make is not _moves_on:
        assert repr(vars(model)) == before
    model = Model()
    plain, other = make(model), scg.compile(make(Model()), fallback=True)
    if make is not _moves_on:
        for _ in range(3):
            agree(other(X), plain(X), "as if it ran plainly")


def test_what_is_filled_once_is_planned():
    class Lazy:
        table = None
        calls = 0

        def term(self, x):
            if self.table is None:
                self.table = np.arange(5.0)
            return np.sum(x * self.table) + self.size

        @functools.cached_property
        def size(self):
            return float(len(self.table))

    lazy, plain = Lazy(), Lazy()
    compiled = scg.compile(lazy.term)
    for k in range(3):
        agree(compiled(X + k), plain.term(X + k), "lazy")
    assert compiled.recorded == 1 and compiled.plainly == 0 and lazy.table is not None


@pytest.mark.parametrize(
    "fn",
    [
        lambda a: a.__iadd__(1.0).sum(),
        lambda a: np.sum(a[1:].__imul__(2.0)),
        lambda a: np.sum(a.reshape(-1).__isub__(a)),
        lambda a: np.sum(a.T.__ipow__(2)),
    ],
)
def test_arguments_changed_in_place_are_refused(fn):
    x = np.ones(3)
    with pytest.raises(PlanError, match="argument in place"):
        scg.compile(fn)(x)
    np.testing.assert_array_equal(x, 1)
    computed = scg.compile(lambda a: np.sum((a * 2).__iadd__(1.0)))
    assert computed(x) == 9 and computed.recorded == 1


@pytest.mark.parametrize(
    "made",
    [
        lambda a: a * 2,
        np.cumsum,
        lambda a: np.where(a > 0, a, 0.5),
        lambda a: np.concatenate([a, a]),
        lambda a: scg.special.softmax(a, -1),
        lambda a: a @ np.ones((3, 2)),
        lambda a: np.sum(np.outer(a, a), axis=0),
        lambda a: np.linalg.inv(np.diag(a)),
    ],
)
def test_what_a_function_computed_it_may_change_in_place(made):
    """What a plan keeps of a function's nodes sees no change: who records is nobody else."""

    def fn(a):
        x = made(a)
        x += 1.0
        x /= np.sum(x)
        return np.sum(x * x)

    x = np.array([0.5, 2.0, 3.0])
    for f in (fn, scg.value_and_grad(fn)):
        compiled = scg.compile(f)
        for k in range(3):
            agree(compiled(x + k), f(x + k), "in place", 2**6)
        assert compiled.recorded == 1 and compiled.plainly == 0


# what answers otherwise each time


def _first_line():
    with open(__file__) as file:
        return file.readline()


VARIABLE = contextvars.ContextVar("v", default=1.0)
ANEW = {
    "random": lambda x: np.sum(x) * random.random(),
    "gauss": lambda x: np.sum(x) * random.gauss(0.0, 1.0),
    "own random": lambda x, own=random.Random(0): np.sum(x) * own.uniform(0.0, 1.0),
    "system random": lambda x: np.sum(x) * random.SystemRandom().random(),
    "entropy": lambda x: np.sum(x) * np.random.default_rng().random(),
    "time": lambda x: np.sum(x) * time.time(),
    "counter": lambda x: np.sum(x) * time.perf_counter_ns(),
    "now": lambda x: np.sum(x) * datetime.datetime.now().microsecond,
    "context": lambda x: np.sum(x) * VARIABLE.get(),
    "environment": lambda x: np.sum(x) * len(os.environ.get("HOME", "")),
    "file": lambda x: np.sum(x) * len(_first_line()),
}


@pytest.mark.parametrize("name", ANEW)
def test_what_answers_otherwise_each_time_is_refused_with_its_line(name):
    for fn in (ANEW[name], scg.value_and_grad(ANEW[name])):
        with pytest.raises(PlanError, match="test_outside.py:"):
            scg.compile(fn)(X)


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: np.sum(x) * len(f"{x[0]:.3f}"),
        lambda x: np.sum(x) * len(str(np.max(x))),
        lambda x: np.sum(x) * len(repr(x)),
        lambda x: np.sum(x) * len(f"{x}"),
        lambda x: {1: 2.0}.get(np.argmax(x), 3.0) * np.sum(x),
        lambda x: np.sum(x) * (np.argmin(x) in {0, 1}),
    ],
)
def test_values_that_would_leave_as_text_or_as_a_key_are_refused(fn):
    with pytest.raises(PlanError, match="test_outside.py:"):
        scg.compile(fn)(X)


def test_an_error_of_the_function_keeps_its_text():
    def fn(x):
        if x[0] > 0:
            raise ValueError(f"diverged: {x[0]:.2f}")
        return np.sum(x)

    compiled = scg.compile(fn)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"diverged: 2\.00"):
            compiled(np.full(2, 2.0))
    assert compiled(-np.ones(2)) == -2 and compiled.recorded == 1


# errors within


def _or_five(a):
    try:
        return np.sum(np.linalg.inv(a))
    except np.linalg.LinAlgError:
        return np.sum(a) + 5.0


def _is_definite(a):
    try:
        np.linalg.cholesky(a)
    except np.linalg.LinAlgError:
        return -np.sum(a)
    return np.sum(a)


def _next(a):
    try:
        return a[0][np.argmax(a[0]) + 1] * 2
    except IndexError:
        return a[0][0] * 2


def _positive(a):
    return np.sum(a) * len(a[a > 0])


def _elements(a):
    return np.sum(a) * np.nonzero(a)[0].size + np.extract(a > 0.5, a).shape[0]


POINTS = [
    np.eye(2),
    2 * np.eye(2),
    np.zeros((2, 2)),
    np.array([[0.0, 1.0], [1.0, 0.0]]),
    np.array([[-1.0, 0.5], [0.0, 3.0]]),
    np.eye(2),
]


@pytest.mark.parametrize("fn", [_or_five, _is_definite, _next, _positive, _elements])
def test_errors_that_are_caught_and_shapes_that_depend_on_values(fn):
    for first in range(len(POINTS)):
        compiled, planned = scg.compile(fn), 0
        for a in POINTS[first:] + POINTS[:first]:
            try:
                found = compiled(a)
            except PlanError as error:
                assert "catches an error" in str(error) and "test_outside.py:" in str(error)
                continue
            planned += 1
            agree(found, fn(a), fn.__name__)
        assert planned >= 3 and compiled.recorded >= 1


def test_an_error_of_a_place_is_no_matter_of_the_arguments():
    compiled = scg.compile(lambda x: np.sum(x) * _or_one(TABLE, "none"))
    assert compiled(np.ones(3)) == 3 and compiled.recorded == 1


def test_errstate_within_is_refused_where_it_asks_for_errors():
    def loud(a):
        with np.errstate(all="raise"):
            return np.sum(np.log(a))

    def quiet(a):
        with np.errstate(all="ignore"):
            return np.sum(np.log(a))

    with pytest.raises(PlanError, match="errstate"):
        scg.compile(loud)(np.ones(2))
    with pytest.raises(FloatingPointError):
        scg.compile(loud, fallback=True)(np.zeros(2))
    compiled = scg.compile(quiet)
    assert compiled(np.ones(2)) == 0 and compiled(np.zeros(2)) == -np.inf and compiled.recorded == 1


@pytest.mark.parametrize("how", ["error", "always"])
def test_a_filter_of_warnings_within_is_refused_where_it_shows_them(how):
    def loud(a):
        with warnings.catch_warnings(record=how == "always") as caught:
            warnings.simplefilter(how)
            try:
                value = np.sum(np.log(a))
            except RuntimeWarning:
                return -7.0
            return -7.0 if caught else value

    def quiet(a):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.sum(np.log(a))

    with pytest.raises(PlanError, match="warnings"):
        scg.compile(loud)(np.ones(2))
    assert scg.compile(loud, fallback=True)(np.zeros(2)) == -7
    compiled = scg.compile(quiet)
    assert compiled(np.ones(2)) == 0 and compiled(np.zeros(2)) == -np.inf and compiled.recorded == 1


def test_a_fault_of_a_plan_is_not_hidden():
    compiled = scg.compile(lambda x: np.sum(np.sin(x)))
    compiled(X)
    (((plan,), _),) = compiled._plans.values()
    plan.call = lambda *given: {}["fault"]
    with pytest.raises(KeyError, match="fault"):
        compiled(X)


# optimizers


def _steps(make, schedule, calls=5):
    """Parameters and state after some calls, plainly and compiled, and the compiled step."""
    found = []
    for compile in (lambda f: f, scg.compile):
        params = {"w": np.linspace(0.5, 1.5, 3)}
        optimizer = make(params)
        gradient = scg.value_and_grad(lambda p, x: np.sum(p["w"] ** 2 * x))
        step = compile(schedule(optimizer, gradient))
        values = [step(params, np.ones(3), np.float32(0.1 / 10**k)) for k in range(calls)]
        found.append(([values, params, optimizer.state, vars(optimizer).get("momentum", 0.0)], step))
    (plain, _), (compiled, step) = found
    agree(compiled, plain, "steps", 2**6)
    return step


def _by_rate(optimizer, gradient):
    def step(params, x, rate):
        optimizer.learning_rate = rate
        value, g = gradient(params, x)
        optimizer.step(g)
        return value

    return step


def _by_a_computed_rate(optimizer, gradient):
    def step(params, x, rate):
        value, g = gradient(params, x)
        optimizer.learning_rate = np.minimum(rate * 3, 0.2) / (1 + np.sum(x))
        optimizer.step(g)
        optimizer.learning_rate = 0.25
        return value

    return step


def _by_momentum(optimizer, gradient):
    def step(params, x, rate):
        optimizer.momentum = rate * 2
        value, g = gradient(params, x)
        optimizer.step(g)
        return value

    return step


@pytest.mark.parametrize("make", [lambda p: scg.optim.SGD(p, 0.1, momentum=0.5), lambda p: scg.optim.Adam(p, 0.1)])
@pytest.mark.parametrize("schedule", [_by_rate, _by_a_computed_rate, _by_momentum])
def test_each_step_has_the_rate_that_it_is_given(make, schedule):
    step = _steps(make, schedule)
    assert step.recorded == 1 and step.plainly == 0


def test_a_rate_that_is_refused_is_refused_as_plainly_and_leaves_the_parameters():
    params = {"w": np.ones(3)}
    optimizer = scg.optim.SGD(params, 0.1)
    step = scg.compile(_by_rate(optimizer, scg.value_and_grad(lambda p, x: np.sum(p["w"] ** 2 * x))))
    step(params, np.ones(3), np.float64(0.1))
    before = params["w"].copy()
    with pytest.raises(scg.ScgError, match="learning_rate"):
        step(params, np.ones(3), np.float64(-1.0))
    np.testing.assert_array_equal(params["w"], before)
    assert optimizer.steps == 1


def test_a_rate_that_decays_and_one_by_the_count_of_steps():
    def decays(optimizer, gradient):
        def step(params, x, rate):
            value, g = gradient(params, x)
            optimizer.step(g)
            optimizer.learning_rate = rate
            optimizer.learning_rate = optimizer.learning_rate * 0.5
            optimizer.step(g)
            return value

        return step

    def by_count(optimizer, gradient):
        def step(params, x, rate):
            optimizer.learning_rate = 0.1 / (1 + optimizer.steps)
            value, g = gradient(params, x)
            optimizer.step(g)
            return value

        return step

    for schedule in (by_count, decays):
        _steps(lambda p: scg.optim.SGD(p, 0.1), schedule, calls=4)


def test_what_a_plan_would_keep_from_one_call_is_refused():
    params = {"w": np.ones(3)}
    optimizer = scg.optim.SGD(params, 0.1)
    state = optimizer.state

    def makes(x):
        return np.sum(x) * scg.optim.SGD(params, 0.1).learning_rate

    def restores(x):
        optimizer.state = state
        return np.sum(x)

    def averages(x):
        return np.sum(x * scg.optim.Average(params, 0.9).params["w"])

    for fn in (makes, restores, averages):
        with pytest.raises(PlanError, match=r"outside"):
            scg.compile(fn)(np.ones(3))


# who else watches


def test_profilers_and_tracers_are_as_they_were():
    seen = []

    def profile(frame, event, arg):
        seen.append(event)

    compiled = scg.compile(lambda x: np.sum(np.sin(x)))
    sys.setprofile(profile)
    try:
        compiled(X)
        assert sys.getprofile() is profile
    finally:
        sys.setprofile(None)
    profiler, other = cProfile.Profile(), scg.compile(lambda x: np.sum(np.cos(x)))
    profiler.enable()
    found = other(X)
    profiler.disable()
    agree(found, np.sum(np.cos(X)), "profiled")
    assert profiler.getstats()
    with pytest.raises(PlanError):
        scg.compile(ANEW["time"])(X)
    assert sys.getprofile() is None


@pytest.mark.parametrize(
    "options",
    [
        {"capacity": -1},
        {"capacity": 0},
        {"capacity": None},
        {"capacity": 2.0},
        {"capacity": True},
        {"without": "sofplus"},
        {"without": 7},
        {"without": ["fold", "x"]},
        {"threads": 0},
        {"threads": "2"},
    ],
)
def test_options_are_looked_at_before_anything_runs(options):
    with pytest.raises(PlanError, match=next(iter(options))):
        scg.compile(lambda x: np.sum(x), **options)


@pytest.mark.parametrize(
    "fn",
    [
        lambda a: np.sum(a) * a.strides[0],
        lambda a: np.zeros(3).__setitem__(0, a[0]),
        lambda a: np.sum(a) * {0.0: 1.0}[a[0]],
    ],
)
def test_what_only_arrays_have_is_refused(fn):
    with pytest.raises(PlanError):
        scg.compile(fn)(np.zeros(3))


def test_numbers_as_keys_are_refused_and_python_numbers_are_not():
    compiled = scg.compile(lambda a, k: np.sum(a) * {0: 1.0, 1: 2.0}[k])
    with pytest.raises(PlanError, match="looked up in a dict"):
        compiled(X, np.int64(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compiled(np.ones(2), 1) == 4 and compiled(np.ones(2), 0) == 2 and compiled.recorded == 2


HELD = np.arange(1.0, 7.0)
BESIDE = {  # of an array that nodes take, what NumPy alone makes beside
    "a number": lambda h: lambda x: np.sum(x * h) * float(np.mean(h)),
    "a scalar": lambda h: lambda x: np.sum(x * h) / np.max(h),
    "an array": lambda h: lambda x: np.sum(x * h) + np.sum(x * h**2),
    "another array, first": lambda h: lambda x: np.sum(x * np.sort(h)[::-1]) * np.sum(x - h),
    "of a view": lambda h: (
        lambda x: np.sum(x[: len(h) // 2] * h[: len(h) // 2]) + np.sum(x[::2] * np.exp(-h[len(h) // 2 :]))
    ),
    "of other elements": lambda h: (lambda v: lambda x: np.sum(x[::2] * v) + np.sum(x[1::2] * np.exp(-v)))(h[::2]),
    "in a dict": lambda h: (lambda d: lambda x: np.sum(x * d["h"]) * np.linalg.norm(d["h"]))({"h": h}),
    "a gradient": lambda h: scg.grad(lambda x: np.sum(x * h) * np.sum(x**2 * (h / h.sum()))),
    "a mask": lambda h: lambda x: np.sum(x[h > 2]) if np.sum(h > 2) else np.sum(x * h),
    "an index": lambda h: lambda x: np.sum(x * h) * x[int(np.argmax(h)) + 0],
}


@pytest.mark.parametrize("size", [6, 6000])
@pytest.mark.parametrize("name", BESIDE)
def test_what_numpy_makes_of_an_array_that_nodes_take_follows_its_changes(name, size):
    held, x = np.resize(HELD, size), np.linspace(0.5, 2, size)
    fn = BESIDE[name](held)
    compiled = scg.compile(fn)
    for _ in range(4):
        for _ in range(2):
            np.testing.assert_allclose(compiled(x), fn(x), 1e-12)
        held *= 1.5
        held[:] = held[::-1].copy() - 0.25


def test_an_array_of_which_nothing_is_made_is_watched_for_a_few_changes_only():
    """A buffer that is filled anew for each call, beside constants of the function's own."""
    buffer, rng = np.ones((4, 3)), np.random.default_rng(0)
    fn = lambda x: np.sum((buffer @ x * np.sqrt(np.arange(1.0, 5.0))) ** 2)
    compiled = scg.compile(scg.value_and_grad(fn))
    for _ in range(20):
        x = rng.standard_normal(3)
        for found, right in zip(compiled(x), scg.value_and_grad(fn)(x), strict=True):
            np.testing.assert_allclose(found, right, 1e-12)
        buffer[...] = rng.standard_normal((4, 3))
    assert compiled.recorded == 4 and compiled.planned == 20
