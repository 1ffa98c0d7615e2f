//! The ground: connections, migrations, errors and what every query needs.

pub(crate) mod all_runs;
pub(crate) mod batches;
pub(crate) mod bind;
pub(crate) mod blockers;
pub(crate) mod clock;
pub(crate) mod connect;
pub(crate) mod direct;
pub(crate) mod error;
pub(crate) mod exactly_one;
pub(crate) mod keys;
pub(crate) mod migrate;
pub(crate) mod pool;
pub(crate) mod query_backoff;
pub(crate) mod schema;
pub(crate) mod stale_statements;
pub(crate) mod stored_json;
