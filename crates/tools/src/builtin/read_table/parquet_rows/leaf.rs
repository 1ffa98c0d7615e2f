//! The values of one leaf, with their levels, as far as they are decoded.

use parquet::column::reader::{ColumnReader, get_column_reader};
use parquet::data_type::{ByteArray, FixedLenByteArray, Int96};
use parquet::schema::types::ColumnDescPtr;
use serde_json::Value;

use super::pages::Pages;
use super::schema::Room;
use super::values::{Kind, Stored};
use super::{Malformed, guarded};

/// The rows of a leaf that are decoded at once. Of a nested one it is one row: it has any number of values.
const BATCH: usize = 1024;

/// Values in the type that the file has.
enum Values {
    Bool(Vec<bool>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Int96(Vec<Int96>),
    Float(Vec<f32>),
    Double(Vec<f64>),
    Bytes(Vec<ByteArray>),
    Fixed(Vec<FixedLenByteArray>),
}

impl Values {
    fn get(&self, index: usize) -> Option<Stored<'_>> {
        Some(match self {
            Values::Bool(values) => Stored::Bool(*values.get(index)?),
            Values::Int32(values) => Stored::Int32(*values.get(index)?),
            Values::Int64(values) => Stored::Int64(*values.get(index)?),
            Values::Int96(values) => Stored::Int96(*values.get(index)?),
            Values::Float(values) => Stored::Double(f64::from(*values.get(index)?)),
            Values::Double(values) => Stored::Double(*values.get(index)?),
            Values::Bytes(values) => Stored::Bytes(values.get(index)?.data()),
            Values::Fixed(values) => Stored::Bytes(values.get(index)?.data()),
        })
    }
}

/// A leaf of a row group.
pub(super) struct Leaf {
    name: String,
    kind: Kind,
    reader: ColumnReader,
    max_def: i16,
    is_repeated: bool,
    values: Values,
    defs: Vec<i16>,
    reps: Vec<i16>,
    /// How many values with their levels are decoded, absent ones included.
    n_levels: usize,
    /// The next of them, and the next value that is not absent.
    at: usize,
    next_value: usize,
}

impl Leaf {
    pub(super) fn open(described: ColumnDescPtr, pages: Pages) -> Result<Self, Malformed> {
        let name = described.path().string();
        let kind = Kind::of(&described).map_err(|error| error.in_column(&name))?;
        let (max_def, is_repeated) = (described.max_def_level(), described.max_rep_level() > 0);
        let reader = get_column_reader(described, Box::new(pages));
        Ok(Self {
            name,
            kind,
            reader,
            max_def,
            is_repeated,
            values: Values::Bool(Vec::new()),
            defs: Vec::new(),
            reps: Vec::new(),
            n_levels: 0,
            at: 0,
            next_value: 0,
        })
    }

    /// Decodes the next rows, if none is left.
    pub(super) fn begin_row(&mut self) -> Result<(), Malformed> {
        if self.at < self.n_levels {
            return Ok(());
        }
        let read = self.decode(if self.is_repeated { 1 } else { BATCH });
        match read.map_err(|error| error.in_column(&self.name))? {
            0 => Err(Malformed::new("it has fewer rows than it says").in_column(&self.name)),
            _ => Ok(()),
        }
    }

    /// Decodes at most so many rows.
    fn decode(&mut self, most: usize) -> Result<usize, Malformed> {
        self.defs.clear();
        self.reps.clear();
        (self.at, self.next_value) = (0, 0);
        let (defs, reps) = (Some(&mut self.defs), Some(&mut self.reps));
        macro_rules! decode {
            ($reader:expr, $kind:ident) => {{
                let mut values = Vec::new();
                let read = guarded(|| $reader.read_records(most, defs, reps, &mut values))?;
                self.values = Values::$kind(values);
                read
            }};
        }
        let (n_rows, _, n_levels) = match &mut self.reader {
            ColumnReader::BoolColumnReader(reader) => decode!(reader, Bool),
            ColumnReader::Int32ColumnReader(reader) => decode!(reader, Int32),
            ColumnReader::Int64ColumnReader(reader) => decode!(reader, Int64),
            ColumnReader::Int96ColumnReader(reader) => decode!(reader, Int96),
            ColumnReader::FloatColumnReader(reader) => decode!(reader, Float),
            ColumnReader::DoubleColumnReader(reader) => decode!(reader, Double),
            ColumnReader::ByteArrayColumnReader(reader) => decode!(reader, Bytes),
            ColumnReader::FixedLenByteArrayColumnReader(reader) => decode!(reader, Fixed),
        };
        self.n_levels = n_levels;
        Ok(n_rows)
    }

    /// Checks that all of the row was read.
    pub(super) fn end_row(&self) -> Result<(), Malformed> {
        if self.is_repeated && self.at < self.n_levels {
            return Err(Malformed::new("it has more values than the columns beside it").in_column(&self.name));
        }
        Ok(())
    }

    /// The definition level of the next value.
    pub(super) fn def(&self) -> Result<i16, Malformed> {
        if self.at >= self.n_levels {
            return Err(
                Malformed::new("it has fewer values than the columns beside it").in_column(&self.name)
            );
        }
        Ok(if self.max_def == 0 { 0 } else { self.defs.get(self.at).copied().unwrap_or_default() })
    }

    /// The repetition level of the next value of the row, if there is one.
    pub(super) fn rep(&self) -> Option<i16> {
        self.reps.get(self.at).copied().filter(|_| self.is_repeated && self.at < self.n_levels)
    }

    /// Goes past a value that is absent.
    pub(super) fn pass(&mut self) -> Result<(), Malformed> {
        if self.def()? >= self.max_def {
            return Err(
                Malformed::new("it has a value where the columns beside it have none").in_column(&self.name)
            );
        }
        self.at += 1;
        Ok(())
    }

    /// The next value.
    pub(super) fn take_value(&mut self, room: &mut Room) -> Result<Value, Malformed> {
        if self.def()? < self.max_def {
            return Err(
                Malformed::new("it has no value where the columns beside it have one").in_column(&self.name)
            );
        }
        let stored = self.values.get(self.next_value);
        let stored = stored.ok_or_else(|| Malformed::new("a value is missing").in_column(&self.name))?;
        room.take(stored.size())?;
        let value = self.kind.json(stored).map_err(|error| error.in_column(&self.name))?;
        self.at += 1;
        self.next_value += 1;
        Ok(value)
    }
}
