"""Losses in PyTorch whose gradients estimate that of E[mixed_value(b)], b ~ Bernoulli(logits=theta): right and
wrong."""

from tests.support.foreign import mixed_value


def _torch():
    import torch

    return torch


def _log_p(theta, b):
    return (b * theta - _torch().nn.functional.softplus(theta)).sum(-1)


def _bits(theta, generator, *shape):
    torch = _torch()
    return torch.bernoulli(torch.sigmoid(theta).detach().expand(*shape, 3), generator=generator)


def _logit(u):
    return u.log() - (-u).log1p()


def leave_one_out(theta, generator):
    b = _bits(theta, generator, 2)
    f = mixed_value(b)
    return ((f - f.flip(0)) * _log_p(theta, b)).mean()


def mean_of_all(theta, generator):
    """Each sample is in its own baseline: 1 - 1/K of the gradient."""
    b = _bits(theta, generator, 2)
    f = mixed_value(b)
    return ((f - f.mean()) * _log_p(theta, b)).mean()


def disarm(theta, generator):
    torch = _torch()
    u = torch.rand(3, generator=generator, dtype=theta.dtype)
    l = theta.detach()
    b, other = (u > torch.sigmoid(-l)).to(l.dtype), (u < torch.sigmoid(l)).to(l.dtype)
    weight = (1 - 2 * other) * (b != other) * torch.sigmoid(l.abs())
    return ((mixed_value(b) - mixed_value(other)) / 2 * weight * theta).sum()


def _rebar(theta, generator, detached):
    torch = _torch()
    softplus = torch.nn.functional.softplus
    u, v = torch.rand(2, 3, generator=generator, dtype=theta.dtype)
    z = theta + _logit(u)
    b = (z > 0).to(theta.dtype).detach()
    s = 2 * b - 1
    given = s * softplus(_logit(v) + softplus(s * theta))
    soft, soft_given = (mixed_value(torch.sigmoid(x / 0.5)) for x in (z, given))
    last = soft_given.detach() if detached else soft_given
    return (mixed_value(b) - soft_given).detach() * _log_p(theta, b) + soft - last


def rebar(theta, generator):
    return _rebar(theta, generator, False)


def detached(theta, generator):
    """REBAR without the derivative of the control at z given b."""
    return _rebar(theta, generator, True)


def straight_through(theta, generator):
    p = _torch().sigmoid(theta)
    b = _bits(theta, generator)
    return mixed_value(b + p - p.detach())


def inner(theta, generator):
    """Leave-one-out whose score is differentiated inside, as vmap cannot."""
    torch = _torch()
    b = _bits(theta, generator, 2)
    f = mixed_value(b)
    scores = [torch.autograd.grad(_log_p(theta, x), theta)[0] for x in b]
    return ((f[0] - f[1]) * (scores[0] - scores[1]) / 2 * theta).sum()


def function(theta, generator):
    """Leave-one-out by an autograd.Function without setup_context."""
    torch = _torch()

    class Score(torch.autograd.Function):
        @staticmethod
        def forward(ctx, theta, b):
            ctx.save_for_backward(b - torch.sigmoid(theta))
            return _log_p(theta, b)

        @staticmethod
        def backward(ctx, g):
            return g[..., None] * ctx.saved_tensors[0], None

    b = _bits(theta, generator, 2)
    f = mixed_value(b)
    return ((f - f.flip(0)) * torch.stack([Score.apply(theta, x) for x in b])).mean()
