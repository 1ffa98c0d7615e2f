//! The port for projects and their members. What its methods do is in the files of these nouns.

use async_trait::async_trait;
use diesel_async::{AsyncConnection, AsyncPgConnection};
use gathering_auth::Caller;
use gathering_control::{
    ChangeProject, ControlError, Creation, FilesRoot, Found, LocalProject, Member, MemberChange, Operator,
    PlannedProject, Project, ProjectStore, Scoped, right,
};
use gathering_domain::{ProjectId, UserId};

use crate::control::deletions::{self, Hidden};
use crate::control::store::PgControlStore;
use crate::control::{members, projects};
use crate::db::error::{Aborted, Refusal, violated};

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

    async fn find_whole_project(
        &self,
        by: &Caller,
        project: ProjectId,
    ) -> Result<Option<Found<Project>>, ControlError> {
        let conn = self.pool.get().await?;
        Ok(projects::find_whole_as(&conn, project, by.user).await?)
    }

    async fn list_projects(
        &self,
        by: &Caller,
        of: Option<UserId>,
        before: Option<ProjectId>,
        limit: usize,
    ) -> Result<Vec<Found<Project>>, ControlError> {
        let conn = self.pool.get().await?;
        Ok(projects::list(&conn, by.user, of, before, limit).await?)
    }

    async fn find_files_root(&self, project: ProjectId) -> Result<Option<FilesRoot>, ControlError> {
        let conn = self.pool.get().await?;
        Ok(projects::find_files_root(&conn, project).await?)
    }

    async fn create_project(
        &self,
        by: &Caller,
        project: &PlannedProject,
    ) -> Result<Creation<Found<Project>>, ControlError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let created = conn.transaction(async |conn| projects::create(conn, project, by.user).await).await;
        created.map_err(|aborted| match aborted {
            Aborted::Query(error) if violated(&error, Refusal::ForeignKey).is_some() => ControlError::Revoked,
            aborted => aborted.into_error("creating a project"),
        })
    }

    async fn change_project(
        &self,
        project: &Scoped<ProjectId, right::Manage>,
        change: &ChangeProject,
    ) -> Result<Project, ControlError> {
        let conn = self.pool.get().await?;
        projects::change(&conn, *project.thing(), change).await?.ok_or(ControlError::NotFound)
    }

    /// Hides the project, and removes what it can of its rows; `finish_deletions` completes that.
    async fn delete_project(&self, project: &Scoped<ProjectId, right::Manage>) -> Result<(), ControlError> {
        {
            let mut conn = self.pool.get().await?;
            let conn: &mut AsyncPgConnection = &mut conn;
            let hidden = conn.transaction(async |conn| projects::hide(conn, project).await).await;
            hidden.map_err(|aborted| aborted.into_error("deleting a project"))?;
        }
        deletions::begin(&self.pool, Hidden::Project(project.as_uuid())).await;
        Ok(())
    }

    async fn list_members(
        &self,
        project: ProjectId,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Vec<Member>, ControlError> {
        let conn = self.pool.get().await?;
        Ok(members::list(&conn, project, after, limit).await?)
    }

    async fn change_member(&self, by: &Caller, change: &MemberChange) -> Result<(), ControlError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let changed = conn.transaction(async |conn| members::change(conn, by, change).await).await;
        changed.map_err(|aborted| match aborted {
            Aborted::Query(error) if violated(&error, Refusal::ForeignKey).is_some() => {
                ControlError::NotFound
            }
            aborted => aborted.into_error("changing a member"),
        })
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
