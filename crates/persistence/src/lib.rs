//! The ports of the GatheRing crates on PostgreSQL.
//!
//! Owns the SQL, the migrations, the connections and everything that is decided by a lock in the database: which
//! instance is alive and who drives a run. Never knows HTTP, settings or what a node does.

mod accounts;
mod cluster;
mod control;
mod db;
mod events;
mod runs;
#[cfg(feature = "testing")]
pub mod testing;

pub use accounts::store::PgAccountStore;
pub use cluster::connections::{ConnectionsError, check_connections, check_registered};
pub use cluster::instances::{InstanceRow, MAX_RUNS_LISTED, list_instances};
pub use cluster::liveness::{InstanceInfo, Liveness};
pub use cluster::overdue::end_overdue_instances;
pub use cluster::wake::{Wake, WakeBus};
pub use control::budgets::ledger::PgBudgetLedger;
pub use control::deletions::finish_deletions;
pub use control::hooks::ledger::prune_hook_deliveries;
pub use control::schedules::ledger::prune_schedule_fires;
pub use control::store::PgControlStore;
pub use db::clock::load_clock_difference;
pub use db::connect::{ConnectOptions, InvalidDatabaseUrl};
pub use db::error::DatabaseError;
pub use db::migrate::{MigrateError, Migrator};
pub use db::pool::{Pool, PoolSettings, PoolStatus};
pub use events::delete_events_before;
pub use runs::accept::{Acceptance, RunOrigin};
pub use runs::appends::Following;
pub use runs::dead_instances::{Recoveries, Recovery, recover_dead_instances};
pub use runs::decisions::Decided;
pub use runs::journal_page::JournalPage;
pub use runs::list::{CancelRequest, RunFilter, Runs};
pub use runs::maintenance::{Cleared, clear_expired};
pub use runs::partitions::{drop_journal_before, ensure_journal_partitions};
pub use runs::retention::{prune_audit_events, prune_blobs, prune_runs};
pub use runs::store::PgRunStore;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
