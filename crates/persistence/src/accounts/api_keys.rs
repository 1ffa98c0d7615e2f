//! API keys: created, listed, revoked, and asked for with every request that shows one.

use chrono::{DateTime, Utc};
use diesel::dsl::{IntervalDsl, now};
use diesel::prelude::*;
use diesel::sql_types::Timestamptz;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_auth::{ApiKey, AuditEvent, KeyStatus, NewApiKey, Role, Scope, Scopes, StoreError};
use gathering_domain::{ApiKeyId, Digest, UserId};
use uuid::Uuid;

use crate::accounts::idempotency::{self, Claim, Kind};
use crate::accounts::{account, audit, sessions};
use crate::db::clock::clock_timestamp;
use crate::db::error::{Aborted, DatabaseError};
use crate::db::schema::{api_keys, users};

/// The limit is counted under the lock of the account's row, so that two at once do not pass it together; and who ends
/// the session holds the same lock.
pub(crate) async fn create(
    mut conn: &AsyncPgConnection,
    key: &NewApiKey,
    audit: &AuditEvent,
) -> Result<ApiKey, Aborted<StoreError>> {
    let Some(account) = account::lock(conn, key.user).await? else {
        return Err(Aborted::Refused(StoreError::NoAccount));
    };
    if !account.is_active || sessions::is_revoked(conn, key.session, key.token).await? {
        return Err(Aborted::Refused(StoreError::Revoked));
    }
    match idempotency::claim(conn, key.user, Kind::ApiKey, key.once.as_ref(), key.id.as_uuid()).await? {
        Claim::Granted => {}
        Claim::CreatedBefore(id) => return Err(Aborted::Refused(StoreError::KeyCreatedBefore(id.into()))),
        Claim::OtherRequest => return Err(Aborted::Refused(StoreError::OtherRequest)),
    }
    let n_keys: i64 = api_keys::table
        .filter(api_keys::user_id.eq(key.user.as_uuid()).and(api_keys::revoked_at.is_null()))
        .count()
        .get_result(&mut conn)
        .await?;
    if usize::try_from(n_keys).is_ok_and(|n_keys| n_keys >= ApiKey::MAX_PER_ACCOUNT) {
        return Err(Aborted::Refused(StoreError::TooManyKeys));
    }
    let scopes: Vec<Option<&str>> = key.scopes.iter().map(|scope| Some(scope.as_str())).collect();
    let row: Row = diesel::insert_into(api_keys::table)
        .values((
            api_keys::id.eq(key.id.as_uuid()),
            api_keys::user_id.eq(key.user.as_uuid()),
            api_keys::name.eq(&key.name),
            api_keys::secret_hash.eq(key.secret.as_bytes().as_slice()),
            api_keys::scopes.eq(scopes),
            api_keys::expires_at.eq(key.expires_at),
        ))
        .returning(Row::as_returning())
        .get_result(&mut conn)
        .await?;
    audit::insert(conn, audit).await?;
    ApiKey::try_from(row).map_err(|error| Aborted::Refused(error.into()))
}

pub(crate) async fn list(mut conn: &AsyncPgConnection, user: UserId) -> Result<Vec<ApiKey>, DatabaseError> {
    let rows: Vec<Row> = api_keys::table
        .filter(api_keys::user_id.eq(user.as_uuid()).and(api_keys::revoked_at.is_null()))
        .order(api_keys::id.desc())
        .select(Row::as_select())
        .load(&mut conn)
        .await
        .map_err(|error| DatabaseError::query("listing API keys", error))?;
    rows.into_iter().map(ApiKey::try_from).collect()
}

/// Answers whether there was one that was not revoked.
pub(crate) async fn revoke(
    mut conn: &AsyncPgConnection,
    user: UserId,
    key: ApiKeyId,
    audit: &AuditEvent,
) -> QueryResult<bool> {
    let n_rows = diesel::update(api_keys::table.find(key.as_uuid()))
        .filter(api_keys::user_id.eq(user.as_uuid()).and(api_keys::revoked_at.is_null()))
        .set(api_keys::revoked_at.eq(now.into_sql::<Timestamptz>().nullable()))
        .execute(&mut conn)
        .await?;
    if n_rows == 1 {
        audit::insert(conn, audit).await?;
    }
    Ok(n_rows == 1)
}

type StandingRow = (Uuid, Uuid, String, bool, bool, Option<bool>, Vec<Option<String>>, Option<bool>);

/// One query, as it is asked with every request; and at most once a minute a note that the key was used.
pub(crate) async fn find_token_status(
    mut conn: &AsyncPgConnection,
    secret: Digest,
) -> Result<Option<KeyStatus>, DatabaseError> {
    let failed = |error| DatabaseError::query("asking how an API key stands", error);
    let row: Option<StandingRow> = api_keys::table
        .inner_join(users::table)
        .filter(api_keys::secret_hash.eq(secret.as_bytes().as_slice()))
        .select((
            api_keys::id,
            api_keys::user_id,
            users::role,
            users::is_active,
            api_keys::revoked_at.is_not_null(),
            api_keys::expires_at.le(clock_timestamp().nullable()),
            api_keys::scopes,
            api_keys::last_used_at.gt((now.into_sql::<Timestamptz>() - 1.minute()).nullable()),
        ))
        .first(&mut conn)
        .await
        .optional()
        .map_err(failed)?;
    let Some((id, user, role, is_active, is_revoked, is_expired, scopes, is_noted)) = row else {
        return Ok(None);
    };
    let role: Role = role.parse().map_err(|error: gathering_auth::UnknownRole| {
        DatabaseError::corrupt("the role of an account", error)
    })?;
    let is_over = is_revoked || is_expired.unwrap_or(false);
    if is_active && !is_over && !is_noted.unwrap_or(false) {
        note_use(conn, id).await.map_err(failed)?;
    }
    let scopes = parse_scopes(scopes)?;
    Ok(Some(KeyStatus { id: id.into(), user: user.into(), role, is_active, is_over, scopes }))
}

/// Of requests at the same time the first one writes; the others find it done.
async fn note_use(mut conn: &AsyncPgConnection, key: Uuid) -> QueryResult<()> {
    let a_minute_ago = (now.into_sql::<Timestamptz>() - 1.minute()).nullable();
    diesel::update(api_keys::table.find(key))
        .filter(api_keys::last_used_at.is_null().or(api_keys::last_used_at.le(a_minute_ago)))
        .set(api_keys::last_used_at.eq(now.into_sql::<Timestamptz>().nullable()))
        .execute(&mut conn)
        .await?;
    Ok(())
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = api_keys)]
struct Row {
    id: Uuid,
    name: String,
    scopes: Vec<Option<String>>,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    last_used_at: Option<DateTime<Utc>>,
}

impl TryFrom<Row> for ApiKey {
    type Error = DatabaseError;

    fn try_from(row: Row) -> Result<Self, DatabaseError> {
        Ok(Self {
            id: row.id.into(),
            name: row.name,
            scopes: parse_scopes(row.scopes)?,
            created_at: row.created_at,
            expires_at: row.expires_at,
            last_used_at: row.last_used_at,
        })
    }
}

fn parse_scopes(words: Vec<Option<String>>) -> Result<Scopes, DatabaseError> {
    words
        .into_iter()
        .map(|word| word.unwrap_or_default().parse::<Scope>())
        .collect::<Result<Scopes, _>>()
        .map_err(|error| DatabaseError::corrupt("the scopes of an API key", error))
}
