"""From which stochastic nodes the variance of a gradient comes: the law of total variance, node by node."""

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from scg.core.aliases import Keywords, Result
from scg.core.ambient import ids
from scg.core.ancestry import ancestors
from scg.core.axes import padded
from scg.core.backward import pull
from scg.core.node import Node
from scg.core.progress import Progress, reporter
from scg.core.replay import live_bytes, rerun
from scg.core.tree import leaves
from scg.distributions.base import FiniteSupport, draw_noise
from scg.errors import ScgValueError, here
from scg.stochastic.analysis import analysed
from scg.stochastic.formulas import score
from scg.stochastic.graph import Graph
from scg.stochastic.replicates import BLOCK
from scg.stochastic.resampling import resample, with_parameters
from scg.stochastic.sites import is_coupled, is_draw, is_noise, is_path, is_stochastic, place
from scg.stochastic.surrogate import expansions
from scg.testing.structure import join
from scg.variance.chunks import chunk_size, generator, with_own_estimators
from scg.variance.comparing import as_graph, checked, entropy_of
from scg.variance.shares import Attribution, Share
from scg.variance.threads import one_thread

BUDGET = 2**14  # joint configurations of all samples
_Z, _PILOT, _ENTRIES = 1.959963984540054, 256, 2**22


def attribute(
    graph_or_fn: object,
    *,
    args: tuple[object, ...] = (),
    kwargs: Keywords | None = None,
    replicates: int = 10_000,
    rng: np.random.Generator | None = None,
    budget: int = BUDGET,
    progress: Progress = None,
) -> Attribution:
    """How much of the variance of the gradient comes from which stochastic node, so that it is known where a better
    estimator pays.

    A sample's noise is all that is random in it, given its parameters, and what its estimator draws besides (partners,
    other samples). The noises of all samples are independent, and the gradient G is a function of them; for the noise
    x_j of each

        first_j = Var(E[G | x_j]),   total_j = E[Var(G | all but x_j)],   sum of first <= Var G <= sum of total

    (Sobol, 1993; Homma and Saltelli, 1996). They are equal where noises do not interact.

    **Exact** where all samples, the estimators' own too, have finitely many values, no sample's distribution depends on
    another node's, and there are at most ``budget`` joint values of all. Otherwise from ``replicates`` of "pick and
    freeze": with G_A and G_B from independent noises, and G_AB from A's, but draw j's from B,

        first_j = mean (G_B - m) (G_AB - G_A),   total_j = mean (G_A - G_AB)^2 / 2

    (Saltelli et al., 2010; Jansen, 1999), with intervals. Noise is frozen by the generator from which it is drawn: a
    sample whose parameters changed maps the same numbers to other values. Only this route needs ``rng``.
    """
    checked(replicates, None, budget)
    report = reporter(progress)
    graph = with_own_estimators(as_graph(graph_or_fn, args, kwargs, np.random.default_rng(0) if rng is None else rng))
    found, groups = _recorded(graph)
    roots = [g for g in found if type(g) is Node]
    # a sample too whose own value the gradient does not contain, but others that its estimator drew
    met = set(groups.values())
    names = [name for name in graph.stochastic if name in met] + (["other noise"] if "" in met else [])
    estimators = {
        name: repr(graph.stochastic[name].statics["site"].estimator) if name in graph.stochastic else ""
        for name in names
    }
    if not names or not roots:
        raise ScgValueError(f"the gradient of this graph has no noise to attribute ({here()})")
    keys = ["" if name == "other noise" else name for name in names]
    with one_thread(), np.errstate(all="ignore"):
        exact = _exactly(roots, groups, keys, budget)
        if exact is not None:
            variance, table = exact
            unit = variance or 1.0
            shares = {
                name: Share(name, estimators[name], f / unit, 0.0, t / unit, 0.0)
                for name, (f, t) in zip(names, table, strict=True)
            }
            return Attribution(variance, shares, "exact", 0)
        return _sampled(roots, groups, keys, names, estimators, replicates, entropy_of(rng), report)


def _recorded(graph: Graph) -> tuple[list[Node], dict[int, str]]:
    """The gradient as nodes, and for each sample and noise that leads to it, by id, the stochastic node on whose
    account it is made ("": none's)."""
    targets = [leaf for _, leaf in leaves(graph.parameters)]
    label = {node.id: name for name, node in graph.stochastic.items()}
    seen = analysed(graph.cost)
    loss, spans, start = seen.cost, [], next(ids)
    for node, extra in expansions(seen, 1, True):
        end = next(ids)
        spans.append((range(start, end), label.get(node.id, "")))
        loss, start = loss + extra, end
    found = pull([loss], [np.ones((), loss.dtype)], targets, create_graph=True)
    for name, node in graph.stochastic.items():
        for source in ancestors([o for o in node.operands[:1] if type(o) is Node]) if is_path(node) else ():
            if is_noise(source):
                label.setdefault(source.id, name)
    groups = {}
    for node in ancestors([g for g in found if type(g) is Node], guards=True):
        if is_stochastic(node) or is_noise(node):
            groups[node.id] = next((name for span, name in spans if node.id in span), label.get(node.id, ""))
    return found, groups


def _exactly(
    roots: list[Node], groups: dict[int, str], keys: list[str], budget: int
) -> tuple[float, list[tuple[float, float]]] | None:
    """(variance, (first, total) of each group) by enumeration; None where that is out of reach."""
    order = ancestors(roots, guards=True)
    if any(is_noise(node) or is_coupled(node) for node in order):
        return None
    drawn = sorted([node for node in order if is_draw(node)], key=lambda node: keys.index(groups[node.id]))
    width, total = sum(root.size for root in roots), 1
    for node in drawn:
        others = {groups[n.id] for n in ancestors([o for o in node.operands if type(o) is Node]) if is_stochastic(n)}
        distribution = node.statics["site"].distribution
        if others - {groups[node.id]} or not distribution.has(FiniteSupport):
            return None
        total *= distribution.count() ** min(_elements(node), 64)
        if total > budget or total * width > _ENTRIES:
            return None
    values, sizes = _configurations(drawn, groups, keys, total)
    outputs = [*roots, *[np.sum(score(node)) for node in drawn]]
    results = resample(outputs, {}, size=total, values=values, create_graph=False)
    logs = dict.fromkeys(keys, 0.0)
    for node, log in zip(drawn, results[len(roots) :], strict=True):
        logs[groups[node.id]] = logs[groups[node.id]] + log
    weights = []
    for k, key in enumerate(keys):
        table = np.exp(np.broadcast_to(logs[key], (total,)).reshape(sizes))
        weights.append(table[tuple([slice(None) if i == k else 0 for i in range(len(keys))])])
    joint = functools.reduce(np.multiply.outer, weights)
    g = join(results[: len(roots)], total).reshape(*sizes, width)
    g = np.where(joint[..., None] > 0, g, 0)
    g = g - joint.reshape(-1) @ g.reshape(-1, width)

    def left(kept: list[int]) -> float:
        """The variance of the mean given the groups ``kept``."""
        mean, weight = g, joint
        for k in sorted(set(range(len(keys))) - set(kept), reverse=True):
            mean, weight = np.moveaxis(mean, k, -1) @ weights[k], weight.sum(axis=k)
        return float(np.sum(weight[..., None] * mean**2))

    everything = list(range(len(keys)))
    variance = left(everything)
    return variance, [(left([k]), variance - left([i for i in everything if i != k])) for k in everything]


def _elements(node: Node) -> int:
    site = node.statics["site"]
    return math.prod(node.shape[: node.ndim - site.event_ndim])


def _configurations(
    drawn: list[Node], groups: dict[int, str], keys: list[str], total: int
) -> tuple[dict[int, np.ndarray], list[int]]:
    """The values of each stochastic node in all joint configurations, along a leading axis; and how many each group
    has."""
    radices = [[node.statics["site"].distribution.count()] * _elements(node) for node in drawn]
    digits = iter(np.unravel_index(np.arange(total), [k for each in radices for k in each]) if drawn else ())
    values, sizes = {}, dict.fromkeys(keys, 1)
    for node, each in zip(drawn, radices, strict=True):
        site = node.statics["site"]
        batch = node.shape[: node.ndim - site.event_ndim]
        index = np.stack([next(digits) for _ in each], axis=1) if each else np.zeros((total, 0), int)
        index = index.reshape(total, *batch, *[1] * site.event_ndim)
        atoms = padded(site.distribution.atoms(), node.ndim)
        atoms = np.broadcast_to(atoms, (len(atoms), *node.shape))
        values[node.id] = np.take_along_axis(atoms, index, axis=0)
        sizes[groups[node.id]] *= math.prod(each)
    return values, [sizes[key] for key in keys]


def _sampled(
    roots: list[Node],
    groups: dict[int, str],
    keys: list[str],
    names: list[str],
    estimators: dict[str, str],
    replicates: int,
    entropy: int,
    report: Callable[[int, int], object],
) -> Attribution:
    order = ancestors(roots, guards=True)
    held = max(1, live_bytes(roots, order))
    size = min(chunk_size(replicates, sum(root.size for root in roots)), max(1, BLOCK // held))
    pilot = _Frozen(roots, order, groups, keys, entropy, min(size, _PILOT), 2**31)
    centre = pilot.at(dict.fromkeys(keys, 0)).mean(axis=0)
    if len(keys) > 1 and any(not pilot.frozen(key) for key in keys):
        # how many numbers a sample takes depends on its parameters: only a generator for each replicate freezes its
        # noise
        size = 1
    done = 0
    seen: _Joint | None = None
    for i in itertools.count():
        n = min(size, replicates - done)
        block = _Frozen(roots, order, groups, keys, entropy, n, i)
        a, b = (block.at(dict.fromkeys(keys, side)) for side in (0, 1))
        columns = [np.sum((a - b) ** 2, axis=1) / 2]
        for key in keys:
            ab = b if len(keys) == 1 else block.at({other: int(other == key) for other in keys})
            columns += [np.sum((b - centre) * (ab - a), axis=1), np.sum((a - ab) ** 2, axis=1) / 2]
        x = np.stack(columns, axis=1)
        if not np.isfinite(x).all():
            r = done + int(np.argmax(~np.isfinite(x).all(axis=1)))
            raise ScgValueError(f"the gradient of replicate {r} is not finite: no variance to attribute ({here()})")
        seen = _Joint.of(x) if seen is None else seen.merge(_Joint.of(x))
        done += n
        report(done, replicates)
        if done >= replicates:
            break
    assert seen is not None
    variance = float(seen.mean[0])
    shares = {}
    for k, name in enumerate(names):
        ends = []
        for column in (1 + 2 * k, 2 + 2 * k):
            share = float(seen.mean[column]) / variance if variance > 0 else 0.0
            along = np.zeros(len(seen.mean))  # the ratio, linearized
            along[column], along[0] = 1.0, -share
            error = (
                math.sqrt(max(float(along @ seen.covariance @ along), 0.0) / done) / variance if variance > 0 else 0.0
            )
            ends += [share, _Z * error]
        shares[name] = Share(name, estimators[name], *ends)
    return Attribution(variance, shares, f"{done} replicates, intervals of 95%", done)


class _Frozen:
    """Replicates of one block: the noise of each group is that of side 0 or of side 1, from a generator of its own."""

    def __init__(
        self,
        roots: list[Node],
        order: list[Node],
        groups: dict[int, str],
        keys: list[str],
        entropy: int,
        size: int,
        block: int,
    ):
        self.roots, self.order, self.groups, self.keys, self.entropy, self.size, self.block = (
            roots,
            order,
            groups,
            keys,
            entropy,
            size,
            block,
        )
        self.streams: dict[str, np.random.Generator] = {}

    def at(self, sides: dict[str, int]) -> np.ndarray:
        """The gradient, (size, coordinates)."""
        self.streams = {key: generator(self.entropy, self.block, k, sides[key]) for k, key in enumerate(self.keys)}
        table: dict[int, Result] = {}
        leading: set[int] = set()

        def visit(node: Node) -> object:
            if is_noise(node):
                rng, shape = self.streams[self.groups[node.id]], (self.size, *node.statics["shape"])
                table[node.id] = draw_noise(node.statics["distribution"], rng, shape, node.dtype)
                leading.add(node.id)
                return None
            if not is_stochastic(node):
                return NotImplemented
            site = node.statics["site"]
            fresh = with_parameters(node, site, table, leading, self.size, self.size)
            if is_draw(node):
                table[node.id] = place(replace(fresh, rng=self.streams[self.groups[node.id]])).raw
            else:
                z = node.operands[0]
                table[node.id] = table.get(z.id, z.raw) if type(z) is Node else z
            if fresh.replicate_axes > site.replicate_axes:
                leading.add(node.id)
            return None

        return join(rerun(self.roots, self.order, table, leading, self.size, False, visit), self.size)

    def frozen(self, key: str) -> bool:
        """Whether all noise but that of one group stays where that one's changes: each takes as many numbers as
        before."""
        states = []
        for side in (0, 1):
            self.at({other: side if other == key else 0 for other in self.keys})
            states.append({other: repr(self.streams[other].bit_generator.state) for other in self.keys if other != key})
        return states[0] == states[1]


@dataclass(frozen=True, eq=False)
class _Joint:
    """Mean and covariance of samples of several numbers, merged as ``CentralMoments`` are."""

    count: int
    mean: np.ndarray
    products: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray) -> "_Joint":
        mean = x.mean(axis=0)
        return cls(len(x), mean, (x - mean).T @ (x - mean))

    def merge(self, other: "_Joint") -> "_Joint":
        count = self.count + other.count
        d = other.mean - self.mean
        products = self.products + other.products + np.outer(d, d) * (self.count * other.count / count)
        return _Joint(count, self.mean + d * (other.count / count), products)

    @property
    def covariance(self) -> np.ndarray:
        return self.products / max(self.count - 1, 1)
