"""What a graph is: nodes, primitives and NumPy's dispatch, axis maps, backward, replay, guards, structures."""
