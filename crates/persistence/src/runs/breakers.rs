//! Circuit breakers as rows: one row for each breaker that is not healthy. Each change is one statement.
//!
//! The row's lock decides which run probes. The database's clock decides what time it is.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use diesel::dsl::now;
use diesel::prelude::*;
use diesel::sql_types::{Integer, Interval, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_dag_engine::{Breaker, BreakerKey, BreakerStore, StoreError};
use gathering_domain::{CircuitBreaker, RunId};
use uuid::Uuid;

use crate::cluster::wake::Wake;
use crate::db::clock::interval;
use crate::db::error::{DatabaseError, Refusal, violated};
use crate::db::exactly_one::exactly_one;
use crate::db::schema::circuit_breakers;
use crate::runs::store::PgRunStore;

/// The number of breakers that an instance keeps in memory.
const MAX_BREAKERS: i64 = 10_000;

#[derive(Queryable, QueryableByName, Selectable)]
#[diesel(table_name = circuit_breakers)]
#[diesel(check_for_backend(diesel::pg::Pg))]
struct Row {
    pipeline_id: Uuid,
    node_id: String,
    state: String,
    failures: i32,
    open_until: Option<DateTime<Utc>>,
    probe_run: Option<Uuid>,
    probe_until: Option<DateTime<Utc>>,
}

impl Row {
    fn into_breaker(self) -> Result<(BreakerKey, Breaker), DatabaseError> {
        let what = "a circuit breaker";
        let breaker = match (self.state.as_str(), self.open_until, self.probe_run, self.probe_until) {
            ("closed", ..) => Breaker::Closed { failures: u32::try_from(self.failures).unwrap_or(0) },
            ("open", Some(until), ..) => Breaker::Open { until },
            ("half_open", _, Some(probe), Some(until)) => Breaker::HalfOpen { probe: probe.into(), until },
            (state, ..) => {
                return Err(DatabaseError::corrupt(what, format!("it is {state} without a time")));
            }
        };
        let node = self.node_id.parse().map_err(|error| DatabaseError::corrupt(what, error))?;
        Ok((BreakerKey { pipeline: self.pipeline_id.into(), node }, breaker))
    }
}

/// `$3` is the run, `$4` the threshold, `$5` how long it is open.
const NOTE_FAILURE: &str = "
    INSERT INTO circuit_breakers AS b (pipeline_id, node_id, state, failures, open_until)
    VALUES ($1, $2, CASE WHEN $4 <= 1 THEN 'open' ELSE 'closed' END, 1, CASE WHEN $4 <= 1 THEN now() + $5 END)
    ON CONFLICT (pipeline_id, node_id) DO UPDATE SET
        failures = CASE WHEN b.state = 'closed' THEN least(b.failures, 2147483646) + 1 ELSE b.failures END,
        state = CASE
            WHEN b.state = 'closed' AND b.failures >= $4 - 1 THEN 'open'
            WHEN b.state = 'half_open' AND b.probe_run = $3 THEN 'open'
            ELSE b.state END,
        open_until = CASE
            WHEN b.state = 'closed' AND b.failures >= $4 - 1 THEN now() + $5
            WHEN b.state = 'half_open' AND b.probe_run = $3 THEN now() + $5
            ELSE b.open_until END,
        probe_run = nullif(b.probe_run, $3),
        probe_until = CASE WHEN b.probe_run <> $3 THEN b.probe_until END,
        updated_at = now()
    RETURNING pipeline_id, node_id, state, failures, open_until, probe_run, probe_until";

#[async_trait]
impl BreakerStore for PgRunStore {
    async fn list_unhealthy(&self) -> Result<Vec<(BreakerKey, Breaker)>, StoreError> {
        let conn = self.pool.get().await?;
        // Open breakers first, in case there are too many.
        let rows: Vec<Row> = circuit_breakers::table
            .order((circuit_breakers::state.desc(), circuit_breakers::updated_at.desc()))
            .limit(MAX_BREAKERS)
            .select(Row::as_select())
            .load(&mut &*conn)
            .await
            .map_err(|error| DatabaseError::query("listing circuit breakers", error))?;
        Ok(rows.into_iter().map(Row::into_breaker).collect::<Result<_, _>>()?)
    }

    async fn note_failure(
        &self,
        key: &BreakerKey,
        run: RunId,
        settings: &CircuitBreaker,
    ) -> Result<Breaker, StoreError> {
        let conn = self.pool.get().await?;
        let noted: QueryResult<Row> = diesel::sql_query(NOTE_FAILURE)
            .bind::<SqlUuid, _>(key.pipeline.as_uuid())
            .bind::<Text, _>(key.node.as_str())
            .bind::<SqlUuid, _>(run.as_uuid())
            .bind::<Integer, _>(i32::try_from(settings.failure_threshold).unwrap_or(i32::MAX))
            .bind::<Interval, _>(interval(settings.reset))
            .get_results(&mut &*conn)
            .await
            .and_then(exactly_one);
        match noted {
            Ok(row) => {
                self.wakes.wake(Wake::Breakers);
                Ok(row.into_breaker()?.1)
            }
            // The pipeline was deleted: no other run will use this breaker.
            Err(error) if violated(&error, Refusal::ForeignKey).is_some() => {
                Ok(Breaker::Closed { failures: 0 })
            }
            Err(error) => Err(DatabaseError::query("counting a failure", error).into()),
        }
    }

    async fn note_success(&self, key: &BreakerKey, run: RunId) -> Result<Option<Breaker>, StoreError> {
        let conn = self.pool.get().await?;
        let is_probe =
            circuit_breakers::state.eq("half_open").and(circuit_breakers::probe_run.eq(run.as_uuid()));
        let may_heal = circuit_breakers::state.eq("closed").nullable().or(is_probe);
        let healed =
            diesel::delete(circuit_breakers::table.find((key.pipeline.as_uuid(), key.node.as_str())))
                .filter(may_heal)
                .execute(&mut &*conn)
                .await
                .map_err(|error| DatabaseError::query("recording a success", error))?;
        if healed > 0 {
            self.wakes.wake(Wake::Breakers);
            return Ok(None);
        }
        Ok(find(&conn, key).await?)
    }

    async fn try_probe(
        &self,
        key: &BreakerKey,
        run: RunId,
        limit: Duration,
    ) -> Result<Option<Breaker>, StoreError> {
        let conn = self.pool.get().await?;
        let failed = |error| DatabaseError::query("requesting a probe", error);
        let breaker = circuit_breakers::table.find((key.pipeline.as_uuid(), key.node.as_str()));
        let this_moment = now.into_sql::<Timestamptz>();
        let may_go =
            (circuit_breakers::state.eq("open").and(circuit_breakers::open_until.le(this_moment.nullable())))
                .or(circuit_breakers::state
                    .eq("half_open")
                    .and(circuit_breakers::probe_until.le(this_moment.nullable())));
        let won: Option<Row> = diesel::update(breaker)
            .filter(may_go)
            .set((
                circuit_breakers::state.eq("half_open"),
                circuit_breakers::probe_run.eq(run.as_uuid()),
                circuit_breakers::probe_until
                    .eq((this_moment + interval(limit).into_sql::<Interval>()).nullable()),
                circuit_breakers::updated_at.eq(now),
            ))
            .returning(Row::as_returning())
            .get_results(&mut &*conn)
            .await
            .and_then(exactly_one)
            .optional()
            .map_err(failed)?;
        if let Some(row) = won {
            self.wakes.wake(Wake::Breakers);
            return Ok(Some(row.into_breaker()?.1));
        }
        Ok(find(&conn, key).await?)
    }
}

/// A breaker's state; `None` if it is healthy.
async fn find(mut conn: &AsyncPgConnection, key: &BreakerKey) -> Result<Option<Breaker>, DatabaseError> {
    let row: Option<Row> = circuit_breakers::table
        .find((key.pipeline.as_uuid(), key.node.as_str()))
        .select(Row::as_select())
        .first(&mut conn)
        .await
        .optional()
        .map_err(|error| DatabaseError::query("looking up a circuit breaker", error))?;
    Ok(row.map(Row::into_breaker).transpose()?.map(|(_, breaker)| breaker))
}
