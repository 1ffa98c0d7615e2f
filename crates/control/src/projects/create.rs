//! Creating projects.

use gathering_auth::{Action, AuditEvent, AuditKind, Caller, ProjectRole};
use gathering_domain::{KeyedBody, Once, ProjectId};
use serde_json::json;

use super::{Project, ProjectControl};
use crate::ControlError;
use crate::access::{Scoped, authorize_credential, right};

/// A project to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateProject {
    /// What people call it.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// The client's idempotency key, with the body that it came with.
    pub once: Option<KeyedBody>,
}

/// A project that a store creates. Its owner is the caller.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedProject {
    /// Its id.
    pub id: ProjectId,
    /// What people call it.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// The event that is recorded with it.
    pub audit: AuditEvent,
    /// What makes a repeated request the same.
    pub once: Option<Once>,
}

impl ProjectControl {
    /// Creates a project, with the caller as its owner. The event is recorded. The same idempotency key and body create
    /// one project, which is answered as it stands now.
    ///
    /// # Errors
    /// [`ControlError::Forbidden`] for an API key without the scope to manage; [`ControlError::Revoked`] if the account
    /// is gone; [`Conflict::KeyReused`](crate::Conflict::KeyReused) or
    /// [`Conflict::CreatedAndDeleted`](crate::Conflict::CreatedAndDeleted); [`ControlError::NotFound`] if the caller may
    /// not see any more what the same request created. Without an idempotency key, after [`ControlError::Unavailable`]
    /// it is unknown whether the project exists.
    pub async fn create(
        &self,
        caller: &Caller,
        create: CreateProject,
    ) -> Result<Scoped<Project, right::Read>, ControlError> {
        authorize_credential(caller, Action::Manage)?;
        let id = ProjectId::new();
        let detail = json!({ "project": id, "role": ProjectRole::Owner.as_str(), "by": caller.user });
        let audit = AuditEvent::new(AuditKind::ProjectCreated, Some(caller.user), caller.origin);
        let CreateProject { name, description, once } = create;
        let once = once.map(|body| body.about(&json!("project")));
        let planned = PlannedProject { id, name, description, audit: audit.with_detail(detail), once };
        let created = self.store.create_project(caller, &planned).await?.into_result()?;
        Scoped::check(caller, Some(created))
    }
}
