//! The journal as rows: [`insert`] writes them, this reads them back.

pub(crate) mod insert;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_dag_engine::{Checkpoint, JournalEntry, JournalEvent, Record, Seq};
use gathering_domain::RunId;
use serde_json::Value;
use uuid::Uuid;

use crate::db::error::DatabaseError;
use crate::db::schema::{blobs, run_journal};

#[derive(Queryable, Selectable)]
#[diesel(table_name = run_journal)]
pub(crate) struct Row {
    seq: i64,
    node_id: Option<String>,
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

/// Whether this checkpoint's records are in the journal already, written under its claim.
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
        .map_err(|error| DatabaseError::query("looking up a checkpoint", error))?;
    let wanted = checkpoint.records.iter().map(|record| (record.node.as_ref(), record.event.kind()));
    Ok(stored.len() == checkpoint.records.len()
        && stored
            .iter()
            .map(|(node, kind)| (node.as_deref(), kind.as_str()))
            .eq(wanted.map(|(node, kind)| (node.map(gathering_domain::NodeId::as_str), kind))))
}
