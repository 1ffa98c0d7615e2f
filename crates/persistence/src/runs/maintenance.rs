//! Periodic work: deletes what no login and no request depends on any more.

use diesel::dsl::{IntervalDsl, exists, not, now};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Timestamptz};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::db::clock::clock_timestamp;
use crate::db::error::DatabaseError;
use crate::db::pool::Pool;
use crate::db::schema::{login_throttles, refresh_tokens, revoked_tokens};
use crate::runs::permits::sweep::{delete_left_behind, delete_unused};

/// How many rows one statement clears away: few enough to be quick, so that a login never waits long for it.
const ROWS_AT_ONCE: i64 = 1000;
/// How many sessions are cleared away together; each has as many rows as it was refreshed.
const SESSIONS_AT_ONCE: i64 = 100;

/// What was cleared away, in rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cleared {
    /// Refresh tokens of sessions that were over.
    pub n_refresh_tokens: usize,
    /// Revocations of access tokens that have long expired.
    pub n_revoked_tokens: usize,
    /// Login budgets that were full again.
    pub n_login_throttles: usize,
    /// Idempotency keys that were used more than a day ago.
    pub n_idempotency_keys: usize,
    /// Permits of nodes whose runs are gone.
    pub n_node_permits: usize,
    /// Concurrency keys that no run has used for an hour.
    pub n_concurrency_keys: usize,
}

/// Clears away what no login depends on any more: sessions of which every refresh token expired more than a day ago,
/// revocations of access tokens that expired more than a day ago, and login budgets that are full. Idempotency keys go
/// a day after their use, concurrency keys an hour.
///
/// The day of a session is for access tokens: one that was issued beside the last refresh token may live that long, and as long may
/// the clock of an instance be behind. A session's rows say that it was revoked, so they go together or not at all.
/// In batches, each of which waits for no lock: what somebody uses just now is left for the next time. Repeats: safe,
/// also on several instances at once; to be repeated, say hourly. Cancel: safe between the batches.
///
/// # Errors
/// [`DatabaseError::Unavailable`]; what was cleared away until then stays so.
pub async fn clear_expired(pool: &Pool) -> Result<Cleared, DatabaseError> {
    let mut conn = pool.get().await?;
    clear_all(&mut conn).await.map_err(|error| DatabaseError::query("clearing away what has expired", error))
}

async fn clear_all(conn: &mut AsyncPgConnection) -> QueryResult<Cleared> {
    let mut cleared = Cleared::default();
    loop {
        let sessions = load_sessions_over(conn).await?;
        let n_rows = clear_sessions(conn, &sessions).await?;
        cleared.n_refresh_tokens += n_rows;
        if n_rows == 0 {
            break;
        }
    }
    while let n_rows @ 1.. = clear_revoked_tokens(conn).await? {
        cleared.n_revoked_tokens += n_rows;
    }
    while let n_rows @ 1.. = clear_login_throttles(conn).await? {
        cleared.n_login_throttles += n_rows;
    }
    while let n_rows @ 1.. = clear_idempotency_keys(conn).await? {
        cleared.n_idempotency_keys += n_rows;
    }
    while let n_rows @ 1.. = delete_left_behind(conn, ROWS_AT_ONCE).await? {
        cleared.n_node_permits += n_rows;
    }
    while let n_rows @ 1.. = delete_unused(conn, ROWS_AT_ONCE).await? {
        cleared.n_concurrency_keys += n_rows;
    }
    Ok(cleared)
}

/// Sessions whose last token expired more than a day ago, and with it every other.
async fn load_sessions_over(mut conn: &AsyncPgConnection) -> QueryResult<Vec<Uuid>> {
    let others = diesel::alias!(refresh_tokens as others);
    let is_alive = exists(
        others
            .filter(others.field(refresh_tokens::session_id).eq(refresh_tokens::session_id))
            .filter(others.field(refresh_tokens::expires_at).ge(now.into_sql::<Timestamptz>() - 1.day())),
    );
    refresh_tokens::table
        .filter(refresh_tokens::spent_at.is_null())
        .filter(refresh_tokens::expires_at.lt(now.into_sql::<Timestamptz>() - 1.day()))
        .filter(not(is_alive))
        .order(refresh_tokens::expires_at)
        .limit(SESSIONS_AT_ONCE)
        .select(refresh_tokens::session_id)
        .load(&mut conn)
        .await
}

/// The tokens that were spent go first and the last one of each session at the end, as a session is found by it.
async fn clear_sessions(conn: &mut AsyncPgConnection, sessions: &[Uuid]) -> QueryResult<usize> {
    let mut n_cleared = 0;
    loop {
        let n_rows = clear_spent_tokens(conn, sessions).await?;
        n_cleared += n_rows;
        if n_rows == 0 {
            break;
        }
    }
    let spent = diesel::alias!(refresh_tokens as spent);
    let is_spent_left = exists(
        spent
            .filter(spent.field(refresh_tokens::session_id).eq(refresh_tokens::session_id))
            .filter(spent.field(refresh_tokens::spent_at).is_not_null()),
    );
    let last = refresh_tokens::table
        .filter(refresh_tokens::session_id.eq_any(sessions))
        .filter(refresh_tokens::spent_at.is_null())
        .filter(not(is_spent_left));
    let n_rows = conn
        .transaction(async |mut conn| {
            let hashes: Vec<Vec<u8>> =
                last.select(refresh_tokens::token_hash).for_update().skip_locked().load(&mut conn).await?;
            delete_tokens(conn, hashes).await
        })
        .await?;
    Ok(n_cleared + n_rows)
}

async fn clear_spent_tokens(conn: &mut AsyncPgConnection, sessions: &[Uuid]) -> QueryResult<usize> {
    conn.transaction(async |mut conn| {
        let hashes: Vec<Vec<u8>> = refresh_tokens::table
            .filter(refresh_tokens::session_id.eq_any(sessions))
            .filter(refresh_tokens::spent_at.is_not_null())
            .limit(ROWS_AT_ONCE)
            .select(refresh_tokens::token_hash)
            .for_update()
            .skip_locked()
            .load(&mut conn)
            .await?;
        delete_tokens(conn, hashes).await
    })
    .await
}

async fn delete_tokens(mut conn: &AsyncPgConnection, hashes: Vec<Vec<u8>>) -> QueryResult<usize> {
    diesel::delete(refresh_tokens::table.filter(refresh_tokens::token_hash.eq_any(hashes)))
        .execute(&mut conn)
        .await
}

async fn clear_revoked_tokens(conn: &mut AsyncPgConnection) -> QueryResult<usize> {
    conn.transaction(async |mut conn| {
        let ids: Vec<Uuid> = revoked_tokens::table
            .filter(revoked_tokens::expires_at.lt(now.into_sql::<Timestamptz>() - 1.day()))
            .order(revoked_tokens::expires_at)
            .limit(ROWS_AT_ONCE)
            .select(revoked_tokens::token_id)
            .for_update()
            .skip_locked()
            .load(&mut conn)
            .await?;
        diesel::delete(revoked_tokens::table.filter(revoked_tokens::token_id.eq_any(ids)))
            .execute(&mut conn)
            .await
    })
    .await
}

/// The rows are locked as they are chosen, so none is charged between that and its end.
async fn clear_login_throttles(conn: &mut AsyncPgConnection) -> QueryResult<usize> {
    conn.transaction(async |mut conn| {
        let keys: Vec<Vec<u8>> = login_throttles::table
            .filter(login_throttles::spent_until.le(clock_timestamp()))
            .limit(ROWS_AT_ONCE)
            .select(login_throttles::key)
            .for_update()
            .skip_locked()
            .load(&mut conn)
            .await?;
        diesel::delete(login_throttles::table.filter(login_throttles::key.eq_any(keys)))
            .execute(&mut conn)
            .await
    })
    .await
}

const CLEAR_IDEMPOTENCY_KEYS: &str = "
    DELETE FROM idempotency_keys WHERE (user_id, key, kind) IN (
        SELECT user_id, key, kind FROM idempotency_keys WHERE created_at < now() - interval '1 day'
        ORDER BY created_at LIMIT $1 FOR UPDATE SKIP LOCKED)";

async fn clear_idempotency_keys(mut conn: &AsyncPgConnection) -> QueryResult<usize> {
    diesel::sql_query(CLEAR_IDEMPOTENCY_KEYS).bind::<BigInt, _>(ROWS_AT_ONCE).execute(&mut conn).await
}
