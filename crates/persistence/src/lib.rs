//! The ports of the GatheRing crates on PostgreSQL.
//!
//! Owns the SQL, the migrations, the connections and everything that is decided by a lock in the database: which
//! instance is alive and who drives a run. Never knows HTTP, settings or what a node does.

mod accept;
mod accounts;
mod audit;
mod claim;
mod commit;
mod connect;
mod error;
mod events;
mod graphs;
mod instances;
mod journal;
mod keys;
mod liveness;
mod local_runs;
mod maintenance;
mod migrate;
mod pipelines;
mod pool;
mod projects;
mod recover;
mod run_row;
mod run_store;
mod runs;
mod schema;
mod sessions;
#[cfg(feature = "testing")]
pub mod testing;
mod wake;

pub use accept::{Acceptance, RunOrigin};
pub use accounts::PgAccountStore;
pub use audit::{AuditFilter, AuditRow, list_audit_events};
pub use connect::{ConnectOptions, InvalidDatabaseUrl};
pub use error::DatabaseError;
pub use events::{EventFilter, EventRow, Events};
pub use instances::{InstanceRow, list_instances};
pub use liveness::{InstanceInfo, Liveness};
pub use local_runs::find_latest_local_run;
pub use maintenance::{drop_journal_before, ensure_journal_partitions};
pub use migrate::{MigrateError, Migrator};
pub use pipelines::{NewPipeline, Pipeline, PipelineVersion, Pipelines};
pub use pool::{Pool, PoolSettings, PoolStatus};
pub use projects::{Membership, Project, Projects};
pub use recover::{Recovery, end_stuck_instances, recover_dead_instances};
pub use run_row::RunRow;
pub use run_store::PgRunStore;
pub use runs::{CancelRequest, RunFilter, Runs};
pub use wake::{Wake, WakeBus};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
