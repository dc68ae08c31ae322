"""Stochastic nodes: samples whose distributions depend on what we differentiate."""

import functools
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from scg.core.aliases import Function, Operands, Result, Statics
from scg.core.ambient import RECORDER, WATCH
from scg.core.axes import AxisMap, broadcast_axes, labelled, padded
from scg.core.node import Node, record
from scg.core.operands import described, frozen
from scg.core.primitive import primitive, smooth_primitive
from scg.distributions.base import Distribution, Shape, draw_noise, writes
from scg.distributions.entry import sample_shape
from scg.errors import EstimatorError, ScgTypeError, ScgValueError, here
from scg.noise import Coupling
from scg.stochastic.bindings import override_of
from scg.stochastic.estimator import Accounted, Estimator
from scg.stochastic.tape import TAPE, Turn


@dataclass(frozen=True, eq=False, slots=True)
class Site:
    """How a stochastic node was declared."""

    distribution: Distribution
    estimator: Estimator
    rng: np.random.Generator
    shape: Shape  # the sample axes that were declared
    name: str | None
    replicate_axes: int = 0  # how many stand before them
    drawn: Shape | None = None  # axes that the distribution's parameters do not have; None: ``shape``
    coupling: Coupling | None = None  # of the noise along the first axis of ``shape``
    turn: Turn | None = None  # among the random numbers of the function that was run

    def unlinked(self) -> "Site":
        """The site without the nodes of its parameters, which stand among the operands of the sample; see
        ``scg.pickling``."""
        nodes = {name: np.zeros(()) for name, p in self.distribution.parameters.items() if type(p) is Node}
        return replace(self, distribution=self.distribution.replaced(**nodes))

    def linked(self, operands: Operands) -> "Site":
        """The inverse of ``unlinked``: the parameters are the last operands of the sample."""
        names = list(self.distribution.parameters)
        return replace(
            self,
            distribution=self.distribution.replaced(
                **dict(zip(names, operands[len(operands) - len(names) :], strict=True))
            ),
        )

    @property
    def event_ndim(self) -> int:
        """How many axes belong to one event."""
        return len(self.distribution.event_shape)

    def check_coupling(self, estimator: Estimator) -> None:
        """Raise EstimatorError where an estimator takes the samples for independent ones, and they are coupled."""
        if self.coupling is not None and not estimator.couples:
            label = self.name or type(self.distribution).__name__
            raise EstimatorError(
                f"{label}: {type(estimator).__name__} takes the samples along an axis for independent ones, and"
                f" coupling={self.coupling!r} makes them depend on one another; use Reparameterized(), or leave"
                f" coupling out ({here()})"
            )

    def drawing(self, shape: Shape) -> Function:
        """What the estimator draws a sample of a shape by: a function of (distribution, rng, shape)."""
        if self.coupling is None:
            return self.estimator.draw
        self.check_coupling(self.estimator)
        axis = len(shape) - len(self.shape)
        return functools.partial(self.estimator.draw_coupled, coupling=self.coupling, axis=axis)

    def __repr__(self) -> str:
        return f"{self.name or 'sample'} ~ {self.distribution!r} by {self.estimator!r}"


class _Drawn(AxisMap):
    """A sample depends on its parameters batch element by batch element, and mixes the axes of an event."""

    def lead(self, operands, batched, statics):  # type: ignore[no-untyped-def]
        """The value that is held, for every replicate of the parameters: value (3, 2), loc (R, 2) -> value (R, 3, 2),
        loc (R, 1, 2)."""
        value = statics.get("value")
        if value is None:
            return None
        size = operands[batched.index(True)].shape[0]
        value = np.broadcast_to(value, (size, *np.shape(value)))
        led, site = _led(statics["site"], operands, batched, size, value.ndim - 1)
        return led, {**statics, "site": site, "value": value}

    def align(self, shapes, out, statics):  # type: ignore[no-untyped-def]
        distribution = statics["site"].distribution
        split = len(out) - len(distribution.event_shape)
        result = labelled("out", out[:split]) + labelled("event", out[split:])
        ins = []
        for i, (shape, name) in enumerate(zip(shapes, distribution.parameters, strict=True)):
            batch = max(len(shape) - distribution.parameter_event_ndim(name), 0)
            ins.append(broadcast_axes(shape[:batch], out[:split]) + labelled(i, shape[batch:]))
        return result, tuple(ins)


def _led(site: Site, parameters: Operands, batched: Sequence[bool], size: int, ndim: int) -> tuple[Operands, Site]:
    """Parameters of which some have a replicate axis, in front of the batch of a sample of ``ndim`` axes, and the site
    with them."""
    events = map(site.distribution.parameter_event_ndim, site.distribution.parameters)
    rank = ndim - site.event_ndim
    led = tuple([padded(p, rank + event) if b else p for p, b, event in zip(parameters, batched, events, strict=True)])
    drawn = (size, *(site.shape if site.drawn is None else site.drawn))
    return led, replace(site.linked(led), replicate_axes=site.replicate_axes + 1, drawn=drawn)


class _Moved(AxisMap):
    """A pathwise sample is its first operand."""

    def lead(self, operands, batched, statics):  # type: ignore[no-untyped-def]
        """Parameters get their replicate axis in front of the batch; where they alone have it, the first operand is the
        same for all.

        Noise (3, 2), loc (R, 2) -> first operand (R, 3, 2), loc (R, 1, 2).
        """
        site, (z, *parameters) = statics["site"], operands
        size = operands[batched.index(True)].shape[0]
        z = z if batched[0] else np.broadcast_to(z, (size, *np.shape(z)))
        led, site = _led(site, parameters, batched[1:], size, z.ndim - 1)
        return (z, *led), {**statics, "site": site}

    def align(self, shapes, out, statics):  # type: ignore[no-untyped-def]
        return labelled("out", out), (labelled("out", out), *[labelled(i, shape) for i, shape in enumerate(shapes[1:])])


noise = primitive(
    lambda distribution, shape, **label: distribution,
    name="noise",
    random=True,
    into=lambda distribution, shape, rng, **label: lambda out: distribution.sample_into(rng(), shape, out),
)
"""A leaf: noise whose distribution has no parameters."""


def _refuse_unfit(site: Site, parameters: Operands) -> None:
    """Raise ScgValueError where a replay gives a sample parameters that its distribution would refuse."""
    site.distribution.replaced(**dict(zip(site.distribution.parameters, parameters, strict=True))).recheck()


def _held(*parameters: object, site: Site, value: Result, **label: object) -> Result:
    _refuse_unfit(site, parameters)
    return value


def _along_its_path(z: Result, *parameters: object, site: Site, **label: object) -> Result:
    _refuse_unfit(site, parameters)
    return z


def _draw_anew(*parameters: object, site: Site, rng: Function, **label: object) -> Result:
    """How a plan draws: with ``rng()``, the generator of the call."""
    names, shape = list(site.distribution.parameters), site.shape if site.drawn is None else site.drawn

    def call(*values: Result) -> None:
        distribution = site.distribution.replaced(**dict(zip(names, values[:-1], strict=True)))
        values[-1][...] = site.estimator.draw(distribution, rng(), shape)

    return call


draw = primitive(_held, _Drawn(), name="draw", random=True, into=_draw_anew)
"""A sample that no gradient passes: what its estimator does with its parameters stands in the surrogate."""

path = smooth_primitive(
    _along_its_path,
    _Moved(),
    every=lambda g, i, out, z, *p, site, **label: None if i else g,
    name="path",
    random=True,
    view=True,
)
"""A sample that is a differentiable function of its parameters and of noise: its first operand."""


class _Made(_Moved):
    """Element by element it is its first operand, and as a sample it depends on its parameters."""

    def align(self, shapes, out, statics):  # type: ignore[no-untyped-def]
        result, ins = _Drawn().align(shapes[1:], out, statics)
        return result, (result, *ins)


coupled = smooth_primitive(
    _along_its_path,
    _Made(),
    every=lambda g, i, out, z, *p, site, **label: None,
    name="coupled",
    random=True,
    view=True,
    same=True,
)
"""A sample that no gradient passes, made again from the randomness of another one: its first operand, on which it does
not depend as a random variable."""


def sample(
    distribution: Distribution,
    estimator: Estimator,
    *,
    rng: np.random.Generator,
    shape: int | Shape = (),
    name: str | None = None,
    coupling: Coupling | None = None,
) -> Node:
    """A stochastic node: a sample of ``shape + batch_shape + event_shape`` from ``distribution``, differentiated by
    ``estimator``.

    ``shape`` are leading axes of independent, identically distributed samples; with ``coupling``
    (``scg.noise.Sobol()``, ``Antithetic()``, ``Systematic()``) the noise of those along the first axis is coupled, each
    with the distribution that it has, so that their means vary less: for ``Reparameterized``. ``rng`` is where the
    sample, and whatever else the estimator draws, comes from. ``name`` is how ``graph.stochastic`` and ``graph.bind``
    know the node.

    Raises EstimatorError, here and not as a wrong number later, where the estimator is not valid for the distribution.
    """
    if not isinstance(distribution, Distribution):
        kind = isinstance(distribution, type) and issubclass(distribution, Distribution)
        got = f"the class {distribution.__name__}" if kind else described((distribution,))
        way = f"write {distribution.__name__}(...), with its parameters" if kind else "use scg.distributions"
        raise ScgTypeError(f"sample needs a distribution, got {got}: {way} ({here()})")
    distribution.require_checked()
    if not isinstance(estimator, Estimator):
        hint = (
            f"{estimator.__name__}()"
            if isinstance(estimator, type)
            else "scg.ScoreFunction(), scg.Reparameterized(), ..."
        )
        raise ScgTypeError(f"sample needs an estimator, got {estimator!r}: write {hint} ({here()})")
    if not isinstance(rng, np.random.Generator):
        raise ScgTypeError(f"sample needs rng=np.random.default_rng(seed), got {type(rng).__name__} ({here()})")
    if name is not None and not isinstance(name, str):
        raise ScgTypeError(f"sample: name must be a string, got {name!r} ({here()})")
    estimator.check(distribution, name or type(distribution).__name__)
    override = None if type(estimator) is Accounted else override_of(name, distribution)
    if override is not None:
        override.check(distribution, name or "")
        estimator = override
    shape = sample_shape(shape, "sample")
    if coupling is not None and not isinstance(coupling, Coupling):
        raise ScgTypeError(
            f"sample: coupling must be None or a coupling of scg.noise, such as Sobol(), got {coupling!r} ({here()})"
        )
    if coupling is not None and not shape:
        raise ScgValueError(
            f"sample: coupling={coupling!r} couples samples along an axis, and there is none: give shape=n ({here()})"
        )
    site = Site(distribution, estimator, rng, shape, name, coupling=coupling)
    site.check_coupling(estimator)
    return place(site)


def place(site: Site, value: Result = None) -> Node:
    """Draw a declared site, unless a ``value`` is given, and record it as a node."""
    watch, tape = WATCH.get(), TAPE.get()
    if tape is not None and site.turn is None:
        site = replace(site, turn=tape.turn(site.name or type(site.distribution).__name__))
        value = None if tape.chosen is None else tape.chosen.draw(site)
        if type(value) is Node:
            return value
    return _place(site, value) if watch is None else watch.draw(site.rng, _place, site, value)


def _place(site: Site, value: Result = None) -> Node:
    shape, recorder = site.shape if site.drawn is None else site.drawn, RECORDER.get()
    if value is not None:  # it is chosen
        pass
    elif recorder is None:
        value = site.drawing(shape)(site.distribution, site.rng, shape)
    else:
        value = recorder.placed(site.drawing(shape), site.distribution, site.rng, shape)
    parameters = tuple(site.distribution.parameters.values())
    statics: Statics = {"site": site} if site.name is None else {"site": site, "name": site.name}
    if type(value) is Node:
        return record(path, (value, *parameters), statics, value.raw, 3)
    value = frozen(value) if isinstance(value, np.ndarray) else np.asarray(value)
    node = record(draw, parameters, {**statics, "value": value}, value, 3)
    return node if recorder is None else recorder.drawn(node, site.rng)


def drawn(site: Site, out: np.ndarray | None = None) -> np.ndarray:
    """The value of a declared site that nobody records: ``out``, where it can be written there."""
    watch = WATCH.get()
    value = _drawn(site, out) if watch is None else watch.draw(site.rng, _drawn, site, out)
    if value is out and out is not None:
        return out
    alone = isinstance(value, np.ndarray) and value.base is None and sys.getrefcount(value) == 2
    return value if alone else np.array(value)  # somebody else may write to it


def _drawn(site: Site, out: np.ndarray | None) -> np.ndarray:
    shape = site.shape if site.drawn is None else site.drawn
    if out is not None and type(site.estimator).draw is Estimator.draw and writes(site.distribution):
        site.distribution.sample_into(site.rng, shape, out)
        return out
    value = site.estimator.draw(site.distribution, site.rng, shape)
    return value.raw if type(value) is Node else value


def is_stochastic(node: Node) -> bool:
    """Whether a node is a sample."""
    return node.primitive in (draw, path, coupled)


def is_draw(node: Node) -> bool:
    """Whether a node is a sample that no gradient passes, drawn from its distribution."""
    return node.primitive is draw


def is_coupled(node: Node) -> bool:
    """Whether a node is a sample that no gradient passes, made again from the randomness of another one."""
    return node.primitive is coupled


def is_path(node: Node) -> bool:
    """Whether a node is a sample that is a differentiable function of noise and parameters."""
    return node.primitive is path


def turn_of(node: Node) -> Turn | None:
    """The turn of noise, or of a sample that no gradient passes, in the run of its function."""
    if is_noise(node):
        turn: Turn | None = node.statics.get("turn")
        return turn
    return node.statics["site"].turn if is_draw(node) else None


def is_noise(node: Node) -> bool:
    """Whether a node is noise, a leaf whose distribution has no parameters."""
    return node.primitive is noise


def noise_node(
    distribution: Distribution, rng: np.random.Generator, shape: Shape, dtype: np.dtype, turn: Turn | None = None
) -> Node:
    """Noise as a leaf of the graph, so that it can be replaced, redrawn, or integrated over; with the ``turn`` of that
    in whose place it stands."""
    watch = WATCH.get()
    return (
        _noise(distribution, rng, shape, dtype, turn)
        if watch is None
        else watch.draw(rng, _noise, distribution, rng, shape, dtype, turn)
    )


def drawn_noise(
    distribution: Distribution, rng: np.random.Generator, shape: Shape, dtype: np.dtype, out: np.ndarray | None = None
) -> Result:
    """Noise that nobody records: ``out``, where it can be written there."""
    watch = WATCH.get()
    given = (distribution, rng, shape, dtype, out)
    return _drawn_noise(*given) if watch is None else watch.draw(rng, _drawn_noise, *given)


def _drawn_noise(
    distribution: Distribution, rng: np.random.Generator, shape: Shape, dtype: np.dtype, out: np.ndarray | None
) -> Result:
    if out is None or not writes(distribution):
        return draw_noise(distribution, rng, shape, dtype)
    distribution.sample_into(rng, shape, out)
    return out


def _noise(
    distribution: Distribution, rng: np.random.Generator, shape: Shape, dtype: np.dtype, turn: Turn | None
) -> Node:
    recorder, tape = RECORDER.get(), TAPE.get()
    value: Node | np.ndarray | None = None
    if tape is not None and turn is None:
        turn = tape.turn(type(distribution).__name__)
        value = None if tape.chosen is None else tape.chosen.noise(distribution, shape, turn)
        if type(value) is Node:
            return value
    statics: Statics = {"distribution": distribution, "shape": shape}
    if turn is not None:
        statics["turn"] = turn
    if value is None:  # it is not chosen
        value = draw_noise(distribution, rng if recorder is None else recorder.generator(rng), shape, dtype)
    node = record(noise, (), statics, value)
    return node if recorder is None else recorder.drawn(node, rng)
