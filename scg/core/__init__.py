"""What a graph is: nodes, primitives and their axis maps, NumPy's dispatch, the backward pass, replay."""
