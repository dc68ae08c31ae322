"""Estimators with parameters of their own, which they train on the samples of a run."""

import copy
import math
from collections.abc import Callable

import numpy as np

from scg.core.aliases import State, Tree
from scg.core.ambient import unplanned
from scg.core.backward import pull
from scg.core.leaves import parameter
from scg.core.node import Value
from scg.core.tree import leaves, leaves_like, map_leaves, rebuild
from scg.errors import ScgTypeError, here
from scg.optim import Optimizer
from scg.stochastic.costs import at_first
from scg.stochastic.estimator import Elsewhere
from scg.stochastic.surrogate import Downstream


class Trained(Elsewhere):
    """An estimator with ``parameters`` that an ``optimizer`` trains in place: the mean of its gradient g does not
    depend on them, so the gradient of g^2 is an estimate of that of its variance.

    One run at a time, after each use, so that a sample never meets what it has trained.
    """

    second_derivatives = False

    def __init__(self, parameters: Tree, optimizer: Callable[[Tree], Optimizer] | None, coupled: bool = True):
        super().__init__(coupled=coupled)
        if optimizer is not None and not callable(optimizer):
            raise ScgTypeError(
                f"{type(self).__name__}: optimizer must be a function of the parameters (scg.optim.Adam), got"
                f" {optimizer!r} ({here()})"
            )
        self.parameters = parameters
        self.optimizer = optimizer(parameters) if optimizer is not None else None

    @property
    def _anew(self) -> str:
        """What a representation ends in."""
        return "" if self.coupled else ", coupled=False"

    def trained(self, down: Downstream) -> tuple[Tree, bool]:
        """The parameters for an estimate, and whether it is to train them: they are nodes then."""
        if self.optimizer is not None:
            unplanned(f"{type(self).__name__} trains its control in every run, and a plan would not")
        trains = self.optimizer is not None and not down.graph and down.teaches
        if self.optimizer is not None and (first := at_first(self, lambda: copy.deepcopy(self.parameters))) is not None:
            return first, False
        return map_leaves(parameter if trains else lambda x: x, self.parameters), trains

    def learn(self, down: Downstream, phi: Tree, g: Value) -> None:
        """One step of the optimizer on the mean over replicates of the sum of g^2; ``phi`` the parameters as nodes."""
        nodes = [leaf for _, leaf in leaves(phi)]
        cost = np.sum(g * g) / max(math.prod(down.shape[: down.site.replicate_axes]), 1)
        assert self.optimizer is not None
        self.optimizer.step(rebuild(self.parameters, iter(pull([cost], [np.ones((), cost.dtype)], nodes))))

    @property
    def state(self) -> State:  # type: ignore[override]
        """What is trained, and the state of its optimizer."""
        return (
            {"parameters": self.parameters, "optimizer": getattr(self.optimizer, "state", None)}
            if self.optimizer is not None
            else {}
        )

    @state.setter
    def state(self, state: State) -> None:
        if not state:
            return
        for (_, x), value in zip(
            leaves(self.parameters), leaves_like(self.parameters, state["parameters"], "parameters"), strict=True
        ):
            x[...] = value
        if state["optimizer"] is not None and self.optimizer is not None:
            self.optimizer.state = state["optimizer"]
