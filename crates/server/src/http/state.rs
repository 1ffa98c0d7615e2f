//! What handlers reach: the functions they call, and whether this instance takes requests.

use std::sync::Arc;

use gathering_auth::{Action, Auth, Caller, Denied, Role, authorize};
use gathering_cache::BoundedCache;
use gathering_dag_engine::Engine;
use gathering_domain::{Digest, ProjectId, UserId};
use gathering_persistence::{Budgets, Pipelines, Pool, Projects, Runs};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::http::api::graph_summary::GraphSummary;
use crate::http::api::stream::Streams;
use crate::http::edge::metrics::Metrics;
use crate::http::edge::problem::Problem;
use crate::instance::Identity;
use crate::workspaces::Workspaces;

/// The identity of this process, which changes when it loses its liveness lock.
pub(crate) type Identities = watch::Receiver<Identity>;

/// What every handler may reach.
pub(crate) struct AppState {
    pub(crate) auth: Arc<Auth>,
    pub(crate) pool: Pool,
    pub(crate) projects: Projects,
    pub(crate) pipelines: Pipelines,
    pub(crate) runs: Runs,
    pub(crate) budgets: Budgets,
    pub(crate) engine: Engine,
    pub(crate) identities: Identities,
    pub(crate) readiness: Readiness,
    pub(crate) streams: Streams,
    pub(crate) metrics: Metrics,
    pub(crate) workspaces: Workspaces,
    /// The largest file that is taken, in bytes.
    pub(crate) max_file_bytes: u64,
    /// What is shown of graphs, by digest; a graph never changes.
    pub(crate) graph_summaries: BoundedCache<Digest, Arc<GraphSummary>>,
}

/// Whether requests should be sent here. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Readiness(CancellationToken);

impl Readiness {
    /// From now on no new ones should.
    pub(crate) fn drain(&self) {
        self.0.cancel();
    }

    /// Whether the server is on its way out.
    pub(crate) fn is_draining(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Ends when the server is on its way out.
    pub(crate) async fn drained(&self) {
        self.0.cancelled().await;
    }
}

impl AppState {
    /// Whether the caller may do `action` in the project.
    ///
    /// # Errors
    /// 404 for what is absent or what the caller may not see, 403 for what their role there, or their API key, does
    /// not allow.
    pub(crate) async fn authorize(
        &self,
        caller: &Caller,
        project: ProjectId,
        action: Action,
    ) -> Result<(), Problem> {
        let membership = self.projects.find_access(project, caller.user).await?;
        let membership = membership.ok_or_else(Problem::not_found)?;
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

/// Whether what the caller showed is enough for `action`, where no project's members are asked: a session always is.
///
/// # Errors
/// 403 for an API key without the scope.
pub(crate) fn authorize_credential(caller: &Caller, action: Action) -> Result<(), Problem> {
    if caller.credential.allows(action) { Ok(()) } else { Err(Denied::Forbidden.into()) }
}

/// Whose things a list shows: everybody's to an admin, else those of the projects that the caller is a member of.
///
/// # Errors
/// 403 for an API key that may not look.
pub(crate) fn visible_to(caller: &Caller) -> Result<Option<UserId>, Problem> {
    authorize_credential(caller, Action::Read)?;
    Ok(match caller.role {
        Role::Admin => None,
        Role::Member => Some(caller.user),
    })
}

#[cfg(test)]
mod tests {
    use gathering_auth::{Credential, Origin, Scope, Scopes};
    use gathering_domain::ApiKeyId;

    use super::*;

    fn with_key(role: Role, scopes: &[Scope]) -> Caller {
        let scopes: Scopes = scopes.iter().copied().collect();
        let credential = Credential::ApiKey { key: ApiKeyId::new(), scopes };
        Caller { user: UserId::new(), role, credential, origin: Origin::default() }
    }

    #[test]
    fn a_list_shows_an_api_key_no_more_than_its_scopes_and_its_owner_may_see() {
        let member = with_key(Role::Member, &[Scope::Read]);
        assert_eq!(visible_to(&member).unwrap(), Some(member.user));
        assert_eq!(visible_to(&with_key(Role::Admin, &[Scope::Admin])).unwrap(), None);
        assert_eq!(visible_to(&with_key(Role::Member, &[])).unwrap_err().status(), 403);
        assert_eq!(visible_to(&with_key(Role::Admin, &[])).unwrap_err().status(), 403);
    }

    #[test]
    fn an_api_key_needs_the_scope_of_what_it_does() {
        let manager = with_key(Role::Member, &[Scope::Manage]);
        assert!(authorize_credential(&manager, Action::Manage).is_ok());
        assert!(authorize_credential(&manager, Action::Read).is_ok());
        assert_eq!(authorize_credential(&manager, Action::Write).unwrap_err().status(), 403);
    }
}
