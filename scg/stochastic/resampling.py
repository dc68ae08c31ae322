"""A recorded graph run again, in which every sample is drawn anew whose parameters are no longer what they were."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from scg.core.aliases import Result, Tree
from scg.core.ambient import RECORDER
from scg.core.ancestry import ancestors
from scg.core.axes import padded
from scg.core.node import Node, Value, record
from scg.core.operands import frozen, plain
from scg.core.repeated import Repeated
from scg.core.replay import replaced, rerun
from scg.core.tree import leaves
from scg.distributions.base import Distribution
from scg.distributions.coupling import is_given
from scg.distributions.parameterized import batch_of
from scg.errors import ScgValueError, here
from scg.stochastic.estimator import Accounted, Estimator
from scg.stochastic.sites import (
    Site,
    coupled,
    draw,
    drawn,
    drawn_noise,
    is_coupled,
    is_draw,
    is_noise,
    is_path,
    is_stochastic,
    noise_node,
    place,
    turn_of,
)
from scg.stochastic.tape import TAPE, Turn, together


def resample(
    outputs: Tree,
    replacements: Mapping[Node, Result],
    batched: Collection[Node] = (),
    *,
    rng: np.random.Generator | None = None,
    size: int | None = None,
    bindings: Mapping[int, Estimator] | None = None,
    values: Mapping[int, Result] | None = None,
    create_graph: bool = True,
    checked: bool = False,
    coupled: bool = False,
    steps: Mapping[int, Result] | None = None,
    made: dict[Turn, Result] | None = None,
    given: Mapping[Turn, Result] | None = None,
    prefix: str = "",
) -> Result:
    """``replay`` that draws anew what has to be: every sample whose parameters are no longer what they were.

    With ``rng`` all noise and all samples are new, and with ``size`` as well each has a leading axis of that many
    independent replicates. ``bindings`` gives samples (by id) another estimator, ``values`` the values that they are to
    have (with the leading axis, if any); they stay samples, unlike a replaced node. Pathwise samples keep their noise
    unless ``rng`` is given. With ``coupled`` a sample that is drawn because its parameters have changed is made from
    the randomness of the one that is there, where its distribution says how. ``steps`` are added to samples (by id);
    samples before the first step that is not zero stay. ``checked``: ScgValueError where a sample would have parameters
    that its distribution refuses. What is drawn enters ``made`` by its turn, also where an ``if`` then comes out
    otherwise: (value, whether it has a replicate axis). What is ``given``, likewise, is not drawn. Samples that are
    drawn because their parameters have changed have turns of their own, which begin with ``prefix``.
    """
    table, leading, length = replaced(replacements, batched)
    steps = steps or {}
    again = _Again(
        table,
        leading,
        length or size or 0,
        rng=rng,
        size=size,
        bindings=bindings or {},
        values=values or {},
        create_graph=create_graph,
        checked=checked,
        coupled=coupled,
        steps=steps,
        made=made,
        given=given or {},
        prefix=prefix,
    )
    oldest = -1 if again.everything or not (table or steps) else min([*table, *steps])
    order = ancestors([leaf for _, leaf in leaves(outputs)], oldest, guards=True)
    return rerun(outputs, order, table, leading, again.length, again.create_graph, again.visit, again.same)


def repeated(
    outputs: Sequence[Node],
    rng: np.random.Generator,
    size: int,
    replacements: Mapping[Node, np.ndarray] | None = None,
) -> Repeated | None:
    """``resample(outputs, replacements, rng=rng, size=size, create_graph=False, checked=True)`` that can run again.

    With what the arrays of the replacements, which have no replicate axis, hold by then. None where an ``if`` stands
    anywhere.
    """
    table: dict[int, Result] = {node.id: array for node, array in (replacements or {}).items()}
    order, moved = ancestors(outputs, guards=True), set(table)
    if any([node.guard is not None for node in order]):
        return None
    for node in order:
        if node.primitive.random or any([type(o) is Node and o.id in moved for o in node.operands]):
            moved.add(node.id)
    leading: set[int] = set()
    again = _Again(table, leading, size, rng=rng, size=size, create_graph=False, checked=True, sites={})
    order = [node for node in order if node.id in moved and node.id not in table]
    return Repeated(outputs, order, size, table, leading, again.visit)


@dataclass
class _Again:
    """What becomes of samples and noise: ``table`` holds new values by id, ``leading`` the ids that have a replicate
    axis of ``length``, ``same`` those that are recorded again with the value that they had; the others as in
    ``resample``."""

    table: dict[int, Result]
    leading: set[int]
    length: int = 0
    rng: np.random.Generator | None = None
    size: int | None = None
    bindings: Mapping[int, Estimator] = field(default_factory=dict)
    values: Mapping[int, Result] = field(default_factory=dict)
    create_graph: bool = True
    checked: bool = False
    coupled: bool = False
    steps: Mapping[int, Result] = field(default_factory=dict)
    made: dict[Turn, Result] | None = None
    given: Mapping[Turn, Result] = field(default_factory=dict)
    prefix: str = ""
    same: set[int] = field(default_factory=set)
    sites: dict[int, tuple[Site, bool, bool]] | None = None
    moved: Result = False  # by replicate, whether a sample has made its step

    def __post_init__(self) -> None:
        self.create_graph = self.create_graph or RECORDER.get() is not None
        # then the result is another graph, else another run beside the recorded one
        self.everything = self.rng is not None or bool(self.bindings) or bool(self.values)
        self.coupled = self.coupled and not self.everything

    def visit(self, node: Node, out: np.ndarray | None = None) -> Result:
        """The new value of a sample or of noise, which is in ``table`` then, and written into ``out`` where it can be;
        NotImplemented where it stays, or is computed as any other node."""
        if self.sites is not None and node.id in self.sites:
            return self._once_more(node, out)
        noise = is_noise(node)
        if not noise and not is_stochastic(node):
            return NotImplemented
        if self.coupled and not noise and is_given(node.statics["site"].distribution):
            return None  # it stays, and so does the sample that it made, unless that is made again
        known = _given(self.given, turn) if self.given and (turn := turn_of(node)) else None
        if known is not None:
            made, led = known
            if led:
                self.leading.add(node.id)
        elif noise and self.rng is not None:
            made = self._noise(node, self.rng, out)
        else:
            made = self._unless_as_before(node, noise, out)
        if self.steps and not noise:
            made = self._stepped(node, made)
        if made is not NotImplemented:
            self.table[node.id] = made
            if self.made is not None:
                self._note(node, made)
        return made

    def _once_more(self, node: Node, out: np.ndarray | None) -> Result:
        """The sample of a site whose parameters hold other numbers now."""
        site, changed, anew = self.sites[node.id]  # type: ignore[index]
        if changed and self.checked:
            _recheck(site, node)
        return drawn(site, out) if anew else self._along_its_path(node, site)

    def _note(self, node: Node, made: Value) -> None:
        """Enter what was drawn: of a sample with a path its noise, whose turn came before."""
        turn = turn_of(node)
        if turn is not None:
            self.made[turn] = getattr(made, "raw", made), node.id in self.leading  # type: ignore[index]

    def _unless_as_before(self, node: Node, noise: bool, out: np.ndarray | None) -> Result:
        """A sample of what its operands are now, the recorded one behind the ``if`` of the new graph, or
        NotImplemented."""
        changed = [o for o in node.operands if type(o) is Node and o.id in self.table]
        if self._is_behind_an_if(node) and not changed:
            self.same.add(node.id)
            return self._kept(record(node.primitive, node.operands, node.statics, node.raw))
        # a node that was only rebound has its value still, and so have the samples that depend on it
        moved = any(o.id not in self.same and not (self.bindings and self._is_as_before(o)) for o in changed)
        if noise or not self.everything and not moved:
            return NotImplemented
        return self._sample(node, bool(changed), moved, out)

    def _stepped(self, node: Node, made: Result) -> Result:
        """A sample and its step: the recorded one in replicates in which no sample before it has moved."""
        kept = node.statics["site"].replicate_axes
        here_too = self._kept(node)
        if made is not NotImplemented:
            wide = np.reshape(self.moved, (*node.shape[:kept], *[1] * (node.ndim - kept)))
            made = np.where(wide, made, here_too)
        if node.id in self.steps:
            step = self.steps[node.id]
            made = (here_too if made is NotImplemented else made) + step
            self.moved = self.moved | np.any(step != 0, axis=tuple(range(kept, node.ndim)))
        return made

    def _kept(self, node: Node) -> Value:
        return node if self.create_graph else node.raw

    def _noise(self, node: Node, rng: np.random.Generator, out: np.ndarray | None) -> Value:
        distribution, shape = node.statics["distribution"], node.statics["shape"]
        if self.size is not None:
            shape = (self.size, *shape)
            self.leading.add(node.id)
        if self.create_graph:
            return noise_node(distribution, rng, shape, node.dtype, node.statics.get("turn"))
        return drawn_noise(distribution, rng, shape, node.dtype, out)

    def _is_behind_an_if(self, node: Node) -> bool:
        """Whether a node that stays is recorded again, with an ``if`` of the new graph."""
        if not self.everything or self.rng is not None or node.guard is None:
            return False
        return node.id not in self.bindings and node.id not in self.values

    def _is_as_before(self, node: Node) -> bool:
        after = self.table[node.id]
        after = after.raw if type(after) is Node else after
        return np.array_equal(node.raw, after, equal_nan=node.dtype.kind == "f")

    def _sample(self, node: Node, changed: bool, moved: bool, out: np.ndarray | None) -> Result:
        """A sample some of whose operands have ``changed``, and have ``moved`` where their values have."""
        site: Site = node.statics["site"]
        estimator, rng = self.bindings.get(node.id, site.estimator), self.rng
        rebound, given = estimator is not site.estimator, node.id in self.values
        if rebound:
            site.check_coupling(estimator)
        anew = rebound or is_draw(node) and (rng is not None or changed) or is_coupled(node) and rng is None and moved
        if not (anew or changed or given):
            return NotImplemented
        size = None if rng is None else self.size
        fresh = with_parameters(node, site, self.table, self.leading, self.length, size)
        if self.checked and changed:
            _recheck(fresh, node)
        if fresh.replicate_axes > site.replicate_axes or given and self.size is not None:
            self.leading.add(node.id)
        if self.sites is not None:
            fresh = replace(fresh, rng=rng or site.rng)
            self.sites[node.id] = fresh, changed, anew
        if not given and not anew:
            return self._along_its_path(node, fresh)
        if self.coupled and (made := self._coupled(node, fresh)) is not None:
            return made
        fresh = replace(fresh, estimator=estimator)
        if given:
            return self._kept(_held(node, fresh, self._given(node)))
        if rng is None and not moved and _is_plain(estimator) and _is_plain(site.estimator):
            return _held(node, fresh, node.raw)  # the same value under another estimator
        fresh = replace(fresh, rng=rng or site.rng, turn=site.turn if self.everything else self._turn(site))
        if not self.create_graph:
            return drawn(fresh, out)
        return place(fresh) if self.everything else place(fresh, _chosen(fresh.turn))

    def _given(self, node: Node) -> np.ndarray:
        """The value that a sample is to have."""
        site = node.statics["site"]
        value = frozen(np.asarray(plain(self.values[node.id], f"the value of {site!r}"), node.dtype))
        shape = (self.length, *node.shape) if self.size is not None else node.shape
        if value.shape != shape:
            raise ScgValueError(f"{site!r} needs a value of shape {shape}, got {value.shape} ({here()})")
        return value

    def _along_its_path(self, node: Node, site: Site) -> Result:
        """A pathwise sample of other parameters and the same noise: it is its first operand."""
        z = self.table.get(node.operands[0].id, node.operands[0])
        value = z.raw if type(z) is Node else z
        if not self.create_graph:
            return value
        return record(
            node.primitive, (z, *site.distribution.parameters.values()), {**node.statics, "site": site}, value
        )

    def _coupled(self, node: Node, site: Site) -> Result:
        """A sample of other parameters from the randomness of this one; None where the distribution does not say
        how."""
        before: Distribution = node.statics["site"].distribution
        after, value = site.distribution, node if self.create_graph else node.raw
        if not self.create_graph:
            before, after = before.detached(), after.detached()
        made: Any = after.coupled(before, value)
        if not self.create_graph:
            return made.sample(site.rng) if isinstance(made, Distribution) else made
        if not isinstance(made, Distribution):
            return made if made is None else _made_again(node, site, made)
        turn = self._turn(site, " coupled")
        inner = Site(made, Accounted(), site.rng, (), None, site.replicate_axes, turn=turn)
        return _made_again(node, site, place(inner, _chosen(turn)))

    def _turn(self, site: Site, suffix: str = "") -> Turn | None:
        """The turn of a sample that is made because its parameters have changed."""
        return (self.prefix + site.turn[0] + suffix, site.turn[1]) if self.prefix and site.turn else None


def _chosen(turn: Turn | None) -> Result:
    """The value that is chosen for a sample of a turn, if any."""
    tape = TAPE.get()
    return None if turn is None or tape is None or tape.chosen is None else tape.chosen.values.get(turn)


def _given(given: Mapping[Turn, Result], turn: Turn) -> Result:
    """What is given for a turn; (value, whether it has a replicate axis)."""
    known = given.get(turn)
    if known is None and (every := together(turn)) is not None and every[0] in given:
        value, led = given[every[0]]
        return (value[:, every[1]] if led else value[every[1]]), led
    return known


def _held(node: Node, site: Site, value: Value) -> Node:
    """A sample of another site with a value that is known."""
    statics = {**node.statics, "site": site, "value": value}
    return record(draw, tuple(site.distribution.parameters.values()), statics, value)


def _made_again(node: Node, site: Site, value: Any) -> Node:
    """The sample of another site that ``value``, made from the randomness of the sample, is."""
    statics = {**node.statics, "site": site}
    statics.pop("value", None)
    return record(coupled, (value, *site.distribution.parameters.values()), statics, value.raw)


def _recheck(site: Site, node: Node) -> None:
    """Raise ScgValueError where a sample would have parameters that its distribution refuses, EstimatorError where they
    are none for its estimator."""
    try:
        site.distribution.recheck()
    except ScgValueError as error:
        raise ScgValueError(f"{_label(site, node)}: {error}") from None
    if not all([site.distribution.has(capability) for capability in site.estimator.requires]):
        site.estimator.check(site.distribution, _label(site, node))


def _label(site: Site, node: Node) -> str:
    return f"{site.name or 'the sample'} made at {node.line}"


def _is_plain(estimator: Estimator) -> bool:
    return type(estimator).draw is Estimator.draw


def with_parameters(
    node: Node, site: Site, table: dict[int, Value], leading: set[int], length: int, size: int | None
) -> Site:
    """The site with the parameters that ``table`` has, and with a replicate axis in front where they, or ``size``, call
    for one.

    sample (3,) of Normal(loc (3,), scale (3,)), loc now (R, 3): drawn () with the batch shape (R, 3). sample (4, 3)
    with loc (R, 3): loc is padded to (R, 1, 3) and broadcast to (R, 4, 3). With ``size`` R alone: drawn (R, 4).
    """
    distribution = site.distribution
    changed = {name: p for name, p in distribution.parameters.items() if type(p) is Node and p.id in table}
    led = [name for name, p in changed.items() if p.id in leading]
    new = {name: table[p.id] for name, p in changed.items()}
    shape = node.shape[: node.ndim - site.event_ndim]
    for name in led:
        event = distribution.parameter_event_ndim(name)
        new[name] = padded(new[name], len(shape) + event)
    moved = is_path(node) and node.operands[0].id in leading
    if led:
        full = (length, *shape)
        name = led[0]
        event = distribution.parameter_event_ndim(name)
        if (
            np.broadcast_shapes(
                *[batch_of(p, distribution.parameter_event_ndim(n)) for n, p in new.items()], (1,) * len(full)
            )
            != full
        ):
            new[name] = np.broadcast_to(new[name], full + new[name].shape[new[name].ndim - event :])
        return replace(
            site, distribution=distribution.replaced(**new), replicate_axes=site.replicate_axes + 1, drawn=()
        )
    changed_site = replace(site, distribution=distribution.replaced(**new)) if new else site
    if size is not None or moved:
        drawn = site.shape if site.drawn is None else site.drawn
        return replace(changed_site, replicate_axes=site.replicate_axes + 1, drawn=(size or length, *drawn))
    return changed_site
