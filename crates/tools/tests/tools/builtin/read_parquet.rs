//! `read_table` on Parquet files of real writers. `tests/data/parquet/README.md` says how they were made.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::Fixture;

/// A fixture with every file of the test data.
async fn with_files() -> (Fixture, Vec<String>) {
    let tools = Fixture::new().await;
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/parquet");
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "parquet") {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            tools.write(&name, fs::read(&path).unwrap());
            names.push(name);
        }
    }
    names.sort();
    (tools, names)
}

async fn rows(tools: &Fixture, path: &str) -> Vec<Value> {
    let read = tools
        .call("read_table", json!({ "path": path }))
        .await
        .unwrap_or_else(|error| panic!("{path}: {error}"));
    assert_eq!(read["more"], false, "{path}");
    read["rows"].as_array().unwrap().clone()
}

#[tokio::test]
async fn every_kind_of_value_is_the_same_in_every_compression() {
    let (tools, names) = with_files().await;
    let expected = json!([
        {
            "b": true, "i8": -3, "u32": 4_294_967_295_u32, "u64": u64::MAX, "i64": 0, "f32": 0.0, "f64": 0.0,
            "s": "wört 0", "bin": "AP8=", "d": "2026-01-01", "t": "23:59:59.999", "ts": "2026-11-30T20:00:00Z",
            "local": "1969-12-31T23:59:59", "dec": "-12345678901234567890.123"
        },
        {
            "b": false, "i8": -2, "u32": 4_294_967_294_u32, "u64": u64::MAX - 1, "i64": 1_000_000_000_000_i64,
            "f32": 0.25, "f64": "NaN", "s": "wört 1", "bin": "Af8=", "d": "2026-01-02", "t": "23:59:59.999001",
            "ts": "2026-11-30T20:00:00.001Z", "local": "1970-01-01T00:00:00", "dec": "-12345678901234567889.123"
        }
    ]);
    let kinds: Vec<&String> = names.iter().filter(|name| name.starts_with("pyarrow_kinds")).collect();
    assert_eq!(kinds.len(), 5, "{names:?}");
    for name in kinds {
        let rows = rows(&tools, name).await;
        assert_eq!(json!(rows[..2]), expected, "{name}");
        assert_eq!(
            (rows.len(), &rows[2]["f64"], &rows[2]["i64"]),
            (6, &json!("-Infinity"), &Value::Null),
            "{name}"
        );
        assert_eq!((&rows[3]["s"], &rows[4]["b"]), (&Value::Null, &Value::Null), "{name}");
    }
    assert_eq!(rows(&tools, "pyarrow_int96.parquet").await[1]["ts"], "2026-11-30T20:00:00.001");
    let deltas = rows(&tools, "pyarrow_deltas.parquet").await;
    assert_eq!(deltas[1], json!({"i8": -2, "i64": 1_000_000_000_000_i64, "s": "wört 1"}));
    assert_eq!(deltas[5]["s"], "wört 5");
}

#[tokio::test]
async fn nested_columns_are_arrays_and_objects() {
    let (tools, _) = with_files().await;
    let expected = json!([
        {
            "tags": ["a", "b"], "matrix": [[1, 2], [3]], "who": {"name": "Ada", "born": {"year": 1815}},
            "counts": {"x": 1, "y": null}, "by_number": [{"key": 1, "value": "x"}],
            "orders": [{"id": 1, "items": ["p", "q"]}, {"id": 2, "items": []}]
        },
        {
            "tags": [], "matrix": [[]], "who": {"name": null, "born": null}, "counts": {}, "by_number": {},
            "orders": []
        },
        {"tags": null, "matrix": null, "who": null, "counts": null, "by_number": null, "orders": null},
        {
            "tags": ["c", null], "matrix": [null, [4]], "who": {"name": "Bob", "born": {"year": null}},
            "counts": {"z": 3}, "by_number": [{"key": 2, "value": null}], "orders": [{"id": null, "items": null}]
        }
    ]);
    for name in ["pyarrow_nested.parquet", "pyarrow_nested_v2.parquet"] {
        assert_eq!(json!(rows(&tools, name).await), expected, "{name}");
    }
}

#[tokio::test]
async fn files_of_duckdb_and_polars_are_read() {
    let (tools, _) = with_files().await;
    let duckdb = rows(&tools, "duckdb_kinds.parquet").await;
    let expected = json!({
        "id": 3, "s": null, "price": "3.75", "u": "12345678-1234-5678-1234-567812345678",
        "at": "2026-11-30T20:00:03Z", "pair": [3, 4], "rec": {"a": 3, "b": "x"}, "m": {"k": 3}, "d": "2026-01-01",
        "raw": "Mw==", "h": 3.0, "t": "12:30:00"
    });
    assert_eq!(duckdb[3], expected);
    let many = json!({"path": "duckdb_many_v2.parquet", "offset": 2500, "limit": 1});
    let many = tools.call("read_table", many).await.unwrap();
    assert_eq!((&many["rows"], &many["more"]), (&json!([{"n": 2500, "s": "text 1"}]), &json!(true)));
    let polars = rows(&tools, "polars_kinds.parquet").await;
    let first = json!({
        "id": 1, "s": "a", "when": "2026-11-30T20:00:00", "l": [1.5], "c": "x", "dur": 1_000_000, "dec": "1.10",
        "st": {"a": 1}
    });
    assert_eq!(polars[0], first);
    assert_eq!(
        (&polars[1]["l"], &polars[2]["st"], &polars[2]["dec"]),
        (&json!([]), &Value::Null, &json!("-2.05"))
    );
}

#[tokio::test]
async fn only_the_wanted_rows_and_columns_are_returned_across_row_groups() {
    let (tools, _) = with_files().await;
    let call = json!({"path": "pyarrow_many.parquet", "columns": ["g", "n"], "offset": 11_999, "limit": 3});
    let read = tools.call("read_table", call).await.unwrap();
    let rows: Vec<Value> = (11_999..12_002).map(|n| json!({"g": "g2", "n": n})).collect();
    assert_eq!(json!(read["rows"]), json!(rows));
    assert_eq!(
        (&read["n_read"], &read["more"], &read["columns"]),
        (&json!(12_002), &json!(true), &json!(["g", "n"]))
    );
    let error = tools
        .call("read_table", json!({"path": "pyarrow_many.parquet", "columns": ["m"]}))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("/columns/0: the table has no such column; its columns are: n, g, odd"),
        "{error}"
    );
}

#[tokio::test]
async fn what_is_not_supported_is_named() {
    let (tools, _) = with_files().await;
    tools.write("text.parquet", "not a table at all");
    tools.write("short.parquet", "PAR1");
    for (path, told) in [
        ("pyarrow_brotli.parquet", "the compression BROTLI"),
        ("text.parquet", "does not begin and end as Parquet does"),
        ("short.parquet", "the file is too short"),
    ] {
        let error = tools.call("read_table", json!({ "path": path })).await.unwrap_err();
        assert!(error.to_string().contains(told), "{path}: {error}");
        assert_eq!(error.kind().as_str(), "failed");
    }
}
