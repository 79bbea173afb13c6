"""The table of weights on the report page: its columns, and what stands in each cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxprune.formats import bytes_text, count_text, percent_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from onnxprune.report import WeightReport


@dataclass(frozen=True)
class Cell:
    """What is shown, and what the column is sorted by."""

    text: str
    key: str


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        heading: above it.
        value: of a weight; None where it does not apply.
        form: how the value is shown.
        text: whether it holds words, which stand left and sort by letters.
    """

    heading: str
    value: Callable[[WeightReport], Any]
    form: Callable[[Any], str]
    text: bool = False

    def applies(self, weights: Sequence[WeightReport]) -> bool:
        """Whether any weight has a value."""
        return any(self.value(weight) is not None for weight in weights)


COLUMNS = (
    Column("weight", lambda w: w.name, str, text=True),
    Column("read by", lambda w: ", ".join(w.op_types), str, text=True),
    Column("shape", lambda w: "\u00d7".join(map(str, w.shape)), str, text=True),
    Column("elements", lambda w: w.elements, count_text),
    Column("sparsity", lambda w: w.sparsity, percent_text),
    Column("pattern", lambda w: w.pattern, str, text=True),
    Column("dense", lambda w: w.dense_bytes, bytes_text),
    Column("encoding", lambda w: w.encoding, str, text=True),
    Column("encoded", lambda w: w.encoded_bytes, bytes_text),
    Column("bound", lambda w: w.entropy_bound_bytes, bytes_text),
    Column("fetched", lambda w: w.fetch and w.fetch.fetched_bytes, bytes_text),
    Column("of peak", lambda w: w.fetch and w.fetch.share_of_peak, percent_text),
    Column("cycles decode", lambda w: (w.fetch and w.fetch.decode_cycles) or None, count_text),
    Column("cycles stall", lambda w: (w.fetch and w.fetch.stall_cycles) or None, count_text),
    Column("cycles dense", lambda w: w.dense_fetch_cycles, count_text),
    Column("cycles", lambda w: w.fetch_cycles, count_text),
)


def cells(weight: WeightReport, columns: Sequence[Column]) -> list[Cell]:
    """One row of the table."""
    row = []
    for column in columns:
        value = column.value(weight)
        row.append(Cell("", "") if value is None else Cell(column.form(value), str(value)))
    return row
