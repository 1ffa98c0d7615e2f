//! Files that lie: whatever a file claims, it is an error or a row, in bounded memory.

use std::fs;
use std::io::{Seek as _, Write as _};
use std::path::{Path, PathBuf};

use super::*;
use crate::builtin::read_table::query::Query;

fn data() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/parquet");
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "parquet")).collect();
    paths.sort();
    paths
}

/// What a call returns for a file with these bytes.
fn read(bytes: &[u8]) -> Result<Value, ToolError> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    let query = Query { filter: None, columns: None, limit: 50, offset: 0 };
    query.read(&mut ParquetRows::open(file, None)?)
}

/// Numbers that look random, always the same.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }
}

/// Panics of the library are caught. With this damage there are none: what causes them is found before. Some remain where
/// lengths are written as differences, once in ten thousand damaged files.
#[test]
fn no_damage_makes_more_than_an_error() {
    let mut numbers = Numbers(11);
    let (mut n_errors, mut n_contradictions) = (0, Vec::new());
    for path in data() {
        let whole = fs::read(&path).unwrap();
        for nth in 0..300 {
            let mut damaged = whole.clone();
            for _ in 0..=numbers.below(4) {
                // Half of the damage is in the metadata, at the end, without the mark behind it.
                let from = if nth % 2 == 0 { 4 } else { whole.len() / 2 };
                let at = from + numbers.below(whole.len() - 8 - from);
                damaged[at] =
                    [0, 0xff, 0x7f, 0x80, damaged[at] ^ 1, damaged[at].wrapping_add(1)][numbers.below(6)];
            }
            if let Err(error) = read(&damaged) {
                n_errors += 1;
                assert!(!error.to_string().is_empty());
                if error.to_string().contains("contradicts itself") {
                    n_contradictions.push(format!("{} {nth}", path.display()));
                }
            }
        }
    }
    assert!(n_errors > 300, "{n_errors}");
    assert!(n_contradictions.is_empty(), "{n_contradictions:?}");
}

#[test]
fn a_file_that_is_cut_off_is_an_error_wherever_that_is() {
    for path in data() {
        let whole = fs::read(&path).unwrap();
        for end in (0..whole.len()).step_by(37) {
            let error = read(&whole[..end]).unwrap_err();
            assert!(error.to_string().starts_with("cannot read the table: "), "{}: {error}", path.display());
        }
    }
}

/// A file with this metadata and nothing else.
fn with_metadata(metadata: &[u8]) -> Vec<u8> {
    let length = u32::try_from(metadata.len()).unwrap().to_le_bytes();
    [b"PAR1", metadata, &length, b"PAR1"].concat()
}

/// Elements of a schema: each is a group with a name and this many children.
fn schema(n_children: &[u8]) -> Vec<u8> {
    let count = u8::try_from(n_children.len()).unwrap();
    // Field 2 is a list of structs; field 4 of each is the name, field 5 the number of children, as a zigzag.
    let mut metadata = vec![0x15, 2, 0x19, 0xfc, count | 0x80, 0];
    if count < 0x80 {
        metadata.truncate(4);
        metadata.push(count);
    }
    for n in n_children {
        metadata.extend([0x48, 1, b'g', 0x15, n * 2, 0]);
    }
    metadata.extend([0x16, 0, 0]);
    metadata
}

#[test]
fn metadata_that_claims_too_much_is_refused_before_it_takes_memory() {
    let told = |metadata: &[u8]| read(&with_metadata(metadata)).unwrap_err().to_string();
    assert!(told(&schema(&[1; 100])).contains("nested more than 32 deep"), "{}", told(&schema(&[1; 100])));
    assert!(told(&schema(&[60, 0])).contains("schema is cut off"), "{}", told(&schema(&[60, 0])));
    assert!(told(&schema(&[0, 0])).contains("belong nowhere"), "{}", told(&schema(&[0, 0])));
    // A list of four thousand million structs.
    let endless = [0x15, 2, 0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x0f];
    assert!(told(&endless).contains("cut off"), "{}", told(&endless));
    let deep = [0x1c; 5000];
    assert!(told(&deep).contains("nested too deeply"), "{}", told(&deep));
    let mut long = with_metadata(&[0]);
    let end = long.len();
    long[end - 8..end - 4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(read(&long).unwrap_err().to_string().contains("longer than the file"));
    let mut encrypted = with_metadata(&[0]);
    encrypted[end - 4..].copy_from_slice(b"PARE");
    assert!(read(&encrypted).unwrap_err().to_string().contains("encrypted"));
}
