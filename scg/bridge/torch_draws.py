"""PyTorch's discrete samples, made to branch for ``enumerate``.

Every operation of PyTorch that draws carries the tag ``nondeterministic_seeded``. A dispatch mode, which holds in one
thread and as long as it is entered, sees them below autograd and vmap: those that are listed here take the next value
of the tree, and all others are refused. Nothing is patched.
"""

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.utils.checkpoint
from torch.utils._python_dispatch import TorchDispatchMode

from scg.bridge import chances
from scg.bridge.branching import Paths
from scg.bridge.lines import user_line
from scg.bridge.numpy_draws import only_its_own_draws
from scg.core.aliases import Foreign, Function
from scg.core.tree import leaves, rebuild
from scg.errors import ScgTypeError, ScgValueError


@contextlib.contextmanager
def program(fn: Function, args: Sequence[Foreign], paths: Paths, tail: float) -> Iterator[Callable[[], Foreign]]:
    """``fn(*args)`` or ``fn(*args, generator)``; of a loss its gradient."""
    call = _calling(fn, args, Generator())
    chosen, own = _chosen(args)
    flat = [leaf for _, leaf in leaves(tuple(args))]

    kinds: set[bool] = set()

    def run() -> Foreign:
        targets = chosen if own else [None if t is None else t.detach().clone().requires_grad_() for t in chosen]
        given = iter([leaf if target is None else target for leaf, target in zip(flat, targets, strict=True)])
        with Branching(paths, tail), torch.enable_grad():
            result = call([rebuild(arg, given) for arg in args])
            connected = isinstance(result, torch.Tensor) and result.requires_grad and result.numel() == 1
            kinds.add(connected)
            if connected and result.ndim:
                raise ScgValueError(
                    f"enumerate: is a result of shape {tuple(result.shape)} a loss, whose gradient is meant? Then"
                    f" return its .sum(); else its .detach() ({user_line()})"
                )
            if len(kinds) == 2:
                raise ScgValueError(
                    "enumerate: the result is connected with the arguments in some outcomes and not in others: is it a"
                    " loss? Then return loss + 0 * sum of the parameters; else its .detach()"
                    f" ({user_line()})"
                )
            if connected:
                result = _gradient(result, targets, args)
        if not torch.equal(torch.get_rng_state(), state):
            raise ScgValueError(
                "enumerate: the function seeds PyTorch's generator, or draws where enumerate does not see it: draws"
                f" after torch.manual_seed come again, and are no new ones ({user_line()})"
            )
        return _arrays(result)

    with only_its_own_draws(), torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(_SEED)
        state = torch.get_rng_state()
        yield run


_SEED = 0x5C6_B41D6E
"""A seed that no program chooses, so that one that seeds is found out."""


class Generator(torch.Generator):
    """A generator to hand on: what it draws is enumerated, and it is neither seeded nor copied."""

    def __init__(self) -> None:
        torch.Generator.manual_seed(self, _SEED)


def _refuse(name: str) -> Function:
    def refused(self: Generator, *args: object, **kwargs: object) -> Foreign:
        raise ScgTypeError(
            f"enumerate: generator.{name}() would make the same numbers come again, which is not enumerated: keep the"
            f" draws instead ({user_line()})"
        )

    return refused


for _name in ("manual_seed", "seed", "set_state", "clone_state", "graphsafe_set_state"):
    setattr(Generator, _name, _refuse(_name))


def _calling(fn: Function, args: Sequence[Foreign], generator: Generator) -> Callable[[Sequence[Foreign]], Foreign]:
    """``fn`` with the generator where it takes one: by its name, or as the one argument more than there are."""
    try:
        parameters = inspect.signature(fn).parameters
    except (TypeError, ValueError):
        return lambda args: fn(*args)
    if "generator" in parameters:
        names = [p.name for p in parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        if "generator" in names and names.index("generator") < len(args):
            return lambda args: fn(*args)  # it is among the arguments
        return lambda args: fn(*args, generator=generator)
    needed = [
        p
        for p in parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty
    ]
    return lambda args: fn(*args, *[generator] * (len(needed) == len(args) + 1))


def _is_real(leaf: Foreign) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.is_floating_point()


def _chosen(args: Sequence[Foreign]) -> tuple[list[Foreign], bool]:
    """The leaves of the arguments with None for those that are not differentiated; whether these ask for it
    themselves."""
    flat = [leaf for _, leaf in leaves(tuple(args))]
    own = any([_is_real(leaf) and leaf.requires_grad for leaf in flat])
    return [leaf if _is_real(leaf) and (leaf.requires_grad or not own) else None for leaf in flat], own


def _gradient(loss: Foreign, targets: list[Foreign], args: Sequence[Foreign]) -> Foreign:
    """Of the loss, in the structure of the arguments that hold targets: of the one, or a tuple of several."""
    wanted = [t for t in targets if t is not None]
    found = torch.autograd.grad(loss, wanted, allow_unused=True) if wanted else []
    if all([g is None for g in found]):
        raise ScgValueError(
            "enumerate: the loss has a gradient, but not of the arguments: hand the parameters in, as in"
            f" enumerate(loss, params, framework='torch'); or return loss.detach() for the loss itself ({user_line()})"
        )
    given = iter(found)
    pairs = [(t, None if t is None else next(given)) for t in targets]
    gradients = iter([None if t is None else torch.zeros_like(t) if g is None else g for t, g in pairs])
    parts = [rebuild(arg, gradients) for arg in args]
    parts = [part for part in parts if any([True for _ in leaves(part)])]
    return parts[0] if len(parts) == 1 else tuple(parts)


def _arrays(result: Foreign) -> Foreign:
    """Tensors as NumPy arrays."""
    return rebuild(
        result,
        iter([x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else x for _, x in leaves(result)]),
    )


class Branching(TorchDispatchMode):
    """Operations that draw take the next values of a path."""

    def __init__(self, paths: Paths, tail: float):
        super().__init__()
        self._paths, self._tail = paths, tail
        self._own = torch.Generator()

    def __torch_dispatch__(self, func: Foreign, types: Foreign, args: Foreign = (), kwargs: Foreign = None) -> Foreign:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        name = str(func).split(".")[1]
        self._check(name, kwargs.get("generator"))
        draw = getattr(self, f"draw_{name.rstrip('_')}", None)
        if draw is None:
            raise ScgTypeError(
                f"enumerate: PyTorch's {name} is a sample whose outcomes cannot be listed: draw from a discrete"
                " distribution (torch.rand(()) < p cannot be seen: write torch.bernoulli(p)), or judge the estimator as"
                f" scg.bridge.Samples ({user_line()})"
            )
        return draw(func, args, kwargs)

    def _check(self, name: str, generator: Foreign) -> None:
        if generator is not None and generator.initial_seed() != _SEED:
            raise ScgValueError(
                f"enumerate: {name} draws from a generator of the function's own, which may be seeded to repeat itself:"
                f" use the one that the function is given, or none ({user_line()})"
            )
        if _frame_in(torch.utils.checkpoint.__file__) is not None:
            raise ScgTypeError(
                "enumerate: samples inside torch.utils.checkpoint are made twice, the second time from a state that was"
                f" put back: call the function without it ({user_line()})"
            )

    def _like(self, func: Foreign, args: Foreign, kwargs: Foreign) -> Foreign:
        """What PyTorch returns, for its checks, shape and dtype; its numbers are overwritten."""
        return func(*args, **{**kwargs, "generator": self._own})

    def _fill(self, like: Foreign, draw: Callable[..., chances.Chances], *parameters: Foreign) -> Foreign:
        flat = [torch.as_tensor(p).double().expand(like.shape).reshape(-1).tolist() for p in parameters]
        return _write(like, self._paths.choose([draw(*values) for values in zip(*flat, strict=True)]))

    def draw_bernoulli(self, func: Foreign, args: Foreign, kwargs: Foreign) -> Foreign:
        in_place = str(func).startswith("aten.bernoulli_")
        p = args[1] if len(args) > 1 else kwargs.get("p", 0.5) if in_place else args[0]
        p = p.clone() if isinstance(p, torch.Tensor) else p
        return self._fill(self._like(func, args, kwargs), chances.bernoulli, p)

    def draw_binomial(self, func: Foreign, args: Foreign, kwargs: Foreign) -> Foreign:
        return self._fill(
            self._like(func, args, kwargs),
            lambda n, p: chances.binomial(int(n), p),
            *torch.broadcast_tensors(*args[:2]),
        )

    def draw_poisson(self, func: Foreign, args: Foreign, kwargs: Foreign) -> Foreign:
        like = self._like(func, args, kwargs)
        if (mixed := self._drawing(torch.distributions.NegativeBinomial)) is not None:
            draw = lambda n, p: chances.negative_binomial(n, 1 - p, self._tail)
            return self._fill(like, draw, mixed.total_count, mixed.probs)
        return self._fill(like, lambda rate: chances.poisson(rate, self._tail), args[0])

    def draw__standard_gamma(self, func: Foreign, args: Foreign, kwargs: Foreign) -> Foreign:
        """The rate of a negative binomial sample is summed out: that of the sample itself is known."""
        if self._drawing(torch.distributions.NegativeBinomial) is None:
            raise ScgTypeError(
                "enumerate: a gamma sample is continuous: its outcomes cannot be listed. Draw from a discrete"
                f" distribution, or judge the estimator as scg.bridge.Samples ({user_line()})"
            )
        return torch.ones_like(args[0])

    def draw_geometric(self, func: Foreign, args: Foreign, kwargs: Foreign) -> Foreign:
        p = args[1] if len(args) > 1 else kwargs["p"]
        return self._fill(self._like(func, args, kwargs), lambda p: chances.geometric(p, self._tail), p)

    def draw_uniform(self, func: Foreign, args: Foreign, kwargs: Foreign) -> Foreign:
        """``Geometric.sample`` is floor(log u / log(1 - p)): u is such that this is the value that is next."""
        source = self._drawing(torch.distributions.Geometric)
        if source is None:
            raise ScgTypeError(
                "enumerate: a uniform sample is continuous: in u < p the p cannot be seen. Write torch.bernoulli(p);"
                f" for a category, torch.multinomial(p, 1) ({user_line()})"
            )
        probs = source.probs.detach().double().expand(args[0].shape)
        self._fill(args[0], lambda p: chances.geometric(p, self._tail, first=0), probs)
        u = torch.exp((args[0].double() + 0.5) * torch.log1p(-probs))
        return args[0].copy_(torch.where(probs < 1, u, 0.5))

    def draw_multinomial(self, func: Foreign, args: Foreign, kwargs: Foreign) -> Foreign:
        like = self._like(func, args, kwargs)
        replacement = args[2] if len(args) > 2 else kwargs.get("replacement", False)
        weights = args[0].double().reshape(-1, args[0].shape[-1]).tolist()
        k = like.shape[-1]
        if replacement:
            return _write(
                like, self._paths.choose([draw for row in weights for draw in [chances.categorical(row)] * k])
            )
        return _write(like, [place for row in weights for place in self._paths.without_replacement(row, k)])

    def draw_randint(self, func: Foreign, args: Foreign, kwargs: Foreign) -> Foreign:
        low, high, size = args if len(args) == 3 else (0, *args)
        return self._integers(_empty(size, kwargs), low, high)

    def draw_randint_like(self, func: Foreign, args: Foreign, kwargs: Foreign) -> Foreign:
        low, high = args[1:] if len(args) == 3 else (0, args[1])
        return self._integers(torch.empty_like(args[0], dtype=kwargs.get("dtype")), low, high)

    def draw_random(self, func: Foreign, args: Foreign, kwargs: Foreign) -> Foreign:
        if len(args) == 1 or args[-1] is None:
            raise ScgTypeError(
                f"enumerate: random_() without bounds has more values than can be listed: give them ({user_line()})"
            )
        return self._integers(args[0], *(args[1:] if len(args) == 3 else (0, args[1])))

    def _integers(self, like: Foreign, low: int, high: int) -> Foreign:
        self._paths.foresee((high - low) ** like.numel())
        return _write(like, [low + k for k in self._paths.choose([chances.uniform(high - low)] * like.numel())])

    def draw_randperm(self, func: Foreign, args: Foreign, kwargs: Foreign) -> Foreign:
        return _write(_empty([args[0]], kwargs), self._paths.without_replacement(args[0], args[0]))

    def _drawing(self, kind: Foreign) -> Foreign:
        """The distribution whose ``sample`` is running."""
        frame = _frame_in(kind.sample.__code__.co_filename)
        return frame.f_locals["self"] if frame is not None and frame.f_code is kind.sample.__code__ else None


def _frame_in(file: str) -> Foreign:
    """The innermost running frame of a file."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename != file:
        frame = frame.f_back  # type: ignore[assignment]
    return frame


def _empty(size: Foreign, options: Foreign) -> Foreign:
    given = {name: options[name] for name in ("layout", "device") if options.get(name) is not None}
    return options["out"] if "out" in options else torch.empty(size, dtype=options.get("dtype") or torch.int64, **given)


def _write(like: Foreign, values: Sequence[int]) -> Foreign:
    return like.copy_(torch.tensor(values, dtype=torch.int64).reshape(like.shape))
