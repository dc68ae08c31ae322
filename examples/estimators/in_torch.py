"""Leave-one-out in PyTorch (Kool, van Hoof and Welling, 2019), for every problem whose draws torch.func.vmap takes."""

import torch

from scg.bridge import Samples

UNBATCHED = ("Beta", "Exponential")  # torch.func.vmap has no rule for their samplers


def leave_one_out(problem, samples=2):
    """mean over i of (f(x_i) - mean of the others) d log p(x_i): the score of all draws of a sample at once."""
    if any(draw.family in UNBATCHED for draw in problem.draws):
        return None

    def draw(n, rng):
        torch_state = torch.get_rng_state()
        torch.manual_seed(int(rng.integers(2**63)))
        try:
            # each replicate has parameters of its own: the gradient of a sum is then one gradient for each
            given = {name: torch.as_tensor(x).expand(n, *x.shape) for name, x in problem.parameters.items()}
            given = {name: x.clone().requires_grad_() for name, x in given.items()}
            loss = torch.func.vmap(lambda p: _loss(problem, p, samples), randomness="different")(given)
            gradients = torch.autograd.grad(loss.sum(), list(given.values()))
        finally:
            torch.set_rng_state(torch_state)
        return dict(zip(given, gradients, strict=True))

    return Samples(draw, evaluations=samples)


def _loss(problem, parameters, samples):
    """A scalar whose gradient is the estimate."""
    costs, scores = [], []
    for _ in range(samples):
        drawn, score = [], 0.0
        for variable in problem.draws:
            numbers = variable.parameters(parameters, *drawn)
            distribution = getattr(torch.distributions, variable.family)(**numbers, validate_args=False)
            drawn.append(distribution.sample())
            score = score + distribution.log_prob(drawn[-1]).sum()
        costs.append(problem.cost(*drawn))
        scores.append(score)
    total = sum(costs)
    return sum(s * (f - (total - f) / (samples - 1)).detach() for s, f in zip(scores, costs, strict=True)) / samples
