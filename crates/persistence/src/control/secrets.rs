//! Secrets: their rows, which hold only what the server encrypted.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Binary, Json, Nullable, Text, Uuid as SqlUuid};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use gathering_auth::{AuditEvent, AuditKind, SealedValue};
use gathering_control::{
    ControlError, OtherSecrets, PlannedSecret, ProjectSecret, ResealedBatch, Scoped, SealRule, SealedSecret,
    SecretStore, SecretUse, StoredSecrets, right,
};
use gathering_domain::{AuditEventId, ProjectId, SecretId, SecretName};
use uuid::Uuid;

use crate::accounts::audit;
use crate::control::project_versions::{Versioned, begin_change};
use crate::control::store::PgControlStore;
use crate::db::clock::clock_timestamp;
use crate::db::error::{Aborted, DatabaseError};
use crate::db::schema::secrets;

diesel::define_sql_function! {
    /// How many bytes it has.
    fn octet_length(bytes: Binary) -> diesel::sql_types::Integer;
}

#[async_trait]
impl SecretStore for PgControlStore {
    async fn set_secret(
        &self,
        project: &Scoped<ProjectId, right::Write>,
        secret: &PlannedSecret,
    ) -> Result<bool, ControlError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let set = conn.transaction(async |conn| set(conn, project, secret).await).await;
        set.map_err(|aborted| aborted.into_error("setting a secret"))
    }

    async fn delete_secret(
        &self,
        project: &Scoped<ProjectId, right::Write>,
        name: &SecretName,
        audit: &AuditEvent,
    ) -> Result<(), ControlError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let deleted = conn.transaction(async |conn| delete(conn, project, name, audit).await).await;
        deleted.map_err(|aborted| aborted.into_error("deleting a secret"))
    }

    async fn list_secrets(
        &self,
        project: &Scoped<ProjectId, right::Read>,
        after: Option<SecretId>,
        limit: usize,
    ) -> Result<Vec<ProjectSecret>, ControlError> {
        let conn = self.pool.get().await?;
        Ok(list(&conn, *project.thing(), after, limit).await?)
    }

    async fn find_secrets(
        &self,
        project: ProjectId,
        known: Option<i64>,
    ) -> Result<StoredSecrets, ControlError> {
        let conn = self.pool.get().await?;
        Ok(find(&conn, project, known).await?)
    }

    async fn note_secret_uses(&self, uses: &[SecretUse]) -> Result<(), ControlError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let noted = conn.transaction(async |conn| note_uses(conn, uses).await).await;
        Ok(noted.map_err(|error| DatabaseError::query("recording the uses of secrets", error))?)
    }

    async fn reseal_secrets(
        &self,
        key_id: &str,
        after: Option<SecretId>,
        limit: usize,
        seal: &SealRule<'_>,
    ) -> Result<ResealedBatch, ControlError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let resealed = conn.transaction(async |conn| reseal(conn, key_id, after, limit, seal).await).await;
        resealed.map_err(|aborted| aborted.into_error("encrypting secrets anew"))
    }
}

async fn set(
    mut conn: &AsyncPgConnection,
    project: &Scoped<ProjectId, right::Write>,
    secret: &PlannedSecret,
) -> Result<bool, Aborted<ControlError>> {
    begin_change(conn, project, Versioned::Secrets).await?;
    let (id, name) = (project.thing().as_uuid(), secret.name.as_str());
    let sizes: Vec<i32> = secrets::table
        .filter(secrets::project_id.eq(id).and(secrets::name.ne(name)))
        .select(octet_length(secrets::sealed))
        .load(&mut conn)
        .await?;
    let size_bytes = sizes.iter().map(|&size| SealedValue::size_of_value(size.unsigned_abs() as usize)).sum();
    secret.check(OtherSecrets { n_secrets: sizes.len(), size_bytes }).map_err(Aborted::Refused)?;
    let SealedValue { key_id, bytes } = &secret.sealed;
    let now: DateTime<Utc> = diesel::select(clock_timestamp()).get_result(&mut conn).await?;
    let value = (secrets::key_id.eq(key_id), secrets::sealed.eq(bytes), secrets::updated_at.eq(now));
    let of_name = secrets::table.filter(secrets::project_id.eq(id).and(secrets::name.eq(name)));
    let is_new = diesel::update(of_name).set(value).execute(&mut conn).await? == 0;
    if is_new {
        diesel::insert_into(secrets::table)
            .values((
                secrets::id.eq(secret.id.as_uuid()),
                secrets::project_id.eq(id),
                secrets::name.eq(name),
                secrets::created_at.eq(now),
                value,
            ))
            .execute(&mut conn)
            .await?;
    }
    audit::insert(conn, &secret.audit).await?;
    Ok(is_new)
}

async fn delete(
    mut conn: &AsyncPgConnection,
    project: &Scoped<ProjectId, right::Write>,
    name: &SecretName,
    event: &AuditEvent,
) -> Result<(), Aborted<ControlError>> {
    begin_change(conn, project, Versioned::Secrets).await?;
    let of_project = secrets::project_id.eq(project.thing().as_uuid());
    let row = secrets::table.filter(of_project.and(secrets::name.eq(name.as_str())));
    if diesel::delete(row).execute(&mut conn).await? == 0 {
        return Err(Aborted::Refused(ControlError::NotFound));
    }
    Ok(audit::insert(conn, event).await?)
}

async fn list(
    mut conn: &AsyncPgConnection,
    project: ProjectId,
    after: Option<SecretId>,
    limit: usize,
) -> Result<Vec<ProjectSecret>, DatabaseError> {
    let rows: Vec<Row> = secrets::table
        .filter(secrets::project_id.eq(project.as_uuid()))
        .filter(secrets::id.gt(after.map_or(Uuid::nil(), SecretId::as_uuid)))
        .order(secrets::id)
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .select(Row::as_select())
        .load(&mut conn)
        .await
        .map_err(|error| DatabaseError::query("listing secrets", error))?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// One statement, so that the version is that of the secrets.
async fn find(
    mut conn: &AsyncPgConnection,
    project: ProjectId,
    known: Option<i64>,
) -> Result<StoredSecrets, DatabaseError> {
    let rows: Vec<Found> = diesel::sql_query(
        "SELECT projects.secrets_version AS version, secrets.name, secrets.key_id, secrets.sealed
         FROM projects LEFT JOIN secrets
             ON secrets.project_id = projects.id AND projects.secrets_version IS DISTINCT FROM $2
         WHERE projects.id = $1",
    )
    .bind::<SqlUuid, _>(project.as_uuid())
    .bind::<Nullable<BigInt>, _>(known)
    .load(&mut conn)
    .await
    .map_err(|error| DatabaseError::query("reading the secrets of a project", error))?;
    let version = rows.as_slice().first().map(|row| row.version).unwrap_or_default();
    if known == Some(version) {
        return Ok(StoredSecrets { version, secrets: None });
    }
    let stored = rows.into_iter().filter_map(|row| Some((row.name?, row.key_id?, row.sealed?)));
    let secrets = stored.map(|(name, key_id, bytes)| Ok((read_name(name)?, SealedValue { key_id, bytes })));
    Ok(StoredSecrets { version, secrets: Some(secrets.collect::<Result<_, DatabaseError>>()?) })
}

async fn note_uses(mut conn: &AsyncPgConnection, uses: &[SecretUse]) -> QueryResult<()> {
    // In one order, so that two instances that note the same secrets do not wait for each other in a circle.
    diesel::sql_query(
        "UPDATE secrets SET last_used_at = clock_timestamp() WHERE id IN (
             SELECT id FROM secrets WHERE (project_id, name) IN (SELECT * FROM unnest($1, $2))
             ORDER BY id FOR NO KEY UPDATE)",
    )
    .bind::<Array<SqlUuid>, _>(uses.iter().map(|of_run| of_run.project.as_uuid()).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(uses.iter().map(|of_run| of_run.name.as_str()).collect::<Vec<_>>())
    .execute(&mut conn)
    .await?;
    diesel::sql_query(
        "INSERT INTO audit_events (id, type, detail) SELECT new.id, $1, new.detail FROM unnest($2, $3) AS new (id, detail)",
    )
    .bind::<Text, _>(AuditKind::SecretUsed.as_str())
    .bind::<Array<SqlUuid>, _>(uses.iter().map(|_| AuditEventId::new().as_uuid()).collect::<Vec<_>>())
    .bind::<Array<Json>, _>(uses.iter().map(|of_run| of_run.audit_event().detail).collect::<Vec<_>>())
    .execute(&mut conn)
    .await?;
    Ok(())
}

async fn reseal(
    mut conn: &AsyncPgConnection,
    key_id: &str,
    after: Option<SecretId>,
    limit: usize,
    seal: &SealRule<'_>,
) -> Result<ResealedBatch, Aborted<ControlError>> {
    let rows: Vec<SealedRow> = secrets::table
        .filter(secrets::key_id.ne(key_id))
        .filter(secrets::id.gt(after.map_or(Uuid::nil(), SecretId::as_uuid)))
        .order(secrets::id)
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .select(SealedRow::as_select())
        .for_no_key_update()
        .skip_locked()
        .load(&mut conn)
        .await?;
    let mut batch = ResealedBatch::default();
    for row in rows {
        let secret = SealedSecret {
            id: row.id.into(),
            project: row.project_id.into(),
            name: read_name(row.name).map_err(|error| Aborted::Refused(error.into()))?,
            sealed: SealedValue { key_id: row.key_id, bytes: row.sealed },
        };
        batch.last = Some(secret.id);
        let Some(SealedValue { key_id, bytes }) = seal(&secret) else { continue };
        let value = (secrets::key_id.eq(key_id), secrets::sealed.eq(bytes));
        diesel::update(secrets::table.find(row.id)).set(value).execute(&mut conn).await?;
        batch.n_resealed += 1;
    }
    Ok(batch)
}

fn read_name(name: String) -> Result<SecretName, DatabaseError> {
    name.try_into().map_err(|error| DatabaseError::corrupt("the name of a secret", error))
}

/// What [`find`] reads.
#[derive(QueryableByName)]
struct Found {
    #[diesel(sql_type = BigInt)]
    version: i64,
    #[diesel(sql_type = Nullable<Text>)]
    name: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    key_id: Option<String>,
    #[diesel(sql_type = Nullable<Binary>)]
    sealed: Option<Vec<u8>>,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = secrets)]
struct SealedRow {
    id: Uuid,
    project_id: Uuid,
    name: String,
    key_id: String,
    sealed: Vec<u8>,
}

/// What is shown of a secret.
#[derive(Queryable, Selectable)]
#[diesel(table_name = secrets)]
struct Row {
    id: Uuid,
    name: String,
    key_id: String,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    last_used_at: Option<DateTime<Utc>>,
}

impl TryFrom<Row> for ProjectSecret {
    type Error = DatabaseError;

    fn try_from(row: Row) -> Result<Self, DatabaseError> {
        let Row { id, name, key_id, created_at, updated_at, last_used_at } = row;
        Ok(Self { id: id.into(), name: read_name(name)?, key_id, created_at, updated_at, last_used_at })
    }
}
