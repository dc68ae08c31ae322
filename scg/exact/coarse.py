"""Rules of panels with fewer points, for many elements together: neighbouring panels are put together while the
integrals over both stay what they are.

Panels are first cut evenly, and closely around places where nodes turn, before it is known what lies there. Of 100
panels that a bump of width 0.01 has, 20 are left, so that two such elements take 4e4 points and not 1e6. What is left
sees less of what other elements might bring along the line: whoever uses it holds it against lines at other values.
"""

import numpy as np

from scg.exact.panels import Found, Panels
from scg.exact.rules import Rule


def coarser(panels: Panels, found: Found) -> dict[int, Rule]:
    """By element points and steps, as the rules of ``found``."""
    rules = {}
    for group in panels.groups():
        along = {e: found.along[e] for e in group}
        lines, edges = {e: a.line for e, a in along.items()}, {e: a.panels for e, a in along.items()}
        sums = {e: whole.sums for e, whole in panels.integrals(lines, edges).items()}
        first, idle = 0, 0
        while idle < 2:
            pairs = {e: _pairs(edges[e], panels.edges(along[e].line, e), first) for e in group}
            joined = {e: np.stack([edges[e][k, 0], edges[e][k + 1, 1]], axis=1) for e, k in pairs.items()}
            idle, first = idle + 1, 1 - first
            for e, over_both in panels.integrals(lines, joined).items():
                k = pairs[e]
                with np.errstate(all="ignore"):
                    off = np.abs(over_both.sums - sums[e][k] - sums[e][k + 1]) / along[e].unit
                k = k[np.all(off <= panels.tolerance, axis=(1, 2))]
                if len(k):
                    idle = 0
                    edges[e][k, 1] = edges[e][k + 1, 1]
                    sums[e][k] += sums[e][k + 1]
                    edges[e], sums[e] = np.delete(edges[e], k + 1, axis=0), np.delete(sums[e], k + 1, axis=0)
        rules.update({e: a.rule(edges[e], panels.engine.eps) for e, a in along.items()})
    return rules


def _pairs(edges: np.ndarray, places: np.ndarray, first: int) -> np.ndarray:
    """The positions of the first of two panels that may be one: that meet, at no place, and are not the outermost."""
    k = np.arange(1 + first, len(edges) - 2, 2)
    meet = edges[k, 1]
    apart = np.min(np.abs(meet[:, None] - places), axis=1, initial=np.inf) > 1e-12 * np.abs(meet)
    return k[(meet == edges[k + 1, 0]) & apart]
