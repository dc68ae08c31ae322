"""What shows itself as a graph: in text, in the languages of Graphviz and Mermaid, and in pictures."""

import os
from typing import TYPE_CHECKING, NoReturn

from scg.core.advice import no_attribute
from scg.core.ancestry import ancestors
from scg.core.node import Node
from scg.stochastic.pictures import dot, mermaid, save, svg, text

_ELSEWHERE = {
    "value": "graph.cost.value",
    **dict.fromkeys(("backward", "grad", "gradient"), "graph.gradients(rng=rng)"),
    "sample": "graph.run(rng=rng), a graph of new samples; graph.stochastic has them by name",
    **dict.fromkeys(("plot", "draw", "show", "render", "visualize"), 'graph.save("graph.svg"), or print(graph)'),
}
"""By what other libraries call an attribute: what to write."""


class Pictured:
    """A cost with the ``nodes`` that lead to it and its ``stochastic`` nodes by name, and the pictures of them."""

    cost: Node
    stochastic: dict[str, Node]

    if not TYPE_CHECKING:  # it has no attribute but those that are declared

        def __getattr__(self, name: str) -> NoReturn:
            raise no_attribute(self, name, _ELSEWHERE)

    @property
    def nodes(self) -> list[Node]:
        """All nodes that lead to the cost, in the order in which they were made."""
        return ancestors([self.cost], guards=True)

    def __str__(self) -> str:
        return text(*self._drawn())

    def print(self) -> None:
        """Print the graph, a line a node."""
        print(self)

    def to_dot(self) -> str:
        """The graph in the language of Graphviz; over 200 nodes it is summarised."""
        return dot(*self._drawn())

    def to_mermaid(self) -> str:
        """The graph in the language of Mermaid; over 200 nodes it is summarised."""
        return mermaid(*self._drawn())

    def save(self, path: str | os.PathLike[str], detail: bool = False) -> None:
        """Write a picture of the model to a file: parameters, stochastic nodes, what ``scg.named`` gave a name, and the
        cost, on one page.

        With ``detail`` every operation, up to 200. The suffix names the kind: .svg (which scales), .dot and .mmd; .pdf
        and .png need matplotlib.
        """
        cost, nodes, names = self._drawn()
        save(path, cost, nodes, names, detail)

    def _repr_svg_(self) -> str:
        return svg(*self._drawn())

    def _drawn(self) -> tuple[Node, list[Node], dict[int, str]]:
        return self.cost, self.nodes, {node.id: name for name, node in self.stochastic.items()}
