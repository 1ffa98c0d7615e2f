//! The metadata of a Parquet file: checked first, then read by the library.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use super::thrift::Thrift;
use super::{Malformed, guarded};

/// The marks at both ends of a file, and at the end of an encrypted one.
const MARK: &[u8; 4] = b"PAR1";
const ENCRYPTED: &[u8; 4] = b"PARE";

/// The largest metadata: 16 MiB with a million values. That is enough for 400 row groups of 100 columns.
const MAX_BYTES: u64 = 16 * 1024 * 1024;
const MAX_VALUES: usize = 1_000_000;

/// The most columns, with those within others, and how deep they may be within others.
const MAX_COLUMNS: usize = 1000;
const MAX_DEPTH: usize = 32;

/// Reads the metadata, and tells where the pages end.
pub(super) fn read(file: &File) -> Result<(ParquetMetaData, u64), Malformed> {
    let size = file.metadata()?.len();
    let mut head = [0; 4];
    let mut tail = [0; 8];
    let body = size.checked_sub(12).ok_or(Malformed::new("the file is too short"))?;
    file.read_exact_at(&mut head, 0)?;
    file.read_exact_at(&mut tail, size - 8)?;
    let [a, b, c, d, mark @ ..] = tail;
    if &mark == ENCRYPTED {
        return Err(Malformed::new("the file is encrypted, which is not supported"));
    }
    if &head != MARK || &mark != MARK {
        return Err(Malformed::new("the file does not begin and end as Parquet does: it may be cut off"));
    }
    let length = u64::from(u32::from_le_bytes([a, b, c, d]));
    if length > body {
        return Err(Malformed::new("its metadata is longer than the file"));
    }
    if length > MAX_BYTES {
        return Err(Malformed(format!("its metadata has {length} bytes: at most {MAX_BYTES} are read")));
    }
    let end = size - 8 - length;
    let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
    file.read_exact_at(&mut bytes, end)?;
    check_schema(&Thrift::read(&bytes, MAX_VALUES)?.0)?;
    let metadata = guarded(|| ParquetMetaDataReader::decode_metadata(&bytes))?;
    Ok((metadata, end))
}

/// The schema is a tree in a list: each element says how many of the next ones are within it. The library follows it by
/// recursion.
fn check_schema(metadata: &Thrift) -> Result<(), Malformed> {
    let elements = metadata.list(2).ok_or(Malformed::new("its metadata has no schema"))?;
    if elements.len() > 2 * MAX_COLUMNS {
        return Err(Malformed(format!("it has more than {MAX_COLUMNS} columns")));
    }
    // How many elements are still to come, on each level.
    let mut levels: Vec<usize> = vec![1];
    for element in elements {
        match levels.last_mut() {
            Some(left) => *left -= 1,
            None => return Err(Malformed::new("its schema has parts that belong nowhere")),
        }
        let n_children = element.int(5).unwrap_or(0);
        let n_children = usize::try_from(n_children).ok().filter(|n| *n <= elements.len());
        levels.push(n_children.ok_or(Malformed::new("its schema is cut off"))?);
        if levels.len() > MAX_DEPTH {
            return Err(Malformed(format!("its columns are nested more than {MAX_DEPTH} deep")));
        }
        while levels.last() == Some(&0) {
            levels.pop();
        }
    }
    if levels.is_empty() { Ok(()) } else { Err(Malformed::new("its schema is cut off")) }
}
