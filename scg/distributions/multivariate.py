"""Distributions of vectors."""

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import scipy.special as sp

from scg.core.aliases import Given, Operand
from scg.core.node import Node, Numeric, Value
from scg.distributions.accurate import in_double, rest
from scg.distributions.base import Distribution, FixedSupport, Reparameterizable, Shape
from scg.distributions.constraints import Matrix, Vector, finite, lower_cholesky, positive, simplex
from scg.distributions.normal import LOG_2PI, STANDARD
from scg.distributions.parameterized import same
from scg.distributions.uniform import UNIT
from scg.distributions.weak import digamma, gammaincinv, gammaln, xlogy
from scg.errors import ScgTypeError, here
from scg.primitives.contraction import matvec
from scg.primitives.layout import stop_gradient
from scg.special import softmax


@final
@dataclass(frozen=True, eq=False, repr=False)
class Dirichlet(Reparameterizable, Distribution, FixedSupport):
    """log p(z) = sum_k (a_k - 1) log z_k + log Gamma(sum a) - sum_k log Gamma(a_k) on the simplex, a the concentration
    (last axis).

    A sample is y / sum(y) with gamma variables y_k of concentrations a_k, which move implicitly with a (Figurnov et
    al., 2018; first order only). The y_k are held by their logarithms: for small a they fall to u^(1/a), below every
    number. Elements of a sample that underflow are the smallest normal number; where many do (a below 0.008, in float32
    0.07), estimators by scores refuse it.
    """

    concentration: Value
    constraints = {"concentration": Vector(positive)}
    support = simplex  # type: ignore[assignment]

    @property
    def event_shape(self) -> Shape:
        return (self.concentration.shape[-1],)

    def unresolved(self) -> float:
        """P(Z_k < tiny) = tiny^a_k / (a_k B(a_k, sum of the other a)) to first order: the score has log Z_k."""
        if type(self.concentration) is not Node:
            return 0.0
        a = np.asarray(self.concentration.raw, float)
        others = np.sum(a, axis=-1, keepdims=True) - a
        with np.errstate(divide="ignore", invalid="ignore"):  # of one element alone, which is 1
            share = np.finfo(self.dtype).tiny ** a / a * np.exp(-sp.betaln(a, others))
        return float(np.max(np.where(others > 0, share, 0), initial=0.0))

    def noise(self, shape: Shape = ()) -> tuple[Distribution, Shape]:
        return UNIT, self.full_shape(shape)

    def transport(self, noise: Value) -> Value:
        """log y by the quantile at u, and far below 1 by the leading term of P(a, y) = y^a / Gamma(a+1) (1 - a y /
        (a+1) + ...)."""
        a, u = _comparable(self.concentration), noise.astype(float)
        log_y = (np.log(u) + gammaln(a + 1)) / a
        low = log_y < -70  # what the other terms add, exp(-70) of it, is below rounding
        log_y = np.where(low, log_y, np.log(gammaincinv(np.where(low, 1, a), np.where(low, 0.5, u))))
        return _simplex_of(log_y, np.result_type(self.dtype, noise.dtype))

    def sample(self, rng: np.random.Generator, shape: int | Shape = ()) -> np.ndarray:
        """y of concentration a is x u^(1/a), x of concentration a + 1 (Marsaglia and Tsang, 2000); -log u is
        exponential."""
        a, full = _comparable(self.detached().concentration), self.full_shape(shape)
        with np.errstate(over="ignore"):
            log_y = np.log(rng.standard_gamma(a + 1, full)) - rng.standard_exponential(full) / a
        return _simplex_of(log_y, self.dtype)

    def log_prob(self, value: Numeric) -> Value:
        a, value = self.concentration, self._events(value)
        outside = _off_simplex(value)
        z = np.where(outside[..., None], 1 / self.event_shape[0], value)
        log_z = np.sum(xlogy(a - 1, z), axis=-1) + gammaln(np.sum(a, axis=-1)) - np.sum(gammaln(a), axis=-1)
        return np.where(outside, -math.inf, log_z)

    @property
    def mean(self) -> Numeric:
        return self.concentration / np.sum(self.concentration, axis=-1, keepdims=True)

    @property
    def variance(self) -> Numeric:
        mean = self.mean
        return mean * rest(mean) / (1 + np.sum(self.concentration, axis=-1, keepdims=True))

    def entropy(self) -> Numeric:
        return _dirichlet_entropy(self.concentration)

    def kl_to(self, other: Distribution) -> Numeric:
        """log B(a2) - log B(a1) + sum_k (a1_k - a2_k) (digamma(a1_k) - digamma(sum a1)), B(a) = prod_k Gamma(a_k) /
        Gamma(sum a)."""
        if not isinstance(other, Dirichlet):
            return NotImplemented
        return _dirichlet_divergence(self.concentration, other.concentration)


@final
@dataclass(frozen=True, eq=False, repr=False)
class MultivariateNormal(Reparameterizable, Distribution, FixedSupport):
    """log p(z) = -(z - loc)' S^-1 (z - loc) / 2 - log det(2 pi S) / 2, the covariance S given in one of two ways:

    ``scale_tril``             its Cholesky factor, S = L L', L lower triangular with a positive diagonal;   z = loc + L
                               e
    ``cov_factor, cov_diag``   low rank plus diagonal, S = W W' + diag(d), W of shape (n, rank);             z = loc + W
                               e1 + sqrt(d) e2

    e is standard normal. There is no derivative by what stands above the diagonal of L. The second way costs n rank^2,
    by the identities of Woodbury and of the determinant.
    """

    loc: Value
    scale_tril: Given = None
    cov_factor: Given = None
    cov_diag: Given = None
    constraints = {
        "loc": Vector(finite),
        "scale_tril": lower_cholesky,
        "cov_factor": Matrix(finite),
        "cov_diag": Vector(positive),
    }
    support = Vector(finite)  # type: ignore[assignment]
    other_names = {
        "covariance_matrix": "scale_tril=np.linalg.cholesky(covariance_matrix)",
        "precision_matrix": "scale_tril=np.linalg.cholesky(np.linalg.inv(precision_matrix))",
        "cov": "scale_tril=np.linalg.cholesky(cov)",
    }

    def __post_init__(self) -> None:
        low_rank = (self.cov_factor is not None) + (self.cov_diag is not None)
        if low_rank == 1 or (self.scale_tril is None) == (low_rank == 0):
            raise ScgTypeError(f"MultivariateNormal takes scale_tril, or cov_factor and cov_diag ({here()})")
        super().__post_init__()
        n = self.event_shape[0]
        for name, axes in (("scale_tril", (-2, -1)), ("cov_factor", (-2,)), ("cov_diag", (-1,))):
            if (p := getattr(self, name)) is not None:
                good = all(p.shape[axis] == n for axis in axes)
                self._require(good, f"{name} must have as many rows as loc has elements, {n}, got shape {p.shape}")

    @property
    def event_shape(self) -> Shape:
        return (self.loc.shape[-1],)

    def noise(self, shape: Shape = ()) -> tuple[Distribution, Shape]:
        n, full = self.event_shape[0], self.full_shape(shape)
        return STANDARD, full if self.cov_factor is None else (*full[:-1], self.cov_factor.shape[-1] + n)

    def transport(self, noise: Value) -> Value:
        if self.cov_factor is None:
            return self.loc + matvec(self.tril, noise)
        rank = self.cov_factor.shape[-1]
        return self.loc + matvec(self.cov_factor, noise[..., :rank]) + np.sqrt(self.cov_diag) * noise[..., rank:]

    def coupled(self, before: Operand, value: Numeric) -> Value | None:
        names = ("scale_tril", "cov_factor", "cov_diag")
        apart = value - before.loc
        if all([same(getattr(self, name), getattr(before, name)) for name in names]):
            return self.loc + apart
        if self.cov_factor is not None:
            return None
        return self.transport(np.linalg.solve(before.tril, apart[..., None])[..., 0])

    @property
    def tril(self) -> Value:
        """The Cholesky factor of the covariance."""
        return np.linalg.cholesky(self.covariance) if self.scale_tril is None else np.tril(self.scale_tril)

    @property
    def covariance(self) -> Value:
        """S."""
        if self.scale_tril is not None:
            return np.matmul(self.tril, np.matrix_transpose(self.tril))
        n = self.event_shape[0]
        return np.matmul(self.cov_factor, np.matrix_transpose(self.cov_factor)) + self.cov_diag[..., None] * np.eye(
            n, dtype=self.dtype
        )

    def _capacitance(self) -> tuple[Value, Value]:
        """The Cholesky factor of I + W' D^-1 W, and W' D^-1."""
        scaled = np.matrix_transpose(self.cov_factor / self.cov_diag[..., None])
        return (
            np.linalg.cholesky(
                np.eye(self.cov_factor.shape[-1], dtype=self.dtype) + np.matmul(scaled, self.cov_factor)
            ),
            scaled,
        )

    def _half_log_det(self) -> Value:
        """log det S / 2."""
        if self.scale_tril is not None:
            return _log_diagonal(self.scale_tril)
        return _log_diagonal(self._capacitance()[0]) + 0.5 * np.sum(np.log(self.cov_diag), axis=-1)

    def log_prob(self, value: Numeric) -> Value:
        x = self._events(value) - self.loc
        if self.scale_tril is not None:
            y = _solved(self.tril, x)
            square = np.sum(y * y, axis=-1)
        else:
            root, scaled = self._capacitance()
            y = _solved(root, matvec(scaled, x))
            square = np.sum(x * x / self.cov_diag, axis=-1) - np.sum(y * y, axis=-1)
        return -0.5 * square - (self._half_log_det() + 0.5 * LOG_2PI * self.event_shape[0])

    @property
    def mean(self) -> Numeric:
        return self._whole(self.loc)

    @property
    def variance(self) -> Numeric:
        if self.scale_tril is not None:
            return self._whole(np.sum(np.square(self.tril), axis=-1))
        return self._whole(np.sum(self.cov_factor * self.cov_factor, axis=-1) + self.cov_diag)

    def entropy(self) -> Numeric:
        found = self._half_log_det() + 0.5 * (1 + LOG_2PI) * self.event_shape[0]
        return found if found.shape == self.batch_shape else np.broadcast_to(found, self.batch_shape)

    def kl_to(self, other: Distribution) -> Numeric:
        """(tr(S2^-1 S1) + (m1 - m2)' S2^-1 (m1 - m2) - n + log det S2 - log det S1) / 2."""
        if not isinstance(other, MultivariateNormal):
            return NotImplemented
        inverse = np.linalg.inv(other.tril)
        ratio, shift = np.matmul(inverse, self.tril), matvec(inverse, self.loc - other.loc)
        squares = np.sum(ratio * ratio, axis=(-2, -1)) + np.sum(shift * shift, axis=-1)
        return 0.5 * (squares - self.event_shape[0]) + other._half_log_det() - self._half_log_det()


@in_double
def _dirichlet_entropy(a: Value) -> Value:
    total = np.sum(a, axis=-1)
    log_norm = np.sum(gammaln(a), axis=-1) - gammaln(total)
    return log_norm + (total - a.shape[-1]) * digamma(total) - np.sum((a - 1) * digamma(a), axis=-1)


@in_double
def _dirichlet_divergence(a: Value, b: Value) -> Value:
    total = np.sum(a, axis=-1, keepdims=True)
    gap = np.sum(gammaln(b) - gammaln(a) + (a - b) * (digamma(a) - digamma(total)), axis=-1)
    return gap + gammaln(total[..., 0]) - gammaln(np.sum(b, axis=-1))


def _off_simplex(z: Value) -> Value:
    """Whether a vector is not on the simplex, to the rounding of its dtype; a NaN is neither on nor off."""
    tolerance = 8 * float(np.finfo(z.dtype).eps if z.dtype.kind == "f" else np.finfo(float).eps) * max(z.shape[-1], 8)
    return np.any(z < 0, axis=-1) | (np.absolute(np.sum(z, axis=-1) - 1) > tolerance)


def _comparable(a: Value) -> Value:
    """Concentrations in float64. Below 1e-290 a sample is a vertex, one with probability a_k / sum(a): there a factor
    keeps 1/a finite."""
    a = a.astype(float)
    return a * stop_gradient(np.maximum(1, 1e-290 / np.max(a, axis=-1, keepdims=True)))


def _simplex_of(log_y: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """y / sum(y); what underflows counts as the smallest normal number, so that its logarithm is finite."""
    return np.maximum(softmax(log_y, axis=-1).astype(dtype), float(np.finfo(dtype).tiny))


def _solved(L: Value, x: Value) -> Value:
    """L^-1 x for vectors x along the last axis."""
    if L.ndim == 2 and x.ndim > 1:  # one factorisation for all of them
        rows = np.reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))
        return np.reshape(np.transpose(np.linalg.solve(L, np.transpose(rows))), x.shape)
    return np.linalg.solve(L, x[..., None])[..., 0]


def _log_diagonal(L: Value) -> Value:
    return np.sum(np.log(np.diagonal(L, axis1=-2, axis2=-1)), axis=-1)
