//! Accounts, passwords, tokens and who may do what.
//!
//! Owns the rules of logging in, the tokens and what a role permits. Never knows HTTP or SQL: what it needs to keep it
//! keeps through the port [`AccountStore`], and addresses and request ids come in as an [`Origin`].

mod access;
mod account;
mod audit;
mod caller;
mod error;
mod keys;
mod passwords;
mod refresh;
mod service;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod tokens;

pub use access::{Action, Denied, ProjectRole, Role, UnknownRole, authorize};
pub use account::{Account, AccountRecord, NewAccount, NewProject, PasswordHash, RoleAtCreation};
pub use audit::{AuditEvent, AuditKind, Origin};
pub use caller::{Caller, Credential};
pub use error::AuthError;
pub use gathering_domain::{SessionId, TokenId};
pub use keys::{InvalidKey, KeyRing};
pub use passwords::{PasswordError, PasswordSettings, Passwords};
pub use refresh::RefreshToken;
pub use service::{Auth, AuthSettings, Registration, RegistrationRequest, TokenPair};
pub use store::{
    AccountStore, NewSession, RefreshRefusal, RefreshRotation, RefreshTokenState, Rotation, SessionEnd,
    Standing, StoreError, TokenRevocation,
};
pub use tokens::{AccessToken, InvalidToken, Tokens};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
