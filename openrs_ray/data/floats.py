"""Restores 32-bit numbers from Parquet as they were written: 0.1, not 0.10000000149011612."""

import pyarrow


def as_written(table: pyarrow.Table) -> pyarrow.Table:
    """The table with its 32-bit numbers, nested ones too, as the shortest decimals that mean the same."""
    for place, column in enumerate(table.schema):
        text = _in_place_of_float32(column.type, pyarrow.string())
        if text != column.type:
            decimal = _in_place_of_float32(column.type, pyarrow.float64())
            table = table.set_column(place, column.name, table.column(place).cast(text).cast(decimal))
    return table


def _in_place_of_float32(kind: pyarrow.DataType, other: pyarrow.DataType) -> pyarrow.DataType:
    if pyarrow.types.is_float32(kind):
        return other
    if pyarrow.types.is_list(kind):
        inner = _in_place_of_float32(kind.value_type, other)
        return kind if inner == kind.value_type else pyarrow.list_(inner)
    if pyarrow.types.is_struct(kind):
        fields = [field.with_type(_in_place_of_float32(field.type, other)) for field in kind]
        return kind if fields == list(kind) else pyarrow.struct(fields)
    return kind
