//! A page of a journal that is bounded in bytes, for readers that follow it as it grows.

use std::collections::HashMap;

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use gathering_dag_engine::{JournalEntry, Seq};
use gathering_domain::RunId;

use crate::db::error::DatabaseError;
use crate::db::schema::{blobs, run_journal};
use crate::runs::journal::Row;
use crate::runs::list::Runs;

/// Entries of a journal, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct JournalPage {
    /// The entries.
    pub entries: Vec<JournalEntry>,
    /// Whether there may be more entries after them.
    pub has_more: bool,
}

impl Runs {
    /// The entries after `after`, in order: at most `limit`, and fewer if their large payloads have more than `max_bytes`
    /// together, but at least one if there is one. Small payloads have at most 64 KiB each and are not counted.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`] or [`DatabaseError::Corrupt`].
    pub async fn load_journal_page(
        &self,
        run: RunId,
        after: Seq,
        limit: usize,
        max_bytes: i64,
    ) -> Result<JournalPage, DatabaseError> {
        let failed = |error| DatabaseError::query("reading a page of the journal", error);
        let conn = self.pool.get().await?;
        let mut rows: Vec<(Row, Option<Vec<u8>>, Option<i64>)> = run_journal::table
            .left_join(blobs::table.on(run_journal::blob.eq(blobs::digest.nullable())))
            .filter(run_journal::run_id.eq(run.as_uuid()).and(run_journal::seq.gt(after)))
            .order(run_journal::seq)
            .limit(i64::try_from(limit).unwrap_or(i64::MAX))
            .select((Row::as_select(), run_journal::blob, blobs::size_bytes.nullable()))
            .load(&mut &*conn)
            .await
            .map_err(failed)?;
        let n_within = n_within(rows.iter().map(|(_, _, size)| size.unwrap_or_default()), max_bytes);
        let has_more = rows.len() >= limit || rows.len() > n_within;
        rows.truncate(n_within);
        let digests: Vec<&[u8]> = rows.iter().filter_map(|(_, digest, _)| digest.as_deref()).collect();
        let mut contents: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
        if !digests.is_empty() {
            let loaded: Vec<(Vec<u8>, Vec<u8>)> = blobs::table
                .filter(blobs::digest.eq_any(digests))
                .select((blobs::digest, blobs::content))
                .load(&mut &*conn)
                .await
                .map_err(failed)?;
            contents.extend(loaded);
        }
        let entries = rows.into_iter().map(|(row, digest, _)| {
            // Several entries may have the same content.
            row.into_entry(digest.and_then(|digest| contents.get(&digest).cloned()))
        });
        Ok(JournalPage { entries: entries.collect::<Result<_, _>>()?, has_more })
    }
}

/// How many of these sizes fit in `max_bytes`; at least one.
fn n_within(sizes: impl Iterator<Item = i64>, max_bytes: i64) -> usize {
    let mut total = 0_i64;
    let within = sizes.take_while(|size| {
        total = total.saturating_add(*size);
        total <= max_bytes
    });
    within.count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_ends_before_it_is_too_large_and_has_at_least_one_entry() {
        let n = |sizes: &[i64]| n_within(sizes.iter().copied(), 10);
        assert_eq!((n(&[]), n(&[11, 0]), n(&[0, 0, 10, 0, 1]), n(&[4, 7]), n(&[1])), (1, 1, 4, 1, 1));
    }
}
