//! The ledger of the calls of hooks.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Integer, Json, Nullable, Text, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_control::{HookDelivery, REFUSALS_PER_HOUR, Refusal, StoredCall};
use gathering_domain::{DeliveryId, HookId};
use serde_json::Value;
use uuid::Uuid;

use crate::db::batches::delete_before;
use crate::db::error::DatabaseError;
use crate::db::pool::Pool;
use crate::db::schema::hook_deliveries;
use crate::db::stored_json::StoredJson;

/// At most `limit` entries, the latest first, older than `before`.
pub(crate) async fn list(
    mut conn: &AsyncPgConnection,
    hook: HookId,
    before: Option<DeliveryId>,
    limit: usize,
) -> Result<Vec<HookDelivery>, DatabaseError> {
    let mut query = hook_deliveries::table.filter(hook_deliveries::hook_id.eq(hook.as_uuid())).into_boxed();
    if let Some(before) = before {
        query = query.filter(hook_deliveries::id.lt(before.as_uuid()));
    }
    let rows: Vec<Row> = query
        .order(hook_deliveries::id.desc())
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .select(Row::as_select())
        .load(&mut conn)
        .await
        .map_err(|error| DatabaseError::query("listing the deliveries of a hook", error))?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// What was kept of a call; `None` if the hook has no such entry.
pub(crate) async fn find_call(
    mut conn: &AsyncPgConnection,
    hook: HookId,
    delivery: DeliveryId,
) -> Result<Option<StoredCall>, DatabaseError> {
    type Kept = (Option<StoredJson>, Option<String>, Option<Uuid>, i64);
    let row: Option<Kept> = hook_deliveries::table
        .find(delivery.as_uuid())
        .filter(hook_deliveries::hook_id.eq(hook.as_uuid()))
        .select((
            hook_deliveries::call,
            hook_deliveries::key,
            hook_deliveries::redelivery_of,
            hook_deliveries::size_bytes,
        ))
        .first(&mut conn)
        .await
        .optional()
        .map_err(|error| DatabaseError::query("looking for a delivery", error))?;
    Ok(row.map(|(call, key, redelivery_of, size_bytes)| StoredCall {
        call: call.map(Value::from),
        key,
        redelivery_of: redelivery_of.map(Into::into),
        size_bytes,
    }))
}

/// The columns of an entry as it is shown.
#[derive(Queryable, Selectable)]
#[diesel(table_name = hook_deliveries)]
pub(super) struct Row {
    id: Uuid,
    key: Option<String>,
    outcome: String,
    reason: Option<String>,
    detail: Option<String>,
    run_id: Option<Uuid>,
    event_seq: Option<i64>,
    redelivery_of: Option<Uuid>,
    size_bytes: i64,
    n_repeats: i64,
    n_calls: i64,
    #[diesel(select_expression = hook_deliveries::call.is_not_null())]
    is_kept: bool,
    received_at: DateTime<Utc>,
}

impl TryFrom<Row> for HookDelivery {
    type Error = DatabaseError;

    fn try_from(row: Row) -> Result<Self, DatabaseError> {
        let outcome = row.outcome.parse();
        Ok(Self {
            id: row.id.into(),
            key: row.key,
            outcome: outcome.map_err(|error: String| DatabaseError::corrupt("an outcome", error))?,
            reason: row.reason,
            detail: row.detail,
            run: row.run_id.map(Into::into),
            event: row.event_seq,
            redelivery_of: row.redelivery_of.map(Into::into),
            size_bytes: row.size_bytes,
            n_repeats: row.n_repeats,
            n_calls: row.n_calls,
            is_kept: row.is_kept,
            received_at: row.received_at,
        })
    }
}

/// Counts the entry in the hour of its hook, which locks the hook. Beyond the limit the latest entry with the same reason
/// counts it, if there is one.
const REFUSE: &str = "
    WITH counted AS (
        UPDATE hooks SET
            n_refused = CASE WHEN refused_since > now() - interval '1 hour' THEN n_refused + 1 ELSE 1 END,
            refused_since = CASE WHEN refused_since > now() - interval '1 hour' THEN refused_since ELSE now() END
        WHERE id = $1 RETURNING n_refused
    ), latest AS (
        SELECT id FROM hook_deliveries
        WHERE hook_id = $1 AND outcome = 'refused' AND reason = $2 AND (SELECT n_refused FROM counted) > $3
        ORDER BY id DESC LIMIT 1
    ), added AS (
        UPDATE hook_deliveries SET n_calls = n_calls + $4 WHERE id = (SELECT id FROM latest) RETURNING id
    )
    INSERT INTO hook_deliveries (id, hook_id, key, outcome, reason, detail, redelivery_of, call, size_bytes, n_calls)
    SELECT $5, $1, $6, 'refused', $2, $7, $8, $9, $10, $4 FROM counted WHERE NOT EXISTS (SELECT FROM added)";

/// Enters refused calls. Those of hooks that are gone are left out.
pub(crate) async fn refuse(mut conn: &AsyncPgConnection, refusals: &[Refusal]) -> QueryResult<()> {
    let mut ordered: Vec<&Refusal> = refusals.iter().collect();
    // Of two transactions, both lock the hooks in the same order.
    ordered.sort_by_key(|refusal| refusal.hook);
    for refusal in ordered {
        diesel::sql_query(REFUSE)
            .bind::<SqlUuid, _>(refusal.hook.as_uuid())
            .bind::<Text, _>(refusal.reason.as_str())
            .bind::<Integer, _>(REFUSALS_PER_HOUR)
            .bind::<BigInt, _>(refusal.n_calls)
            .bind::<SqlUuid, _>(refusal.id.as_uuid())
            .bind::<Nullable<Text>, _>(refusal.key.as_deref())
            .bind::<Nullable<Text>, _>(refusal.detail.as_deref())
            .bind::<Nullable<SqlUuid>, _>(refusal.redelivery_of.map(DeliveryId::as_uuid))
            .bind::<Nullable<Json>, _>(refusal.call.as_ref())
            .bind::<BigInt, _>(refusal.size_bytes)
            .execute(&mut conn)
            .await?;
    }
    Ok(())
}

/// Deletes at most `limit` entries of the hooks of a project; answers with how many.
pub(crate) async fn delete_some_of_project(
    mut conn: &AsyncPgConnection,
    project: Uuid,
    limit: i64,
) -> QueryResult<usize> {
    let sql = "
        DELETE FROM hook_deliveries WHERE ctid = ANY (ARRAY(
            SELECT deliveries.ctid FROM hook_deliveries AS deliveries JOIN hooks ON hooks.id = deliveries.hook_id
            WHERE hooks.project_id = $1 LIMIT $2))";
    diesel::sql_query(sql).bind::<SqlUuid, _>(project).bind::<BigInt, _>(limit).execute(&mut conn).await
}

/// Deletes the entries from before `before` (UTC), in batches; answers with how many. From then on their ids are unknown:
/// a delivery that comes again is a new one.
///
/// Repeats: safe, also on several instances at once. Cancel: safe between the batches.
///
/// # Errors
/// [`DatabaseError::Unavailable`], [`DatabaseError::TimedOut`] or [`DatabaseError::Fault`]; repeating goes on from there.
pub async fn prune_hook_deliveries(pool: &Pool, before: DateTime<Utc>) -> Result<usize, DatabaseError> {
    let sql = "
        DELETE FROM hook_deliveries WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM hook_deliveries WHERE received_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED))";
    delete_before(pool, "deleting old deliveries of hooks", sql, before).await
}
