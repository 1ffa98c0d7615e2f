//! An append-only log of transactions: each is one line, is stored completely or not at all, and is durable once it was
//! appended.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use gathering_domain::Digest;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The log. This process alone has it open.
pub struct Log {
    file: File,
    /// Where the last complete transaction ends; a part of a failed one may follow.
    end: u64,
}

impl Log {
    /// Opens the log and passes every transaction to `replay`. A line that a crash cut off was never confirmed, so it is
    /// dropped.
    pub fn open<T: DeserializeOwned>(path: &Path, mut replay: impl FnMut(T)) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        file.try_lock().map_err(io::Error::from)?;
        // The file's name must survive a power failure as well as its content.
        if let Some(directory) = path.parent() {
            File::open(directory)?.sync_all()?;
        }
        let mut reader = BufReader::new(&file);
        let (mut end, mut line) = (0, Vec::new());
        while reader.by_ref().read_until(b'\n', &mut line)? > 0 {
            let Some(transaction) = read(&line) else { break };
            replay(transaction);
            end += line.len() as u64;
            line.clear();
        }
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest)?;
        if rest.contains(&b'\n') {
            // Only the last line can be cut off. This is other damage, which must not be hidden.
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a line in the middle of the log is damaged",
            ));
        }
        drop(reader);
        Ok(Self { file, end })
    }

    /// Appends a transaction: durable once this returns. After an error nothing was appended.
    pub fn append(&mut self, transaction: &impl Serialize) -> io::Result<()> {
        let json = serde_json::to_string(transaction)?;
        let line = format!("{} {json}\n", checksum(json.as_bytes()));
        // Cuts off what an earlier error may have left.
        self.file.set_len(self.end)?;
        self.file.seek(SeekFrom::Start(self.end))?;
        self.file.write_all(line.as_bytes())?;
        self.file.sync_data()?;
        self.end += line.len() as u64;
        Ok(())
    }
}

fn read<T: DeserializeOwned>(line: &[u8]) -> Option<T> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let (sum, json) = line.split_once(' ')?;
    (sum == checksum(json.as_bytes())).then(|| serde_json::from_str(json).ok())?
}

fn checksum(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()[..16].to_owned()
}
