"""The primitives: everything of NumPy and SciPy that a Node goes into, declared by its three facts.

A function here that has the name of one of NumPy's is what stands behind it for Nodes: its arguments and result are
NumPy's.
"""

from scg.primitives import (
    bessel,
    binomials,
    contraction,
    decompositions,
    elementwise,
    fourier,
    incomplete,
    indexing,
    layout,
    linalg,
    metadata,
    nanreduction,
    polynomial,
    reduction,
    scimath,
    signals,
    sorting,
    special,
    statistics,
    student,
)

__all__ = [
    "bessel",
    "binomials",
    "contraction",
    "decompositions",
    "elementwise",
    "fourier",
    "incomplete",
    "indexing",
    "layout",
    "linalg",
    "metadata",
    "nanreduction",
    "polynomial",
    "reduction",
    "scimath",
    "signals",
    "sorting",
    "special",
    "statistics",
    "student",
]
