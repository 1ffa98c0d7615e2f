//! What handlers reach: the functions they call, and whether this instance takes requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gathering_auth::{Action, Auth, Caller, Role, authorize};
use gathering_dag_engine::Engine;
use gathering_domain::{Digest, ProjectId, UserId};
use gathering_persistence::{Pipelines, Pool, Projects, Runs};
use gathering_tools::Network;
use moka::sync::Cache;
use tokio::sync::watch;

use super::outline::Outline;
use super::problem::Problem;
use crate::instance::Identity;

/// What every handler may reach.
pub(crate) struct AppState {
    pub(crate) auth: Auth,
    pub(crate) pool: Pool,
    pub(crate) projects: Projects,
    pub(crate) pipelines: Pipelines,
    pub(crate) runs: Runs,
    pub(crate) engine: Engine,
    /// Who this process is, which changes when its proof of life was lost.
    pub(crate) identities: watch::Receiver<Identity>,
    pub(crate) readiness: Readiness,
    pub(crate) trusted_proxies: Vec<Network>,
    /// What is shown of graphs, by digest; a graph never changes.
    pub(crate) outlines: Cache<Digest, Arc<Outline>>,
}

/// Whether requests should be sent here. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// From now on no new ones should.
    pub(crate) fn drain(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether the server is on its way out.
    pub(crate) fn is_draining(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl AppState {
    /// Whether the caller may do `action` in the project.
    ///
    /// # Errors
    /// 404 for what the caller may not see, 403 for what their role there does not allow.
    pub(crate) async fn authorize(
        &self,
        caller: &Caller,
        project: ProjectId,
        action: Action,
    ) -> Result<(), Problem> {
        let membership = match caller.role {
            Role::Admin => None,
            Role::Member => self.projects.find_role(project, caller.user).await?,
        };
        Ok(authorize(caller, membership, action)?)
    }

    /// The project that a create call lands in: the one it names, or else the caller's default.
    ///
    /// # Errors
    /// As [`AppState::authorize`]; 422 if none is named and the caller has no default.
    pub(crate) async fn project_for(
        &self,
        caller: &Caller,
        named: Option<ProjectId>,
    ) -> Result<ProjectId, Problem> {
        let project = match named {
            Some(project) => project,
            None => self.projects.find_default(caller.user).await?.ok_or_else(|| {
                Problem::invalid_field("project_id", "is missing, and you have no default project")
            })?,
        };
        self.authorize(caller, project, Action::Write).await?;
        Ok(project)
    }
}

/// Whose things a list shows: everybody's to an admin, else those of the projects that the caller is a member of.
pub(crate) fn visible_to(caller: &Caller) -> Option<UserId> {
    match caller.role {
        Role::Admin => None,
        Role::Member => Some(caller.user),
    }
}
