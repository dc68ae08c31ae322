"""A distribution under check: its samples, its integrals, and comparisons that fail with the numbers that differ."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import scipy.special as sp

from scg.core.aliases import Function, Operand, Result
from scg.distributions.base import Discrete, Distribution
from scg.distributions.constraints import Constraint, Integers
from scg.errors import NotDifferentiable, ScgValueError
from scg.testing.gradients import check_gradient
from scg.testing.quadrature import Integrals, integrals


@dataclass(frozen=True)
class Checked:
    """What ``check_distribution`` looked at: (name, what was found) pairs, in order."""

    distribution: str
    rows: list[tuple[str, str]] = field(default_factory=list)

    def __str__(self) -> str:
        width = max([len(name) for name, _ in self.rows], default=0)
        return "\n".join([self.distribution, *[f"  {name:<{width}}  {found}" for name, found in self.rows]])


class Check:
    """The distribution without Nodes, its samples, and its integrals."""

    def __init__(
        self,
        distribution: Distribution,
        rng: np.random.Generator,
        reference: Operand,
        alpha: float,
        points: int,
        order: int,
    ):
        self.distribution, self.rng, self.reference, self.points, self.order = (
            distribution.detached(),
            rng,
            reference,
            points,
            order,
        )
        self.alpha = alpha / 5  # five kinds of statistical tests
        self.report = Checked(repr(distribution))
        self.draws = self.distribution.sample(rng, points)
        self.discrete = self.distribution.has(Discrete)
        self.parameters = {
            name: np.asarray(p, getattr(p, "dtype", float))
            for name, p in self.distribution.parameters.items()
            if not isinstance(set_of(self.distribution, name), Integers)
        }

    @cached_property
    def integrals(self) -> Integrals | None:
        """Of the distribution, by a quadrature that samples of its own guide."""
        return integrals(self.distribution, self.distribution.sample(self.rng, 4000))

    def fail(self, name: str, message: str) -> None:
        """Raise AssertionError, with the name of the check."""
        raise AssertionError(f"{self.report.distribution}: {name}: {message}")

    def close(self, name: str, got: Result, expected: Result, tolerance: Result, what: str) -> str:
        """Fail unless |got - expected| <= tolerance everywhere (equal infinities agree); the largest difference, as
        text."""
        got, expected, tolerance = np.broadcast_arrays(*[np.asarray(x, float) for x in (got, expected, tolerance)])
        with np.errstate(invalid="ignore"):
            difference = np.where(got == expected, 0, np.abs(got - expected))
        wrong = ~(difference <= tolerance)
        if wrong.any():
            worst = np.unravel_index(
                np.argmax(np.where(wrong, np.where(np.isnan(difference), np.inf, difference - tolerance), -np.inf)),
                got.shape,
            )
            at = f" at {[int(i) for i in worst]}" if worst else ""
            self.fail(
                name, f"{got[worst]:.15g}, but {what}{at} is {expected[worst]:.15g} (tolerance {tolerance[worst]:.2g})"
            )
        return f"within {np.max(difference, initial=0):.1e} of {what}"

    def known(self, ask: Callable[[], Result]) -> Result:
        """What the distribution knows in closed form; None where it says that it does not."""
        try:
            return ask()
        except ScgValueError as error:
            if "no closed form" in str(error):
                return None
            raise

    def gradients(self, fn: Function, *arguments: object) -> int:
        """``check_gradient`` to the highest order up to the wanted one to which the distribution is differentiable.

        It may say that it has no more.
        """
        for order in range(self.order, 0, -1):
            try:
                check_gradient(fn, *arguments, order=order, rng=self.rng)
                return order
            except NotDifferentiable:
                if order == 1:
                    raise
            except AssertionError as error:
                raise AssertionError(f"{self.report.distribution}: gradients: {error}") from error
        return 0

    def z_test(self, name: str, values: Result, expected: Result, count: int, what: str) -> str:
        """The mean over the leading axis against ``expected``: standard errors, with room for the skewness of the
        mean."""
        n, mean = len(values), np.mean(values, axis=0)
        centred = values - mean
        sd = np.sqrt(np.mean(np.square(centred), axis=0))
        skew = np.abs(np.mean(centred**3, axis=0)) / np.where(sd == 0, 1, sd) ** 3
        z = float(-sp.ndtri(self.alpha / 2 / max(count, 1)))
        tolerance = sd / math.sqrt(n) * (z + skew * z * z / (3 * math.sqrt(n))) + 1e-10 * (1 + np.abs(expected))
        self.close(name, mean, expected, tolerance, what)
        return f"{n} draws agree with {what}"


def set_of(distribution: Distribution, name: str) -> Constraint:
    """The constraint of a parameter, by its name, as ``loc``, or ``base.loc`` of a part."""
    part, _, rest = name.partition(".")
    return set_of(getattr(distribution, part), rest) if rest else distribution.constraints[name]


def moment(distribution: Distribution, name: str) -> Result:
    """``mean``, ``variance`` or ``entropy`` of a distribution."""
    return distribution.entropy() if name == "entropy" else getattr(distribution, name)
