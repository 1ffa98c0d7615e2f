//! What runs ask for before they start, as columns of the statement that accepts them.

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::AstPass;
use diesel::sql_types::{Double, Integer, Nullable, Text, Uuid as SqlUuid};
use gathering_domain::{Digest, PermitRequest, PipelineId, RunId};
use uuid::Uuid;

use crate::db::bind::push_columns;

/// Requests for permits, column by column; empty if no run of the statement asks for one.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    run_id: Vec<Uuid>,
    key_id: Vec<Uuid>,
    key: Vec<String>,
    permits: Vec<i32>,
    per_second: Vec<Option<f64>>,
    on_limit: Vec<&'static str>,
}

impl Requests {
    /// The requests of these runs, each with its pipeline. A run without a pipeline asks for nothing: it has no others to
    /// be limited with.
    pub(crate) fn of<'a>(
        runs: impl Iterator<Item = (RunId, Option<PipelineId>, Option<&'a PermitRequest>)>,
    ) -> Self {
        let mut requests = Self::default();
        for (run, pipeline, request) in runs {
            if let (Some(pipeline), Some(request)) = (pipeline, request) {
                requests.push(run, pipeline, request);
            }
        }
        requests
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.run_id.is_empty()
    }

    fn push(&mut self, run: RunId, pipeline: PipelineId, request: &PermitRequest) {
        self.run_id.push(run.as_uuid());
        self.key_id.push(key_id(pipeline, &request.key));
        self.key.push(request.key.clone());
        self.permits
            .push(request.permits.and_then(|permits| i32::try_from(permits).ok()).unwrap_or(i32::MAX));
        self.per_second.push(request.per_second);
        self.on_limit.push(request.on_limit.as_str());
    }

    /// Pushes them as the part `permit` of a `WITH`.
    pub(crate) fn push_rows<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("permit AS (SELECT * FROM unnest(");
        push_columns!(out, SqlUuid: self.run_id, SqlUuid: self.key_id, Text: self.key, Integer: self.permits,
            Nullable<Double>: self.per_second, Text: self.on_limit);
        out.push_sql(") AS p (run_id, key_id, key, permits, per_second, on_limit))");
        Ok(())
    }
}

/// Writes the requests of the runs that were accepted, as the part `requested` of a `WITH` with the parts `permit`,
/// `new_run` and `inserted`.
pub(crate) const REQUESTED: &str = "requested AS (
    INSERT INTO permit_requests
        (run_id, key_id, pipeline_id, key, permits, per_second, on_limit, priority, available_at)
    SELECT inserted.id, permit.key_id, inserted.pipeline_id, permit.key, permit.permits, permit.per_second,
        permit.on_limit, inserted.priority, coalesce(new_run.available_at, now())
    FROM inserted JOIN new_run ON new_run.id = inserted.id JOIN permit ON permit.run_id = inserted.id)";

/// The id of a key of a pipeline: the first half of the digest of both.
fn key_id(pipeline: PipelineId, key: &str) -> Uuid {
    let mut text = pipeline.as_uuid().as_bytes().to_vec();
    text.extend_from_slice(key.as_bytes());
    half_of(Digest::of(&text))
}

/// The first half of a digest.
pub(super) fn half_of(digest: Digest) -> Uuid {
    let mut half = [0; 16];
    half.copy_from_slice(&digest.as_bytes()[..16]);
    Uuid::from_bytes(half)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipelines_do_not_share_their_keys() {
        let [one, other] = [PipelineId::new(), PipelineId::new()];
        assert_eq!(key_id(one, "a"), key_id(one, "a"));
        assert_ne!(key_id(one, "a"), key_id(one, "b"));
        assert_ne!(key_id(one, "a"), key_id(other, "a"));
    }
}
