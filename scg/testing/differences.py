"""The gradient of an expected cost by central differences with random numbers in common: what a graph's estimator is
compared with where no exact gradient is known."""

import math
from collections.abc import Hashable

import numpy as np

from scg.core.aliases import Numbers
from scg.core.tree import leaves
from scg.errors import EstimatorError, GuardError, ScgError, ScgValueError, here
from scg.stochastic.estimator import Accounted
from scg.stochastic.graph import Graph
from scg.stochastic.sites import is_draw
from scg.testing.around import Around
from scg.testing.bends import Bends, clear
from scg.testing.coupling import Coupled, comes_apart
from scg.testing.structure import join, paths, precision, split

PILOT = 256
"""Draws that set origins, weights and steps, and are thrown away: what is tested is not chosen by the draws that test
it."""
PROJECTIONS = 8
DIFFERENCES = 32
"""Coordinates that are differenced one by one; more along random directions."""
_HALVES = 16  # of a step, at most
_BYTES = 2**20  # that the largest array of one evaluation of the cost may take


class Differences:
    """Draws of a graph's gradient minus differences of its cost, along each coordinate, or along random directions."""

    method = "differences of the expected cost"
    known = None
    floor = 0.0  # they may vary much more than the gradient, and a bias is not small for that

    def __init__(self, graph: Graph, rng: np.random.Generator, shorter: float = 1.0):
        self.graph, self.rng, self.shorter = graph, rng, shorter
        self.names = paths(graph)
        self.size = len(self.names)
        self.by_coordinate = self.size <= DIFFERENCES
        self.correction: np.ndarray = np.zeros(1)
        self.total: np.ndarray = np.zeros(1)
        self.drawn = 0
        self._begin()

    def draw(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """n draws of (gradient minus differences, gradient) along each direction."""
        errors, estimates = [], []
        for start in range(0, n, self.chunk):
            size = min(self.chunk, n - start)
            seed = int(self.rng.integers(2**63))
            g = join(self.graph.gradients(rng=np.random.default_rng(seed), replicates=size), size)
            g = g if self.by_coordinate else g @ self.directions.T
            steps = np.stack([self.steps, 2 * self.steps])
            shifts = np.array([1.0, -1.0])[:, None] * (steps[..., None] * self.directions)[:, :, None]
            try:
                costs = self.around.costs(self.point + shifts.reshape(-1, self.size), size, seed)
            except GuardError as error:  # an ``if`` on a sample, that so far came out as it did
                raise _no_reference(error) from error
            ahead, behind = np.moveaxis(costs.reshape(2, len(self.directions), 2, size), 2, 0)
            central = (ahead - behind) / (2 * steps)[..., None]
            reference = (4 * central[0] - central[1]) / 3
            self.correction = self.correction + np.sum(reference - central[0], axis=1)
            self.total = self.total + np.sum(reference, axis=1)
            self.drawn += size
            errors.append(g - reference.T)
            estimates.append(g)
        return np.concatenate(errors), np.concatenate(estimates)

    def restart(self) -> None:
        """Forget the draws so far."""
        self.correction, self.total, self.drawn = np.zeros(1), np.zeros(1), 0

    @property
    def mean(self) -> np.ndarray:
        """Of the differences so far."""
        return self.total / max(1, self.drawn)

    def allowance(self) -> np.ndarray:
        """How far they may be off: a quarter of the mean of the last correction."""
        return np.abs(self.correction) / (4 * max(1, self.drawn))

    def rounding(self, along: np.ndarray, centre: np.ndarray) -> Numbers:
        """What rounding may do to the mean."""
        return np.max(precision(self.graph)) * (np.abs(along) + abs(float(self.graph.cost.raw)) / np.min(self.steps))

    def _begin(self) -> None:
        """Directions, and the largest step, a twentieth of the parameters' size or a power of 1/2 of that, at which the
        costs exist; along some directions a smaller one, that nothing bends or jumps on the way."""
        self.graph.gradients()  # a gradient that is refused is no matter of the costs around
        signs = (
            np.eye(self.size)
            if self.by_coordinate
            else self.rng.choice([-1.0, 1.0], (2 * PROJECTIONS, self.size)) / math.sqrt(self.size)
        )
        self.directions = signs
        if not self.by_coordinate:
            self.names = [f"random direction {i}" for i in range(len(signs))]
        relaxed = {
            n: Accounted()
            for n, node in self.graph.stochastic.items()
            if not node.statics["site"].estimator.keeps_distribution
        }
        self.model = self.graph.bind(relaxed) if relaxed else self.graph
        self.point = join([leaf.value for _, leaf in leaves(self.graph.parameters)], 1)[0]
        step = 0.05 * max(1.0, float(np.max(np.abs(self.point))))
        largest = max([n.raw.nbytes for n in self.model.nodes if not isinstance(n.raw, tuple)], default=8)
        self.chunk = max(1, min(2**15, _BYTES // largest))
        why: GuardError | None = None
        for _ in range(_HALVES):
            try:
                if self._exist(step * signs):
                    break
            except GuardError as error:
                why = error
            except EstimatorError:  # of the gradient, wherever the costs are
                raise
            except ScgError:
                pass
            step /= 2
        else:
            raise _no_reference(why or "the cost does not exist around the parameters")
        self.steps = np.full(len(signs), step)
        try:
            self._couple()
            self._narrow()
            self.steps /= self.shorter
            self._widen()
        except GuardError as error:
            raise _no_reference(error) from error

    def _narrow(self) -> None:
        """Halve steps until nothing bends or jumps across them, where there are such steps."""
        self.bends = Bends(self.model, self._run(0 * self.point, PILOT, 0), PILOT)
        for k, step in enumerate(self.steps):
            smooth = (step / 2**i for i in range(_HALVES) if self._is_smooth(k, step / 2**i))
            self.steps[k] = next(smooth, step)

    def _is_smooth(self, k: int, step: float) -> bool:
        """Whether nothing bends or jumps between costs that a direction's differences with this step take."""
        if not self.bends.nodes:
            return True
        v, least = self.directions[k], self.steps[k] / 2**_HALVES
        at = lambda h: [x for _, x in leaves(split(self.graph, self.point + h * v))]
        return clear(self.bends, at(0.0), *[[at(side * h) for side in (-1, 1)] for h in (2 * step, least)])

    def _couple(self) -> None:
        """Draw by quantiles what rejection draws, which is no function of the parameters for given random numbers:
        costs a step apart would then differ as if they had no draws in common, by their standard deviation over the
        step."""
        # a pathwise one is a function of its noise
        drawn = {name for name, node in self.model.stochastic.items() if is_draw(node)}
        apart: set[str] = set()
        known: dict[Hashable, bool] = {}
        for v, h in zip(self.directions, self.steps, strict=True):
            one, other = (self._run(side * 2 * h * v, 1, 0).stochastic for side in (-1, 1))
            for name in sorted(drawn & one.keys() & other.keys() - apart):
                distributions = [run[name].statics["site"].distribution.detached() for run in (one, other)]
                pair = tuple(
                    [(repr(d), *[np.asarray(p).tobytes() for p in d.parameters.values()]) for d in distributions]
                )
                if pair not in known:  # the steps of a simulation are alike
                    known[pair] = pair[0] != pair[1] and comes_apart(*distributions)
                if known[pair]:
                    apart.add(name)
        if apart:
            self.model = self.model.bind(dict.fromkeys(sorted(apart), Coupled()))
        self.around = Around(self.model)

    def _widen(self) -> None:
        """Double the step, twice at most, where differences vary more than twice as much as the gradient: so they do,
        by 1 / step, where costs jump."""
        for _ in range(2):
            with np.errstate(all="ignore"):
                e, g = self.draw(PILOT)
            if np.all((g - e).var(axis=0) <= 2 * g.var(axis=0)):
                return
            wider = [h * (1 + self._is_smooth(k, 2 * h)) for k, h in enumerate(self.steps)]
            try:
                if not self._exist(np.array(wider)[:, None] * self.directions):
                    return
            except ScgError:
                return
            self.steps = np.array(wider)

    def _run(self, shift: np.ndarray, n: int, seed: int) -> Graph:
        return self.model.run(
            rng=np.random.default_rng(seed), parameters=split(self.graph, self.point + shift), replicates=n
        )

    def _exist(self, steps: np.ndarray) -> bool:
        """Whether costs are finite two steps away, on either side. Raises ScgValueError where a sample would have
        parameters that its distribution refuses."""
        points = self.point + np.concatenate([2 * steps, -2 * steps])
        with np.errstate(all="ignore"):
            return bool(np.all(np.isfinite(Around(self.model).costs(points, 16, 0))))


def _no_reference(why: GuardError | str) -> ScgValueError:
    return ScgValueError(f"no reference: {why}; give reference=, of the parameters' structure ({here()})")
