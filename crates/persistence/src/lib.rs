//! The ports of the GatheRing crates on PostgreSQL.
//!
//! Owns the SQL, the migrations, the connections and everything that is decided by a lock in the database: which
//! instance is alive and who drives a run. Never knows HTTP, settings or what a node does.

mod accept;
mod account_store;
mod accounts;
mod api_keys;
mod appends;
mod audit;
mod breakers;
mod budgets;
mod children;
mod claim;
mod clock;
mod commit;
mod connect;
mod decisions;
mod direct;
mod error;
mod events;
mod graphs;
mod instances;
mod journal;
mod journal_page;
mod keys;
mod liveness;
mod local_runs;
mod maintenance;
mod members;
mod migrate;
mod one_row;
mod overdue;
mod pace;
mod pipelines;
mod pool;
mod projects;
mod recover;
mod reruns;
mod run_row;
mod run_store;
mod runs;
mod schema;
mod sessions;
mod stored_json;
#[cfg(feature = "testing")]
pub mod testing;
mod throttle;
mod wake;

pub use accept::{Acceptance, RunOrigin};
pub use account_store::PgAccountStore;
pub use appends::Following;
pub use budgets::{Amounts, Bounds, Budget, Budgets, Call, Grant, MAX_AMOUNT, Period, Resource, TopUp};
pub use connect::{ConnectOptions, InvalidDatabaseUrl};
pub use decisions::{Decided, NewDecision};
pub use error::DatabaseError;
pub use events::{EventFilter, EventRow, Events};
pub use instances::{InstanceRow, MAX_RUNS_LISTED, list_instances};
pub use journal_page::JournalPage;
pub use liveness::{InstanceInfo, Liveness};
pub use local_runs::find_latest_local_run;
pub use maintenance::{Cleared, clear_expired, drop_journal_before, ensure_journal_partitions};
pub use members::{MemberPut, Membership};
pub use migrate::{MigrateError, Migrator};
pub use overdue::end_overdue_instances;
pub use pipelines::{
    Definitions, ExpectedPipeline, NewPipeline, Pipeline, PipelineChange, PipelineDeletion, PipelineSeen,
    PipelineUpdate, PipelineVersion, Pipelines, VersionsPage,
};
pub use pool::{Pool, PoolSettings, PoolStatus};
pub use projects::{Project, ProjectError, ProjectRefusal, ProjectSeen, Projects, Viewer};
pub use recover::{Recoveries, Recovery, recover_dead_instances};
pub use run_row::RunRow;
pub use run_store::PgRunStore;
pub use runs::{CancelRequest, RunFilter, Runs};
pub use wake::{Wake, WakeBus};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
