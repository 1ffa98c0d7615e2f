//! Agents and their versions in memory.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gathering_agents::AgentDefinition;
use gathering_auth::Caller;
use gathering_dag_engine::testing::MemoryStore;
use gathering_domain::{AgentId, ProjectId, RunId, UserId};
use gathering_nodes::AgentVersion;

use super::MemoryControl;
use super::idempotency::Claim;
use super::state::State;
use crate::{
    Agent, AgentStore, ControlError, Creation, Found, NewAgent, PlannedAgentChange, PlannedAgentDeletion,
    Scoped, right,
};

pub(super) struct KeptAgent {
    agent: Agent,
    /// Version 1 first.
    versions: Vec<(AgentDefinition, DateTime<Utc>)>,
}

impl State {
    fn create_agent(
        &mut self,
        project: ProjectId,
        by: Option<UserId>,
        new: &NewAgent,
    ) -> Result<Creation<Agent>, ControlError> {
        if !self.has_project(project) {
            return Err(ControlError::NotFound);
        }
        if let Some((user, once)) = by.zip(new.once.as_ref()) {
            match self.agent_keys.claim(user, once, new.id) {
                Claim::Granted => {}
                Claim::CreatedBefore(id) => {
                    let earlier = self.agents.get(&id).map(|kept| kept.agent.clone());
                    return Ok(earlier.map_or(Creation::Deleted, Creation::Repeated));
                }
                Claim::OtherRequest => return Ok(Creation::OtherRequest),
            }
        }
        let (now, definition) = (Utc::now(), new.definition.clone());
        let versions = vec![(definition.clone(), now)];
        let agent = Agent { id: new.id, project, definition, version: 1, created_at: now, updated_at: now };
        self.agents.insert(new.id, KeptAgent { agent: agent.clone(), versions });
        Ok(Creation::Created(agent))
    }

    fn change_agent(&mut self, id: AgentId, change: &PlannedAgentChange) -> Result<Agent, ControlError> {
        let kept = self.agents.get_mut(&id).ok_or(ControlError::NotFound)?;
        let mut after = change.of(&kept.agent)?;
        if after != kept.agent {
            after.updated_at = Utc::now();
            kept.versions.push((after.definition.clone(), after.updated_at));
            kept.agent = after.clone();
        }
        Ok(after)
    }
}

/// When the root of the run's tree was accepted.
fn root_of(run: RunId, runs: &MemoryStore) -> Option<DateTime<Utc>> {
    let stored = runs.run(run)?;
    match stored.place {
        Some(place) => root_of(place.parent.run, runs),
        None => Some(stored.created_at),
    }
}

#[async_trait]
impl AgentStore for MemoryControl {
    async fn find_agent(&self, by: &Caller, agent: AgentId) -> Result<Option<Found<Agent>>, ControlError> {
        let state = self.lock();
        let Some(agent) = state.agents.get(&agent).map(|kept| kept.agent.clone()) else { return Ok(None) };
        Ok(state.found(by, agent.project, agent))
    }

    async fn find_agent_for_run(
        &self,
        project: ProjectId,
        agent: AgentId,
        run: RunId,
    ) -> Result<Option<AgentVersion>, ControlError> {
        let began = root_of(run, &self.runs);
        let state = self.lock();
        let Some(kept) = state.agents.get(&agent).filter(|kept| kept.agent.project == project) else {
            return Ok(None);
        };
        let numbered = (1..).zip(&kept.versions);
        let earlier = numbered.clone().filter(|(_, (_, at))| began.is_some_and(|began| *at <= began)).last();
        let found = earlier.or_else(|| numbered.clone().next());
        Ok(found.map(|(version, (definition, _))| AgentVersion { version, definition: definition.clone() }))
    }

    async fn list_agents(
        &self,
        visible_to: Option<UserId>,
        project: Option<ProjectId>,
        before: Option<AgentId>,
        limit: usize,
    ) -> Result<Vec<Agent>, ControlError> {
        let state = self.lock();
        let is_shown = |agent: &&Agent| {
            let Some(owning) = state.projects.get(&agent.project) else { return false };
            visible_to.is_none_or(|user| owning.role(user).is_some())
                && project.is_none_or(|project| agent.project == project)
                && before.is_none_or(|before| agent.id < before)
        };
        let newest_first = state.agents.values().rev().map(|kept| &kept.agent);
        Ok(newest_first.filter(is_shown).take(limit).cloned().collect())
    }

    async fn create_agent(
        &self,
        project: &Scoped<ProjectId, right::Write>,
        new: &NewAgent,
    ) -> Result<Creation<Agent>, ControlError> {
        self.lock().create_agent(*project.thing(), project.user(), new)
    }

    async fn change_agent(
        &self,
        agent: &Scoped<Agent, right::Write>,
        change: &PlannedAgentChange,
    ) -> Result<Agent, ControlError> {
        self.lock().change_agent(agent.id, change)
    }

    async fn delete_agent(
        &self,
        agent: &Scoped<Agent, right::Write>,
        deletion: &PlannedAgentDeletion,
    ) -> Result<(), ControlError> {
        let mut state = self.lock();
        let kept = state.agents.get(&agent.id).ok_or(ControlError::NotFound)?;
        deletion.permitted(&kept.agent)?;
        state.agents.remove(&agent.id);
        Ok(())
    }
}
