//! Projects and their members in memory.

use std::collections::BTreeMap;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gathering_auth::{Caller, ProjectRole};
use gathering_domain::{ProjectId, UserId};

use super::MemoryControl;
use super::idempotency::Claim;
use super::state::State;
use crate::{
    ChangeProject, ControlError, Creation, CurrentAccess, FilesRoot, Found, LocalProject, LockedMember,
    LockedProject, Member, MemberChange, Operator, PlannedProject, Project, ProjectStore, Scoped, right,
};

/// A project of accounts.
pub(super) struct StoredProject {
    project: Project,
    /// The account whose default project it is.
    default_for: Option<UserId>,
    members: BTreeMap<UserId, Membership>,
}

struct Membership {
    role: ProjectRole,
    since: DateTime<Utc>,
}

impl StoredProject {
    pub(super) fn role(&self, user: UserId) -> Option<ProjectRole> {
        self.members.get(&user).map(|membership| membership.role)
    }

    pub(super) fn members(&self) -> impl Iterator<Item = UserId> + '_ {
        self.members.keys().copied()
    }

    fn found<T>(&self, by: &Caller, thing: T) -> Found<T> {
        Found { thing, membership: self.role(by.user) }
    }

    fn set_role(&mut self, user: UserId, role: ProjectRole) {
        let new = || Membership { role, since: Utc::now() };
        self.members.entry(user).or_insert_with(new).role = role;
    }
}

impl State {
    /// The thing with the caller's role in its project; nothing if the project is not one of accounts.
    pub(super) fn found<T>(&self, by: &Caller, project: ProjectId, thing: T) -> Option<Found<T>> {
        self.projects.get(&project).map(|stored| stored.found(by, thing))
    }

    pub(super) fn has_project(&self, project: ProjectId) -> bool {
        self.projects.contains_key(&project) || self.locals.iter().any(|local| local.id == project)
    }

    pub(super) fn join(&mut self, project: ProjectId, user: UserId, role: ProjectRole) {
        if let Some(stored) = self.projects.get_mut(&project) {
            stored.set_role(user, role);
        }
    }

    /// Creates a project with this owner.
    pub(super) fn create_project(
        &mut self,
        id: ProjectId,
        (name, description): (&str, &str),
        owner: UserId,
        default_for: Option<UserId>,
    ) -> Project {
        let (name, description, now) = (name.to_owned(), description.to_owned(), Utc::now());
        let project = Project { id, name, description, created_at: now, updated_at: now };
        let mut stored = StoredProject { project: project.clone(), default_for, members: BTreeMap::new() };
        stored.set_role(owner, ProjectRole::Owner);
        self.projects.insert(id, stored);
        project
    }

    /// What an account may do now.
    pub(super) fn access(&self, stored: &StoredProject, user: UserId) -> CurrentAccess {
        CurrentAccess { account: self.accounts.get(&user).cloned(), membership: stored.role(user) }
    }

    fn change_member(&mut self, by: &Caller, change: &MemberChange) -> Result<(), ControlError> {
        let stored = self.projects.get(&change.project).ok_or(ControlError::NotFound)?;
        let mut others = stored.members.iter().filter(|(user, _)| **user != change.user);
        let now = LockedMember {
            caller: self.access(stored, by.user),
            role: stored.role(change.user),
            has_other_owner: others.any(|(_, other)| other.role == ProjectRole::Owner),
        };
        let Some(event) = change.check(by, &now)? else { return Ok(()) };
        if change.role.is_some() && !self.accounts.contains_key(&change.user) {
            return Err(ControlError::NotFound);
        }
        let stored = self.projects.get_mut(&change.project).ok_or(ControlError::NotFound)?;
        match change.role {
            Some(role) => stored.set_role(change.user, role),
            None => drop(stored.members.remove(&change.user)),
        }
        self.audit.push(event);
        Ok(())
    }

    fn members(&self, project: ProjectId) -> Vec<Member> {
        let members = self.projects.get(&project).into_iter().flat_map(|stored| &stored.members);
        let shown = members.filter_map(|(user, membership)| {
            let account = self.accounts.get(user)?;
            Some(Member {
                user: *user,
                email: account.email.clone(),
                name: account.name.clone(),
                role: membership.role,
                created_at: membership.since,
            })
        });
        shown.collect()
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

    async fn find_whole_project(
        &self,
        by: &Caller,
        project: ProjectId,
    ) -> Result<Option<Found<Project>>, ControlError> {
        let state = self.lock();
        Ok(state.projects.get(&project).map(|stored| stored.found(by, stored.project.clone())))
    }

    async fn list_projects(
        &self,
        by: &Caller,
        of: Option<UserId>,
        before: Option<ProjectId>,
        limit: usize,
    ) -> Result<Vec<Found<Project>>, ControlError> {
        let state = self.lock();
        let newest_first = state.projects.iter().rev().map(|(_, stored)| stored);
        let listed = newest_first
            .filter(|stored| of.is_none_or(|user| stored.role(user).is_some()))
            .filter(|stored| before.is_none_or(|before| stored.project.id < before))
            .take(limit);
        Ok(listed.map(|stored| stored.found(by, stored.project.clone())).collect())
    }

    async fn find_files_root(&self, project: ProjectId) -> Result<Option<FilesRoot>, ControlError> {
        let state = self.lock();
        if state.projects.contains_key(&project) {
            return Ok(Some(FilesRoot::Server));
        }
        let local = state.locals.iter().find(|local| local.id == project);
        Ok(local.map(|local| FilesRoot::Operator(local.workspace_path.clone())))
    }

    async fn create_project(
        &self,
        by: &Caller,
        project: &PlannedProject,
    ) -> Result<Creation<Found<Project>>, ControlError> {
        let mut state = self.lock();
        if !state.accounts.contains_key(&by.user) {
            return Err(ControlError::Revoked);
        }
        let PlannedProject { id, name, description, audit, once } = project;
        let claim = once.as_ref().map(|once| state.project_keys.claim(by.user, once, *id));
        match claim {
            None | Some(Claim::Granted) => {}
            Some(Claim::CreatedBefore(id)) => {
                let earlier = state.projects.get(&id).map(|stored| stored.found(by, stored.project.clone()));
                return Ok(earlier.map_or(Creation::Deleted, Creation::Repeated));
            }
            Some(Claim::OtherRequest) => return Ok(Creation::OtherRequest),
        }
        state.audit.push(audit.clone());
        let thing = state.create_project(*id, (name, description), by.user, None);
        Ok(Creation::Created(Found { thing, membership: Some(ProjectRole::Owner) }))
    }

    async fn change_project(
        &self,
        project: &Scoped<ProjectId, right::Manage>,
        change: &ChangeProject,
    ) -> Result<Project, ControlError> {
        let mut state = self.lock();
        let stored = state.projects.get_mut(project.thing()).ok_or(ControlError::NotFound)?;
        let ChangeProject { name, description } = change.clone();
        let before = stored.project.clone();
        stored.project = Project {
            name: name.unwrap_or(before.name),
            description: description.unwrap_or(before.description),
            updated_at: Utc::now(),
            ..before
        };
        Ok(stored.project.clone())
    }

    async fn delete_project(&self, project: &Scoped<ProjectId, right::Manage>) -> Result<(), ControlError> {
        let (mut state, id) = (self.lock(), project.thing());
        let stored = state.projects.get(id).ok_or(ControlError::NotFound)?;
        let mut runs = self.runs.runs().into_iter().filter(|run| run.new.project == *id);
        let locked = LockedProject {
            caller: project.user().map(|user| state.access(stored, user)).unwrap_or_default(),
            is_default: stored.default_for.is_some(),
            has_active_runs: runs.any(|run| !run.state.is_terminal()),
        };
        let event = locked.check_deletion(project)?;
        state.projects.remove(id);
        state.audit.push(event);
        Ok(())
    }

    async fn list_members(
        &self,
        project: ProjectId,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Vec<Member>, ControlError> {
        let mut members = self.lock().members(project);
        members.retain(|member| after.is_none_or(|after| member.user > after));
        members.truncate(limit);
        Ok(members)
    }

    async fn change_member(&self, by: &Caller, change: &MemberChange) -> Result<(), ControlError> {
        self.lock().change_member(by, change)
    }

    async fn ensure_local_project(
        &self,
        _by: Operator,
        new: LocalProject,
    ) -> Result<LocalProject, ControlError> {
        Ok(self.lock().ensure_local(new))
    }
}
