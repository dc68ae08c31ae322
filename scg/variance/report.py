"""What a comparison found: numbers by row and parameter, as a table, CSV, JSON and a figure."""

import csv
import html
import io
import json
import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

from scg.core.aliases import Function, Operand, Result, Tree
from scg.core.options import integer
from scg.errors import ScgError, here
from scg.files import write
from scg.variance.environment import environment
from scg.variance.plotting import scatter
from scg.variance.rows import Entry, Row, number


class RowError(ScgError, KeyError):
    """A report has no such row."""

    __str__ = Exception.__str__  # a KeyError would show the message in quotes


@dataclass(frozen=True, eq=False, repr=False)
class Report:
    """What ``compare`` found; ``report["label"]`` is a row. ``print`` shows a table, a notebook too; ``to_csv``,
    ``to_json`` and ``plot`` write files.

    ``reference``    what the bias is against: "the exact gradient", "the given gradient" or the name of a row; "" for
                     nothing
    ``gradient``     the exact or given gradient in the parameters' structure; None where out of reach
    ``replicates``   drawn; ``seed``, the entropy of which chunk i has the part ``spawn_key=(i,)``; ``level`` of the
                     intervals
    ``precise``      whether all rows have the precision that was asked for; ``interrupted``, whether Ctrl-C came before
                     all replicates were drawn; ``unlearned``, rows whose estimators learn and had no warmup
    """

    rows: dict[str, Row]
    reference: str
    gradient: Tree
    replicates: int
    seed: int
    level: float
    precision: float | None
    precise: bool
    interrupted: bool = False
    unlearned: tuple[str, ...] = ()

    def __getitem__(self, label: str) -> Row:
        if not isinstance(label, str) or label not in self.rows:
            raise RowError(f"no row is called {label!r}; there are {', '.join(map(repr, self.rows))} ({here()})")
        return self.rows[label]

    def __iter__(self) -> Iterator[str]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def entries(self) -> list[Entry]:
        """All entries: for each row its total, and its parameters where there are several."""
        found = []
        for row in self.rows.values():
            found += [row.total, *(row.entries.values() if len(row.entries) > 1 else ())]
        return found

    def __repr__(self) -> str:
        return f"<Report of {self.replicates} replicates: {', '.join(self.rows)}>"

    def __str__(self) -> str:
        return self.table()

    def table(self, width: int | None = None, timed: bool = True) -> str:
        """The table in ``width`` columns (of the terminal): what does not fit is left out, from the least important on;
        times only if ``timed``."""
        width = shutil.get_terminal_size((100, 24)).columns if width is None else integer("width", width, 1)
        blocks = [self._block([row.total for row in self.rows.values()], "", width, timed)]
        paths = list(next(iter(self.rows.values())).entries)
        for path in paths if len(paths) > 1 else ():
            blocks.append(self._block([row.entries[path] for row in self.rows.values()], path, width, timed))
        return "\n\n".join([*blocks, "\n".join(self._notes(width))])

    def _block(self, entries: list[Entry], title: str, width: int, timed: bool) -> str:
        columns = [c for c in self._columns(entries) if timed or not c.title.endswith("time")]
        return "\n".join(([title] if title else []) + _fitted(columns, width))

    def _columns(self, entries: list[Entry], parameter: bool = False) -> list["_Column"]:
        columns = _columns(entries, self.level, parameter)
        return [c for c in columns if self.reference or c.title not in ("bias", "(noise)")]

    def _notes(self, width: int) -> list[str]:
        against = f" bias against {self.reference};" if self.reference else ""
        notes = [
            f"{self.replicates} replicates;{against} sums over coordinates; work: variance times, over that of the"
            " first row"
        ]
        if any(math.isnan(e.evaluations) for e in self.entries):
            notes.append("–: nobody counted the evaluations of the cost; Samples take them as evaluations=")
        if any(not e.reliable for e in self.entries):
            notes.append(
                "! the interval is not to be trusted: a heavy tail, or few replicates carry the variance, or none was"
                " seen to (tail_index, effective)"
            )
        if any(e.bias_p < _SURE for e in self.entries):
            notes.append(f"* biased: a coordinate is off by what chance does with probability below {_SURE:g}")
        first = self.reference.startswith("row ") and len(self.rows) > 1
        if first and all(math.isnan(row.total.bias) for row in self.rows.values()):
            notes.append(
                f"no bias: the mean of {self.reference} is itself unknown, few of its replicates carry its variance;"
                " name another as baseline_row"
            )
        if self.unlearned:
            notes.append(
                f"not learned: the baselines of {', '.join(self.unlearned)} stand as they came; warmup= lets them learn"
                " first"
            )
        if self.interrupted:
            notes.append(f"interrupted: drawing ended at {self.replicates} replicates")
        if not self.precise:
            notes.append(f"precision {self.precision:g} was not reached in {self.replicates} replicates")
        return [line for note in notes for line in _wrapped(note, width)]

    def _repr_html_(self) -> str:
        columns = self._columns(self.entries, parameter=any(e.parameter != "total" for e in self.entries))
        head = "".join(f"<th>{html.escape(c.title)}</th>" for c in columns)
        body = "".join(
            "<tr>"
            + "".join(
                f"<td style='text-align:{'left' if c.left else 'right'}'>{html.escape(c.cells[i])}</td>"
                for c in columns
            )
            + "</tr>"
            for i in range(len(self.entries))
        )
        notes = "".join(f"<div>{html.escape(note)}</div>" for note in self._notes(10**6))
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{notes}"

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a line an entry, all fields; all of it or nothing."""
        out = io.StringIO()
        writer = csv.DictWriter(out, [f.name for f in fields(Entry)], lineterminator="\n")
        writer.writeheader()
        for entry in self.entries:
            writer.writerow(vars(entry))
        write(path, out.getvalue().encode())

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write entries, estimators, seed, versions and machine; all of it or nothing. What is not finite is null."""
        write(path, (json.dumps(finite(self.as_dict()), indent=1, allow_nan=False) + "\n").encode())

    def as_dict(self) -> dict[str, object]:
        """What ``to_json`` writes."""
        return {
            "replicates": self.replicates,
            "seed": self.seed,
            "level": self.level,
            "precision": self.precision,
            "precise": self.precise,
            "interrupted": self.interrupted,
            "reference": self.reference,
            "rows": {label: row.estimators for label, row in self.rows.items()},
            "entries": [dict(vars(entry)) for entry in self.entries],
            **environment(),
        }

    def plot(self, path: str | os.PathLike[str] | None = None, **kwargs: Operand) -> Result:
        """Draw variance against work to a file (.svg, .png, .pdf), or with ``ax=`` into Axes of yours, which are
        returned.

        See ``scg.variance.plotting.scatter``. Needs matplotlib.
        """
        return scatter(self, path, **kwargs)


_SURE, _NAME = 1e-4, 24


@dataclass(frozen=True)
class _Column:
    title: str
    cells: list[str]
    rank: int  # the highest are left out first
    left: bool = False

    @property
    def width(self) -> int:
        return max(map(len, [self.title, *self.cells]))


def _columns(entries: list[Entry], level: float, parameter: bool = False) -> list[_Column]:
    def column(title: str, cell: Function, rank: int, left: bool = False) -> _Column:
        return _Column(title, [cell(e) for e in entries], rank, left)

    columns = [column("", lambda e: e.row, 0, True)]
    if parameter:
        columns.append(column("parameter", lambda e: e.parameter, 0, True))
    columns.append(column("variance", lambda e: number(e.variance), 0))
    columns.append(column(f"±{100 * level:g}%", lambda e: _percent(e) + ("" if e.reliable else "!"), 1))
    if any(not math.isnan(e.exact_variance) for e in entries):
        columns.append(column("exact", lambda e: number(e.exact_variance), 3))
    columns.append(
        column("bias", lambda e: "-" if math.isnan(e.bias) else number(e.bias) + ("*" if e.bias_p < _SURE else ""), 4)
    )
    columns.append(column("(noise)", lambda e: "" if math.isnan(e.bias) else number(e.bias_error), 7))
    columns.append(column("SNR", lambda e: number(e.snr), 6))
    columns.append(column("evals", lambda e: "–" if math.isnan(e.evaluations) else f"{e.evaluations:.4g}", 5))
    columns.append(column("time", lambda e: duration(e.seconds), 5))
    columns.append(column("×evals", lambda e: number(e.ratio_evaluations), 2))
    columns.append(column("×time", lambda e: number(e.ratio_seconds), 2))
    return columns


def _fitted(columns: list[_Column], width: int) -> list[str]:
    columns = [_shortened(columns[0], max(_NAME, width - sum(c.width + 2 for c in columns[1:]))), *columns[1:]]
    while sum(c.width for c in columns) + 2 * (len(columns) - 1) > width and max(c.rank for c in columns) > 1:
        last = max(c.rank for c in columns)
        columns = [c for c in columns if c.rank != last]
    columns = [
        _shortened(columns[0], max(8, width - sum(c.width for c in columns[1:]) - 2 * (len(columns) - 1))),
        *columns[1:],
    ]
    lines = []
    for i in range(-1, len(columns[0].cells)):
        cells = [c.title if i < 0 else c.cells[i] for c in columns]
        lines.append(
            "  ".join(
                cell.ljust(c.width) if c.left else cell.rjust(c.width) for c, cell in zip(columns, cells, strict=True)
            ).rstrip()
        )
    return lines


def _shortened(column: _Column, room: int) -> _Column:
    """Cells of at most ``room`` characters; what is left out of one is in its middle."""
    head, tail = (room - 1) // 2, room // 2
    return replace(
        column, cells=[cell if len(cell) <= room else f"{cell[:head]}…{cell[-tail:]}" for cell in column.cells]
    )


def duration(seconds: float) -> str:
    """Three digits and a unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def _percent(e: Entry) -> str:
    return "exact" if e.variance == 0 and e.high == 0 else f"{100 * e.error:.2g}%" if math.isfinite(e.error) else "?"


def _wrapped(text: str, width: int) -> list[str]:
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        if line and len(line) + 1 + len(word) > width:
            lines, line = [*lines, line], word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line]


def finite(x: object) -> object:
    """For JSON: what is not finite as None."""
    if isinstance(x, dict):
        return {key: finite(value) for key, value in x.items()}
    if isinstance(x, (list, tuple)):
        return [finite(value) for value in x]
    return None if isinstance(x, float) and not math.isfinite(x) else x
