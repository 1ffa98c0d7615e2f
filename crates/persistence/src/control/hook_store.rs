//! The port for hooks. What its methods do is in the files of their noun.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use diesel_async::{AsyncConnection, AsyncPgConnection};
use gathering_auth::{AuditEvent, Caller};
use gathering_control::{
    ControlError, Creation, Delivered, Found, Hook, HookChangeRule, HookDelivery, HookSealRule, HookStore,
    KnownHook, NewHook, PlannedDelivery, Refusal, ResealedHooks, Scoped, StoredCall, right,
};
use gathering_domain::{DeliveryId, Digest, HookId, ProjectId, UserId};

use crate::control::hooks::{self, deliver, ledger, secrets};
use crate::control::store::PgControlStore;
use crate::db::error::DatabaseError;

#[async_trait]
impl HookStore for PgControlStore {
    async fn create_hook(
        &self,
        project: &Scoped<ProjectId, right::Write>,
        new: &NewHook,
    ) -> Result<Creation<Hook>, ControlError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let (project, by) = (*project.thing(), project.user());
        let created = conn.transaction(async |conn| hooks::create(conn, project, by, new).await).await;
        created.map_err(|aborted| aborted.into_error("creating a hook"))
    }

    async fn find_hook(&self, by: &Caller, hook: HookId) -> Result<Option<Found<Hook>>, ControlError> {
        let conn = self.pool.get().await?;
        Ok(hooks::find_as(&conn, hook, by.user).await?)
    }

    async fn list_hooks(
        &self,
        visible_to: Option<UserId>,
        project: Option<ProjectId>,
        before: Option<HookId>,
        limit: usize,
    ) -> Result<Vec<Hook>, ControlError> {
        let conn = self.pool.get().await?;
        Ok(hooks::list(&conn, visible_to, project, before, limit).await?)
    }

    async fn change_hook(
        &self,
        hook: &Scoped<Hook, right::Write>,
        rule: &HookChangeRule<'_>,
    ) -> Result<Hook, ControlError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let changed = conn.transaction(async |conn| hooks::change(conn, hook.id, rule).await).await;
        changed.map_err(|aborted| aborted.into_error("changing a hook"))
    }

    async fn delete_hook(
        &self,
        hook: &Scoped<Hook, right::Write>,
        audit: &AuditEvent,
    ) -> Result<(), ControlError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let deleted = conn.transaction(async |conn| hooks::delete(conn, hook.id, audit).await).await;
        deleted.map_err(|aborted| aborted.into_error("deleting a hook"))
    }

    async fn find_called_hook(
        &self,
        token: &Digest,
    ) -> Result<(Option<KnownHook>, DateTime<Utc>), ControlError> {
        let conn = self.pool.get().await?;
        Ok(hooks::find_called(&conn, token).await?)
    }

    async fn reseal_hooks(
        &self,
        key_id: &str,
        after: Option<HookId>,
        limit: usize,
        seal: &HookSealRule<'_>,
    ) -> Result<ResealedHooks, ControlError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let resealed =
            conn.transaction(async |conn| secrets::reseal(conn, key_id, after, limit, seal).await).await;
        resealed.map_err(|aborted| aborted.into_error("encrypting the secrets of hooks anew"))
    }

    async fn deliver(&self, delivery: &PlannedDelivery) -> Result<Delivered, ControlError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let delivered = conn.transaction(async |conn| deliver::deliver(conn, delivery).await).await;
        let (delivered, wake) =
            delivered.map_err(|aborted| aborted.into_error("entering a delivery of a hook"))?;
        if let Some(wake) = wake {
            self.wakes.wake(wake);
        }
        Ok(delivered)
    }

    async fn note_refusals(&self, refusals: &[Refusal]) -> Result<(), ControlError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let noted = conn.transaction(async |conn| ledger::refuse(conn, refusals).await).await;
        Ok(noted.map_err(|error| DatabaseError::query("entering refused calls of hooks", error))?)
    }

    async fn list_deliveries(
        &self,
        hook: &Scoped<Hook, right::Read>,
        before: Option<DeliveryId>,
        limit: usize,
    ) -> Result<Vec<HookDelivery>, ControlError> {
        let conn = self.pool.get().await?;
        Ok(ledger::list(&conn, hook.id, before, limit).await?)
    }

    async fn find_call(
        &self,
        hook: &Scoped<Hook, right::Run>,
        delivery: DeliveryId,
    ) -> Result<Option<StoredCall>, ControlError> {
        let conn = self.pool.get().await?;
        Ok(ledger::find_call(&conn, hook.id, delivery).await?)
    }
}
