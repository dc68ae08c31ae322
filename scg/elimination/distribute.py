"""Products of sums, written as sums of products: f(u, v), linear in u and in v, which are affine in terms s and r.

    sum_o w_o f(u, v)_o = q + a s + b r + sum_ij Q_ij s_i r_j

An element of b @ J @ b depends on all coins; each product b_i b_j, and E[b_i b_j], on what leads to two.
"""

from typing import Any

import numpy as np

from scg.core.ancestry import ancestors
from scg.core.backward import pull
from scg.core.leaves import parameter
from scg.core.node import Node
from scg.elimination.affine import affine_at, terms_of
from scg.elimination.direct import NoStructure
from scg.elimination.structure import Structure

_LARGEST = 2**22  # products that one node may become


def distributed(structure: Structure, most: float) -> Node | None:
    """The cost of a structure, in which terms that are products and depend on more than 2^most configurations are sums
    of products; None where there are none."""
    bits = np.append(np.log2(structure.sizes), 0.0)
    wide = []
    for term, rows in zip(structure.terms, structure.scopes, strict=True):
        if rows.size and float(np.max(np.sum(bits[rows], axis=1))) > most and len(_factors(term, structure)) == 2:
            wide.append(term)
    if not wide:
        return None
    fresh = {t.id: parameter(np.zeros(t.shape, t.dtype)) for t in wide}
    held = [fresh.get(t.id, t) for t in structure.terms]
    (cost,) = affine_at(structure.terms, [structure.cost], held, True)
    weights = pull([cost], [np.ones((), cost.dtype)], list(fresh.values()), True)
    for term, weight in zip(wide, weights, strict=True):
        cost = cost + _form(term, weight, structure)
    return cost  # type: ignore[no-any-return]


def _factors(term: Node, structure: Structure) -> list[int]:
    """The positions of the operands that depend on draws, where the node is linear in each while the others are held;
    of a square that of its operand twice."""
    moving = [k for k, o in enumerate(term.operands) if type(o) is Node and o.id in structure.dependent]
    if term.primitive.square and term.dtype.kind == "f":
        return [0, 0]
    groups = term.primitive.groups(len(term.operands)) if term.primitive.linear else ()
    real = type(term.raw) is not tuple and all([term.operands[k].dtype.kind == "f" for k in moving])
    return moving if real and all([(k,) in groups for k in moving]) else []


def _form(term: Node, weight: Any, structure: Structure) -> Any:
    """sum_o w_o f(u, v)_o with its products distributed."""
    sides = []
    for k in _factors(term, structure):
        operand = term.operands[k]
        terms = terms_of([operand], ancestors([operand], guards=True), structure.dependent, False)
        held = [parameter(np.zeros(t.shape, t.dtype if t.dtype.kind == "f" else float)) for t in terms]
        sides.append((k, terms, held, affine_at(terms, [operand], held, True)[0]))
    (k, left, s, u), (j, right, r, v) = sides
    operands = [u if i == k else v if i == j else o for i, o in enumerate(term.operands)]
    q = np.sum(weight * (u * v if term.primitive.square else term.primitive(*operands, **term.statics)))
    seed = [np.ones((), q.dtype)]
    a, b = _flat(pull([q], seed, s, True)), _flat(pull([q], seed, r, True))
    count = sum(t.size for t in right)
    if count * sum(t.size for t in left) > _LARGEST:
        raise NoStructure
    units, start = [], 0
    for t in right:
        units.append(np.eye(count)[:, start : start + t.size].reshape(count, *t.shape))
        start += t.size
    rows = (
        affine_at(r, [a], units, True, count)[0] - np.reshape(a, (1, -1)) if type(a) is Node else np.zeros((count, 1))
    )
    x, y = _flat(left), _flat(right)
    total = q + np.sum(a * x) + np.sum(b * y)
    own = {n.id for n in (*s, *r)}
    moved = type(rows) is Node and any(
        [n.id not in own and not any([type(o) is Node for o in n.operands]) for n in ancestors([rows])]
    )
    matrix = rows.raw if type(rows) is Node and not moved else rows
    if moved:  # by a parameter, or another sample: a zero may have a derivative, and be none elsewhere
        return total + np.sum(matrix * (np.reshape(y, (-1, 1)) * np.reshape(x, (1, -1))))
    one, other = np.nonzero(matrix)
    return total + np.sum(matrix[one, other] * (y[one] * x[other]))


def _flat(parts: Any) -> Any:
    flat = [np.reshape(part, -1) for part in parts]
    return flat[0] if len(flat) == 1 else np.concatenate(flat)
