"""Samples of a guide of one or several layers, what the model says of them, and gradients that meet a sample twice."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scg.core.aliases import Function, Operand, Result
from scg.core.ancestry import ancestors
from scg.core.axes import elementwise
from scg.core.backward import pull
from scg.core.node import Node, Value
from scg.core.operands import described
from scg.core.options import is_integer
from scg.core.primitive import smooth_primitive
from scg.distributions.base import Distribution, FixedSupport
from scg.distributions.constraints import Circle, Constraint
from scg.distributions.transformed import Independent
from scg.distributions.uniform import InverseCDF
from scg.distributions.weak import real_array
from scg.errors import EstimatorError, ScgTypeError, ScgValueError, here
from scg.primitives.layout import stop_gradient
from scg.stochastic.estimator import Estimator
from scg.stochastic.formulas import as_broadcast, box, first_order
from scg.stochastic.resampling import resample
from scg.stochastic.sites import is_draw, sample

Guide = Distribution | Sequence[Distribution | Function]
"""A distribution, or one layer after the other: a distribution, and functions of the samples before."""

STICKING, DOUBLY, GENERALIZED = "sticking the landing", "doubly reparameterized", "generalized doubly reparameterized"
"""Pathwise gradients without a score of the guide, whose mean is zero where its support does not move."""


@dataclass(frozen=True)
class Drawn:
    """Samples z = (z_1, ..., z_L) of a guide, one a layer, along a first axis of K.

    ``held``    the same without a derivative
    ``guides``  q(z_l | z_1, ..., z_{l-1}), at z
    ``priors``  p(z_l | the other layers), at ``held``; none where the model returned log p(x, z) alone
    ``log_p``   log p(x, z), of shape (K, *batch); ``log_q`` likewise; where a gradient meets samples twice, at ``held``
    """

    z: tuple[Node, ...]
    held: tuple[Value, ...]
    guides: tuple[Distribution, ...]
    priors: tuple[Distribution, ...]
    log_p: Value
    log_q: Value

    @property
    def log_w(self) -> Value:
        """log p(x, z) - log q(z)."""
        return self.log_p - self.log_q

    def of_held(self) -> Value:
        """log q at samples that are held: its derivative is the score of the guide."""
        if len(self.z) == 1:
            return self.guides[0].log_prob(self.held[0])
        at: Result = zip(self.z, self.held, strict=True)
        return resample(self.log_q, dict(at))

    def score_dropped(self) -> Value:
        """Zero, with the derivative d log q(z; phi) / dphi at fixed z, and a mean that is zero to any order: sum_z q(z;
        phi) = 1."""
        return box(self.of_held()) - 1


def drawn(
    model: Function,
    guide: Guide,
    samples: int,
    rng: np.random.Generator,
    gradient: str,
    estimator: Estimator,
    name: str | None,
    alone: bool = False,
) -> Drawn:
    """K = ``samples`` samples of the guide, and the model's word on them. ``alone``: scores that are left out multiply
    nothing."""
    if not callable(model):
        raise ScgTypeError(
            f"with a guide the first argument is the model, z -> log p(x, z), got {type(model).__name__} ({here()})"
        )
    if not is_integer(samples, least := 2 if gradient in ("VIMCO", "OVIS") else 1):
        raise ScgValueError(f"{gradient}: samples must be an integer of at least {least}, got {samples!r} ({here()})")
    layers = guide if isinstance(guide, (list, tuple)) and guide else (guide,)
    if not isinstance(layers[0], Distribution):
        raise ScgTypeError(
            f"the guide must be a distribution, or a list of one and functions of the samples before, got"
            f" {described((guide,))} ({here()})"
        )
    z: list[Node] = []
    guides: list[Distribution] = []
    log_q: Result = None
    for layer in layers:
        given = bool(z) and callable(layer)
        q = layer(*z) if given else layer
        _require_fixed(q, gradient, alone)
        label = name if name is None or len(layers) == 1 else f"{name} {len(z) + 1}"
        z.append(sample(q, estimator, rng=rng, shape=() if given else (int(samples),), name=label))
        guides.append(q)
        own = q.log_prob(z[-1])
        if log_q is not None and own.shape != log_q.shape:
            raise ScgValueError(
                f"layer {len(z)} of the guide has log q of shape {own.shape}, those before {log_q.shape}: one number a"
                " sample; make the other axes an event with distributions.Independent, and let a layer that depends on"
                f" no other be a distribution, not a function ({here()})"
            )
        log_q = own if log_q is None else log_q + own
    held = tuple([stop_gradient(x) for x in z])
    twice = gradient == GENERALIZED or gradient == DOUBLY and not alone
    log_p, priors = _said(model(*(held if twice else z)), held if twice else tuple(z), gradient)
    check_shapes(log_p, log_q)
    found = Drawn(tuple(z), held, tuple(guides), priors, log_p, log_q)
    if not twice:
        return found
    _require_paths(log_p, held, gradient)
    return Drawn(tuple(z), held, tuple(guides), priors, log_p, found.of_held())


def twice_reparameterized(found: Drawn, once: Value, squared: Value, priors: bool) -> Value:
    """Zero for each element of the batch, with the derivative of a bound sum_k a_k d log w_k of which a_k are ``once``,
    a_k - (d a_k / d log w_k) ``squared``: W_k and W_k^2 of ``iwae``, 1/K both of ``elbo``.

    With g a function of all samples and z = T(e; t) a sample of r(z; t), E_r[g d log r / dt] = E_r[(dg/dz) dT/dt]. Of
    the guide, r = q jointly in all its layers, this turns sum_k a_k d log q(z_k; phi) / dphi at fixed z into a sum of
    slopes, and what is left is

        sum_k squared_k sum_l (d log w_k / dz_kl) dz_kl / dphi,

    d log w / dz_l at all other layers fixed, dz_l / dphi along the path through the layers before (Tucker et
    al., 2019).

    For a prior r(z_l) = p(z_l | others; theta) of which z_l is no sample, apply it to g q / r under r: E_q[g d log r /
    dtheta] = E_q[(dg/dz_l + g d log(q / r) / dz_l) dT/dtheta], T the path of r at the noise that r has at z_l. With g =
    a_k, and q / r = p(x, z) / (r w),

        (once_k d (log p(x, z_k) - log r(z_kl)) / dz_kl - squared_k d log w_k / dz_kl) dT_kl / dtheta

    stands for once_k d log r(z_kl) / dtheta (Bauer and Mnih, 2021). Here g q / r must have no jumps where r lives.
    """
    total: Result = 0

    def add(x: Value, g: Value) -> Value:
        zero = first_order(x, g)
        return total + np.sum(zero, axis=(0, *range(once.ndim, zero.ndim)))

    def along(weight: Value, x: Value) -> Value:
        return np.reshape(weight, (*weight.shape, *[1] * (x.ndim - weight.ndim)))

    if not priors:  # squared = once^2: the second factor comes from the samples, and one pass serves z and theta
        for z, slope in zip(found.z, _slopes(found.log_q, found.held), strict=True):
            total = add(z, -along(squared, z) * slope)
        at: Result = {x: weighted(z, along(once, z)) for x, z in zip(found.held, found.z, strict=True)}
        carrier = np.sum(once * (resample(found.log_p, at) if type(found.log_p) is Node else 0), axis=0)
        return total + first_order(carrier, np.ones(carrier.shape, carrier.dtype))
    slopes, rest = _slopes(found.log_w, found.held), found.log_p
    for z, slope in zip(found.z, slopes, strict=True):
        total = add(z, along(squared, z) * slope)
    for l, (p, q, at_l) in enumerate(zip(found.priors, found.guides, found.held, strict=True)):
        if all([type(x) is not Node for x in p.parameters.values()]):
            continue
        path, own = _path(p, q, at_l, l), p.log_prob(at_l)
        rest = rest - own
        (outer,), (inner,) = _slopes(found.log_p, (at_l,)), _slopes(own, (at_l,))
        total = add(path, along(once, at_l) * (outer - inner) - along(squared, at_l) * slopes[l])
    return add(rest, once) if type(rest) is Node else total


weighted = smooth_primitive(as_broadcast, elementwise, lambda g, out, z, w: g * w, None, name="weighted", same=True)
"""The value of z, with its derivative times w."""


def check_shapes(log_p: Value, log_q: Value) -> None:
    """Raise ScgValueError unless both have one number a sample."""
    if np.shape(log_p) != np.shape(log_q):
        raise ScgValueError(
            f"log p(x, z) has shape {np.shape(log_p)} and log q(z) {np.shape(log_q)}: both need one number a sample;"
            " make the axes of one sample an event of the guide with distributions.Independent, and sum over them in"
            f" the model ({here()})"
        )


def weights_along(log_weights: Operand, axis: int) -> Value:
    """Log-weights as an array or a node with an axis of samples; ScgTypeError or ScgValueError where they are none."""
    if callable(log_weights):
        raise ScgTypeError(f"a model needs a guide to draw from: write guide=..., rng=... ({here()})")
    x = real_array(log_weights)
    if x.dtype.kind not in "biuf":
        raise ScgTypeError(f"log-weights must be real numbers, got {described((log_weights,))} ({here()})")
    if not is_integer(axis, -x.ndim, x.ndim - 1):
        raise ScgValueError(
            f"axis must be an integer, an axis of log-weights of shape {x.shape}, got {axis!r} ({here()})"
        )
    if x.shape[axis] == 0:
        raise ScgValueError(f"log-weights need at least one sample along axis {axis}, got shape {x.shape} ({here()})")
    return x


def at_samples(model: Function, guide: Operand, z: Operand) -> tuple[Value, Value]:
    """log p(x, z) and log q(z) at samples z along a first axis, which are held."""
    if not callable(model):
        raise ScgTypeError(f"the first argument is the model, z -> log p(x, z), got {type(model).__name__} ({here()})")
    z = samples_of(guide, z)
    log_p, log_q = _said(model(z), (z,), "")[0], guide.log_prob(z)
    check_shapes(log_p, log_q)
    return log_p, log_q


def samples_of(guide: Operand, z: Operand) -> Value:
    """Samples along a first axis, held; ScgTypeError or ScgValueError where they are none, or the guide is no
    distribution."""
    if not isinstance(guide, Distribution):
        raise ScgTypeError(f"the guide must be a distribution, got {type(guide).__name__} ({here()})")
    z = stop_gradient(real_array(z))
    if z.ndim < 1 + len(guide.event_shape) or not z.shape[0]:
        raise ScgValueError(
            f"samples z of {guide!r} need an axis of samples in front, of at least one, got shape {z.shape} ({here()})"
        )
    return z


def _said(answer: Operand, z: tuple[Value, ...], gradient: str) -> tuple[Value, tuple[Distribution, ...]]:
    """log p(x, z), and the priors of the layers where the model named them."""
    if not isinstance(answer, tuple):
        if gradient == GENERALIZED:
            raise EstimatorError(
                f"{gradient}: the model must return (prior, log p(x | z)), with a prior for each layer of the guide in"
                f" its order, got {type(answer).__name__}; or take gradient={DOUBLY!r} ({here()})"
            )
        return answer, ()
    if len(answer) != 2:
        raise ScgTypeError(
            f"a model returns log p(x, z), or a pair (prior, log p(x | z)), got {len(answer)} values ({here()})"
        )
    first, log_p = answer
    priors = tuple(first) if isinstance(first, Sequence) else (first,)
    if len(priors) != len(z) or not all([isinstance(p, Distribution) for p in priors]):
        kinds = ", ".join(type(p).__name__ for p in priors)
        raise ScgTypeError(
            f"the model must return a prior, a distribution, for each of the {len(z)} layers of the guide, got {kinds}"
            f" ({here()})"
        )
    for p, x in zip(priors, z, strict=True):
        log_p = log_p + p.log_prob(x)
    return log_p, priors


def _slopes(y: Value, at: tuple[Value, ...]) -> list[Result]:
    """d y_k / d z_k for each z of ``at``: samples do not meet."""
    if type(y) is not Node:
        return [np.zeros(z.shape, z.dtype) for z in at]
    nodes: list[Result] = list(at)
    return pull([y], [np.ones(y.shape, y.dtype)], nodes, True)


def _path(prior: Distribution, guide: Distribution, z: Value, layer: int) -> Value:
    """z, with the derivative in the prior's parameters of a sample of the prior that is there: at fixed noise."""
    lacks = ""
    if not prior.has(FixedSupport):
        lacks = "a support that does not move with its parameters"
    elif not _same_set(prior.support, guide.support):
        lacks = f"the support of the guide, {guide!r}, whose density would jump inside"
    made = None if lacks else _at(prior, z)
    if made is None:
        raise EstimatorError(
            f"{GENERALIZED}: the prior of layer {layer + 1} needs"
            f" {lacks or 'a path that is known at any value, as that of Normal'}, got {prior!r}: use"
            f" gradient={DOUBLY!r} ({here()})"
        )
    return made


def _at(p: Distribution, z: Value) -> Value | None:
    if isinstance(p, Independent):
        return _at(p.base, z)
    made = p.coupled(p.stop_gradient(), z)
    if isinstance(made, Distribution) or made is None and not p.inverts_cdf():
        return None
    if made is not None and not isinstance(p, InverseCDF):
        return made
    cdf = p.cdf(z)
    path = z - (cdf - stop_gradient(cdf)) / stop_gradient(p.prob(z))  # dT = -dF / p
    if made is None:
        return path
    # a quantile of a probability near one is another number
    return np.where(abs(made - z) <= float(np.finfo(z.dtype).eps) ** 0.5 * abs(z), made, path)


def _same_set(a: Constraint, b: Constraint) -> bool:
    """Whether two supports are the same but for their ends."""
    a, b = getattr(a, "element", a), getattr(b, "element", b)
    if a.event_ndim or b.event_ndim:
        return type(a) is type(b)
    return bool(np.all(np.equal(a.low, b.low)) and np.all(np.equal(a.high, b.high)))


def _require_fixed(guide: Operand, gradient: str, alone: bool) -> None:
    """Raise EstimatorError where a score g d log q is left out, or replaced by the path of g, and the support of the
    guide moves with its parameters: its mean has what g q is at the ends. ``alone``: g is constant, so that the turn of
    an angle, at whose ends q is the same, may move."""
    if gradient not in (STICKING, DOUBLY, GENERALIZED) or not isinstance(guide, Distribution):
        return
    angle = isinstance(getattr(guide.support, "element", guide.support), Circle)
    still = all([type(p) is not Node for p in guide.parameters.values()])
    if guide.has(FixedSupport) or still or angle and alone:
        return
    ways = [w for w in (guide.way_out(FixedSupport),) if w]
    raise EstimatorError(
        f"{gradient} leaves out the score of the guide, whose support must not move with its parameters, got {guide!r}:"
        f" use {' or '.join(['gradient=' + repr('pathwise'), *ways])} ({here()})"
    )


def _require_paths(log_p: Value, held: tuple[Value, ...], gradient: str) -> None:
    """Raise EstimatorError where the distribution of a sample m of the model depends on z: the mean of the score has
    one more part then, W_k d log p(m | z_k) / dz_k, which a reparameterized m does not need."""
    if type(log_p) is not Node:
        return
    behind = {z.id for z in held if type(z) is Node}
    for node in ancestors([log_p], min(behind)):
        if any(type(o) is Node and o.id in behind for o in node.operands):
            behind.add(node.id)
            if is_draw(node):
                raise EstimatorError(
                    f"{gradient}: the distribution of {node.statics['site']!r}, drawn at {node.line}, depends on the"
                    " guide's samples; use scg.Reparameterized() for it, or gradient='pathwise'"
                    f" ({here()})"
                )
