//! Sessions: refresh tokens that are spent and revoked, and access tokens that are revoked.
//!
//! A session is revoked as soon as one of its refresh tokens is. A change of an account's sessions holds the lock of the
//! account's row, so the tokens need none of their own.

use std::time::Duration;

use diesel::dsl::{exists, now, sql};
use diesel::prelude::*;
use diesel::sql_types::{Interval, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_auth::{
    Account, AuditEvent, Charge, NewSession, Origin, RefreshRefusal, RefreshRotation, RefreshTokenState,
    Role, Rotation, SessionEnd, SessionId, TokenId, TokenStatus,
};
use gathering_domain::{Digest, UserId};
use uuid::Uuid;

use crate::accounts::{account, audit, throttle};
use crate::db::clock::{clock_timestamp, interval};
use crate::db::error::DatabaseError;
use crate::db::schema::{refresh_tokens, revoked_tokens, users};

/// Begins a session with its first refresh token. Under the lock of the account's row, so that a change of its activity
/// either meets the session or was there before.
pub(crate) async fn begin(
    conn: &AsyncPgConnection,
    session: &NewSession,
    refund: &[Charge],
    audit: &AuditEvent,
) -> QueryResult<()> {
    account::lock(conn, session.user).await?;
    insert_token(conn, session.refresh_token, session.id, session.user, session.lifetime).await?;
    audit::insert(conn, audit).await?;
    throttle::refund(conn, refund).await
}

/// Spends a refresh token for the next one.
pub(crate) async fn rotate(
    conn: &AsyncPgConnection,
    rotation: &RefreshRotation,
    origin: Origin,
) -> QueryResult<Rotation> {
    let outcome = match find_owner(conn, rotation.spent).await? {
        None => Rotation::Refused { user: None, refusal: RefreshRefusal::Unknown },
        Some(account) => rotate_of(conn, rotation, account).await?,
    };
    audit::insert(conn, &outcome.audit_event(origin)).await?;
    Ok(outcome)
}

/// The account that the token was given to, locked: whatever else happens to its tokens happens before or after.
async fn find_owner(mut conn: &AsyncPgConnection, digest: Digest) -> QueryResult<Option<Account>> {
    let user: Option<Uuid> = refresh_tokens::table
        .find(digest.as_bytes().as_slice())
        .select(refresh_tokens::user_id)
        .first(&mut conn)
        .await
        .optional()?;
    match user {
        None => Ok(None),
        Some(user) => account::lock(conn, user.into()).await,
    }
}

async fn rotate_of(
    mut conn: &AsyncPgConnection,
    rotation: &RefreshRotation,
    account: Account,
) -> QueryResult<Rotation> {
    let spent = refresh_tokens::table.find(rotation.spent.as_bytes().as_slice());
    let (session, is_spent, is_expired): (Uuid, bool, bool) = spent
        .select((
            refresh_tokens::session_id,
            refresh_tokens::spent_at.is_not_null(),
            // The clock of now, not of the transaction's begin, which may lie before the issue.
            refresh_tokens::expires_at.le(clock_timestamp()),
        ))
        .first(&mut conn)
        .await?;
    let is_revoked: bool = diesel::select(is_session_revoked(session)).get_result(&mut conn).await?;
    let state = RefreshTokenState { is_revoked, is_spent, is_expired, account_is_active: account.is_active };
    if let Some(refusal) = state.refusal() {
        if refusal == RefreshRefusal::Reused {
            revoke_session(conn, session, account.id).await?;
        }
        return Ok(Rotation::Refused { user: Some(account.id), refusal });
    }
    diesel::update(spent).set(refresh_tokens::spent_at.eq(now)).execute(&mut conn).await?;
    let session = SessionId::from(session);
    insert_token(conn, rotation.next, session, account.id, rotation.lifetime).await?;
    Ok(Rotation::Rotated { account, session })
}

/// Revokes an access token and the sessions that are named, if they are this user's.
pub(crate) async fn end(
    mut conn: &AsyncPgConnection,
    end: &SessionEnd,
    mut audit: AuditEvent,
) -> QueryResult<()> {
    account::lock(conn, end.user).await?;
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
    revoke_session(conn, end.session.as_uuid(), end.user).await?;
    if let Some(digest) = end.refresh_token {
        let other: Option<Uuid> = refresh_tokens::table
            .find(digest.as_bytes().as_slice())
            .filter(refresh_tokens::user_id.eq(end.user.as_uuid()))
            .select(refresh_tokens::session_id)
            .first(&mut conn)
            .await
            .optional()?;
        if let Some(session) = other.filter(|session| *session != end.session.as_uuid()) {
            revoke_session(conn, session, end.user).await?;
            audit = audit.with_other_session(session.into());
        }
    }
    audit::insert(conn, &audit).await
}

/// Whether the access token or its session was revoked.
pub(crate) async fn is_revoked(
    mut conn: &AsyncPgConnection,
    session: SessionId,
    token: TokenId,
) -> QueryResult<bool> {
    let is_token_revoked = exists(revoked_tokens::table.find(token.as_uuid()));
    diesel::select(is_token_revoked.or(is_session_revoked(session.as_uuid()))).get_result(&mut conn).await
}

/// How an access token stands, in one query: it is asked with every request.
pub(crate) async fn find_token_status(
    mut conn: &AsyncPgConnection,
    user: UserId,
    session: SessionId,
    token: TokenId,
) -> Result<Option<TokenStatus>, DatabaseError> {
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
        Ok(TokenStatus { role, is_active, is_revoked })
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

async fn revoke_session(mut conn: &AsyncPgConnection, session: Uuid, user: UserId) -> QueryResult<()> {
    diesel::update(tokens_of(user.as_uuid()).filter(refresh_tokens::session_id.eq(session)))
        .set(refresh_tokens::revoked_at.eq(now.into_sql::<Timestamptz>().nullable()))
        .execute(&mut conn)
        .await?;
    Ok(())
}

/// Revokes every session of an account; its row must be locked.
pub(crate) async fn revoke_all(mut conn: &AsyncPgConnection, user: UserId) -> QueryResult<()> {
    diesel::update(tokens_of(user.as_uuid()))
        .set(refresh_tokens::revoked_at.eq(now.into_sql::<Timestamptz>().nullable()))
        .execute(&mut conn)
        .await?;
    Ok(())
}

/// Revokes every session of an account but one; its row must be locked.
pub(crate) async fn revoke_others(
    mut conn: &AsyncPgConnection,
    user: UserId,
    keep: SessionId,
) -> QueryResult<()> {
    diesel::update(tokens_of(user.as_uuid()).filter(refresh_tokens::session_id.ne(keep.as_uuid())))
        .set(refresh_tokens::revoked_at.eq(now.into_sql::<Timestamptz>().nullable()))
        .execute(&mut conn)
        .await?;
    Ok(())
}

/// The tokens of an account that are not revoked.
#[diesel::dsl::auto_type]
fn tokens_of(user: Uuid) -> _ {
    refresh_tokens::table
        .filter(refresh_tokens::user_id.eq(user))
        .filter(refresh_tokens::revoked_at.is_null())
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
