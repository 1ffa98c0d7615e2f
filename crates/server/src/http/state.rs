//! What handlers reach: the functions they call, and whether this instance takes requests.

use std::sync::Arc;

use actix_web::web::{self, ServiceConfig};
use gathering_auth::{Auth, Caller};
use gathering_control::Control;
use gathering_control::right::Right;
use gathering_dag_engine::Engine;
use gathering_domain::ProjectId;
use gathering_persistence::{Budgets, Pool, Runs};
use tokio::sync::watch;

use crate::http::api::stream::Streams;
use crate::instance::Identity;
use crate::workspaces::Workspaces;
use gathering_edge::problem::ProblemDetails;
use gathering_edge::readiness::Readiness;

/// The identity of this process, which changes when it loses its liveness lock.
pub(crate) type Identities = watch::Receiver<Identity>;

/// What every handler may reach.
pub(crate) struct AppState {
    pub(crate) auth: Arc<Auth>,
    pub(crate) pool: Pool,
    /// What may be done with projects, pipelines and runs.
    pub(crate) control: Control,
    pub(crate) runs: Runs,
    pub(crate) budgets: Budgets,
    pub(crate) engine: Engine,
    pub(crate) identities: Identities,
    pub(crate) readiness: Readiness,
    pub(crate) streams: Streams,
    pub(crate) workspaces: Workspaces,
    /// The largest file that is taken, in bytes.
    pub(crate) max_file_bytes: u64,
}

impl AppState {
    /// The project that this text names, if the caller may do `R` in it.
    ///
    /// # Errors
    /// 404 for what is absent, invisible or no id at all; 403 for what the caller's role does not allow.
    pub(crate) async fn project<R: Right>(
        &self,
        caller: &Caller,
        id: &str,
    ) -> Result<ProjectId, ProblemDetails> {
        let id: ProjectId = id.parse().map_err(|_| ProblemDetails::not_found())?;
        Ok(self.control.projects.find::<R>(caller, id).await?.into_thing())
    }
}

/// Gives the handlers what they ask for.
pub(crate) fn services(state: AppState) -> impl Fn(&mut ServiceConfig) + Clone {
    let state = web::Data::new(state);
    let auth: web::Data<Auth> = web::Data::from(Arc::clone(&state.auth));
    let pool = web::Data::new(state.pool.clone());
    let pipelines = web::Data::new(state.control.pipelines.clone());
    let graphs = web::Data::new(state.control.graphs.clone());
    let identities = web::Data::new(state.identities.clone());
    let projects = web::Data::new(state.control.projects.clone());
    let workspaces = web::Data::new(state.workspaces.clone());
    move |app| {
        app.app_data(state.clone())
            .app_data(auth.clone())
            .app_data(pool.clone())
            .app_data(projects.clone())
            .app_data(workspaces.clone())
            .app_data(pipelines.clone())
            .app_data(graphs.clone())
            .app_data(identities.clone());
    }
}
