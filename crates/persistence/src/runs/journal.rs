//! The journal as rows: what is written with a checkpoint, and how it is read back.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_dag_engine::{Checkpoint, Claim, JournalEntry, JournalEvent, Record, Seq};
use gathering_domain::{Digest, InstanceId, RunId};
use serde_json::Value;
use uuid::Uuid;

use crate::db::error::DatabaseError;
use crate::db::schema::{blobs, run_journal};

/// Payloads over this many bytes of JSON go to the `blobs` table: the journal stays quick to read and to vacuum.
const LARGE_PAYLOAD_BYTES: usize = 64 * 1024;

/// The records of some checkpoints, column by column: one parameter per column however many rows.
#[derive(Debug, Default)]
pub(crate) struct Columns {
    pub(crate) run_id: Vec<Uuid>,
    pub(crate) seq: Vec<i64>,
    pub(crate) node_id: Vec<Option<String>>,
    pub(crate) iteration: Vec<i32>,
    pub(crate) attempt: Vec<i32>,
    pub(crate) kind: Vec<&'static str>,
    pub(crate) payload: Vec<Option<String>>,
    pub(crate) blob: Vec<Option<Vec<u8>>>,
    pub(crate) owner: Vec<Uuid>,
    pub(crate) epoch: Vec<i64>,
    /// Sorted, as everybody who stores blobs takes their locks in this order.
    pub(crate) blobs: BTreeMap<[u8; 32], Vec<u8>>,
}

impl Columns {
    pub(crate) fn of<'a>(checkpoints: impl Iterator<Item = &'a Checkpoint>) -> Self {
        let mut columns = Self::default();
        for checkpoint in checkpoints {
            for (seq, record) in (checkpoint.first_seq..).zip(&checkpoint.records) {
                columns.push(checkpoint.claim, seq, record);
            }
        }
        columns
    }

    /// What a run begins with that nobody has claimed yet. The owners are nobody: they are not to be stored.
    pub(crate) fn of_beginning(run: RunId, records: &[Record]) -> Self {
        let mut columns = Self::default();
        let unclaimed = Claim { run, owner: InstanceId::from(Uuid::nil()), epoch: 0 };
        for (seq, record) in (1..).zip(records) {
            columns.push(unclaimed, seq, record);
        }
        columns
    }

    fn push(&mut self, claim: Claim, seq: Seq, record: &Record) {
        self.run_id.push(claim.run.as_uuid());
        self.seq.push(seq);
        self.node_id.push(record.node.as_ref().map(|node| node.as_str().to_owned()));
        self.iteration.push(record.iteration);
        self.attempt.push(record.attempt);
        self.kind.push(record.event.kind());
        self.owner.push(claim.owner.as_uuid());
        self.epoch.push(claim.epoch);
        let payload = record.event.payload().map(|payload| payload.to_string());
        match payload {
            Some(text) if text.len() > LARGE_PAYLOAD_BYTES => {
                let digest = *Digest::of(text.as_bytes()).as_bytes();
                self.blobs.insert(digest, text.into_bytes());
                self.blob.push(Some(digest.to_vec()));
                self.payload.push(None);
            }
            small => {
                self.blob.push(None);
                self.payload.push(small);
            }
        }
    }
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = run_journal)]
pub(crate) struct Row {
    seq: i64,
    node_id: Option<String>,
    iteration: i32,
    attempt: i32,
    kind: String,
    payload: Option<Value>,
    owner: Option<Uuid>,
    epoch: i64,
    at: DateTime<Utc>,
}

impl Row {
    pub(crate) fn into_entry(self, blob: Option<Vec<u8>>) -> Result<JournalEntry, DatabaseError> {
        let corrupt = |source: Box<dyn std::error::Error + Send + Sync>| {
            DatabaseError::corrupt("a journal entry", source)
        };
        let payload = match blob {
            Some(bytes) => Some(serde_json::from_slice(&bytes).map_err(|error| corrupt(error.into()))?),
            None => self.payload,
        };
        let event = JournalEvent::from_stored(&self.kind, payload).map_err(|error| corrupt(error.into()))?;
        let node = self.node_id.map(|node| node.parse()).transpose();
        let record = Record {
            node: node.map_err(|error: gathering_domain::InvalidId| corrupt(error.into()))?,
            iteration: self.iteration,
            attempt: self.attempt,
            event,
        };
        Ok(JournalEntry {
            seq: self.seq,
            record,
            owner: self.owner.map(Into::into),
            epoch: self.epoch,
            at: self.at,
        })
    }
}

/// The entries after `after`, in order, at most `limit`.
pub(crate) async fn load(
    mut conn: &AsyncPgConnection,
    run: RunId,
    after: Seq,
    limit: usize,
) -> Result<Vec<JournalEntry>, DatabaseError> {
    let rows: Vec<(Row, Option<Vec<u8>>)> = run_journal::table
        .left_join(blobs::table.on(run_journal::blob.eq(blobs::digest.nullable())))
        .filter(run_journal::run_id.eq(run.as_uuid()).and(run_journal::seq.gt(after)))
        .order(run_journal::seq)
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .select((Row::as_select(), blobs::content.nullable()))
        .load(&mut conn)
        .await
        .map_err(|error| DatabaseError::query("reading the journal", error))?;
    rows.into_iter().map(|(row, blob)| row.into_entry(blob)).collect()
}

/// Whether this checkpoint's records stand there already, written under its claim.
pub(crate) async fn stands(
    mut conn: &AsyncPgConnection,
    checkpoint: &Checkpoint,
) -> Result<bool, DatabaseError> {
    let n_records = i64::try_from(checkpoint.records.len()).unwrap_or(i64::MAX);
    let stored: Vec<(Option<String>, String)> = run_journal::table
        .filter(run_journal::run_id.eq(checkpoint.claim.run.as_uuid()))
        .filter(run_journal::seq.ge(checkpoint.first_seq))
        .filter(run_journal::owner.eq(checkpoint.claim.owner.as_uuid()))
        .filter(run_journal::epoch.eq(checkpoint.claim.epoch))
        .order(run_journal::seq)
        .limit(n_records)
        .select((run_journal::node_id, run_journal::kind))
        .load(&mut conn)
        .await
        .map_err(|error| DatabaseError::query("looking for a checkpoint", error))?;
    let wanted = checkpoint.records.iter().map(|record| (record.node.as_ref(), record.event.kind()));
    Ok(stored.len() == checkpoint.records.len()
        && stored
            .iter()
            .map(|(node, kind)| (node.as_deref(), kind.as_str()))
            .eq(wanted.map(|(node, kind)| (node.map(gathering_domain::NodeId::as_str), kind))))
}
