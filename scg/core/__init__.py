"""What a graph is: nodes, primitives and NumPy's dispatch, axis maps, the backward pass, replay, guards, structures.

# What a node refuses

Nothing leaves a graph silently. What NumPy cannot hand on to scg would turn a node into a constant, and give a
gradient that is wrong and looks right; it raises instead.

| refused | because | write |
| --- | --- | --- |
| `np.asarray(node)`, `float(node)`, `math.exp(node)` | it would leave the graph | NumPy's function; `node.value` |
| `buffer[0] = node`, `buffer += node`, `out=buffer` | a buffer forgets its sources | `np.stack`, `np.concatenate` |
| `node[0] = 1` | nodes do not change | `np.where` |
| `v -= 1` on an array that others hold too | they would see the change | `v = v - 1` |
| `np.ma` arrays and `np.matrix` beside a node | a mask would be lost | `np.where(mask, ..., ...)` |
| `array[node]`, `np.take(array, node)` | an array does not ask its index | `scg.parameter(array)[node]` |
| `np.histogram(node)`, and whatever has no derivative | zero would be wrong | what the message says |
| integers as parameters | no derivative in an integer | `x.astype(float)` |

`np.take_along_axis` takes a node as its index, too.

Where NumPy catches what a node raises, as in `buffer[0] = node`, its own `ValueError` comes instead, with ours as its
cause.

`if node > 0:` is allowed. The graph remembers how it came out, and a replay in which it comes out otherwise raises
`GuardError`; `graph.gradients` traces the function again where it has one.
"""
