//! Diesel's `table!` blocks, from the catalog of a database.
//!
//! Owns the queries and the text. It knows the types that the migrations use and refuses others by name. Partitions
//! are left out: rows are reached through their table.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Context, Result, bail};

const COLUMNS: &str = "\
    SELECT c.relname, a.attname, \
           CASE WHEN t.typelem <> 0 AND t.typlen = -1 THEN e.typname ELSE t.typname END, \
           (t.typelem <> 0 AND t.typlen = -1)::int, (NOT a.attnotnull)::int, \
           coalesce(array_position(k.conkey, a.attnum), 0) \
    FROM pg_class c \
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
    JOIN pg_type t ON t.oid = a.atttypid \
    LEFT JOIN pg_type e ON e.oid = t.typelem \
    LEFT JOIN pg_constraint k ON k.conrelid = c.oid AND k.contype = 'p' \
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relnamespace = current_schema()::regnamespace \
    ORDER BY c.relname COLLATE \"C\", a.attnum";

const FOREIGN_KEYS: &str = "\
    SELECT c.relname, p.relname, array_length(k.conkey, 1), a.attname, \
           (k.confkey = (SELECT conkey FROM pg_constraint WHERE conrelid = p.oid AND contype = 'p'))::int \
    FROM pg_constraint k \
    JOIN pg_class c ON c.oid = k.conrelid AND NOT c.relispartition \
    JOIN pg_class p ON p.oid = k.confrelid AND NOT p.relispartition \
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.conkey[1] \
    WHERE k.contype = 'f' AND k.conparentid = 0 AND c.relnamespace = current_schema()::regnamespace \
    ORDER BY c.relname COLLATE \"C\", p.relname COLLATE \"C\", a.attname COLLATE \"C\"";

/// Words that cannot name a field or a module in Rust.
const KEYWORDS: &[&str] = &[
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn",
    "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop",
    "macro", "match", "mod", "move", "mut", "override", "priv", "pub", "ref", "return", "self", "static",
    "struct", "super", "trait", "true", "try", "type", "typeof", "unsafe", "unsized", "use", "virtual",
    "where", "while", "yield",
];

struct Column {
    name: String,
    rust_type: String,
    /// Its place in the primary key, from 1; 0 outside of it.
    key_position: usize,
}

struct ForeignKey {
    child: String,
    parent: String,
    n_columns: usize,
    column: String,
    is_to_primary_key: bool,
}

/// The source of `schema.rs`. `query` runs SQL and returns rows as lines with fields separated by tabs.
pub(crate) fn read(query: impl Fn(&str) -> Result<String>) -> Result<String> {
    let tables = tables(&query(COLUMNS)?)?;
    let foreign_keys = foreign_keys(&query(FOREIGN_KEYS)?)?;
    write(&tables, &foreign_keys)
}

fn tables(rows: &str) -> Result<BTreeMap<String, Vec<Column>>> {
    let mut tables: BTreeMap<String, Vec<Column>> = BTreeMap::new();
    for row in rows.lines() {
        let [table, name, sql_type, is_array, is_nullable, key_position] = fields(row)?;
        if table.starts_with("__diesel") {
            continue;
        }
        let base = rust_type(sql_type).with_context(|| format!("column {table}.{name}"))?;
        let whole = match is_array {
            // PostgreSQL cannot forbid NULL inside an array.
            "1" => format!("Array<Nullable<{base}>>"),
            _ => base.to_owned(),
        };
        let rust_type = if is_nullable == "1" { format!("Nullable<{whole}>") } else { whole };
        let column = Column { name: name.to_owned(), rust_type, key_position: key_position.parse()? };
        tables.entry(table.to_owned()).or_default().push(column);
    }
    Ok(tables)
}

fn rust_type(sql_type: &str) -> Result<&'static str> {
    Ok(match sql_type {
        "uuid" => "Uuid",
        "text" => "Text",
        "varchar" => "Varchar",
        "timestamptz" => "Timestamptz",
        "date" => "Date",
        "interval" => "Interval",
        "int2" => "Int2",
        "int4" => "Int4",
        "int8" => "Int8",
        "float4" => "Float4",
        "float8" => "Float8",
        "numeric" => "Numeric",
        "bool" => "Bool",
        "json" => "Json",
        "jsonb" => "Jsonb",
        "bytea" => "Bytea",
        "inet" => "Inet",
        "cidr" => "Cidr",
        "oid" => "Oid",
        other => {
            bail!("no diesel type is known for the SQL type {other}: add it to xtask/src/table_macros.rs")
        }
    })
}

fn foreign_keys(rows: &str) -> Result<Vec<ForeignKey>> {
    rows.lines()
        .map(|row| {
            let [child, parent, n_columns, column, is_to_primary_key] = fields(row)?;
            Ok(ForeignKey {
                child: child.to_owned(),
                parent: parent.to_owned(),
                n_columns: n_columns.parse()?,
                column: column.to_owned(),
                is_to_primary_key: is_to_primary_key == "1",
            })
        })
        .collect()
}

fn fields<const N: usize>(row: &str) -> Result<[&str; N]> {
    let fields: Vec<&str> = row.split('\t').collect();
    fields.try_into().ok().with_context(|| format!("unexpected answer from psql: {row}"))
}

fn write(tables: &BTreeMap<String, Vec<Column>>, foreign_keys: &[ForeignKey]) -> Result<String> {
    let mut source = String::from("// @generated by `cargo xtask schema` from migrations/.\n");
    for (table, columns) in tables {
        write_table(&mut source, table, columns)?;
    }
    source.push('\n');
    for key in joinable(foreign_keys) {
        let (child, parent, column) =
            (identifier(&key.child), identifier(&key.parent), identifier(&key.column));
        writeln!(source, "diesel::joinable!({child} -> {parent} ({column}));")?;
    }
    source.push_str("\ndiesel::allow_tables_to_appear_in_same_query!(\n");
    for table in tables.keys() {
        writeln!(source, "    {},", identifier(table))?;
    }
    source.push_str(");\n");
    Ok(source)
}

fn write_table(source: &mut String, table: &str, columns: &[Column]) -> Result<()> {
    let mut key: Vec<&Column> = columns.iter().filter(|column| column.key_position > 0).collect();
    key.sort_by_key(|column| column.key_position);
    if key.is_empty() {
        bail!("table {table} has no primary key, and diesel asks for one");
    }
    let key: Vec<String> = key.iter().map(|column| identifier(&column.name)).collect();
    let name = identifier(table);
    writeln!(source, "\ndiesel::table! {{")?;
    if name != table {
        writeln!(source, "    #[sql_name = \"{table}\"]")?;
    }
    writeln!(source, "    {name} ({}) {{", key.join(", "))?;
    for column in columns {
        let name = identifier(&column.name);
        if name != column.name {
            writeln!(source, "        #[sql_name = \"{}\"]", column.name)?;
        }
        writeln!(source, "        {name} -> {},", column.rust_type)?;
    }
    source.push_str("    }\n}\n");
    Ok(())
}

fn identifier(name: &str) -> String {
    if KEYWORDS.contains(&name) { format!("{name}_") } else { name.to_owned() }
}

/// The foreign keys that say alone how two tables join: there is no other between the two, in either direction.
fn joinable(foreign_keys: &[ForeignKey]) -> impl Iterator<Item = &ForeignKey> {
    let same_pair = |a: &ForeignKey, b: &ForeignKey| {
        (a.child == b.child && a.parent == b.parent) || (a.child == b.parent && a.parent == b.child)
    };
    foreign_keys.iter().filter(move |key| {
        key.child != key.parent
            && key.n_columns == 1
            && key.is_to_primary_key
            && foreign_keys.iter().filter(|other| same_pair(key, other)).count() == 1
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nullable_arrays_keywords_and_composite_keys_come_out_as_diesel_wants_them() -> Result<()> {
        let columns =
            "notes\tkey_b\ttext\t0\t0\t2\nnotes\tkey_a\tuuid\t0\t0\t1\nnotes\ttype\ttext\t1\t1\t0\n";
        let source = read(|query| Ok(if query == COLUMNS { columns.to_owned() } else { String::new() }))?;
        assert!(source.contains("    notes (key_a, key_b) {"), "{source}");
        assert!(
            source.contains(
                "        #[sql_name = \"type\"]\n        type_ -> Nullable<Array<Nullable<Text>>>,"
            ),
            "{source}"
        );
        Ok(())
    }

    #[test]
    fn an_unknown_type_is_refused_by_name() {
        let error = read(|_| Ok("notes\tplace\tpoint\t0\t0\t0\n".to_owned())).unwrap_err();
        assert!(format!("{error:#}").contains("notes.place"), "{error:#}");
    }

    #[test]
    fn two_ways_to_join_are_none() -> Result<()> {
        let keys = foreign_keys(
            "runs\ttasks\t1\ttask_id\t1\ntasks\truns\t1\trun_id\t1\nruns\tgraphs\t1\tgraph\t1\n",
        )?;
        let kept: Vec<&str> = joinable(&keys).map(|key| key.parent.as_str()).collect();
        assert_eq!(kept, ["graphs"]);
        Ok(())
    }
}
