"""What is tested for bias: draws of a graph's gradient minus what it should be, along coordinates and projections."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from scg import exact
from scg.core.node import Node, ancestors
from scg.core.tree import leaves, map_leaves, rebuild
from scg.errors import EstimatorError, GuardError, ScgError, ScgValueError, here
from scg.exact.paths import guards_on_draws
from scg.stochastic.estimator import Accounted
from scg.stochastic.graph import Graph
from scg.stochastic.sites import is_draw, is_noise, is_stochastic
from scg.testing.confidence import FLOOR, Source
from scg.testing.coupling import Coupled, comes_apart

# draws that set origins, weights and steps, and are thrown away: what is tested is not chosen by the draws that test it
_PILOT = 256
PROJECTIONS = 8
DIFFERENCES = 32  # coordinates that are differenced one by one; more along random directions
_BYTES = 2**22  # that the largest array of one evaluation of the cost may take


class Streams:
    """Draws of the gradient minus the reference: of each coordinate, then of projections. Choices are made by a pilot,
    whose draws are not used again.

    ``names`` of the streams; ``scale`` of the reference, ``rounding``, and ``bounds`` in them; ``origin``, near the
    mean of each.
    """

    def __init__(
        self, graph: Graph, reference: Any, rng: np.random.Generator, bounds: Any, projections: int = PROJECTIONS
    ):
        self.graph, self.rng = graph, rng
        self.names = paths(graph)
        self.size = len(self.names)
        self.known, self.method = _reference(graph, reference)
        self.correction, self.differenced, self.drawn, self.varied = np.zeros(1), np.zeros(1), 0, np.array(False)
        if self.known is None:
            self._begin_differences()
        self.projection = np.zeros((0, len(self.names)))
        e, g = self.draw(_PILOT)
        finite = np.isfinite(g).all(axis=0) & np.isfinite(e).all(axis=0)
        g, e = np.where(finite, g, 0), np.where(finite, e, 0)
        self.centre, self.deviation = g.mean(axis=0), g.std(axis=0)
        if self.known is not None:
            along, self.scale = self.known, by_leaf(graph, np.abs(self.known))
            rounding = precision(graph) * (self.scale + np.abs(self.centre) + abs(float(graph.cost.raw)))
        else:
            along, error = (g - e).mean(axis=0), (g - e).std(axis=0) / math.sqrt(_PILOT)
            self.scale = np.maximum(np.abs(along) - 3 * error, 0)
            rounding = np.max(precision(graph)) * (np.abs(along) + abs(float(graph.cost.raw)) / self.step)
        if projections and self.by_coordinate and self.size > 1:
            self._project(projections, along)
        self.scale = np.concatenate([self.scale, np.abs(self.projection @ along)])
        # differences with common draws vary less than the gradient: what is small is told by the gradient
        if self.known is None:
            deviation = np.concatenate([self.deviation, (g @ self.projection.T).std(axis=0)])
            self.scale, self.varied = (
                np.maximum(self.scale, FLOOR * deviation),
                deviation > 1e-6 * (np.abs(deviation).max() + 1e-300),
            )
        self.rounding = np.concatenate([rounding, np.abs(self.projection) @ rounding])
        self.origin = np.concatenate([e.mean(axis=0), self.projection @ e.mean(axis=0)])
        self.bounds = None if bounds is None else self._bounds(bounds)
        self.correction, self.differenced, self.drawn = np.zeros(1), np.zeros(1), 0

    def draw(self, n: int) -> tuple[Any, Any]:
        """(n draws of all streams, and of the gradient's coordinates)."""
        with np.errstate(all="ignore"):
            if self.known is None:
                e, g = self._differences(n)
            else:
                g = join(self.graph.gradients(rng=self.rng, replicates=n), n)
                e = g - self.known
            return np.concatenate([e, e @ self.projection.T], axis=1), g

    def source(self, constant: Callable[[], Any]) -> Source:
        """The streams as they are judged; ``constant()`` says which are known not to vary.

        A difference of a gradient and of costs may vary much more than the gradient, and a bias is not small for that:
        its scale is as the pilot found it.
        """
        return Source(
            draw=self._with_estimates,
            scale=self.scale,
            floor=FLOOR if self.known is not None else 0.0,
            rounding=self.rounding,
            allowance=self.allowance,
            bounds=self.bounds,
            origin=self.origin,
            varied=self.varied,
            constant=constant,
            projection=self.projection,
        )

    def _with_estimates(self, n: int) -> tuple[Any, Any]:
        e, g = self.draw(n)
        return e, None if self.known is not None else np.concatenate([g, g @ self.projection.T], axis=1)

    def allowance(self) -> Any:
        """How far the reference may be off: of differences, a quarter of the mean of the last correction."""
        if self.known is not None:
            return 0.0
        a = np.abs(self.correction) / (4 * max(1, self.drawn))
        return np.concatenate([a, np.abs(self.projection) @ a])

    @property
    def reference(self) -> Any:
        """What the gradient should be; of differences their mean so far, nan for what has none of its own."""
        if self.known is not None:
            return self.known
        return self.differenced / max(1, self.drawn) if self.by_coordinate else np.full(self.size, np.nan)

    @property
    def expected(self) -> Any:
        """What the mean of every stream should be; of differences their mean so far."""
        known = self.known if self.known is not None else self.differenced / max(1, self.drawn)
        return np.append(known, self.projection @ known)

    @property
    def by_coordinate(self) -> bool:
        """Whether the first streams are the coordinates themselves."""
        return self.known is not None or self.size <= DIFFERENCES

    def _project(self, count: int, along: Any) -> None:
        """The direction of the reference, and random ones in units of the standard deviation."""
        rows, names = [], []
        if np.any(along):
            rows, names = [along / np.linalg.norm(along)], ["projection on the gradient"]
        unit = np.divide(1, self.deviation, where=self.deviation > 0, out=np.zeros(self.size))
        if np.any(unit):
            signs = self.rng.choice([-1.0, 1.0], (count, self.size))
            rows += list(signs * unit / np.linalg.norm(unit))
            names += [f"random projection {i}" for i in range(count)]
        self.projection, self.names = np.array(rows).reshape(-1, self.size), self.names + names

    def _bounds(self, bounds: Any) -> tuple[Any, Any]:
        if self.known is None:
            raise ScgValueError(
                f"bounds need a reference that is exact or given: differences have other bounds ({here()})"
            )
        targets = [leaf for _, leaf in leaves(self.graph.parameters)]
        sides = []
        for side in bounds:
            parts = (
                [side] * len(targets)
                if isinstance(side, (int, float, np.number))
                else [leaf for _, leaf in leaves(side)]
            )
            sides.append(
                np.concatenate([np.broadcast_to(x, t.shape).reshape(-1) for x, t in zip(parts, targets, strict=True)])
                - self.known
            )
        low, high = sides
        ends = self.projection[:, None] * np.stack(sides)
        return np.concatenate([low, ends.min(axis=1).sum(axis=1)]), np.concatenate([high, ends.max(axis=1).sum(axis=1)])

    def _begin_differences(self) -> None:
        """Directions, and the largest step, a twentieth of the parameters' size or a power of 1/2 of that, at which the
        costs exist."""
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
        self.step = 0.05 * max(1.0, float(np.max(np.abs(self.point))))
        largest = max([n.raw.nbytes for n in self.model.nodes if not isinstance(n.raw, tuple)], default=8)
        self.chunk = max(1, min(4096, _BYTES // largest))
        for _ in range(16):
            try:
                if all(self._exists(side * 2 * self.step * v) for v in signs for side in (-1, 1)):
                    self._couple()
                    self._widen()
                    return
            except GuardError as error:
                raise ScgValueError(
                    f"no reference: {error}; give reference=, of the parameters' structure ({here()})"
                ) from error
            except EstimatorError:  # of the gradient, wherever the costs are
                raise
            except ScgError:
                pass
            self.step /= 2
        raise ScgValueError(
            "no reference: the cost does not exist around the parameters; give reference=, of the parameters'"
            f" structure ({here()})"
        )

    def _couple(self) -> None:
        """Draw by quantiles what rejection draws, which is no function of the parameters for given random numbers:
        costs a step apart would then differ as if they had no draws in common, by their standard deviation over the
        step."""
        # a pathwise one is a function of its noise
        drawn = {name for name, node in self.model.stochastic.items() if is_draw(node)}
        apart: set[str] = set()
        for v in self.directions:
            one, other = (self._run(side * 2 * self.step * v, 1, 0).stochastic for side in (-1, 1))
            for name in sorted(drawn & one.keys() & other.keys() - apart):
                distributions = [run[name].statics["site"].distribution.detached() for run in (one, other)]
                if distributions[0].parameters and comes_apart(*distributions):
                    apart.add(name)
        if apart:
            self.model = self.model.bind(dict.fromkeys(sorted(apart), Coupled()))

    def _widen(self) -> None:
        """Double the step, twice at most, where differences vary more than twice as much as the gradient: so they do,
        by 1 / step, where costs jump."""
        for _ in range(2):
            with np.errstate(all="ignore"):
                e, g = self._differences(_PILOT)
            if np.all((g - e).var(axis=0) <= 2 * g.var(axis=0)):
                return
            try:
                if not all(self._exists(side * 4 * self.step * v) for v in self.directions for side in (-1, 1)):
                    return
            except ScgError:
                return
            self.step *= 2

    def _run(self, shift: Any, n: int, seed: int) -> Graph:
        return self.model.run(
            rng=np.random.default_rng(seed), parameters=split(self.graph, self.point + shift), replicates=n
        )

    def _costs(self, shift: Any, n: int, seed: int) -> Any:
        return self._run(shift, n, seed).cost.value.astype(float)

    def _exists(self, shift: Any) -> bool:
        """Whether costs are finite there, and all distributions have parameters of their sets, which a replay does not
        check."""
        run = self._run(shift, 16, 0)
        return bool(np.all(np.isfinite(run.cost.value))) and all(
            _holds(n.statics["site"].distribution.detached()) for n in run.stochastic.values()
        )

    def _differences(self, n: int) -> tuple[Any, Any]:
        errors, estimates = [], []
        for start in range(0, n, self.chunk):
            size = min(self.chunk, n - start)
            seed = int(self.rng.integers(2**63))
            g = join(self.graph.gradients(rng=np.random.default_rng(seed), replicates=size), size) @ self.directions.T
            central = [
                np.stack(
                    [
                        (self._costs(h * v, size, seed) - self._costs(-h * v, size, seed)) / (2 * h)
                        for v in self.directions
                    ],
                    axis=1,
                )
                for h in (self.step, 2 * self.step)
            ]
            reference = (4 * central[0] - central[1]) / 3
            self.correction = self.correction + np.sum(reference - central[0], axis=0)
            self.differenced = self.differenced + np.sum(reference, axis=0)
            self.drawn += size
            errors.append(g - reference)
            estimates.append(g)
        return np.concatenate(errors), np.concatenate(estimates)


def _holds(distribution: Any) -> bool:
    own = all(
        np.all(c.contains(value))
        for name, c in distribution.constraints.items()
        if (value := getattr(distribution, name)) is not None
    )
    return own and all(_holds(getattr(distribution, part)) for part in distribution.parts)


def _reference(graph: Graph, reference: Any) -> tuple[Any, str]:
    """(numbers, what they are); (None, "differences ...") where there are none."""
    differences = None, "differences of the expected cost"
    if matches(reference, "differences"):
        return differences
    if matches(reference, "auto") or matches(reference, "exact"):
        try:
            limit = None if matches(reference, "exact") else exact.PATIENCE
            return join(exact.gradient(graph, time_limit=limit), 1)[0], "the exact gradient"
        except ScgError:
            if matches(reference, "exact"):
                raise
            return differences
    targets, given = list(leaves(graph.parameters)), list(leaves(reference))
    if [path for path, _ in targets] != [path for path, _ in given]:
        raise ScgValueError(
            f"reference needs the parameters' structure, {[p for p, _ in targets]}, got {[p for p, _ in given]}"
            f" ({here()})"
        )
    for (path, leaf), (_, value) in zip(targets, given, strict=True):
        if isinstance(value, str) or np.shape(value) != leaf.shape or not np.all(np.isfinite(value)):
            raise ScgValueError(f"reference{path} must be finite and of shape {leaf.shape}, got {value!r} ({here()})")
    return join(reference, 1)[0], "the given reference"


def matches(reference: Any, word: str) -> bool:
    """Whether a reference is given by this word, and not by numbers."""
    return isinstance(reference, str) and reference == word


def join(tree: Any, n: int) -> Any:
    """The leaves side by side, (n, coordinates), in float64."""
    return np.concatenate([np.asarray(leaf, float).reshape(n, -1) for _, leaf in leaves(tree)], axis=1)


def split(graph: Graph, row: Any) -> Any:
    """Numbers for all coordinates in the parameters' structure."""
    targets = [leaf for _, leaf in leaves(graph.parameters)]
    parts = np.split(row, np.cumsum([t.size for t in targets])[:-1])
    return rebuild(graph.parameters, (part.reshape(t.shape) for part, t in zip(parts, targets, strict=True)))


def fixed(graph: Graph, moments: tuple[Any, Any] | None = None) -> Any:
    """For each coordinate whether its gradient is known not to vary: no draw or noise leads to it, or its exact (mean,
    variance) say so, but for rounding.

    Draws alone cannot tell: what happens once in a million replicates has not happened in the first thousand.
    """
    if guards_on_draws(graph) or not graph.is_complete:  # another way, or other numbers, may lead to another gradient
        still = [False for _ in graph.recorded[0]]
    else:
        still = [not (type(g) is Node and depends(g)) for g in graph.recorded[0]]
    found = np.repeat(still, [leaf.size for _, leaf in leaves(graph.parameters)])
    if moments is None:
        return found
    mean, variance = moments
    return found | (
        np.sqrt(np.maximum(variance, 0)) <= 1e-8 * np.abs(mean) + precision(graph) * abs(float(graph.cost.raw))
    )


def depends(*roots: Node) -> bool:
    """Whether a draw or noise leads to one of them."""
    return any(is_stochastic(x) or is_noise(x) for x in ancestors(roots, guards=True))


def by_leaf(graph: Graph, row: Any) -> Any:
    """For each coordinate the largest of its parameter."""
    return join(map_leaves(lambda x: np.full(x.shape, np.max(x, initial=0)), split(graph, row)), 1)[0]


def precision(graph: Graph) -> Any:
    """2^8 units of rounding, for each coordinate."""
    return join(
        map_leaves(lambda node: np.full(node.shape, 2**8 * float(np.finfo(node.dtype).eps)), graph.parameters), 1
    )[0]


def paths(graph: Graph) -> list[str]:
    """The path of each coordinate, as one would write it; of a number that is all there is, "the parameter"."""
    found = []
    for path, leaf in leaves(graph.parameters):
        found += [
            path + (f"[{', '.join(map(str, index))}]" if index else "") or "the parameter"
            for index in np.ndindex(leaf.shape)
        ]
    return found
