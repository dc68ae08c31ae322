"""A run beside a recorded one, in which a sample has another value, made of nodes: replicates make it again."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, final

import numpy as np

from scg.core.aliases import Result, Shape
from scg.core.ancestry import ancestors
from scg.core.node import Node, record
from scg.distributions.base import Distribution
from scg.stochastic.estimator import Accounted
from scg.stochastic.sites import Site, coupled, is_noise, is_stochastic, place
from scg.stochastic.tape import Beside, Chosen, Turn, alike, together


@final
class Alongside(Beside):
    """``Beside``, of nodes: ``at`` is the other value of the sample ``looked`` at.

    Samples that stay are those of the recorded run; those that are coupled are functions of them; those that are drawn
    have turns of their own, which begin with ``prefix``, and by which ``chosen`` holds their values, if they are to
    have any; else ``values`` do, by the turns of the recorded run.

    ``alone`` becomes True where what is made holds for this run alone: where a sample that is not coupled has the
    parameters that it had, which may be no more than a coincidence of this run.
    """

    def __init__(
        self,
        values: Mapping[Turn, np.ndarray],
        recorded: Mapping[Turn, Node],
        looked: Node,
        coupled: bool,
        at: Node,
        prefix: str,
        chosen: Chosen | None,
    ):
        super().__init__(values, recorded, looked, coupled)
        self.at, self.prefix, self.chosen, self.alone = at, prefix, chosen, False

    def draw(self, site: Site) -> Result:
        own = site.turn
        if own is None:
            return None
        turn = self._recorded(own)
        node = self.recorded.get(turn)
        if node is self.looked:
            return self.at
        value = self._value(own, turn)
        if node is None:
            return value
        before, after = node.statics["site"].distribution, site.distribution
        if self.is_kin(site, node) and alike(before, after):
            if node.id < self.looked.id or not (_moves(before) or _moves(after)):
                return node
            if not self.coupled:
                self.alone = True
                return node
        if node.id < self.looked.id:
            self.refuse(site, node)
        if not self.is_kin(site, node) or not self.coupled:
            return value
        made: Any = after.coupled(before, node)
        if isinstance(made, Distribution):
            inner = (f"{own[0]} coupled", own[1])
            made = place(Site(made, Accounted(), site.rng, (), None, turn=inner), self._value(inner, turn))
        if made is None:
            return value
        return record(coupled, (made, *after.parameters.values()), {"site": replace(site, turn=None)}, made.raw)

    def noise(self, distribution: Distribution, shape: Shape, turn: Turn) -> Result:
        node = self.recorded.get(self._recorded(turn))
        if node is not None and is_noise(node) and node.statics["shape"] == shape:
            if alike(node.statics["distribution"], distribution):
                return node
        return self._value(turn, self._recorded(turn))

    def _recorded(self, turn: Turn) -> Turn:
        return turn[0][len(self.prefix) :], turn[1]

    def _value(self, own: Turn, turn: Turn) -> np.ndarray | None:
        values = {} if self.chosen is None else self.chosen.values
        known = values.get(own)
        if known is None and (every := together(own)) is not None and every[0] in values:
            known = values[every[0]][every[1]]
        return self.values.get(turn) if known is None else known


def _moves(distribution: Distribution) -> bool:
    """Whether its parameters depend on a sample or on noise."""
    parameters = [p for p in distribution.parameters.values() if type(p) is Node]
    return any(is_stochastic(n) or is_noise(n) for n in ancestors(parameters))
