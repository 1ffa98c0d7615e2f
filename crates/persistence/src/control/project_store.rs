//! The port for projects and their members. What its methods do is in the file of their noun.

use async_trait::async_trait;
use gathering_auth::Caller;
use gathering_control::{ControlError, Found, LocalProject, Operator, ProjectStore};
use gathering_domain::ProjectId;

use crate::control::projects;
use crate::control::store::PgControlStore;

#[async_trait]
impl ProjectStore for PgControlStore {
    async fn find_project(
        &self,
        by: &Caller,
        project: ProjectId,
    ) -> Result<Option<Found<ProjectId>>, ControlError> {
        let conn = self.pool.get().await?;
        Ok(projects::find_as(&conn, project, by.user).await?)
    }

    async fn find_default_project(&self, by: &Caller) -> Result<Option<ProjectId>, ControlError> {
        let conn = self.pool.get().await?;
        Ok(projects::find_default(&conn, by.user).await?)
    }

    async fn ensure_local_project(
        &self,
        _by: Operator,
        new: LocalProject,
    ) -> Result<LocalProject, ControlError> {
        let conn = self.pool.get().await?;
        Ok(projects::ensure_local(&conn, new).await?)
    }
}
