//! `read_table`.

use std::sync::Arc;

use gathering_tools::{
    BlockingPool, Outbound, OutboundPolicy, RowFilter, RowFilters, ToolContext, ToolSetup, Toolbox,
};
use serde_json::{Value, json};

use super::Fixture;

/// A language with one kind of condition: `COLUMN=TEXT`.
#[derive(Debug)]
struct Equals;

impl RowFilters for Equals {
    fn compile(&self, source: &str) -> Result<Box<dyn RowFilter>, String> {
        let (column, text) = source.split_once('=').ok_or("has no `=`")?;
        Ok(Box::new(Equal(column.to_owned(), text.to_owned())))
    }
}

struct Equal(String, String);

impl RowFilter for Equal {
    fn matches(&self, row: &Value) -> Result<bool, String> {
        row[&self.0].as_str().map(|text| text == self.1).ok_or_else(|| format!("`{}` is no text", self.0))
    }
}

async fn with_filters() -> Fixture {
    let (pool, outbound) = (BlockingPool::new(2), Outbound::new(OutboundPolicy::public_only()).unwrap());
    let setup = ToolSetup { row_filters: Some(Arc::new(Equals)), ..ToolSetup::default() };
    Fixture::with(Toolbox::with_setup(&outbound, setup, pool.clone()).unwrap(), pool).await
}

const PEOPLE: &str = "\u{feff}name,age,note\r\nAda,36,\"first, \"\"programmer\"\"\"\r\n\
                      Blaise,39,\"two\nlines\"\r\nCarl,,\r\nAda,1,x\r\n";

#[tokio::test]
async fn rows_of_csv_are_objects_with_typed_cells() {
    let tools = with_filters().await;
    tools.write("people.csv", PEOPLE);
    let all =
        tools.call("read_table", json!({"path": "people.csv", "types": {"age": "integer"}})).await.unwrap();
    let expected = json!({
        "columns": ["name", "age", "note"],
        "rows": [
            {"name": "Ada", "age": 36, "note": "first, \"programmer\""},
            {"name": "Blaise", "age": 39, "note": "two\nlines"},
            {"name": "Carl", "age": null, "note": ""},
            {"name": "Ada", "age": 1, "note": "x"}
        ],
        "n_read": 4, "n_matched": 4, "more": false
    });
    assert_eq!(all, expected);
    let some = json!({"path": "people.csv", "columns": ["age", "name"], "where": "name=Ada", "limit": 1});
    let first = tools.call("read_table", some.clone()).await.unwrap();
    assert_eq!(first["rows"], json!([{"age": "36", "name": "Ada"}]));
    assert_eq!(
        (&first["more"], &first["n_matched"], &first["n_read"], &first["columns"]),
        (&json!(true), &json!(1), &json!(3), &json!(["age", "name"]))
    );
    let mut rest = some;
    rest["offset"] = json!(1);
    let second = tools.call("read_table", rest).await.unwrap();
    assert_eq!((&second["rows"], &second["more"]), (&json!([{"age": "1", "name": "Ada"}]), &json!(false)));
}

#[tokio::test]
async fn rows_of_json_lines_keep_their_types() {
    let tools = with_filters().await;
    tools.write("log.jsonl", "{\"a\": 1}\n\n{\"b\": {\"c\": [2]}, \"a\": null}");
    let read = tools.call("read_table", json!({"path": "log.jsonl"})).await.unwrap();
    assert_eq!(read["rows"], json!([{"a": 1}, {"b": {"c": [2]}, "a": null}]));
    assert_eq!(read["columns"], json!(["a", "b"]));
    let other = json!({"path": "log.jsonl", "columns": ["b"], "offset": 1});
    assert_eq!(tools.call("read_table", other).await.unwrap()["rows"], json!([{"b": {"c": [2]}}]));
    tools.write("data.txt", "a;b\n1;2\n");
    let named = json!({"path": "data.txt", "format": "csv", "delimiter": ";"});
    assert_eq!(tools.call("read_table", named).await.unwrap()["rows"], json!([{"a": "1", "b": "2"}]));
    tools.write("data.tsv", "a\tb\n1\t2\n");
    let tabs = tools.call("read_table", json!({"path": "data.tsv"})).await.unwrap();
    assert_eq!(tabs["rows"], json!([{"a": "1", "b": "2"}]));
}

#[tokio::test]
async fn a_broken_row_is_named_by_its_line() {
    let tools = with_filters().await;
    tools.write("a.csv", "n,b\n1,x\ntwo,y\n");
    tools.write("ragged.csv", "a,b\n1,2\n1,2,3\n");
    tools.write("latin.csv", b"a,b\n1,\xe4\n");
    tools.write("twice.csv", "a,a\n1,2\n");
    tools.write("open.csv", format!("a\n1\n\"{}", "x\n".repeat(1_000_000)));
    tools.write("a.jsonl", "{\"a\": 1}\n[1]\n");
    tools.write("b.jsonl", format!("{{\"a\": \"{}\"}}", "x".repeat(2_000_000)));
    for (path, more, told) in [
        ("a.csv", json!({"types": {"n": "integer"}}), "line 3: `two` in column `n` is not an integer"),
        ("ragged.csv", json!({}), "line 3: the row has 3 cells, and the header has 2"),
        ("latin.csv", json!({}), "line 2: the row is not UTF-8"),
        ("twice.csv", json!({}), "line 1: two columns are called `a`"),
        ("open.csv", json!({}), "cannot read the table: a row is larger than 1048576 bytes"),
        ("a.jsonl", json!({}), "line 2: the row is not a JSON object"),
        ("b.jsonl", json!({}), "line 1: the row is larger than 1048576 bytes"),
        ("a.jsonl", json!({"where": "a=x"}), "line 1: `a` is no text"),
    ] {
        let mut params = json!({"path": path});
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let error = tools.call("read_table", params).await.unwrap_err();
        assert!(error.to_string().starts_with(told), "{path}: {error}");
    }
}

#[tokio::test]
async fn bad_parameters_are_named_at_their_place() {
    let tools = with_filters().await;
    tools.write("a.csv", "a,b\n1,2\n");
    for (params, told) in [
        (json!({"path": "a.parquet", "delimiter": ";"}), "/delimiter: is for CSV"),
        (json!({"path": "a.parquet", "types": {"c": "integer"}}), "/types: is for CSV"),
        (json!({"path": "a.txt"}), "/format: is required: the extension of `path` does not tell it"),
        (json!({"path": "a.jsonl", "delimiter": ";"}), "/delimiter: is for CSV"),
        (json!({"path": "a.csv", "delimiter": ";;"}), "/delimiter: must match the pattern"),
        (json!({"path": "a.csv", "where": "a"}), "/where: has no `=`"),
        (json!({"path": "a.csv", "limit": 1001}), "/limit: must be at most 1000"),
        (
            json!({"path": "a.csv", "columns": ["a", "c"]}),
            "/columns/1: the table has no such column; its columns are: a, b",
        ),
        (json!({"path": "a.csv", "types": {"c": "integer"}}), "/types/c: the table has no such column"),
        (json!({"path": "a.jsonl", "types": {"c": "integer"}}), "/types: is for CSV"),
    ] {
        let error = tools.call("read_table", params).await.unwrap_err();
        assert!(error.to_string().starts_with(&format!("invalid parameters: {told}")), "{error}");
    }
}

#[tokio::test]
async fn a_program_without_expressions_refuses_where() {
    let tools = Fixture::new().await;
    tools.write("a.csv", "a\n1\n");
    let error = tools.call("read_table", json!({"path": "a.csv", "where": "row.a == 1"})).await.unwrap_err();
    assert_eq!((error.kind().as_str(), error.is_retryable()), ("not_configured", false));
    let error = tools.tools.call("read_table", json!({"path": "../a.csv"}), &ToolContext::new()).await;
    assert_eq!(error.unwrap_err().kind().as_str(), "forbidden");
}

#[tokio::test]
async fn a_large_table_is_returned_in_parts() {
    let tools = Fixture::new().await;
    tools.write("a.csv", format!("a\n{}", format!("{}\n", "x".repeat(10_000)).repeat(1000)));
    let read = tools.call("read_table", json!({"path": "a.csv", "limit": 1000})).await.unwrap();
    assert_eq!(
        (&read["more"], &read["stopped_by"], &read["n_matched"]),
        (&json!(true), &json!("bytes"), &json!(209))
    );
    let rest =
        tools.call("read_table", json!({"path": "a.csv", "limit": 1000, "offset": 900})).await.unwrap();
    assert_eq!((&rest["more"], rest["rows"].as_array().unwrap().len()), (&json!(false), 100));
}
