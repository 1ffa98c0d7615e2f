//! Budgets of attempts to log in: charged, and given back.
//!
//! Each budget is one row, charged under its lock by the clock at that moment, so that of charges at the same time each
//! sees the others. Every transaction locks rows in the order of their keys, so that no two deadlock.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::query_dsl::methods::FilterDsl;
use diesel::result::Error as QueryError;
use diesel::sql_types::{Interval, Timestamptz};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use gathering_auth::{Charge, Charged};

use crate::db::clock::{clock_timestamp, interval};
use crate::db::error::DatabaseError;
use crate::db::schema::login_throttles;

/// Why nothing was charged.
enum Unpaid {
    /// A budget is spent for so long.
    Refused(Duration),
    Query(QueryError),
}

impl From<QueryError> for Unpaid {
    fn from(error: QueryError) -> Self {
        Self::Query(error)
    }
}

/// Pays every charge or, by rolling back, none.
pub(crate) async fn charge(
    conn: &mut AsyncPgConnection,
    charges: &[Charge],
) -> Result<Charged, DatabaseError> {
    match conn.transaction(async |conn| pay_all(conn, charges).await).await {
        Ok(()) => Ok(Charged::Paid),
        Err(Unpaid::Refused(retry_after)) => Ok(Charged::Refused { retry_after }),
        Err(Unpaid::Query(error)) => Err(DatabaseError::query("charging a login budget", error)),
    }
}

/// Gives charges back; within whatever transaction the connection is in. A budget that was cleared away was full.
pub(crate) async fn refund(mut conn: &AsyncPgConnection, charges: &[Charge]) -> QueryResult<()> {
    for charge in in_order(charges) {
        diesel::update(login_throttles::table.find(charge.key.as_bytes().as_slice()))
            .set(
                login_throttles::spent_until
                    .eq(login_throttles::spent_until - interval(charge.interval).into_sql::<Interval>()),
            )
            .execute(&mut conn)
            .await?;
    }
    Ok(())
}

async fn pay_all(conn: &AsyncPgConnection, charges: &[Charge]) -> Result<(), Unpaid> {
    let mut longest_wait = None;
    for charge in in_order(charges) {
        if !pay(conn, charge).await? {
            longest_wait = longest_wait.max(Some(load_wait(conn, charge).await?));
        }
    }
    longest_wait.map_or(Ok(()), |wait| Err(Unpaid::Refused(wait)))
}

/// One statement: whether the budget pays is decided under the lock of its row, which is kept either way.
async fn pay(mut conn: &AsyncPgConnection, charge: &Charge) -> QueryResult<bool> {
    let share = interval(charge.interval);
    let n_rows =
        diesel::insert_into(login_throttles::table)
            .values((
                login_throttles::key.eq(charge.key.as_bytes().as_slice()),
                login_throttles::spent_until
                    .eq(sql::<Timestamptz>("clock_timestamp() + ").bind::<Interval, _>(share)),
            ))
            .on_conflict(login_throttles::key)
            .do_update()
            .set(
                login_throttles::spent_until
                    .eq(sql::<Timestamptz>("greatest(login_throttles.spent_until, clock_timestamp()) + ")
                        .bind::<Interval, _>(share)),
            )
            // The same as asking whether what it becomes is at most now + burst * interval, with one look at the clock.
            .filter(login_throttles::spent_until.le(
                sql::<Timestamptz>("clock_timestamp() + ").bind::<Interval, _>(interval(tolerance(charge))),
            ))
            .execute(&mut conn)
            .await?;
    Ok(n_rows == 1)
}

/// How long a budget that has just refused goes on refusing.
async fn load_wait(mut conn: &AsyncPgConnection, charge: &Charge) -> QueryResult<Duration> {
    let (spent_until, now): (DateTime<Utc>, DateTime<Utc>) = login_throttles::table
        .find(charge.key.as_bytes().as_slice())
        .select((login_throttles::spent_until, clock_timestamp()))
        .first(&mut conn)
        .await?;
    let ahead = (spent_until - now).to_std().unwrap_or_default();
    // It may have become free between the two looks at the clock; it was refused all the same.
    Ok(ahead.saturating_sub(tolerance(charge)).max(Duration::from_millis(1)))
}

/// How far ahead of the clock a budget may be spent before it is charged.
fn tolerance(charge: &Charge) -> Duration {
    charge.interval.saturating_mul(charge.burst.saturating_sub(1))
}

fn in_order(charges: &[Charge]) -> Vec<&Charge> {
    let mut charges: Vec<&Charge> = charges.iter().collect();
    charges.sort_unstable_by_key(|charge| *charge.key.as_bytes());
    charges
}
