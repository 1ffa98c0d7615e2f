//! Requests whose time has come join the line of their key, and what the newest of them says happens at the limit.
//!
//! Keys are locked in the order of their ids, and after the runs: nothing here waits for a run while it has a key. The end
//! of a run has the run and waits for the key.

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Integer, Text, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_domain::OnLimit;
use uuid::Uuid;

use crate::db::error::DatabaseError;
use crate::runs::transitions::cancel::{Which, cancel_because};
use crate::runs::transitions::wake_ups::WakeUps;

/// The most runs of a key that one transaction cancels for newer ones.
const MAX_CANCELLED: i64 = 1000;

/// What runs say that were skipped.
const SKIPPED: &str = "no permit of its concurrency key was free";

/// What runs say that made room.
const REPLACED: &str = "a newer run of its concurrency key took its place";

/// How many requests joined their lines, and what that owes.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    pub(crate) n_requests: usize,
    pub(crate) wake_ups: WakeUps,
}

/// The keys whose lines grow: the limits are those of the run that came last.
const JOIN: &str = "
    WITH arrived AS (
        SELECT run_id FROM permit_requests WHERE NOT in_line AND available_at <= now()
        ORDER BY available_at, run_id LIMIT $1 FOR UPDATE SKIP LOCKED
    ), joined AS (
        UPDATE permit_requests AS request SET in_line = true FROM arrived
        WHERE request.run_id = arrived.run_id AND NOT request.in_line
        RETURNING request.run_id, request.key_id, request.pipeline_id, request.key, request.permits,
            request.per_second, request.on_limit, request.available_at
    ), line AS (
        SELECT DISTINCT ON (key_id) key_id, pipeline_id, key, permits, per_second, on_limit,
            (count(*) OVER (PARTITION BY key_id))::integer AS n_joined
        FROM joined ORDER BY key_id, available_at DESC, run_id DESC
    ), grown AS (
        INSERT INTO concurrency_keys AS k (id, pipeline_id, key, permits, per_second, waiting)
        SELECT key_id, pipeline_id, key, permits, per_second, n_joined FROM line ORDER BY key_id
        ON CONFLICT (id) DO UPDATE SET waiting = k.waiting + excluded.waiting, permits = excluded.permits,
            per_second = excluded.per_second
        RETURNING k.id, k.permits, k.held::bigint + k.waiting - k.permits AS n_over
    )
    SELECT line.key_id, line.n_joined, line.on_limit, grown.permits,
        least(grown.n_over, line.n_joined)::integer AS n_over
    FROM line JOIN grown ON grown.id = line.key_id";

/// [`JOIN`], prepared once per connection: claims execute it often.
#[derive(QueryId)]
struct Join {
    limit: i64,
}

impl QueryFragment<Pg> for Join {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let (before, after) = JOIN.split_once("$1").unwrap_or((JOIN, ""));
        out.push_sql(before);
        out.push_bind_param::<BigInt, _>(&self.limit)?;
        out.push_sql(after);
        Ok(())
    }
}

impl Query for Join {
    type SqlType = (SqlUuid, Integer, Text, Integer, Integer);
}

/// A key whose line has grown.
#[derive(Queryable)]
struct Line {
    key_id: Uuid,
    n_joined: i32,
    on_limit: String,
    permits: i32,
    n_over: i32,
}

/// At most `limit` requests join their lines, those that came first before the others.
///
/// What happens at the limit follows in statements of their own. Where the process dies between, these runs wait instead.
pub(crate) async fn join(conn: &mut AsyncPgConnection, limit: i64) -> Result<Joined, DatabaseError> {
    let failed = |error| DatabaseError::query("moving requests for permits into their lines", error);
    let lines: Vec<Line> = Join { limit }.load(conn).await.map_err(failed)?;
    let mut joined = Joined::default();
    for line in lines {
        joined.n_requests += usize::try_from(line.n_joined).unwrap_or_default();
        if line.n_over > 0 {
            joined.wake_ups.extend(apply_limit(conn, &line).await.map_err(failed)?);
        }
    }
    Ok(joined)
}

/// What becomes of the runs of a key that are more than its permits.
async fn apply_limit(conn: &AsyncPgConnection, line: &Line) -> QueryResult<WakeUps> {
    match line.on_limit.parse() {
        Ok(OnLimit::Skip) => skip_newest(conn, line).await,
        Ok(OnLimit::CancelOldest) => cancel_oldest(conn, line).await,
        Ok(OnLimit::Queue) | Err(_) => Ok(WakeUps::default()),
    }
}

/// The runs that joined the line last leave it again.
async fn skip_newest(mut conn: &AsyncPgConnection, line: &Line) -> QueryResult<WakeUps> {
    let newest =
        "SELECT run_id AS id FROM permit_requests WHERE key_id = $1 AND in_line AND on_limit = 'skip'
        ORDER BY available_at DESC, run_id DESC LIMIT $2";
    let ids: Vec<Id> = diesel::sql_query(newest)
        .bind::<SqlUuid, _>(line.key_id)
        .bind::<Integer, _>(line.n_over)
        .load(&mut conn)
        .await?;
    cancel_because(conn, &ids_of(ids), Which::Unpermitted, SKIPPED).await
}

/// All but the newest of the key, as many as it has permits.
const OLDEST: &str = "
    SELECT run_id AS id FROM active_runs AS active
    WHERE permit_key = $1 AND cancel_requested_at IS NULL
        AND (holds_permit OR EXISTS (SELECT FROM permit_requests AS r WHERE r.run_id = active.run_id AND in_line))
    ORDER BY run_id DESC OFFSET $2 LIMIT $3";

async fn cancel_oldest(mut conn: &AsyncPgConnection, line: &Line) -> QueryResult<WakeUps> {
    let ids: Vec<Id> = diesel::sql_query(OLDEST)
        .bind::<SqlUuid, _>(line.key_id)
        .bind::<Integer, _>(line.permits)
        .bind::<BigInt, _>(MAX_CANCELLED)
        .load(&mut conn)
        .await?;
    cancel_because(conn, &ids_of(ids), Which::Active, REPLACED).await
}

#[derive(QueryableByName)]
struct Id {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
}

fn ids_of(ids: Vec<Id>) -> Vec<Uuid> {
    ids.into_iter().map(|Id { id }| id).collect()
}
