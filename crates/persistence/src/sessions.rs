//! Sessions: refresh tokens that are spent and revoked, and access tokens that are revoked.
//!
//! A session is revoked as soon as one of its refresh tokens is: a token that is inserted while its session ends is
//! then dead from birth.

use diesel::dsl::{exists, now, sql};
use diesel::prelude::*;
use diesel::sql_types::{Interval, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_auth::{
    AuditEvent, NewSession, Origin, RefreshRefusal, RefreshRotation, RefreshTokenState, Role, Rotation,
    SessionEnd, SessionId, Standing, TokenId,
};
use gathering_domain::{Digest, UserId};
use std::time::Duration;
use uuid::Uuid;

use crate::accounts;
use crate::audit;
use crate::error::DatabaseError;
use crate::schema::{refresh_tokens, revoked_tokens, users};

/// Begins a session with its first refresh token.
pub(crate) async fn begin(
    conn: &AsyncPgConnection,
    session: &NewSession,
    audit: &AuditEvent,
) -> QueryResult<()> {
    insert_token(conn, session.refresh_token, session.id, session.user, session.lifetime).await?;
    audit::insert(conn, audit).await
}

/// Spends a refresh token for the next one, under a lock on its row.
pub(crate) async fn rotate(
    conn: &AsyncPgConnection,
    rotation: &RefreshRotation,
    origin: Origin,
) -> QueryResult<Rotation> {
    let outcome = match find_token(conn, rotation.spent).await? {
        None => Rotation::Refused { user: None, refusal: RefreshRefusal::Unknown },
        Some(token) => rotate_found(conn, rotation, token).await?,
    };
    audit::insert(conn, &outcome.audit_event(origin)).await?;
    Ok(outcome)
}

struct Token {
    session: Uuid,
    user: Uuid,
    is_spent: bool,
    is_expired: bool,
}

async fn find_token(mut conn: &AsyncPgConnection, digest: Digest) -> QueryResult<Option<Token>> {
    let row: Option<(Uuid, Uuid, bool, bool)> = refresh_tokens::table
        .find(digest.as_bytes().as_slice())
        .select((
            refresh_tokens::session_id,
            refresh_tokens::user_id,
            refresh_tokens::spent_at.is_not_null(),
            // The clock of now, not of the transaction's begin, which may lie before the issue.
            refresh_tokens::expires_at.le(sql::<Timestamptz>("clock_timestamp()")),
        ))
        .for_update()
        .first(&mut conn)
        .await
        .optional()?;
    Ok(row.map(|(session, user, is_spent, is_expired)| Token { session, user, is_spent, is_expired }))
}

async fn rotate_found(
    mut conn: &AsyncPgConnection,
    rotation: &RefreshRotation,
    token: Token,
) -> QueryResult<Rotation> {
    let is_revoked: bool = diesel::select(is_session_revoked(token.session)).get_result(&mut conn).await?;
    let account: accounts::Row =
        users::table.find(token.user).select(accounts::Row::as_select()).first(&mut conn).await?;
    let account = gathering_auth::Account::try_from(account)
        .map_err(|error| diesel::result::Error::DeserializationError(error.into()))?;
    let state = RefreshTokenState {
        is_revoked,
        is_spent: token.is_spent,
        is_expired: token.is_expired,
        account_is_active: account.is_active,
    };
    if let Some(refusal) = state.refusal() {
        if refusal == RefreshRefusal::Reused {
            revoke_session(conn, token.session, token.user).await?;
        }
        return Ok(Rotation::Refused { user: Some(account.id), refusal });
    }
    diesel::update(refresh_tokens::table.find(rotation.spent.as_bytes().as_slice()))
        .set(refresh_tokens::spent_at.eq(now))
        .execute(&mut conn)
        .await?;
    let session = SessionId::from(token.session);
    insert_token(conn, rotation.next, session, account.id, rotation.lifetime).await?;
    Ok(Rotation::Rotated { account, session })
}

/// Revokes an access token and the sessions that are named, if they are this user's.
pub(crate) async fn end(
    mut conn: &AsyncPgConnection,
    end: &SessionEnd,
    audit: &AuditEvent,
) -> QueryResult<()> {
    diesel::insert_into(revoked_tokens::table)
        .values((
            revoked_tokens::token_id.eq(end.token.id.as_uuid()),
            revoked_tokens::user_id.eq(end.user.as_uuid()),
            revoked_tokens::expires_at
                .eq(sql::<Timestamptz>("now() + ").bind::<Interval, _>(interval(end.token.remaining))),
        ))
        .on_conflict_do_nothing()
        .execute(&mut conn)
        .await?;
    revoke_session(conn, end.session.as_uuid(), end.user.as_uuid()).await?;
    if let Some(digest) = end.refresh_token {
        let other: Option<Uuid> = refresh_tokens::table
            .find(digest.as_bytes().as_slice())
            .filter(refresh_tokens::user_id.eq(end.user.as_uuid()))
            .select(refresh_tokens::session_id)
            .first(&mut conn)
            .await
            .optional()?;
        if let Some(session) = other {
            revoke_session(conn, session, end.user.as_uuid()).await?;
        }
    }
    audit::insert(conn, audit).await
}

/// How an access token stands, in one query: it is asked with every request.
pub(crate) async fn find_standing(
    mut conn: &AsyncPgConnection,
    user: UserId,
    session: SessionId,
    token: TokenId,
) -> Result<Option<Standing>, DatabaseError> {
    let is_token_revoked = exists(revoked_tokens::table.find(token.as_uuid()));
    let row: Option<(String, bool, bool)> = users::table
        .find(user.as_uuid())
        .select((users::role, users::is_active, is_token_revoked.or(is_session_revoked(session.as_uuid()))))
        .first(&mut conn)
        .await
        .optional()
        .map_err(|error| DatabaseError::query("asking how a token stands", error))?;
    row.map(|(role, is_active, is_revoked)| {
        let role: Role = role.parse().map_err(|error: gathering_auth::UnknownRole| {
            DatabaseError::corrupt("the role of an account", error)
        })?;
        Ok(Standing { role, is_active, is_revoked })
    })
    .transpose()
}

#[diesel::dsl::auto_type]
fn is_session_revoked(session: Uuid) -> _ {
    exists(
        refresh_tokens::table
            .filter(refresh_tokens::session_id.eq(session))
            .filter(refresh_tokens::revoked_at.is_not_null()),
    )
}

/// Locks the rows in the order of their hashes, as everybody does.
async fn revoke_session(mut conn: &AsyncPgConnection, session: Uuid, user: Uuid) -> QueryResult<()> {
    let hashes: Vec<Vec<u8>> = refresh_tokens::table
        .filter(refresh_tokens::session_id.eq(session).and(refresh_tokens::user_id.eq(user)))
        .order(refresh_tokens::token_hash)
        .select(refresh_tokens::token_hash)
        .for_update()
        .load(&mut conn)
        .await?;
    diesel::update(refresh_tokens::table.filter(refresh_tokens::token_hash.eq_any(hashes)))
        .filter(refresh_tokens::revoked_at.is_null())
        .set(refresh_tokens::revoked_at.eq(now.into_sql::<Timestamptz>().nullable()))
        .execute(&mut conn)
        .await?;
    Ok(())
}

async fn insert_token(
    mut conn: &AsyncPgConnection,
    digest: Digest,
    session: SessionId,
    user: UserId,
    lifetime: Duration,
) -> QueryResult<()> {
    diesel::insert_into(refresh_tokens::table)
        .values((
            refresh_tokens::token_hash.eq(digest.as_bytes().as_slice()),
            refresh_tokens::session_id.eq(session.as_uuid()),
            refresh_tokens::user_id.eq(user.as_uuid()),
            refresh_tokens::expires_at
                .eq(sql::<Timestamptz>("now() + ").bind::<Interval, _>(interval(lifetime))),
        ))
        .execute(&mut conn)
        .await?;
    Ok(())
}

/// A lifetime as PostgreSQL adds it; ten years at most.
fn interval(lifetime: Duration) -> diesel::data_types::PgInterval {
    const LONGEST: Duration = Duration::from_secs(10 * 366 * 24 * 3600);
    let micros = i64::try_from(lifetime.min(LONGEST).as_micros()).unwrap_or(i64::MAX);
    diesel::data_types::PgInterval::from_microseconds(micros)
}
