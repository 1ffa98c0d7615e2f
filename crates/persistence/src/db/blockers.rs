//! Which sessions another one waits for, in words for the log.

use tokio_postgres::Client;

/// How a session is described: its process, its name, its client and the age of its transaction.
macro_rules! described {
    () => {
        "SELECT coalesce(string_agg(format('process %s of PostgreSQL (%s, from %s%s)', pid,
            coalesce(nullif(application_name, ''), 'without a name'), coalesce(client_addr::text, 'this host'),
            ', in a transaction for ' || extract(epoch FROM clock_timestamp() - xact_start)::bigint || ' s'
        ), ', ' ORDER BY xact_start), 'no session that is still there') FROM pg_stat_activity WHERE pid "
    };
}

const BLOCKERS: &str = concat!(described!(), "= ANY(pg_blocking_pids($1))");

const HOLDERS: &str = concat!(
    described!(),
    "IN (
        SELECT pid FROM pg_locks
        WHERE locktype = 'advisory' AND objsubid = 1 AND granted
            AND (classid::bigint << 32) | objid::bigint = $1
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    )"
);

/// The sessions that block the one with this process number.
pub(crate) async fn describe_blockers(client: &Client, pid: i32) -> Result<String, tokio_postgres::Error> {
    Ok(client.query_one(BLOCKERS, &[&pid]).await?.get(0))
}

/// The session that holds this advisory lock.
pub(crate) async fn describe_holder(client: &Client, lock_key: i64) -> Result<String, tokio_postgres::Error> {
    Ok(client.query_one(HOLDERS, &[&lock_key]).await?.get(0))
}
