//! Idempotency keys: each names one thing that a request of an account created.
//!
//! A transaction that creates something claims the request's key before it writes anything else, and writes only if
//! the claim is [`Claim::Granted`]:
//!
//! ```ignore
//! let claim = idempotency::claim(conn, user, Kind::Pipeline, once, id.as_uuid()).await?;
//! match claim {
//!     Claim::Granted => Creation::Created(insert(conn, id, new).await?),
//!     // It is loaded as it stands now; `None`: it has been deleted since.
//!     Claim::CreatedBefore(id) => find(conn, id).await?.map_or(Creation::Deleted, Creation::Repeated),
//!     Claim::OtherRequest => Creation::OtherRequest,
//! }
//! ```
//!
//! If the transaction fails, its claim is rolled back with everything else.

use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_domain::{Once, UserId};
use uuid::Uuid;

use crate::db::schema::idempotency_keys;

/// What a request creates; the column `kind` lists them too. One key can name one thing of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Agent,
    ApiKey,
    Hook,
    Pipeline,
    Project,
    Schedule,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Kind::Agent => "agent",
            Kind::ApiKey => "api_key",
            Kind::Hook => "hook",
            Kind::Pipeline => "pipeline",
            Kind::Project => "project",
            Kind::Schedule => "schedule",
        }
    }
}

/// What a request with an idempotency key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// To create the thing with the id that was given.
    Granted,
    /// Nothing: the same request created the thing with this id before.
    CreatedBefore(Uuid),
    /// Nothing: another request used the key.
    OtherRequest,
}

/// Claims the request's key for the thing with this id, until the end of the transaction; a request without a key is
/// granted. Of several with one key at once, the first is granted, and the others wait here for its end.
pub(crate) async fn claim(
    mut conn: &AsyncPgConnection,
    user: UserId,
    kind: Kind,
    once: Option<&Once>,
    id: Uuid,
) -> QueryResult<Claim> {
    let Some(once) = once else { return Ok(Claim::Granted) };
    let (user, key, digest) = (user.as_uuid(), once.key.as_str(), once.digest.as_bytes().as_slice());
    loop {
        let n_rows = diesel::insert_into(idempotency_keys::table)
            .values((
                idempotency_keys::user_id.eq(user),
                idempotency_keys::key.eq(key),
                idempotency_keys::kind.eq(kind.as_str()),
                idempotency_keys::digest.eq(digest),
                idempotency_keys::created_id.eq(id),
            ))
            .on_conflict_do_nothing()
            .execute(&mut conn)
            .await?;
        if n_rows == 1 {
            return Ok(Claim::Granted);
        }
        let earlier: Option<(Vec<u8>, Uuid)> = idempotency_keys::table
            .find((user, key, kind.as_str()))
            .select((idempotency_keys::digest, idempotency_keys::created_id))
            .first(&mut conn)
            .await
            .optional()?;
        match earlier {
            Some((stored, id)) if stored == digest => return Ok(Claim::CreatedBefore(id)),
            Some(_) => return Ok(Claim::OtherRequest),
            // The clean-up deleted it between the two statements.
            None => {}
        }
    }
}
