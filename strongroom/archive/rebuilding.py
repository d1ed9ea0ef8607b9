"""Records that their columns give back: such lines are not stored twice (docs/format.md §3). Pure.

A flow log's line is its fields with spaces between them, and the fields are columns already; the line again in `raw`
would be half of the segment. So a segment may name *forms*: for rows with this `context`, these columns, joined, are
the record. `omit` empties `raw` where the form makes the very bytes, compared row by row; anything else (two spaces, a
leading zero, an unknown field) keeps its bytes. `restore` is the inverse and refuses a row that has neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from strongroom.archive import canonical
from strongroom.archive.errors import FormatError

ABSENT = "-"
SEPARATOR = " "
_MICROSECONDS = pa.scalar(1_000_000, pa.int64())  # in a second
_NOTHING = pa.scalar(None, pa.binary())


@dataclass(frozen=True, slots=True)
class Form:
    """How the records with one `context` are made of `columns`: names, in the order of the fields."""

    context: bytes | None
    columns: tuple[str, ...]


def encode(forms: Sequence[Form]) -> str:
    """The footer member that states `forms`."""
    listed = [
        {"columns": list(form.columns)} | ({} if form.context is None else {"context": form.context.hex()})
        for form in forms
    ]
    return canonical.encode(listed).decode()


def decode(text: str) -> tuple[Form, ...]:
    """The forms that a footer member states. Raises FormatError."""
    try:
        listed = canonical.decode(text.encode())
        forms = tuple(
            Form(bytes.fromhex(item["context"]) if "context" in item else None, tuple(item["columns"]))
            for item in listed
        )
        named = all(isinstance(name, str) for form in forms for name in form.columns)
        if (
            not isinstance(listed, list)
            or not named
            or not all(form.columns for form in forms)
            or len({form.context for form in forms}) != len(forms)
        ):
            raise ValueError("names or contexts")
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"segment: malformed forms of lines: {error}") from None
    return forms


def omit(table: pa.Table, forms: Sequence[Form]) -> pa.Table:
    """`table` with `raw` null in every row that its form rebuilds exactly."""
    return _with_raw(table, [_omitted(rows, forms) for rows in table.to_batches()], nullable=True)


def restore(table: pa.Table, forms: Sequence[Form]) -> pa.Table:
    """`table` (`context`, `raw` and the forms' columns among its columns) with every record's bytes in `raw`.

    Raises FormatError when a row has no record and no form makes it one.
    """
    raw = [_restored(rows, forms) for rows in table.to_batches()]
    if any(array.null_count for array in raw):
        raise FormatError("segment: a row without a record")
    return _with_raw(table, raw, nullable=False)


def columns_needed(forms: Sequence[Form]) -> list[str]:
    """The columns that `restore` reads beside `raw`; none without forms."""
    return ["context", *dict.fromkeys(name for form in forms for name in form.columns)] if forms else []


def _with_raw(table: pa.Table, raw: list[pa.Array], *, nullable: bool) -> pa.Table:
    at = table.schema.get_field_index("raw")
    field = pa.field("raw", pa.binary(), nullable=nullable)
    return table.set_column(at, field, pa.chunked_array(raw, pa.binary()))


def _omitted(rows: pa.RecordBatch, forms: Sequence[Form]) -> pa.Array:
    raw = rows.column("raw")
    for form in forms:
        there = _of(rows, form)
        if there.true_count:
            kept = _among(raw, there)
            same = pc.fill_null(pc.equal(_lines(rows, there, form), kept), False)
            raw = pc.replace_with_mask(raw, there, pc.if_else(same, _NOTHING, kept))
    return raw


def _restored(rows: pa.RecordBatch, forms: Sequence[Form]) -> pa.Array:
    raw = rows.column("raw")
    for form in forms if raw.null_count else ():
        there = pc.and_(_of(rows, form), raw.is_null())
        if there.true_count:
            raw = pc.replace_with_mask(raw, there, _lines(rows, there, form))
    return raw


def _of(rows: pa.RecordBatch, form: Form) -> pa.Array:
    """Which rows have the form's context."""
    context = rows.column("context")
    if form.context is None:
        return context.is_null()
    return pc.fill_null(pc.equal(context, pa.scalar(form.context, pa.binary())), False)


def _lines(rows: pa.RecordBatch, there: pa.Array, form: Form) -> pa.Array:
    """The lines that some of the rows give in a form, as bytes."""
    texts = [_text(_among(rows.column(name), there)) for name in form.columns]
    joined = pc.binary_join_element_wise(*texts, SEPARATOR, null_handling="replace", null_replacement=ABSENT)
    return joined.cast(pa.binary())


def _among(column: pa.Array, there: pa.Array) -> pa.Array:
    """The values of some of the rows; mostly it is all of them, as rows of one context stand together."""
    return column if there.true_count == len(there) else column.filter(there)


def _text(column: pa.Array) -> pa.Array:
    if pa.types.is_timestamp(column.type):
        column = pc.divide(column.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()), _MICROSECONDS)
    return column.cast(pa.string())
