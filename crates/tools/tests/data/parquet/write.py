"""Writes the test files of `read_table` beside itself, with the versions that README.md names."""

import pyarrow as pa, pyarrow.parquet as pq, duckdb, polars as pl, datetime as dt, decimal, uuid, os

D = decimal.Decimal
out = os.path.dirname(os.path.abspath(__file__))
utc = dt.timezone.utc


def kinds(n):
    rows = {
        "b": [None if i % 5 == 4 else i % 2 == 0 for i in range(n)],
        "i8": [i - 3 for i in range(n)],
        "u32": [4294967295 - i for i in range(n)],
        "u64": [18446744073709551615 - i for i in range(n)],
        "i64": [None if i % 3 == 2 else i * 10**12 for i in range(n)],
        "f32": [i / 4 for i in range(n)],
        "f64": [float("nan") if i == 1 else float("-inf") if i == 2 else i / 8 for i in range(n)],
        "s": [None if i % 4 == 3 else f"wört {i%7}" for i in range(n)],
        "bin": [bytes([i % 256, 255]) for i in range(n)],
        "d": [dt.date(2026, 1, 1) + dt.timedelta(days=i) for i in range(n)],
        "t": [dt.time(23, 59, 59, 999000 + i % 999) for i in range(n)],
        "ts": [
            dt.datetime(2026, 11, 30, 20, 0, 0, i * 1000, tzinfo=utc) if i < 900 else None for i in range(n)
        ],
        "local": [dt.datetime(1969, 12, 31, 23, 59, 59) + dt.timedelta(seconds=i) for i in range(n)],
        "dec": [D("-12345678901234567890.123") + i for i in range(n)],
    }
    return rows


s = pa.schema(
    [
        ("b", pa.bool_()),
        ("i8", pa.int8()),
        ("u32", pa.uint32()),
        ("u64", pa.uint64()),
        ("i64", pa.int64()),
        ("f32", pa.float32()),
        ("f64", pa.float64()),
        ("s", pa.string()),
        ("bin", pa.binary()),
        ("d", pa.date32()),
        ("t", pa.time64("us")),
        ("ts", pa.timestamp("ms", tz="UTC")),
        ("local", pa.timestamp("us")),
        ("dec", pa.decimal128(38, 3)),
    ]
)
t = pa.table(kinds(6), schema=s)
for c in ["snappy", "zstd", "gzip", "none"]:
    pq.write_table(t, f"{out}/pyarrow_kinds_{c}.parquet", compression=c)
pq.write_table(
    t, f"{out}/pyarrow_kinds_v2.parquet", compression="zstd", version="2.6", data_page_version="2.0"
)
pq.write_table(t.select(["i64", "ts"]), f"{out}/pyarrow_int96.parquet", use_deprecated_int96_timestamps=True)
pq.write_table(t.select(["i64", "s"]), f"{out}/pyarrow_brotli.parquet", compression="brotli")
pq.write_table(
    t.select(["i8", "i64", "s"]),
    f"{out}/pyarrow_deltas.parquet",
    use_dictionary=False,
    column_encoding={
        "i8": "DELTA_BINARY_PACKED",
        "i64": "DELTA_BINARY_PACKED",
        "s": "DELTA_LENGTH_BYTE_ARRAY",
    },
)
nested = pa.table(
    {
        "tags": pa.array([["a", "b"], [], None, ["c", None]], pa.list_(pa.string())),
        "matrix": pa.array([[[1, 2], [3]], [[]], None, [None, [4]]], pa.list_(pa.list_(pa.int32()))),
        "who": pa.array(
            [
                {"name": "Ada", "born": {"year": 1815}},
                {"name": None, "born": None},
                None,
                {"name": "Bob", "born": {"year": None}},
            ],
            pa.struct([("name", pa.string()), ("born", pa.struct([("year", pa.int16())]))]),
        ),
        "counts": pa.array([[("x", 1), ("y", None)], [], None, [("z", 3)]], pa.map_(pa.string(), pa.int64())),
        "by_number": pa.array([[(1, "x")], [], None, [(2, None)]], pa.map_(pa.int32(), pa.string())),
        "orders": pa.array(
            [
                [{"id": 1, "items": ["p", "q"]}, {"id": 2, "items": []}],
                [],
                None,
                [{"id": None, "items": None}],
            ],
            pa.list_(pa.struct([("id", pa.int32()), ("items", pa.list_(pa.string()))])),
        ),
    }
)
pq.write_table(nested, f"{out}/pyarrow_nested.parquet", row_group_size=3)
pq.write_table(nested, f"{out}/pyarrow_nested_v2.parquet", data_page_version="2.0", compression="gzip")
big = pa.table(
    {
        "n": pa.array(range(20000), pa.int32()),
        "g": pa.array([f"g{i//5000}" for i in range(20000)]),
        "odd": pa.array([None if i % 2 == 0 else True for i in range(20000)]),
    }
)
pq.write_table(
    big,
    f"{out}/pyarrow_many.parquet",
    row_group_size=6000,
    column_encoding={"n": "DELTA_BINARY_PACKED"},
    use_dictionary=["g"],
    compression="zstd",
    write_statistics=False,
)
u = "12345678-1234-5678-1234-567812345678"
duckdb.sql(
    f"""copy (select i::int as id, case when i%2=0 then 'even' end as s, (i*1.25)::decimal(9,2) as price,
 '{u}'::uuid as u, timestamptz '2026-11-30 20:00:00+00' + to_seconds(i::int) as at, [i, i+1] as pair, {{'a': i, 'b': 'x'}} as rec,
 map {{'k': i}} as m, date '2026-01-01' as d, (i||'')::blob as raw, i::hugeint as h, time '12:30:00' as t
 from range(5) r(i)) to '{out}/duckdb_kinds.parquet' (format parquet, compression snappy)"""
)
duckdb.sql(
    f"copy (select i as n, 'text '||(i%3) as s from range(3000) r(i)) to '{out}/duckdb_many_v2.parquet' (format parquet, compression zstd, parquet_version v2)"
)
pl.DataFrame(
    {
        "id": [1, 2, 3],
        "s": ["a", None, "c"],
        "when": [dt.datetime(2026, 11, 30, 20, 0, 0), None, dt.datetime(2026, 1, 1)],
        "l": [[1.5], [], None],
        "c": pl.Series(["x", "y", "x"], dtype=pl.Categorical),
        "dur": [dt.timedelta(seconds=1), None, dt.timedelta(0)],
        "dec": pl.Series([D("1.10"), None, D("-2.05")], dtype=pl.Decimal(10, 2)),
        "st": [{"a": 1}, {"a": None}, None],
    }
).write_parquet(f"{out}/polars_kinds.parquet")
