//! Accounts, passwords, sessions, API keys and permissions.
//!
//! Owns the rules of logging in, the tokens and the permissions. Never knows HTTP or SQL: it stores data through the
//! port [`AccountStore`] and receives addresses and request ids as an [`Origin`].

mod access;
mod account;
mod api_key;
mod audit;
mod caller;
mod error;
mod hook_token;
#[cfg(unix)]
mod key_file;
mod keys;
mod opaque;
mod passwords;
mod refresh;
mod scope;
mod sealing;
mod service;
mod sessions;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod throttle;
mod tokens;

pub use access::{Action, Denied, ProjectRole, Role, UnknownRole, UnknownScope, authorize, authorize_admin};
pub use account::{
    Account, AccountChange, AccountRecord, NewAccount, NewProject, PasswordChange, PasswordHash,
    RoleAtCreation,
};
pub use api_key::{ApiKey, ApiKeySecret, KeyStatus, NewApiKey};
pub use audit::{AuditEvent, AuditFilter, AuditKind, AuditRecord, Origin};
pub use caller::{Caller, Credential};
pub use error::AuthError;
pub use gathering_domain::{SessionId, TokenId};
pub use hook_token::HookToken;
#[cfg(unix)]
pub use key_file::{KeyFile, KeyFileError};
pub use keys::{InvalidKey, KeyRing};
pub use passwords::{PasswordError, PasswordSettings, Passwords};
pub use refresh::RefreshToken;
pub use scope::{Scope, Scopes};
pub use sealing::{CannotOpen, CannotSeal, SealedValue};
pub use service::{ApiKeyRequest, Auth, AuthSettings, Registration, RegistrationRequest, TokenPair};
pub use sessions::{
    NewSession, RefreshRefusal, RefreshRotation, RefreshTokenState, Rotation, SessionEnd, TokenRevocation,
    TokenStatus,
};
pub use store::{AccountStore, StoreError};
pub use throttle::{Charge, Charged};
pub use tokens::{AccessToken, InvalidToken, Tokens};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
