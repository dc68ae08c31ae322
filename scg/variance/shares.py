"""The shares of stochastic nodes in the variance of a gradient."""

import os
from dataclasses import dataclass
from html import escape

from scg.files import write
from scg.variance.rows import number


@dataclass(frozen=True)
class Share:
    """What the noise of one sample, and of its estimator, has to do with the variance; sums over coordinates, shares of
    the whole variance.

    ``first``   Var(E[gradient | this noise]): what would go if this noise alone were averaged out, the other samples'
                being as they are
    ``total``   E[Var(gradient | all other noise)]: what would be left if all other noise were averaged out in the mean,
                this one's interactions included; a better estimator on this sample can save this much at most
    ``first_error``, ``total_error``
                half the widths of their intervals; 0 where they are exact
    """

    node: str
    estimator: str
    first: float
    first_error: float
    total: float
    total_error: float


@dataclass(frozen=True, eq=False, repr=False)
class Attribution:
    """The ``variance`` of a gradient, and the share of each stochastic node in it: ``attribution["b"].total``.
    ``method`` is "exact" or names the replicates."""

    variance: float
    shares: dict[str, Share]
    method: str
    replicates: int

    def __getitem__(self, node: str) -> Share:
        return self.shares[node]

    def __repr__(self) -> str:
        return f"<Attribution of a variance of {number(self.variance)} to {', '.join(self.shares)}>"

    def __str__(self) -> str:
        rows = self._rows()
        widths = [max(len(row[k]) for row in rows) for k in range(3)]
        lines = [f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}  {d}".rstrip() for a, b, c, d in rows]
        return "\n".join([self._title(), *lines])

    def _repr_html_(self) -> str:
        head, *rows = self._rows()
        names = "".join(f"<th>{escape(cell)}</th>" for cell in head)
        lines = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
        body = "".join(f"<tr>{line}</tr>" for line in lines)
        return f"<table><caption>{escape(self._title())}</caption><tr>{names}</tr>{body}</table>"

    def _title(self) -> str:
        return f"variance {number(self.variance)}, sum over coordinates, {self.method}; of it, by the noise of"

    def _rows(self) -> list[tuple[str, str, str, str]]:
        """The head, and a line for each stochastic node, those with the largest share first."""
        rows = [("node", "alone", "with others", "estimator")]
        for share in sorted(self.shares.values(), key=lambda s: -s.total):
            alone, all_ = _percent(share.first, share.first_error), _percent(share.total, share.total_error)
            rows.append((share.node, alone, all_, share.estimator))
        return rows

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write one line for each stochastic node."""
        names = ["node", "estimator", "first", "first_error", "total", "total_error"]
        lines = [",".join(names)]
        for share in self.shares.values():
            lines.append(
                ",".join(
                    f'"{value}"' if isinstance(value, str) else repr(value)
                    for value in (getattr(share, name) for name in names)
                )
            )
        write(path, ("\n".join(lines) + "\n").encode())


def _percent(x: float, error: float) -> str:
    return f"{100 * x:.1f}%" + (f" ±{100 * error:.1f}" if error else "")
