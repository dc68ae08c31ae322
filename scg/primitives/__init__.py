"""The primitives: everything of NumPy and SciPy that a Node goes into, declared by its three facts."""

from scg.primitives import (
    contraction,
    decompositions,
    elementwise,
    fourier,
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
    statistics,
)

__all__ = [
    "contraction",
    "decompositions",
    "elementwise",
    "fourier",
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
    "statistics",
]
