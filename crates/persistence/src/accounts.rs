//! Accounts: users, sessions, tokens, API keys, idempotency keys, login budgets and the audit record.

pub(crate) mod account;
pub(crate) mod api_keys;
pub(crate) mod audit;
pub(crate) mod idempotency;
pub(crate) mod sessions;
pub(crate) mod store;
pub(crate) mod throttle;
