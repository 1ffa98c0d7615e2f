//! The one insert of journal rows, in as many forms as there are sources of rows.

use std::collections::BTreeMap;

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Bytea, Integer, Nullable, Text, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_dag_engine::{Checkpoint, Claim, JournalEvent, Record, Seq};
use gathering_domain::{Digest, RunId};
use uuid::Uuid;

use crate::db::bind::{push_columns, push_values};

/// Every insert of journal rows begins so.
pub(crate) const INSERT: &str =
    "INSERT INTO run_journal (run_id, seq, node_id, attempt, kind, payload, blob, owner, epoch)";

/// The rows of [`Entries::push_rows`], for [`INSERT`].
pub(crate) const SELECT_ENTRIES: &str =
    " SELECT e.run_id, e.seq, e.node_id, e.attempt, e.kind, e.payload::json, e.blob, e.owner, e.epoch FROM ";

/// Payloads over this many bytes of JSON go to the table `blobs`: the journal stays quick to read and to vacuum.
const LARGE_PAYLOAD_BYTES: usize = 64 * 1024;

/// Appends `taken_over` to the journals of the runs of `source` that fulfil `condition`. `source` is an earlier part of
/// the same `WITH`, with the columns `id`, `owner` and `epoch`.
pub(crate) fn take_over_entries(source: &str, condition: &str) -> String {
    format!(
        "{INSERT}
        SELECT id, coalesce((SELECT max(seq) FROM run_journal WHERE run_id = {source}.id), 0) + 1, NULL::text, 0,
            '{taken_over}', NULL::json, NULL::bytea, owner, epoch
        FROM {source} WHERE {condition} ORDER BY id",
        taken_over = JournalEvent::TakenOver.kind(),
    )
}

/// Records, column by column: one parameter per column however many rows.
#[derive(Debug, Default)]
struct Columns {
    run_id: Vec<Uuid>,
    seq: Vec<i64>,
    node_id: Vec<Option<String>>,
    attempt: Vec<i32>,
    kind: Vec<&'static str>,
    payload: Vec<Option<String>>,
    blob: Vec<Option<Vec<u8>>>,
    owner: Vec<Option<Uuid>>,
    epoch: Vec<i64>,
}

/// The records of some checkpoints, and the payloads that are too large for the journal.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    columns: Columns,
    blob_digests: Vec<Vec<u8>>,
    blob_contents: Vec<Vec<u8>>,
}

impl Entries {
    pub(crate) fn of_checkpoints(ordered: &[&Checkpoint]) -> Self {
        let records = ordered.iter().flat_map(|checkpoint| {
            let Claim { run, owner, epoch } = checkpoint.claim;
            let numbered = (checkpoint.first_seq..).zip(&checkpoint.records);
            numbered.map(move |(seq, record)| (run, Some(owner.as_uuid()), epoch, seq, record))
        });
        Self::of(records)
    }

    /// The first records of a run that was never claimed.
    pub(crate) fn of_new_run(run: RunId, records: &[Record]) -> Self {
        Self::of((1..).zip(records).map(|(seq, record)| (run, None, 0, seq, record)))
    }

    fn of<'a>(records: impl Iterator<Item = (RunId, Option<Uuid>, i64, Seq, &'a Record)>) -> Self {
        let mut columns = Columns::default();
        // Sorted: every insert of blobs takes their locks in this order.
        let mut blobs: BTreeMap<[u8; 32], Vec<u8>> = BTreeMap::new();
        for (run, owner, epoch, seq, record) in records {
            columns.run_id.push(run.as_uuid());
            columns.seq.push(seq);
            columns.node_id.push(record.node.as_ref().map(|node| node.as_str().to_owned()));
            columns.attempt.push(record.attempt);
            columns.kind.push(record.event.kind());
            columns.owner.push(owner);
            columns.epoch.push(epoch);
            let mut payload = record.event.payload().map(|payload| payload.to_string());
            let large = payload.take_if(|text| text.len() > LARGE_PAYLOAD_BYTES).map(|text| {
                let digest = *Digest::of(text.as_bytes()).as_bytes();
                blobs.insert(digest, text.into_bytes());
                digest.to_vec()
            });
            columns.payload.push(payload);
            columns.blob.push(large);
        }
        let (blob_digests, blob_contents) =
            blobs.into_iter().map(|(digest, content)| (digest.to_vec(), content)).unzip();
        Self { columns, blob_digests, blob_contents }
    }

    /// Whether some payloads are too large for the journal.
    pub(crate) fn has_blobs(&self) -> bool {
        !self.blob_digests.is_empty()
    }

    /// Pushes the records as a source of rows, `e`.
    pub(crate) fn push_rows<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let columns = &self.columns;
        out.push_sql("unnest(");
        push_columns!(out, SqlUuid: columns.run_id, BigInt: columns.seq, Nullable<Text>: columns.node_id,
            Integer: columns.attempt, Text: columns.kind, Nullable<Text>: columns.payload,
            Nullable<Bytea>: columns.blob, Nullable<SqlUuid>: columns.owner, BigInt: columns.epoch);
        out.push_sql(") AS e (run_id, seq, node_id, attempt, kind, payload, blob, owner, epoch)");
        Ok(())
    }

    /// Pushes the insert of the blobs, as one part of a `WITH`. It locks every blob, new or not, until its entry is
    /// committed, and notes that it is referred to: the sweep of blobs deletes none of those.
    pub(crate) fn push_blobs<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("stored AS (INSERT INTO blobs (digest, content) SELECT * FROM unnest(");
        push_columns!(out, Bytea: self.blob_digests, Bytea: self.blob_contents);
        out.push_sql(
            ") ON CONFLICT (digest) DO UPDATE SET referenced_at = now()
                WHERE blobs.referenced_at < now() - interval '1 hour')",
        );
        Ok(())
    }
}

/// Inserts records, as one statement. Most checkpoints are written so: a plain insert, for which nothing else is planned
/// or set up.
///
/// `BLOBS` says whether some payloads are too large for the journal.
struct Append<const BLOBS: bool>(Entries);

impl<const BLOBS: bool> QueryId for Append<BLOBS> {
    type QueryId = Self;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<const BLOBS: bool> QueryFragment<Pg> for Append<BLOBS> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        if BLOBS {
            out.push_sql("WITH ");
            self.0.push_blobs(&mut out)?;
            out.push_sql(" ");
        }
        out.push_sql(INSERT);
        out.push_sql(SELECT_ENTRIES);
        self.0.push_rows(&mut out)
    }
}

/// Inserts `N` records without blobs as plain values: what a run writes that does one thing after the other. To set up
/// arrays would cost the database more than the rows do.
struct AppendFew<const N: usize>(Columns);

impl<const N: usize> QueryId for AppendFew<N> {
    type QueryId = Self;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<const N: usize> QueryFragment<Pg> for AppendFew<N> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let columns = &self.0;
        out.push_sql(INSERT);
        out.push_sql(" VALUES ");
        for row in 0..N {
            out.push_sql(if row == 0 { "(" } else { ", (" });
            push_values!(out, SqlUuid: columns.run_id[row], BigInt: columns.seq[row],
                Nullable<Text>: columns.node_id[row], Integer: columns.attempt[row],
                Text: columns.kind[row], Nullable<Text>: columns.payload[row]);
            out.push_sql("::json, NULL, ");
            push_values!(out, Nullable<SqlUuid>: columns.owner[row], BigInt: columns.epoch[row]);
            out.push_sql(")");
        }
        Ok(())
    }
}

/// Inserts records of runs that go on, or begin.
pub(crate) async fn append(mut conn: &AsyncPgConnection, entries: Entries) -> QueryResult<()> {
    let written = match (entries.columns.seq.len(), entries.has_blobs()) {
        (1, false) => AppendFew::<1>(entries.columns).execute(&mut conn).await,
        (2, false) => AppendFew::<2>(entries.columns).execute(&mut conn).await,
        (_, false) => Append::<false>(entries).execute(&mut conn).await,
        (_, true) => Append::<true>(entries).execute(&mut conn).await,
    };
    written.map(|_n_rows| ())
}
