"""Gradients of PyTorch programs."""

import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from scg.bridge.calls import stacked
from scg.bridge.samples import Samples, name_of, require_parameters
from scg.core.aliases import Foreign, Function
from scg.core.tree import leaves, rebuild
from scg.errors import ScgError, ScgTypeError, ScgValueError, here

_ALONE = threading.RLock()  # PyTorch's default generator and a module's parameters are one for all threads
_ENTRIES, _MOST = 2**20, 4096  # numbers of all gradients, and gradients, of one vmap


def torch(loss: Function, params: Foreign, *, evaluations: float | None = None) -> Samples:
    """``Samples`` of the gradient that PyTorch computes of ``loss(params, generator)``, a scalar tensor.

    ``params`` are floating tensors: one, a structure of them (list, tuple, dict), ``model.parameters()``, or the
    ``nn.Module`` itself, which ``loss`` is then given; gradients have their structure, and of a module that of
    ``dict(model.named_parameters())``. What the loss does not depend on has the gradient zero. Parameters are read when
    draws are taken, and not changed; ``.grad`` is left alone.

    All randomness is taken from ``generator``, a ``torch.Generator`` that is seeded from ``rng``, or from PyTorch's
    default generator (``torch.distributions`` take no other), which is seeded too for the time of a draw. This, the
    default dtype, whether gradients are recorded, and a module's buffers are then put back.

    Draws are made together by ``torch.vmap`` where that is possible, else by a loop: ``samples.method`` says which, and
    why. A loop it is where the loss looks at the numbers of a tensor (``if``, ``.item()``), differentiates inside
    (``torch.autograd.grad``), has an ``autograd.Function`` without ``setup_context``, or reads the parameters from
    elsewhere than its argument. Under ``vmap`` arguments of ``torch.distributions`` are not checked; one draw that was
    made first was.

    Raises ScgTypeError or ScgValueError for parameters or a loss of another kind, or one that keeps a tensor from call
    to call, and whatever ``loss`` raises.
    """
    draw = Torch(loss, params)
    return Samples(draw, evaluations, method=draw.method)


class Torch:
    """draw(n, rng) of gradients of a loss; it travels to other processes where ``loss`` and ``params`` do."""

    def __init__(self, loss: Function, params: Foreign):
        lib = _torch()
        if not callable(loss):
            raise ScgTypeError(
                f"scg.bridge.torch needs a function loss(params, generator), got {type(loss).__name__} ({here()})"
            )
        require_parameters(loss, "loss(params, generator)", None, None)
        self.loss, self.dtype, self.together = loss, lib.get_default_dtype(), False
        self.params: Foreign = list(params) if isinstance(params, Iterator) else params
        self.is_module = isinstance(params, lib.nn.Module)
        _checked(lib, self._structure())
        probe = np.random.default_rng(0)
        self(1, probe)  # what the loss itself raises comes as it is
        self.method = "torch.vmap"
        self.together, self.ran = True, False
        try:
            self(2, probe)
            self.ran = True
        except Exception as error:
            self.together = False
            self.method = f"a loop, since torch.vmap refused ({_reason(error)})"

    def __repr__(self) -> str:
        return name_of(self.loss)

    def __call__(self, n: int, rng: np.random.Generator) -> Foreign:
        lib = _torch()
        before = rng.bit_generator.state
        seeds = [int(s) for s in rng.integers(2**63, size=2)]
        with _ALONE, self._kept(lib, seeds) as generator:
            states = generator.get_state(), lib.default_generator.get_state()
            found = self._by_vmap(lib, n, generator) if self.together else self._by_loop(lib, n, generator)
            drawn = not (
                lib.equal(states[0], generator.get_state())
                and lib.equal(states[1], lib.default_generator.get_state())
                and generator.device.type == "cpu"
            )
        if not drawn:
            rng.bit_generator.state = before  # no number was taken: the gradient is a constant
        return found

    def _structure(self) -> Foreign:
        if not self.is_module:
            return self.params
        return {name: p for name, p in self.params.named_parameters() if p.requires_grad}

    @contextmanager
    def _kept(self, lib: Foreign, seeds: list[int]) -> Iterator[Foreign]:
        """A generator, and PyTorch's own seeded; what is process-wide is put back."""
        dtype, checks = lib.get_default_dtype(), vars(lib.distributions.Distribution)["_validate_args"]
        buffers = [(b, b.clone()) for b in self.params.buffers()] if self.is_module else []
        devices = list(range(lib.cuda.device_count())) if lib.cuda.is_initialized() else []
        with lib.random.fork_rng(devices), lib.inference_mode(False), lib.enable_grad():
            lib.default_generator.manual_seed(seeds[1])
            if devices:
                lib.cuda.manual_seed_all(seeds[1])
            device = next((p.device for _, p in leaves(self._structure())), "cpu")
            try:
                lib.set_default_dtype(self.dtype)
                lib.distributions.Distribution.set_default_validate_args(checks and not self.together)
                yield lib.Generator(device).manual_seed(seeds[0])
            finally:
                lib.set_default_dtype(dtype)
                lib.distributions.Distribution.set_default_validate_args(checks)
                with lib.no_grad():
                    for buffer, value in buffers:
                        buffer.copy_(value)

    def _by_loop(self, lib: Foreign, n: int, generator: Foreign) -> Foreign:
        structure = self._structure()
        mine = [p if p.requires_grad else p.detach().clone().requires_grad_() for _, p in leaves(structure)]
        given = self.params if self.is_module else rebuild(structure, iter(mine))
        found = []
        for _ in range(n):
            with lib.enable_grad():
                lib.set_default_dtype(self.dtype)
                value = self._scalar(lib, self.loss(given, generator), ())
                gradients = lib.autograd.grad(value, mine, allow_unused=True)
            found.append(rebuild(structure, iter(_arrays(lib, gradients, mine))))
        return stacked(found, repr(self))

    def _by_vmap(self, lib: Foreign, n: int, generator: Foreign) -> Foreign:
        structure = self._structure()
        own = [p for _, p in leaves(structure)]
        size = max(1, min(_MOST, _ENTRIES // max(1, sum(p.numel() for p in own))))
        found = [[] for _ in own]  # type: ignore[var-annotated]
        for start in range(0, n, size):
            m = min(size, n - start)
            wide = [p.detach().expand(m, *p.shape).requires_grad_() for p in own]
            each = lib.vmap(self._marked(lib, structure, generator), randomness="different")
            try:
                losses = self._scalar(lib, each(lib.zeros(m, device=generator.device), *wide), (m,))
            except (RuntimeError, ScgValueError) as error:
                if not self.ran:
                    raise
                raise ScgValueError(
                    f"{self!r} ran by torch.vmap before, and then no more ({_reason(error)}): so does a loss that keeps"
                    f" a tensor from call to call, as a baseline that learns; freeze it ({here()})"
                ) from error
            others = [p for p in own if p.requires_grad]
            gradients = lib.autograd.grad(losses.sum(), [*wide, *others], allow_unused=True)
            if any(g is not None for g in gradients[len(wide) :]):
                raise _Beside("the loss reads parameters beside its argument")
            for column, array in zip(found, _arrays(lib, gradients[: len(wide)], wide), strict=True):
                column.append(array)
        return rebuild(structure, (np.concatenate(column) for column in found))

    def _marked(self, lib: Foreign, structure: Foreign, generator: Foreign) -> Function:
        """The loss of one replicate, as a function of a number of its own and of the parameters."""

        class Empty(lib.overrides.TorchFunctionMode):  # type: ignore[misc, name-defined]
            """New memory is each replicate's own, since vmap fills none at random that all share, as Normal.rsample
            asks it to."""

            def __init__(self, mark: Foreign):
                super().__init__()
                self.mark = mark

            def __torch_function__(
                self, func: Foreign, types: Foreign, args: Foreign = (), kwargs: Foreign = None
            ) -> Foreign:
                out = func(*args, **(kwargs or {}))
                return out + self.mark.to(out.dtype) if func in fresh else out

        fresh = (lib.empty, lib.Tensor.new_empty, lib.Tensor.new)
        names = [f"module.{name}" for name in structure] if self.is_module else []
        holder = _holder(lib, self.params) if self.is_module else None

        def one(mark: Foreign, *values: Foreign) -> Foreign:
            with Empty(mark), lib.enable_grad():
                if holder is not None:
                    named = dict(zip(names, values, strict=True))
                    return lib.func.functional_call(holder, named, (self.loss, generator))
                return self.loss(rebuild(structure, iter(values)), generator)

        return one

    def _scalar(self, lib: Foreign, value: Foreign, shape: tuple[int, ...]) -> Foreign:
        if not isinstance(value, lib.Tensor) or tuple(value.shape) != shape or value.is_complex():
            got = f"shape {tuple(value.shape)}" if isinstance(value, lib.Tensor) else type(value).__name__
            raise ScgValueError(f"{self!r}: a loss must be a real tensor of shape (), got {got} ({here()})")
        if not value.requires_grad:
            raise ScgValueError(
                f"{self!r}: the loss depends on no parameter that it was given: compute it from its first argument, and"
                f" detach no more than a part of it ({here()})"
            )
        return value


class _Beside(ScgError, ValueError):
    """A loss that has parameters from elsewhere."""


def _holder(lib: Foreign, module: Foreign) -> Foreign:
    """A module whose call is that of a function of ``module``."""

    class Holder(lib.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, loss: Foreign, generator: Foreign) -> Foreign:
            return loss(self.module, generator)

    return Holder()


def _reason(error: Exception) -> str:
    """The first sentence of an error."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].split(". ")[0].removeprefix("vmap: ")


def _arrays(lib: Foreign, gradients: Foreign, like: list[Foreign]) -> list[Foreign]:
    """Gradients as NumPy's arrays, zeros where there is none; NumPy has no bfloat16."""
    found = [lib.zeros_like(p) if g is None else g for g, p in zip(gradients, like, strict=True)]
    return [(g.float() if g.dtype == lib.bfloat16 else g).detach().cpu().numpy() for g in found]


def _checked(lib: Foreign, structure: Foreign) -> None:
    found = list(leaves(structure))
    for path, p in found:
        if not isinstance(p, lib.Tensor) or not p.is_floating_point():
            got = f"a tensor of {p.dtype}" if isinstance(p, lib.Tensor) else type(p).__name__
            raise ScgTypeError(
                f"scg.bridge.torch: params must be floating tensors, got {got}{' at ' + path if path else ''}: write"
                f" torch.tensor(x, dtype=torch.float64) ({here()})"
            )
    if not found:
        raise ScgValueError(f"scg.bridge.torch: there are no parameters that need a gradient ({here()})")


def _torch() -> Foreign:
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise MissingError(f"scg.bridge.torch needs PyTorch, which is not installed: {error} ({here()})") from error


class MissingError(ScgError, ImportError):
    """A library that a bridge leads to is not installed."""
