//! Runs as people find and start them. Their rows are the engine's, and its statements stand in [`crate::runs`].

use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_control::{
    ControlError, Creation, DecisionOutcome, Found, NewDecision, NewOutcome, PlannedRun, Run,
};
use gathering_domain::{NodeId, Once, ProjectId, RunId, UserId};

use crate::control::projects::{is_of_accounts, parse_role};
use crate::db::all_runs::all_runs;
use crate::db::error::DatabaseError;
use crate::db::schema::{project_members, projects};
use crate::runs::accept::{Acceptance, RunOrigin};
use crate::runs::decisions::Decided;
use crate::runs::list::{CancelRequest, Runs};
use crate::runs::row::Row;

/// The run, and the role of this account in its project; nothing if the project is not one of accounts.
pub(crate) async fn find_as(
    mut conn: &AsyncPgConnection,
    run: RunId,
    user: UserId,
) -> Result<Option<Found<Run>>, DatabaseError> {
    let membership =
        project_members::project_id.eq(all_runs::project_id).and(project_members::user_id.eq(user.as_uuid()));
    let row: Option<(Row, Option<String>)> = all_runs::table
        .inner_join(projects::table.on(projects::id.eq(all_runs::project_id)))
        .left_join(project_members::table.on(membership))
        .filter(all_runs::id.eq(run.as_uuid()).and(is_of_accounts()))
        .select((Row::as_select(), project_members::role.nullable()))
        .first(&mut conn)
        .await
        .optional()
        .map_err(|error| DatabaseError::query("looking for a run", error))?;
    row.map(|(row, role)| {
        let membership = role.map(|role| parse_role(&role)).transpose()?;
        Ok(Found { thing: Run::try_from(row)?, membership })
    })
    .transpose()
}

pub(crate) async fn find_repeated(
    runs: &Runs,
    project: ProjectId,
    once: &Once,
) -> Result<Option<Creation<Run>>, ControlError> {
    match runs.find_by_key(project, once.key.as_str(), once.digest).await? {
        Some(acceptance) => Ok(Some(created(runs, acceptance).await?)),
        None => Ok(None),
    }
}

/// One statement, unless the run begins with what another achieved.
pub(crate) async fn accept(
    runs: &Runs,
    project: ProjectId,
    planned: &PlannedRun,
) -> Result<Creation<Run>, ControlError> {
    let (run, origin) = (planned.in_project(project), RunOrigin::of(planned));
    let acceptance = if planned.begins_with.is_empty() {
        runs.accept(&run, &origin).await?
    } else {
        runs.accept_rerun(&run, &origin, &planned.begins_with).await?
    };
    created(runs, acceptance).await
}

async fn created(runs: &Runs, acceptance: Acceptance) -> Result<Creation<Run>, ControlError> {
    Ok(match acceptance {
        Acceptance::Accepted(run) => Creation::Created(*run),
        Acceptance::AcceptedBefore(run) => Creation::Repeated(load(runs, run).await?),
        Acceptance::OtherRequest => Creation::OtherRequest,
    })
}

pub(crate) async fn cancel(runs: &Runs, run: RunId) -> Result<Option<Run>, ControlError> {
    match runs.request_cancel(run).await? {
        CancelRequest::Requested => load(runs, run).await.map(Some),
        CancelRequest::AlreadyEnded => Ok(None),
        CancelRequest::Missing => Err(ControlError::NotFound),
    }
}

pub(crate) async fn decide(
    runs: &Runs,
    run: RunId,
    node: &NodeId,
    decision: &NewDecision,
) -> Result<DecisionOutcome, ControlError> {
    match runs.decide(run, node, decision).await? {
        Decided::Recorded => Ok(DecisionOutcome::Recorded(Box::new(load(runs, run).await?))),
        Decided::DecidedBefore => Ok(DecisionOutcome::DecidedBefore),
        Decided::RunEnded => Ok(DecisionOutcome::RunEnded),
        Decided::Missing => Err(ControlError::NotFound),
    }
}

pub(crate) async fn decide_outcome(
    runs: &Runs,
    run: RunId,
    node: &NodeId,
    decision: &NewOutcome,
) -> Result<Option<Run>, ControlError> {
    let is_recorded = runs.decide_outcome(run, node, decision).await?;
    if is_recorded { load(runs, run).await.map(Some) } else { Ok(None) }
}

pub(crate) async fn load(runs: &Runs, run: RunId) -> Result<Run, ControlError> {
    runs.find(run).await?.ok_or(ControlError::NotFound)
}
