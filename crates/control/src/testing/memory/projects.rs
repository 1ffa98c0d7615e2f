//! Projects and their members in memory.

use std::collections::BTreeMap;

use async_trait::async_trait;
use gathering_auth::{Caller, ProjectRole};
use gathering_domain::{ProjectId, UserId};

use super::MemoryControl;
use super::state::State;
use crate::{ControlError, Found, LocalProject, Operator, ProjectStore};

/// A project of accounts.
#[derive(Default)]
pub(super) struct StoredProject {
    /// The account whose default project it is.
    pub(super) default_for: Option<UserId>,
    pub(super) members: BTreeMap<UserId, ProjectRole>,
}

impl State {
    /// The thing with the caller's role in its project; nothing if the project is not one of accounts.
    pub(super) fn found<T>(&self, by: &Caller, project: ProjectId, thing: T) -> Option<Found<T>> {
        let stored = self.projects.get(&project)?;
        Some(Found { thing, membership: stored.members.get(&by.user).copied() })
    }

    pub(super) fn has_project(&self, project: ProjectId) -> bool {
        self.projects.contains_key(&project) || self.locals.iter().any(|local| local.id == project)
    }

    pub(super) fn join(&mut self, project: ProjectId, user: UserId, role: ProjectRole) {
        self.projects.entry(project).or_default().members.insert(user, role);
    }

    pub(super) fn make_default(&mut self, project: ProjectId, user: UserId) {
        self.projects.entry(project).or_default().default_for = Some(user);
    }

    fn ensure_local(&mut self, new: LocalProject) -> LocalProject {
        if let Some(known) = self.locals.iter().find(|known| known.workspace_path == new.workspace_path) {
            return known.clone();
        }
        self.locals.push(new.clone());
        new
    }
}

#[async_trait]
impl ProjectStore for MemoryControl {
    async fn find_project(
        &self,
        by: &Caller,
        project: ProjectId,
    ) -> Result<Option<Found<ProjectId>>, ControlError> {
        Ok(self.lock().found(by, project, project))
    }

    async fn find_default_project(&self, by: &Caller) -> Result<Option<ProjectId>, ControlError> {
        let state = self.lock();
        let mut projects = state.projects.iter();
        Ok(projects.find(|(_, stored)| stored.default_for == Some(by.user)).map(|(id, _)| *id))
    }

    async fn ensure_local_project(
        &self,
        _by: Operator,
        new: LocalProject,
    ) -> Result<LocalProject, ControlError> {
        Ok(self.lock().ensure_local(new))
    }
}
