"""What a gradient estimator is: what one stochastic node adds to the surrogate loss, and what it claims."""

import functools
from abc import ABC
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, final

import numpy as np

from scg.core.aliases import State
from scg.core.ambient import RECORDER, settled
from scg.core.leaves import parameter
from scg.core.node import Node, Value
from scg.distributions.base import Distribution, FixedSupport
from scg.errors import EstimatorError, ScgTypeError, here
from scg.noise import Coupling

if TYPE_CHECKING:  # what stands above
    from scg.stochastic.surrogate import Downstream


def _owner(kind: type, name: str) -> int:
    """Which of the classes that a class is made of, itself the first, has an attribute."""
    return next(i for i, one in enumerate(kind.__mro__) if name in vars(one))


_UNRESOLVED = 3e-3
"""Of the samples: where more are rounded to an end, the mean of a score is off by some percent."""


class Estimator(ABC):
    """The method by which a gradient passes a stochastic node. Claims are class attributes, and the tests read them.

    ``unbiased``  whether the mean of the gradient is the gradient of the mean, exactly
    ``requires``  capabilities (types) that the node's distribution must have
    ``offered``   the place, from 1, among the estimators that are named where another one is refused; None, and so for
                  what a subclass does not say of itself: never named. It is made without arguments.
    ``keeps_distribution``
                  whether the value of the node is a sample of its distribution; False where a discrete sample is
                  relaxed to a continuous one
    ``continuous``
                  whether the estimator takes the derivative of the cost by the sample: the cost must then be
                  continuous in it, for a discrete sample also between its values
    ``partner``   whether the sample is compared with a partner that is drawn given it
    ``scores``    whether the node's log-probability enters a surrogate of higher order, times the costs that the sample
                  can have influenced; ``expand`` has the first

    ``coupled``   whether samples further down are made again elsewhere from the randomness of those that are there: for
                  formulas of which every term has the cost, or its slope, at one value alone as a factor; see
                  ``Elsewhere``
    ``joint``     whether the samples with this class of estimator are expanded together, by ``expand_together``, but in
                  replicates of another estimator each alone, by ``expand``; they have first derivatives only
    ``second_derivatives``
                  whether the estimate may be differentiated again: whether its formula is made of nodes throughout, in
                  which a score s enters as box(s) - 1. It is refused where that is False, and where a class overrides
                  ``expand`` and does not say; the refusal names the estimators that can be

    ``couples``   whether samples along an axis may have noise that is coupled: whether the formula holds for each of
                  them alone, whatever the others are

    A subclass overrides ``objection`` where ``requires`` does not say all, ``draw`` where the gradient flows through
    the sample itself, ``expand`` where it adds a formula of the costs, here or at other values of the node, and
    ``condition`` where it takes the mean over all of its samples together. Where it
    overrides none of these, nothing passes its samples.
    """

    unbiased: ClassVar[bool] = True
    requires: ClassVar[tuple[type, ...]] = ()
    offered: ClassVar[int | None] = None
    continuous: ClassVar[bool] = False
    scores: ClassVar[bool] = False
    keeps_distribution: ClassVar[bool] = True
    partner: ClassVar[bool] = False
    second_derivatives: ClassVar[bool | None] = True
    couples: ClassVar[bool] = False
    coupled: bool = False
    joint: bool = False

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        # what overrides a formula says anew whether it may be differentiated twice
        said = _owner(cls, "second_derivatives")
        if cls.second_derivatives and min(_owner(cls, "expand"), _owner(cls, "expand_together")) < said:
            cls.second_derivatives = None

    def check(self, distribution: Distribution, label: str) -> None:
        """Raise EstimatorError, which names estimators that are valid, unless this one is for ``distribution``."""
        objection = self.objection(distribution)
        if objection:
            missing = [distribution.way_out(kind) for kind in self.requires if not distribution.has(kind)]
            ways = [words for words in (_listed(accepting(distribution)), *missing[:1]) if words]
            advice = f"use {', or '.join(ways)}" if ways else "no estimator takes it"
            raise EstimatorError(f"{label}: {type(self).__name__} {objection}; {advice} ({here()})")

    def objection(self, distribution: Distribution) -> str:
        """Why this estimator is not valid for ``distribution``, as "needs ..., got ..."; empty where it is."""
        for capability in self.requires:
            if not distribution.has(capability):
                return f"needs {_asked(capability.__name__)}, got {distribution!r}"
        if FixedSupport in self.requires and not _is_resolved(distribution):
            share = distribution.unresolved()
            return (
                f"needs samples that {distribution.dtype} tells from an end of their support, where their scores are"
                f" not known, and {share:.2g} of those of {distribution!r} are rounded to it"
            )
        return ""

    def draw(self, distribution: Distribution, rng: np.random.Generator, shape: tuple[int, ...]) -> Value:
        """The sample: an array, or a Node where it is a differentiable function of the parameters."""
        return distribution.sample(rng, shape)

    def draw_coupled(
        self,
        distribution: Distribution,
        rng: np.random.Generator,
        shape: tuple[int, ...],
        coupling: Coupling,
        axis: int,
    ) -> Value:
        """The sample with noise that is coupled along an axis of ``shape``, by an estimator that ``couples``."""
        raise NotImplementedError

    def expand(self, down: "Downstream") -> Value | None:
        """A scalar node that is zero and whose derivative estimates what the sample's distribution contributes; None
        where nothing is to add.

        ``down`` is a ``Downstream`` (``from scg.extend import Downstream``): the sample, and the costs that it
        influences, here and elsewhere.
        """
        if self.joint:
            raise EstimatorError(
                f"{down.site}: {type(self).__name__} expands its samples together and has no expand(down), which one in"
                f" the replicates of another estimator needs: override expand as well ({here()})"
            )
        return None

    def expand_together(self, downs: "list[Downstream]") -> Value | None:
        """As ``expand``, for all samples whose estimators are of this class and ``joint``."""
        raise NotImplementedError

    def condition(self, cost: Node, samples: list[Node]) -> Node:
        """The mean of the cost over ``samples``, all that it depends on of this class, given all others: a node of the
        cost's shape which then stands in the cost's place.

        It must depend on none of them, and be made so that it can be replayed with other values of all other nodes.
        """
        raise NotImplementedError

    state: State = {}
    """What later estimates depend on beside their samples (a baseline's average, a control variate that is trained), as
    ``scg.checkpoint`` takes it.

    Empty where the estimator does not learn; else a property, to be read between runs. Assigning a state restores it.
    """

    def __repr__(self) -> str:
        given = ", ".join(f"{k}={v!r}" for k, v in vars(self).items() if not k.startswith("_") and v is not None)
        return f"{type(self).__name__}({given})"


class Elsewhere(Estimator):
    """An estimator that evaluates the costs at other values of its sample.

    Samples w further down are made again there: with ``coupled``, and for first derivatives alone, from the randomness
    of those that are there (``Distribution.coupled``), else anew; pathwise ones keep their noise. Each has its
    distribution given z either way, and with one of them in every term of the formula the mean is the same. The
    variance of x - y, x = f(z', w') and y = f(z, w), has the term -2 Cov[x, y], which is zero anew. Coupled, it is
    negative where x and y rise and fall together with w, and what is saved grows with what lies further down. Where
    they oppose each other, as in (z - w)^2 of two coins, it is positive: no coupling is better for all costs. It can
    double the variance, and no more, as Var[x - y] <= 2 Var x + 2 Var y; ``coupled=False`` is better there.
    """

    coupled = True

    def __init__(self, *, coupled: bool = True):
        if not isinstance(coupled, (bool, np.bool_)):
            raise ScgTypeError(f"{type(self).__name__}: coupled must be True or False, got {coupled!r} ({here()})")
        if not coupled:
            self.coupled = False


def accepting(distribution: Distribution) -> list[Estimator]:
    """The estimators with a place in ``offered`` that are valid for a distribution, in that order."""
    kinds, found = Estimator.__subclasses__(), {}
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        place = vars(kind).get("offered")  # a subclass says so of itself
        if place is not None and not kind().objection(distribution):
            found[place, kind.__name__] = kind()
    return [found[key] for key in sorted(found)]


def second_ones(distribution: Distribution) -> str:
    """Those of them whose estimates can be differentiated again, as ``A() or B()``; empty where there is none."""
    return _listed([e for e in accepting(distribution) if e.second_derivatives])


def refuse_bends(nodes: Sequence[Node]) -> None:
    """Refuse second derivatives where a probability or a rate is at an end of its range: dp = 0 there keeps first ones
    right, d2p counts values that are never drawn, of which only an estimator that evaluates all has the cost."""
    for node in nodes:
        site = node.statics["site"]
        distribution, estimator = site.distribution, site.estimator
        if estimator.unbiased and (FixedSupport in estimator.requires or not estimator.second_derivatives):
            if distribution.bends():
                found = [e for e in accepting(distribution) if e.second_derivatives and FixedSupport not in e.requires]
                raise EstimatorError(
                    f"{site!r}, drawn at {node.line}: {type(estimator).__name__}() has no second derivatives in a"
                    f" parameter that touches an end of its range, where values that are never drawn count in them:"
                    f" {f'use {_listed(found)}' if found else 'differentiate at a point beside it'} ({here()})"
                )


def by_values(distribution: Distribution, where: str) -> str:
    """What to write in the place of an estimator that looks at the slope of a cost, for a step: the first of those that
    look at values, ``use A() or B() on this node``; where the support moves, and there is none, the probability of the
    step."""
    found = [e for e in accepting(distribution) if type(e).draw is Estimator.draw and not e.continuous]
    if found:
        return f"use {_listed(found)} on {where}"
    if other := distribution.way_out(FixedSupport):
        return f"use ScoreFunction() on {where}, with {other}"
    return (
        f"as the support of {type(distribution).__name__} moves with a parameter, write what the step has in the mean,"
        " 1 - distribution.cdf(c) for z > c"
    )


@final
class Accounted(Estimator):
    """For samples without parameters to differentiate by, and those that an estimator makes on its own account: its own
    formula has what they contribute."""

    def __repr__(self) -> str:
        return "no estimator"


def _asked(capability: str) -> str:
    words = "".join(f" {c.lower()}" if c.isupper() else c for c in capability).strip()
    return f"a distribution with {words}" if words.endswith("support") else f"a {words} distribution"


def _listed(estimators: list[Estimator]) -> str:
    """``A(), B() or C()``; three at most."""
    *first, last = [f"{type(e).__name__}()" for e in estimators[:3]] or [""]
    return f"{', '.join(first)} or {last}" if first else last


def _is_resolved(distribution: Distribution) -> bool:
    """Whether few of the samples are rounded to an end of their support, for these parameters: a plan asks anew."""
    given = {name: p for name, p in distribution.parameters.items() if type(p) is Node} if distribution.rounds else {}
    if not given or RECORDER.get() is None:
        return not given or distribution.unresolved() <= _UNRESOLVED
    return settled(functools.partial(_resolves, distribution.detached(), tuple(given)), *given.values())


def _resolves(distribution: Distribution, names: tuple[str, ...], *values: Value) -> bool:
    nodes = {name: parameter(value) for name, value in zip(names, values, strict=True)}
    return distribution.replaced(**nodes).unresolved() <= _UNRESOLVED
