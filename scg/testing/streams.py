"""What is tested for bias: draws of a gradient minus what it should be, along coordinates and projections."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from scg import exact
from scg.bridge.samples import Sampled, Samples
from scg.core.aliases import Result, Tree
from scg.core.tree import leaves
from scg.errors import ScgError, ScgTypeError, ScgValueError, here
from scg.stochastic.graph import Graph
from scg.testing.confidence import FLOOR
from scg.testing.deciding import Source
from scg.testing.differences import PILOT, PROJECTIONS, Differences
from scg.testing.structure import Subject, by_leaf, cost_of, join, paths, precision


class Streams:
    """Draws of the gradient minus the reference: of each coordinate, then of projections. Choices are made by a pilot,
    whose draws are not used again.

    ``names`` of the streams; ``scale`` of the reference, ``rounding``, and ``bounds`` in them; ``origin``, near the
    mean of each.
    """

    def __init__(
        self,
        subject: Subject,
        reference: Tree,
        rng: np.random.Generator,
        bounds: tuple[Tree, Tree] | None,
        projections: int = PROJECTIONS,
        paired: bool = False,
        shorter: float = 1.0,
    ):
        self.subject, self.rng = subject, rng
        self.against = _against(subject, reference, rng, paired, shorter)
        self.names, self.size = self.against.names, len(paths(subject))
        self.known, self.method, self.by_coordinate = (
            self.against.known,
            self.against.method,
            self.against.by_coordinate,
        )
        self.projection = np.zeros((0, len(self.names)))
        e, g = self.draw(PILOT)
        finite = np.isfinite(g).all(axis=0) & np.isfinite(e).all(axis=0)
        g, e = np.where(finite, g, 0), np.where(finite, e, 0)
        self.centre, self.deviation = g.mean(axis=0), g.std(axis=0)
        if self.known is not None:
            along, self.scale = self.known, by_leaf(subject, np.abs(self.known))
        else:
            along, error = (g - e).mean(axis=0), (g - e).std(axis=0) / math.sqrt(PILOT)
            self.scale = np.maximum(np.abs(along) - 3 * error, 0)
        rounding = self.against.rounding(along, self.centre)
        if projections and self.by_coordinate and self.size > 1:
            self._project(projections, along)
        self.scale = np.concatenate([self.scale, np.abs(self.projection @ along)])
        # differences with common draws vary less than the gradient: what is small is told by the gradient
        if self.known is None:
            deviation = np.concatenate([self.deviation, (g @ self.projection.T).std(axis=0)])
            self.scale = np.maximum(self.scale, FLOOR * deviation)
        self.rounding = np.concatenate([rounding, np.abs(self.projection) @ rounding])
        self.origin = np.concatenate([e.mean(axis=0), self.projection @ e.mean(axis=0)])
        self.bounds = None if bounds is None else self._bounds(bounds)
        self.against.restart()

    def draw(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """(n draws of all streams, and of the gradient's coordinates)."""
        with np.errstate(all="ignore"):
            e, g = self.against.draw(n)
            return np.concatenate([e, e @ self.projection.T], axis=1), g

    def source(self, constant: Callable[[], bool | np.ndarray]) -> Source:
        """The streams as they are judged; ``constant()`` says which are known not to vary.

        A difference of a gradient and of costs may vary much more than the gradient, and a bias is not small for that:
        its scale is as the pilot found it.
        """
        return Source(
            draw=self._with_estimates,
            scale=self.scale,
            floor=self.against.floor,
            rounding=self.rounding,
            allowance=self.allowance,
            bounds=self.bounds,
            origin=self.origin,
            constant=constant,
            projection=self.projection,
        )

    def _with_estimates(self, n: int) -> tuple[np.ndarray, np.ndarray | None]:
        e, g = self.draw(n)
        return e, None if self.known is not None else np.concatenate([g, g @ self.projection.T], axis=1)

    def allowance(self) -> Result:
        """How far the reference may be off."""
        a = self.against.allowance()
        return 0.0 if a is None else np.concatenate([a, np.abs(self.projection) @ a])

    @property
    def reference(self) -> np.ndarray:
        """What the gradient should be; of what is drawn its mean so far, nan for what has none of its own."""
        return self.against.mean if self.by_coordinate else np.full(self.size, np.nan)

    @property
    def expected(self) -> np.ndarray:
        """What the mean of every stream should be; of what is drawn its mean so far."""
        return np.append(self.against.mean, self.projection @ self.against.mean)

    def _project(self, count: int, along: np.ndarray) -> None:
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

    def _bounds(self, bounds: tuple[Tree, Tree]) -> tuple[np.ndarray, np.ndarray]:
        """Of each stream: those of the gradient less the reference, which has the same bounds where it is drawn."""
        if isinstance(self.against, Differences):
            raise ScgValueError(
                f"bounds need a reference that is exact or given: differences have other bounds ({here()})"
            )
        targets = [leaf for _, leaf in leaves(self.subject.parameters)]
        sides = []
        for side in bounds:
            parts = (
                [side] * len(targets)
                if isinstance(side, (int, float, np.number))
                else [leaf for _, leaf in leaves(side)]
            )
            sides.append(
                np.concatenate([np.broadcast_to(x, t.shape).reshape(-1) for x, t in zip(parts, targets, strict=True)])
            )
        low, high = sides
        low, high = (low - self.known, high - self.known) if self.known is not None else (low - high, high - low)
        ends = self.projection[:, None] * np.stack([low, high])
        return np.concatenate([low, ends.min(axis=1).sum(axis=1)]), np.concatenate([high, ends.max(axis=1).sum(axis=1)])


class Known:
    """Draws of a gradient minus numbers: the exact gradient, or what was given."""

    floor, by_coordinate = FLOOR, True

    def __init__(self, subject: Subject, numbers: np.ndarray, method: str, rng: np.random.Generator):
        self.subject, self.known, self.mean, self.method, self.rng = subject, numbers, numbers, method, rng
        self.names = paths(subject)

    def draw(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """n draws of (gradient minus reference, gradient)."""
        g = join(self.subject.gradients(rng=self.rng, replicates=n), n)
        return g - self.known, g

    def restart(self) -> None:
        """Nothing is kept of draws."""

    def allowance(self) -> Result:
        """The numbers are exact."""

    def rounding(self, along: np.ndarray, centre: np.ndarray) -> np.ndarray:
        """What rounding may do to the mean."""
        scale = by_leaf(self.subject, np.abs(along))
        return precision(self.subject) * (scale + np.abs(centre) + cost_of(self.subject))


class Others:
    """Draws of a gradient minus those of other Samples, of which the mean should be the same: independent ones, or with
    the same seed where ``paired``."""

    floor, by_coordinate, known = 0.0, True, None

    def __init__(self, subject: Subject, other: Sampled, paired: bool, rng: np.random.Generator):
        self.subject, self.other, self.paired, self.rng = subject, other, paired, rng
        self.names = paths(subject)
        self.method = f"{other.samples!r}" + (", with common seeds" if paired else "")
        self.total: np.ndarray = np.zeros(len(self.names))
        self.drawn = 0

    def draw(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """n draws of (gradient minus the other's, gradient)."""
        seeds = self.rng.integers(2**63, size=2)
        g, r = (
            join(subject.gradients(rng=np.random.default_rng(int(seeds[k])), replicates=n), n)
            for k, subject in ((0, self.subject), (0 if self.paired else 1, self.other))
        )
        self.total, self.drawn = self.total + r.sum(axis=0), self.drawn + n
        return g - r, g

    def restart(self) -> None:
        """Forget the draws so far."""
        self.total, self.drawn = np.zeros(len(self.names)), 0

    @property
    def mean(self) -> np.ndarray:
        """Of the other's draws so far."""
        return self.total / max(1, self.drawn)

    def allowance(self) -> Result:
        """Nothing: what the other's mean is off by is in the draws."""

    def rounding(self, along: np.ndarray, centre: np.ndarray) -> np.ndarray:
        """What rounding may do to the mean."""
        scale = by_leaf(self.subject, np.abs(along))
        return np.maximum(precision(self.subject), precision(self.other)) * (scale + np.abs(centre))


def _against(subject: Subject, reference: Tree, rng: np.random.Generator, paired: bool, shorter: float) -> Any:
    """What the gradient is compared with: numbers, Samples or differences, with steps so much ``shorter``."""
    if isinstance(reference, Samples):
        other = Sampled.of(reference, rng)
        _same_structure(subject, list(leaves(other.parameters)), "reference, the other Samples,")
        return Others(subject, other, paired, rng)
    if paired:
        raise ScgTypeError(f"paired=True needs other Samples as the reference ({here()})")
    if isinstance(subject, Graph) and isinstance(reference, str) and reference in ("auto", "exact", "differences"):
        return _own(subject, reference, rng, shorter)
    given = list(leaves(reference))
    _same_structure(subject, given, "reference")
    for path, value in given:
        array = np.asarray(value)
        if array.dtype.kind not in "biuf" or not np.all(np.isfinite(array)):
            raise ScgValueError(f"reference{path} must be of finite numbers, got {value!r} ({here()})")
    return Known(subject, join(reference, 1)[0], "the given reference", rng)


def _own(graph: Graph, reference: str, rng: np.random.Generator, shorter: float) -> Result:
    if reference != "differences":
        try:
            limit = None if reference == "exact" else exact.PATIENCE
            return Known(graph, join(exact.gradient(graph, time_limit=limit), 1)[0], "the exact gradient", rng)
        except ScgError:
            if reference == "exact":
                raise
    return Differences(graph, rng, shorter)


def _same_structure(subject: Subject, given: list[tuple[str, np.ndarray]], what: str) -> None:
    """Raise ScgValueError unless leaves stand at the same paths and have the same shapes as the parameters."""
    targets = list(leaves(subject.parameters))
    if [path for path, _ in targets] != [path for path, _ in given]:
        raise ScgValueError(
            f"{what} needs the parameters' structure, {[p for p, _ in targets]}, got {[p for p, _ in given]} ({here()})"
        )
    for (path, leaf), (_, value) in zip(targets, given, strict=True):
        if np.shape(value) != leaf.shape:
            raise ScgValueError(f"{what}{path} must be finite and of shape {leaf.shape}, got {value!r} ({here()})")
