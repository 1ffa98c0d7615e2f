//! Accepting a run that begins with what an earlier one achieved.

use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Bytea, Integer, Nullable, Text, Uuid as SqlUuid};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use gathering_dag_engine::{NewRun, Record};
use gathering_domain::RunId;

use crate::cluster::wake::Wake;
use crate::db::error::DatabaseError;
use crate::runs::accept::{Acceptance, RunOrigin, accepted, find_accepted, insert, refused};
use crate::runs::journal::Columns;
use crate::runs::list::Runs;

impl Runs {
    /// As [`Runs::accept`], and the journal of the run begins with these records, in one transaction: it is there
    /// exactly when the run is. `origin` should say which run it repeats, as only then a claim reads the journal.
    ///
    /// Repeats: safe; a run that was accepted before keeps the journal that it has.
    ///
    /// # Errors
    /// As [`Runs::accept`].
    pub async fn accept_rerun(
        &self,
        run: &NewRun,
        origin: &RunOrigin,
        records: &[Record],
    ) -> Result<Acceptance, DatabaseError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let inserted = conn.transaction(async |conn| {
            let row = insert(conn, run, origin).await?;
            if row.is_some() && !records.is_empty() {
                begin_journal(conn, run.id, records).await?;
            }
            Ok(row)
        });
        match inserted.await.map_err(refused)? {
            Some(row) => {
                self.wakes.wake(Wake::Runs);
                accepted(row)
            }
            None => find_accepted(conn, run, origin).await,
        }
    }
}

async fn begin_journal(mut conn: &AsyncPgConnection, run: RunId, records: &[Record]) -> QueryResult<()> {
    let mut entries = Columns::of_beginning(run, records);
    let blobs = std::mem::take(&mut entries.blobs);
    let (digests, contents): (Vec<Vec<u8>>, Vec<Vec<u8>>) =
        blobs.into_iter().map(|(digest, content)| (digest.to_vec(), content)).unzip();
    diesel::sql_query(BEGIN_JOURNAL)
        .bind::<Array<SqlUuid>, _>(entries.run_id)
        .bind::<Array<BigInt>, _>(entries.seq)
        .bind::<Array<Nullable<Text>>, _>(entries.node_id)
        .bind::<Array<Integer>, _>(entries.iteration)
        .bind::<Array<Integer>, _>(entries.attempt)
        .bind::<Array<Text>, _>(entries.kind)
        .bind::<Array<Nullable<Text>>, _>(entries.payload)
        .bind::<Array<Nullable<Bytea>>, _>(entries.blob)
        .bind::<Array<BigInt>, _>(entries.epoch)
        .bind::<Array<Bytea>, _>(digests)
        .bind::<Array<Bytea>, _>(contents)
        .execute(&mut conn)
        .await
        .map(|_| ())
}

const BEGIN_JOURNAL: &str = "
    WITH stored AS (
        INSERT INTO blobs (digest, content) SELECT * FROM unnest($10, $11) ON CONFLICT DO NOTHING
    )
    INSERT INTO run_journal (run_id, seq, node_id, iteration, attempt, kind, payload, blob, epoch)
    SELECT run_id, seq, node_id, iteration, attempt, kind, payload::json, blob, epoch
    FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9)
        AS e (run_id, seq, node_id, iteration, attempt, kind, payload, blob, epoch)";
