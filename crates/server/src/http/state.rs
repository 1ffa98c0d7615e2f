//! What handlers reach: the functions they call, and whether this instance takes requests.

use std::sync::Arc;

use gathering_auth::{Auth, Caller};
use gathering_control::{Control, right};
use gathering_dag_engine::Engine;
use gathering_domain::ProjectId;
use gathering_persistence::{Budgets, Pipelines, Pool, Projects, Runs};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

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
    /// What may be done with projects, pipelines and runs.
    pub(crate) control: Control,
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
    /// The project that a create call lands in: the one it names, or else the caller's default.
    ///
    /// # Errors
    /// 404 or 403 as for every project; 422 if none is named and the caller has no default.
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
        Ok(self.control.projects.find::<right::Write>(caller, project).await?.into_thing())
    }
}
