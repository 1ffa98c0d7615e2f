//! The secrets of hooks: in their rows, encrypted by the server. Those that an earlier version has stored are not, until
//! they are encrypted anew.

use diesel::prelude::*;
use diesel::sql_types::Bool;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_auth::SealedValue;
use gathering_control::{ControlError, HookSealRule, HookSecret, HookSecrets, ResealedHooks};
use gathering_domain::{HookId, Secret};
use uuid::Uuid;

use crate::db::error::Aborted;
use crate::db::schema::hooks;

/// The columns of the secrets. Of the two kinds a row has one; what the server writes is encrypted.
#[derive(Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = hooks)]
pub(crate) struct SecretColumns {
    secrets: Vec<Option<String>>,
    sealed_secrets: Vec<Option<Vec<u8>>>,
    secret_key_ids: Vec<Option<String>>,
}

impl SecretColumns {
    pub(crate) fn of(secrets: Vec<SealedValue>) -> Self {
        let (sealed_secrets, secret_key_ids) =
            secrets.into_iter().map(|SealedValue { key_id, bytes }| (Some(bytes), Some(key_id))).unzip();
        Self { secrets: Vec::new(), sealed_secrets, secret_key_ids }
    }

    /// The secrets, the latest first.
    pub(crate) fn into_secrets(self) -> Vec<HookSecret> {
        let open = self.secrets.into_iter().flatten().map(|secret| HookSecret::Open(Secret::from(secret)));
        let keyed = self.secret_key_ids.into_iter().flatten().zip(self.sealed_secrets.into_iter().flatten());
        let sealed = keyed.map(|(key_id, bytes)| HookSecret::Sealed(SealedValue { key_id, bytes }));
        open.chain(sealed).collect()
    }
}

/// As [`reseal_hooks`](gathering_control::HookStore::reseal_hooks) says. Hooks are few: their table is read by its primary
/// key.
pub(crate) async fn reseal(
    mut conn: &AsyncPgConnection,
    key_id: &str,
    after: Option<HookId>,
    limit: usize,
    seal: &HookSealRule<'_>,
) -> Result<ResealedHooks, Aborted<ControlError>> {
    let of_other_keys = diesel::dsl::sql::<Bool>(
        "(cardinality(secrets) > 0 OR EXISTS (SELECT FROM unnest(secret_key_ids) AS k (id) WHERE id <> ",
    )
    .bind::<diesel::sql_types::Text, _>(key_id)
    .sql("))");
    let rows: Vec<(Uuid, Uuid, SecretColumns)> = hooks::table
        .filter(hooks::id.gt(after.map_or(Uuid::nil(), HookId::as_uuid)))
        .filter(of_other_keys)
        .order(hooks::id)
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .select((hooks::id, hooks::project_id, SecretColumns::as_select()))
        .for_no_key_update()
        .skip_locked()
        .load(&mut conn)
        .await?;
    let mut batch = ResealedHooks::default();
    for (id, project, columns) in rows {
        let secrets =
            HookSecrets { hook: id.into(), project: project.into(), secrets: columns.into_secrets() };
        batch.last = Some(secrets.hook);
        let Some(sealed) = seal(&secrets) else { continue };
        diesel::update(hooks::table.find(id)).set(SecretColumns::of(sealed)).execute(&mut conn).await?;
        batch.n_resealed += 1;
    }
    Ok(batch)
}
