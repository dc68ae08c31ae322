"""The primitives: everything of NumPy and SciPy that a Node goes into, declared by its three facts."""

from scg.primitives import contraction, elementwise, indexing, layout, metadata, polynomial, reduction

__all__ = ["contraction", "elementwise", "indexing", "layout", "metadata", "polynomial", "reduction"]
