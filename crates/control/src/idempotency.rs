//! Creating once: what became of a request that carries an [`IdempotencyKey`](gathering_domain::IdempotencyKey).

use crate::{Conflict, ControlError};

/// What became of a request to create something once.
#[derive(Debug, Clone, PartialEq)]
pub enum Creation<T> {
    /// It was created now.
    Created(T),
    /// The same request created it before; this is how it stands now.
    Repeated(T),
    /// The same request created it before, and it has been deleted since.
    Deleted,
    /// The idempotency key came with another request.
    OtherRequest,
}

impl<T> Creation<T> {
    /// What stands now, whether it was created now or before.
    ///
    /// # Errors
    /// [`Conflict::CreatedAndDeleted`] or [`Conflict::KeyReused`].
    pub(crate) fn into_result(self) -> Result<T, ControlError> {
        match self {
            Creation::Created(thing) | Creation::Repeated(thing) => Ok(thing),
            Creation::Deleted => Err(Conflict::CreatedAndDeleted.into()),
            Creation::OtherRequest => Err(Conflict::KeyReused.into()),
        }
    }
}
