//! Bound parameters of statements that are written as SQL.

/// Pushes parameters with commas between them.
macro_rules! push_values {
    ($out:ident, $($sql_type:ty: $value:expr),+ $(,)?) => {{
        let mut is_first = true;
        $(
            if !std::mem::replace(&mut is_first, false) {
                $out.push_sql(", ");
            }
            $out.push_bind_param::<$sql_type, _>(&$value)?;
        )+
    }};
}

/// Pushes parameters that are arrays, one per column, with commas between them.
macro_rules! push_columns {
    ($out:ident, $($sql_type:ty: $column:expr),+ $(,)?) => {
        $crate::db::bind::push_values!($out, $(diesel::sql_types::Array<$sql_type>: $column),+)
    };
}

pub(crate) use {push_columns, push_values};
