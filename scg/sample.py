"""Stochastic nodes: draws whose distributions depend on what we differentiate."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from scg.axes import AxisMap
from scg.distributions.base import Distribution, Shape, draw_noise
from scg.errors import ScgTypeError, ScgValueError, here
from scg.estimator import Estimator
from scg.graph import Node, frozen, primitive, record


@dataclass(frozen=True, eq=False, slots=True)
class Site:
    """How a stochastic node was declared."""

    distribution: Distribution
    estimator: Estimator
    rng: np.random.Generator
    shape: Shape
    name: str | None

    def __repr__(self) -> str:
        return f"{self.name or 'draw'} ~ {self.distribution!r} by {self.estimator!r}"


class _Held(AxisMap):
    """A draw stays what it was when its parameters are replaced; ``scg.sample`` knows how to draw it anew."""

    def lead(self, operands, batched, statics):  # type: ignore[no-untyped-def]
        return None


noise = primitive(lambda law, shape: law, name="noise")
"""A leaf: noise whose law has no parameters."""

draw = primitive(lambda *parameters, site, value, **label: value, _Held(), name="draw")
"""A draw that no gradient passes: what its estimator does with its parameters stands in the surrogate."""

path = primitive(lambda z, *parameters, site, **label: z, _Held(), every=lambda g, i, out, z, *p, site, **label: None if i else g, name="path")
"""A draw that is a differentiable function of its parameters and of noise: its first operand."""


def sample(
    distribution: Distribution, estimator: Estimator, *, rng: np.random.Generator, shape: int | Shape = (), name: str | None = None
) -> Node:
    """A stochastic node: a draw of ``shape + batch_shape + event_shape`` from ``distribution``, differentiated by ``estimator``.

    ``shape`` are leading axes of independent, identically distributed draws. ``rng`` is where the draw, and whatever else
    the estimator draws, comes from. ``name`` is how ``graph.stochastic`` and ``graph.bind`` know the node.

    Raises EstimatorError, here and not as a wrong number later, where the estimator is not valid for the distribution.
    """
    if not isinstance(distribution, Distribution):
        raise ScgTypeError(f"sample needs a distribution, got {type(distribution).__name__}: use scg.distributions ({here()})")
    if not isinstance(estimator, Estimator):
        hint = f"{estimator.__name__}()" if isinstance(estimator, type) else "scg.ScoreFunction(), scg.Reparameterized(), ..."
        raise ScgTypeError(f"sample needs an estimator, got {estimator!r}: write {hint} ({here()})")
    if not isinstance(rng, np.random.Generator):
        raise ScgTypeError(f"sample needs rng=np.random.default_rng(seed), got {type(rng).__name__} ({here()})")
    estimator.check(distribution, name or type(distribution).__name__)
    shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    return place(Site(distribution, estimator, rng, shape, name))


def place(site: Site) -> Node:
    """Draw a declared site and record it as a node."""
    value = site.estimator.draw(site.distribution, site.rng, site.shape)
    parameters = tuple(site.distribution.parameters.values())
    statics: dict[str, Any] = {"site": site} if site.name is None else {"site": site, "name": site.name}
    if type(value) is Node:
        return record(path, (value, *parameters), statics, value._value, 3)
    value = frozen(value) if isinstance(value, np.ndarray) else np.asarray(value)
    return record(draw, parameters, {**statics, "value": value}, value, 3)


def is_stochastic(node: Node) -> bool:
    """Whether a node is a draw."""
    return node.primitive is draw or node.primitive is path


def noise_node(law: Distribution, rng: np.random.Generator, shape: Shape, dtype: Any) -> Node:
    """Noise as a leaf of the graph, so that it can be replaced, redrawn, or integrated over."""
    return record(noise, (), {"law": law, "shape": shape}, draw_noise(law, rng, shape, dtype))
