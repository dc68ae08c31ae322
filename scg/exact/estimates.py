"""The mean and the variance of gradient estimates that are quadratic in local functions of discrete samples, by
elimination: scores times costs that come later.

A coordinate of the estimate is taken apart as

    g = alpha + sum_i beta_i C_i

C the sums on which it depends through products (the costs-to-go), beta the derivatives in them, in which no sum is
left. All three are affine in local terms tau: so g is a quadratic form of tau, whose moments ``quadratic`` finds.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from scg.core.ancestry import ancestors
from scg.core.backward import pull
from scg.core.leaves import parameter
from scg.core.node import Node
from scg.elimination.affine import affine_at
from scg.elimination.direct import NoStructure, direct
from scg.elimination.finite import Lattice, Width
from scg.elimination.products import TooWide
from scg.elimination.structure import Structure
from scg.elimination.sums import NotFinite
from scg.elimination.tabulate import Tables, families
from scg.exact.quadratic import Table, moments_of_form, order_of
from scg.stochastic.terms import summands

_LOCAL = 10.0  # log2 of the configurations of what is tabulated


class Found(NamedTuple):
    """E[g] and E[g^2], the entries of all tables, the largest product of the elimination, and the probability of all
    values, less one."""

    mean: float
    square: float
    entries: int
    width: Width
    missing: float


def moments_of(
    root: Node, names: dict[int, str], budget: int, deadline: float, lattices: Mapping[int, Lattice] | None = None
) -> Found:
    """The moments of a scalar node g; with ``lattices`` for the values of continuous draws.

    Raises NoStructure where it is no such form, BudgetError where the draws keep together.
    """
    structure = Structure(root, names, budget, deadline, lattices=lattices)
    structure.look()
    sums = _sums(structure)
    held = [parameter(np.zeros(s.shape, s.dtype)) for s in sums]
    alpha = affine_at(sums, [root], held, True)[0] if sums else root
    betas = pull([alpha], [np.ones((), alpha.dtype)], held, True)
    own = {h.id for h in held}
    pairs = [(beta, s) for beta, s in zip(betas, sums, strict=True) if type(beta) is Node]
    if any([n.id in own for n in ancestors([beta for beta, _ in pairs])]):
        raise NoStructure  # a product of sums in itself
    roots = [alpha, *[part for pair in pairs for part in pair]]
    return _of_form(roots, Structure(root, names, budget, deadline, roots, lattices=lattices))


def _of_form(roots: list[Node], structure: Structure) -> Found:
    """The moments of roots[0] + sum_i roots[1 + 2 i] * roots[2 + 2 i], all affine in local terms."""
    structure.look()
    if max(map(structure.largest, structure.scopes), default=0) > _local(structure):
        raise NoStructure
    scopes = [row[row >= 0].tolist() for rows in structure.scopes for row in rows]
    above = [row[row >= 0].tolist() for rows in structure.parents for row in rows]
    used = structure.relevant(np.concatenate([rows[rows >= 0] for rows in structure.scopes]))
    scopes += [[v, *above[v]] for v in np.flatnonzero(used).tolist()]
    try:  # before anything is computed
        order = order_of(scopes, structure.sizes, structure.budget)
    except TooWide as error:
        raise structure.too_wide(error.variables, error.size) from None
    constants, matrices = _affine(structure.terms, roots)
    constant, c = float(np.sum(constants[0])), np.sum(matrices[0], axis=0)
    none = np.zeros((0, len(c)))
    b, s = (np.concatenate([np.zeros(0), *constants[k::2]]) for k in (1, 2))
    B, C = (np.concatenate([none, *matrices[k::2]]) for k in (1, 2))
    constant, c, S = constant + float(b @ s), c + b @ C + s @ B, B.T @ C
    draws, terms = families(structure)
    tables = Tables(structure, False)
    chances: list[Table] = []
    atoms: list[Table] = []
    place = np.full(len(c), -1)
    for family in draws:
        values = tables.chances(family)
        for group in family.groups(used):
            table = family.table(values, group)
            chances += [Table(tuple(s), table[r]) for s, r in zip(group.scopes.tolist(), group.rows, strict=True)]
    for family in terms:
        values = tables.terms(family)
        for group in family.groups():
            table = family.table(values, group)
            place[group.numbers] = len(atoms) + np.arange(len(group.rows))
            atoms += [Table(tuple(s), table[r]) for s, r in zip(group.scopes.tolist(), group.rows, strict=True)]
    if not all([np.isfinite(t.values).all() for t in (*chances, *atoms)]) or not np.isfinite(S).all():
        raise NotFinite
    kept = np.argsort(place)
    S = (S + S.T)[np.ix_(kept, kept)]
    mass, mean, square = moments_of_form(chances, atoms, c[kept], S, order, structure.check_time)
    mean, square = mean / mass, square / mass
    entries = sum(t.values.size for t in (*chances, *atoms))
    width = structure.width(order.clique, order.largest)
    square += constant * constant + 2 * constant * mean
    return Found(constant + mean, square, entries, width, abs(mass - 1))


def _local(structure: Structure) -> float:
    """log2 of the configurations of what is tabulated; with lattices those of two elements, and a finite one."""
    points = max([len(lattice.points) for lattice in structure.lattices.values()], default=1)
    return max(_LOCAL, 2 * math.log2(points) + 2)


def _affine(terms: list[Node], roots: list[Node]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The roots where all terms are zero, and their derivatives in the terms: (size,) and (size, elements of terms)."""
    count = sum(t.size for t in terms)
    unit, units, start = np.eye(count), [], 0
    for t in terms:
        units.append(unit[:, start : start + t.size].reshape(count, *t.shape))
        start += t.size
    zeros = affine_at(terms, roots, [np.zeros((1, *t.shape)) for t in terms], size=1)
    constants = [np.reshape(z, -1) for z in zeros]
    moved = affine_at(terms, roots, units, size=count)
    return constants, [(np.reshape(m, (count, -1)) - z).T for m, z in zip(moved, constants, strict=True)]


def _sums(structure: Structure) -> list[Node]:
    """The sums behind the terms that depend on too much to be tabulated, with which these are linear."""
    most = _local(structure)
    wide = [t for t, rows in zip(structure.terms, structure.scopes, strict=True) if structure.largest(rows) > most]
    if not wide:
        return []
    starts = {n.id: start for n, start in zip(structure.draws, structure.offsets, strict=False)}
    found = direct(wide, starts)
    nodes = [n for n in ancestors(wide) if n.id in found and n.id not in starts and type(n.raw) is not tuple]
    broad = {n.id for n in nodes if structure.largest(found[n.id]) > most}
    plain: set[int] = set()  # sums of what is local
    for node in nodes:
        moving = [k for k, o in enumerate(node.operands) if type(o) is Node and o.id in found]
        if node.dtype.kind == "f" and len(summands(node, structure.dependent)) == len(moving):
            if all([node.operands[k].id in plain or node.operands[k].id not in broad for k in moving]):
                plain.add(node.id)
    sums: dict[int, Node] = {}

    def other_elements(k: int, among: list[tuple[int, Node]], beside: set[int]) -> set[int]:
        """Those of which the factors beside an operand are made, here and on the way."""
        return beside.union(*[np.unique(found[o.id]).tolist() for j, o in among if j != k])

    stack, seen = [(t, set[int]()) for t in wide], set()
    while stack:
        node, beside = stack.pop()
        if node.id in plain:
            sums[node.id] = node
        elif node.id not in seen:
            seen.add(node.id)
            groups = node.primitive.groups(len(node.operands)) if node.primitive.linear else ()
            among = [(k, o) for k, o in enumerate(node.operands) if type(o) is Node and o.id in found]
            inner = [pair for pair in among if pair[1].id in broad]
            if len(inner) == 2 and all([o.id in plain and (k,) in groups for k, o in inner]):
                inner = inner[1:]  # of two sums that are multiplied one is a factor of the other's parts
            if not inner:  # a product of what is local, which together is not
                inner = [pair for pair in among if pair[1].id in plain]
                rest = [
                    other_elements(k, among, beside) for k, _ in inner
                ]  # that leaves the fewest, the widest, the latest
                sizes = [(-len(r), found[o.id].shape[1], o.id) for r, (_, o) in zip(rest, inner, strict=True)]
                inner = [pair for _, pair in sorted(zip(sizes, inner, strict=True), key=lambda part: part[0])][-1:]
            for k, operand in inner:
                if not any([k in group for group in groups]) and not (node.primitive.same and k == 0):
                    raise NoStructure
                stack.append((operand, other_elements(k, among, beside)))
            if node.dtype.kind != "f" or not inner:
                raise NoStructure  # what depends on much, and is no sum
    return list(sums.values())
