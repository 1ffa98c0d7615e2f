//! The pages of one column in one row group: read, checked and decompressed.
//!
//! Owns the bounds. What a header claims is checked before memory is taken for it, and a page never becomes larger than
//! it claims.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, Type};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ColumnChunkMetaData;

use super::content::{self, Parts};
use super::thrift::Thrift;
use super::{MAX_TIME, Malformed};

/// The largest page, compressed and decompressed: 64 MiB.
const MAX_PAGE_BYTES: i64 = 64 * 1024 * 1024;
/// The largest header of a page, and the most values in it.
const MAX_HEADER_BYTES: u64 = 64 * 1024;
const MAX_HEADER_VALUES: usize = 1000;
/// The most values of a page.
const MAX_PAGE_VALUES: i64 = 16 * 1024 * 1024;
/// The pages in memory, of all columns together: 256 MiB.
const MAX_LIVE_BYTES: u64 = 256 * 1024 * 1024;
/// The values of nested columns in the pages that one row may need.
const MAX_ROW_VALUES: u64 = 4 * 1024 * 1024;

/// What the pages of a row group may take, all columns together.
#[derive(Debug)]
pub(super) struct Bounds {
    live_bytes: AtomicU64,
    row_values: AtomicU64,
    until: Instant,
}

impl Bounds {
    pub(super) fn new() -> Self {
        let until = Instant::now() + MAX_TIME * 2;
        Self { live_bytes: AtomicU64::new(0), row_values: AtomicU64::new(0), until }
    }

    /// A row is complete: the next one has its own values.
    pub(super) fn end_row(&self) {
        self.row_values.store(0, Ordering::Relaxed);
    }

    /// Notes that a page of `size` bytes replaces one of `before` bytes.
    fn replace(&self, before: u64, size: u64) -> Result<(), Malformed> {
        let live = self.live_bytes.fetch_add(size, Ordering::Relaxed) + size - before;
        self.live_bytes.fetch_sub(before, Ordering::Relaxed);
        if live > MAX_LIVE_BYTES {
            let message = "its pages are too large together: name fewer `columns`, and no `where`";
            return Err(Malformed::new(message));
        }
        Ok(())
    }
}

/// The pages of a column.
pub(super) struct Pages {
    file: Arc<File>,
    at: u64,
    end: u64,
    codec: Compression,
    kind: Type,
    /// The highest repetition and definition level.
    levels: (i16, i16),
    bounds: Arc<Bounds>,
    /// The header of the next page, if it was read before.
    next: Option<Header>,
    has_dictionary: bool,
    dictionary_bytes: u64,
    page_bytes: u64,
}

/// The header of a page, with checked sizes.
#[derive(Debug, Clone, Copy)]
struct Header {
    page: PageKind,
    compressed: usize,
    uncompressed: usize,
    n_values: u32,
    encoding: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PageKind {
    Data { def: Encoding, rep: Encoding },
    DataV2 { n_nulls: u32, n_rows: u32, def_bytes: u32, rep_bytes: u32, is_compressed: bool },
    Dictionary { is_sorted: bool },
}

impl Pages {
    /// The pages of this column; none of them is behind `end`.
    pub(super) fn open(
        (file, end): (Arc<File>, u64),
        column: &ColumnChunkMetaData,
        bounds: Arc<Bounds>,
    ) -> Result<Self, Malformed> {
        let first = column.dictionary_page_offset().filter(|offset| *offset > 0);
        let first = first.map_or(column.data_page_offset(), |offset| offset.min(column.data_page_offset()));
        let range = u64::try_from(first).ok().zip(u64::try_from(column.compressed_size()).ok());
        let range = range.and_then(|(at, size)| Some((at, at.checked_add(size)?)));
        let (at, end) = range
            .filter(|(_, column_end)| *column_end <= end)
            .ok_or(Malformed::new("a column is outside of the file"))?;
        let described = column.column_descr();
        Ok(Self {
            file,
            at,
            end,
            codec: column.compression(),
            kind: described.physical_type(),
            levels: (described.max_rep_level(), described.max_def_level()),
            bounds,
            next: None,
            has_dictionary: false,
            dictionary_bytes: 0,
            page_bytes: 0,
        })
    }

    /// The next header that is one of a page with values.
    fn read_header(&mut self) -> Result<Option<Header>, Malformed> {
        while self.next.is_none() && self.at < self.end {
            if Instant::now() > self.bounds.until {
                return Err(Malformed::new("a row takes too long to read"));
            }
            let size = MAX_HEADER_BYTES.min(self.end - self.at);
            let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
            self.file.read_exact_at(&mut bytes, self.at)?;
            let (header, length) = Thrift::read(&bytes, MAX_HEADER_VALUES)?;
            self.at += length as u64;
            let compressed = size_of(&header, 3)?;
            if compressed as u64 > self.end - self.at {
                return Err(Malformed::new("a page is longer than its column"));
            }
            match page_of(&header)? {
                Some((page, n_values, encoding)) => {
                    let uncompressed = size_of(&header, 2)?;
                    self.next = Some(Header { page, compressed, uncompressed, n_values, encoding });
                }
                None => self.at += compressed as u64,
            }
        }
        Ok(self.next)
    }

    fn read_page(&mut self) -> Result<Option<Page>, Malformed> {
        let Some(header) = self.read_header()? else { return Ok(None) };
        self.next = None;
        let mut raw = vec![0; header.compressed];
        self.file.read_exact_at(&mut raw, self.at)?;
        self.at += header.compressed as u64;
        let content = self.decompress(header, raw)?;
        let size = content.len() as u64;
        let before = match header.page {
            PageKind::Dictionary { .. } => std::mem::replace(&mut self.dictionary_bytes, size),
            _ => std::mem::replace(&mut self.page_bytes, size),
        };
        self.bounds.replace(before, size)?;
        self.check_content(header, &content)?;
        Ok(Some(into_page(header, content)?))
    }

    fn decompress(&self, header: Header, raw: Vec<u8>) -> Result<Bytes, Malformed> {
        let (levels, is_compressed) = match header.page {
            PageKind::DataV2 { def_bytes, rep_bytes, is_compressed, .. } => {
                (def_bytes as usize + rep_bytes as usize, is_compressed)
            }
            _ => (0, true),
        };
        if levels > raw.len() || levels > header.uncompressed {
            return Err(Malformed::new("the levels of a page are longer than the page"));
        }
        if !is_compressed || self.codec == Compression::UNCOMPRESSED {
            return Ok(raw.into());
        }
        let (levels, compressed) = raw.split_at(levels);
        let size = header.uncompressed - levels.len();
        if size == 0 {
            return Ok(Bytes::copy_from_slice(levels));
        }
        let content = expand(self.codec, compressed, size)?;
        if content.len() != size {
            return Err(Malformed::new("a page has another size than it says"));
        }
        Ok(if levels.is_empty() { content.into() } else { [levels, &content].concat().into() })
    }

    fn check_content(&mut self, header: Header, content: &[u8]) -> Result<(), Malformed> {
        let n_values = header.n_values;
        let parts = match header.page {
            PageKind::Dictionary { .. } => {
                self.has_dictionary = true;
                return content::check_dictionary(content, self.kind, n_values);
            }
            PageKind::Data { def, rep } => {
                if self.levels.0 > 0 && rep != Encoding::RLE || self.levels.1 > 0 && def != Encoding::RLE {
                    return Err(Malformed::new("the encoding of its levels is not supported"));
                }
                Parts::of_v1(content, self.levels)?
            }
            PageKind::DataV2 { def_bytes, rep_bytes, .. } => {
                Parts::of_v2(content, (rep_bytes as usize, def_bytes as usize))?
            }
        };
        if matches!(header.encoding, 2 | 8) && !self.has_dictionary {
            return Err(Malformed::new("a page needs a dictionary, and there is none"));
        }
        if self.levels.0 > 0 {
            let n_values = u64::from(n_values);
            let values = self.bounds.row_values.fetch_add(n_values, Ordering::Relaxed) + n_values;
            if values > MAX_ROW_VALUES {
                return Err(Malformed::new("a row has too many values"));
            }
        }
        parts.check(self.levels, (self.kind, header.encoding), n_values)
    }
}

/// A size in a header.
fn size_of(header: &Thrift, field: i16) -> Result<usize, Malformed> {
    let size = header.int(field).ok_or(Malformed::new("a page has no size"))?;
    if size > MAX_PAGE_BYTES {
        return Err(Malformed(format!("a page has {size} bytes: at most {MAX_PAGE_BYTES} are read")));
    }
    usize::try_from(size).map_err(|_| Malformed::new("a page has no size"))
}

/// The kind of a page, its number of values and their encoding; `None` for a page without values.
fn page_of(header: &Thrift) -> Result<Option<(PageKind, u32, i64)>, Malformed> {
    let incomplete = || Malformed::new("the header of a page is incomplete");
    let count = |of: &Thrift, field| {
        let number = of.int(field).filter(|n| *n <= MAX_PAGE_VALUES).and_then(|n| u32::try_from(n).ok());
        number.ok_or(Malformed::new("a page has too many values, or less than none"))
    };
    let level = |of: &Thrift, field| encoding_of(of.int(field).unwrap_or(3));
    Ok(Some(match header.int(1) {
        Some(0) => {
            let of = header.field(5).ok_or_else(incomplete)?;
            let page = PageKind::Data { def: level(of, 3)?, rep: level(of, 4)? };
            (page, count(of, 1)?, of.int(2).ok_or_else(incomplete)?)
        }
        Some(2) => {
            let of = header.field(7).ok_or_else(incomplete)?;
            let is_sorted = matches!(of.field(3), Some(Thrift::Bool(true)));
            (PageKind::Dictionary { is_sorted }, count(of, 1)?, of.int(2).ok_or_else(incomplete)?)
        }
        Some(3) => {
            let of = header.field(8).ok_or_else(incomplete)?;
            let (def_bytes, rep_bytes) = (of.int(5), of.int(6));
            let bytes = |size: Option<i64>| {
                size.filter(|n| *n <= MAX_PAGE_BYTES)
                    .and_then(|n| u32::try_from(n).ok())
                    .ok_or_else(incomplete)
            };
            let page = PageKind::DataV2 {
                n_nulls: count(of, 2)?,
                n_rows: count(of, 3)?,
                def_bytes: bytes(def_bytes)?,
                rep_bytes: bytes(rep_bytes)?,
                is_compressed: !matches!(of.field(7), Some(Thrift::Bool(false))),
            };
            (page, count(of, 1)?, of.int(4).ok_or_else(incomplete)?)
        }
        Some(_) => return Ok(None),
        None => return Err(incomplete()),
    }))
}

fn encoding_of(number: i64) -> Result<Encoding, Malformed> {
    #[expect(deprecated, reason = "files of old writers have it")]
    Ok(match number {
        0 => Encoding::PLAIN,
        2 => Encoding::PLAIN_DICTIONARY,
        3 => Encoding::RLE,
        4 => Encoding::BIT_PACKED,
        5 => Encoding::DELTA_BINARY_PACKED,
        6 => Encoding::DELTA_LENGTH_BYTE_ARRAY,
        8 => Encoding::RLE_DICTIONARY,
        9 => Encoding::BYTE_STREAM_SPLIT,
        // Its memory cannot be bounded before it is decoded.
        7 => return Err(Malformed::new("the encoding DELTA_BYTE_ARRAY is not supported")),
        other => return Err(Malformed(format!("the encoding {other} is not known"))),
    })
}

/// Decompresses at most `size` bytes.
fn expand(codec: Compression, compressed: &[u8], size: usize) -> Result<Vec<u8>, Malformed> {
    let broken = |error: &dyn std::fmt::Display| Malformed(format!("a page cannot be decompressed: {error}"));
    match codec {
        Compression::SNAPPY => {
            if snap::raw::decompress_len(compressed).map_err(|error| broken(&error))? > size {
                return Err(Malformed::new("a page has another size than it says"));
            }
            snap::raw::Decoder::new().decompress_vec(compressed).map_err(|error| broken(&error))
        }
        Compression::GZIP(_) => {
            let mut content = Vec::new();
            let decoder = flate2::read::MultiGzDecoder::new(compressed);
            let read = decoder.take(size as u64 + 1).read_to_end(&mut content);
            read.map_err(|error| broken(&error)).map(|_| content)
        }
        Compression::ZSTD(_) => zstd::bulk::decompress(compressed, size).map_err(|error| broken(&error)),
        other => Err(Malformed(format!("the compression {other} is not supported"))),
    }
}

fn into_page(header: Header, buf: Bytes) -> Result<Page, Malformed> {
    let (num_values, encoding, statistics) = (header.n_values, encoding_of(header.encoding)?, None);
    Ok(match header.page {
        PageKind::Data { def: def_level_encoding, rep: rep_level_encoding } => {
            Page::DataPage { buf, num_values, encoding, def_level_encoding, rep_level_encoding, statistics }
        }
        PageKind::DataV2 { n_nulls, n_rows, def_bytes, rep_bytes, .. } => Page::DataPageV2 {
            buf,
            num_values,
            encoding,
            num_nulls: n_nulls,
            num_rows: n_rows,
            def_levels_byte_len: def_bytes,
            rep_levels_byte_len: rep_bytes,
            is_compressed: false,
            statistics,
        },
        PageKind::Dictionary { is_sorted } => Page::DictionaryPage { buf, num_values, encoding, is_sorted },
    })
}

impl From<Malformed> for ParquetError {
    fn from(error: Malformed) -> Self {
        ParquetError::General(error.0)
    }
}

impl Iterator for Pages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        Ok(self.read_page()?)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        Ok(self.read_header()?.map(|header| {
            let num_rows = match header.page {
                PageKind::DataV2 { n_rows, .. } => Some(n_rows as usize),
                _ => None,
            };
            let is_dict = matches!(header.page, PageKind::Dictionary { .. });
            PageMetadata { num_rows, num_levels: Some(header.n_values as usize), is_dict }
        }))
    }

    fn skip_next_page(&mut self) -> Result<()> {
        if let Some(header) = self.read_header()? {
            self.at += header.compressed as u64;
            self.next = None;
        }
        Ok(())
    }
}
