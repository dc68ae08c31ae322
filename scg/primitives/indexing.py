"""Indexing, gathering and its transpose."""

import operator

import numpy as np

from scg import axes
from scg.axes import Slot
from scg.graph import Node, frozen, implements, primitive


def _filled(index, operands):
    return tuple([operands[i.position] if type(i) is Slot else i for i in index])


def _is_basic(index):
    return not any(isinstance(i, (np.ndarray, Slot)) for i in index)


def _getitem_value(x, *operands, index):
    return x[_filled(index, (x, *operands))]


def _scatter_value(g, *operands, index, shape):
    out = np.zeros(shape, g.dtype)
    if _is_basic(index):
        out[index] = g
    else:
        np.add.at(out, _filled(index, (g, *operands)), g)
    return out


_getitem = primitive(
    _getitem_value,
    axes.index,
    every=lambda g, i, out, x, *operands, index: None if i else _scatter(g, *operands, index=index, shape=x.shape),
    name="getitem",
)
_scatter = primitive(
    _scatter_value,
    axes.scatter,
    every=lambda h, i, out, g, *operands, index, shape: None if i else _getitem(h, *operands, index=index),
    name="scatter",
)


@implements(operator.getitem)
def getitem(x, index):
    operands, template = [], []
    for i in index if isinstance(index, tuple) else (index,):
        if type(i) is Node:
            operands.append(i)
            template.append(Slot(len(operands)))
        elif isinstance(i, (list, np.ndarray)):
            array = np.asarray(i)
            template.append(frozen(array if array.size or array.dtype.kind in "ib" else array.astype(int)))
        else:
            template.append(i)
    return _getitem(x, *operands, index=tuple(template))
