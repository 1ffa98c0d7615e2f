//! A database for each test: a schema of its own, migrated, and gone when the test ends.

use std::time::Duration;

use async_trait::async_trait;
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use gathering_auth::testing::InspectAccounts;
use gathering_auth::{AccountStore, AuditEvent, AuditFilter};
use gathering_domain::{ExposeSecret, Secret};

use crate::accounts::store::PgAccountStore;
use crate::db::connect::{ConnectOptions, SessionSettings};
use crate::db::migrate::Migrator;
use crate::db::pool::{Pool, PoolSettings};

/// Names the cluster that tests make their schemas in.
pub const TEST_DATABASE_URL: &str = "GATHERING_TEST_DATABASE_URL";

/// A schema of its own on the test cluster. It is dropped with [`TestDb::drop_schema`], or else when the value is
/// dropped.
#[derive(Debug)]
pub struct TestDb {
    schema: String,
    base_url: Secret,
    is_dropped: bool,
}

#[expect(clippy::expect_used, clippy::panic, reason = "a test without its database must fail, and say why")]
impl TestDb {
    /// A new schema with every migration.
    ///
    /// # Panics
    /// If the cluster is not there: `cargo xtask test` starts it.
    pub async fn new() -> Self {
        let db = Self::empty().await;
        Migrator::new(db.options()).run().await.expect("the migrations run");
        db
    }

    /// A new schema with nothing in it.
    ///
    /// # Panics
    /// As [`TestDb::new`].
    pub async fn empty() -> Self {
        let Ok(base_url) = std::env::var(TEST_DATABASE_URL) else {
            panic!(
                "{TEST_DATABASE_URL} is not set: run `cargo xtask test`, which starts a database for the tests"
            );
        };
        let schema = format!("test_{}", uuid::Uuid::now_v7().simple());
        let db = Self { schema, base_url: Secret::from(base_url), is_dropped: false };
        db.execute(&format!("CREATE SCHEMA {}", db.schema)).await;
        db
    }

    /// The schema's name.
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// The URL of this schema, for a program that is started by a test.
    pub fn url(&self) -> Secret {
        let base = self.base_url.expose_secret();
        let separator = if base.contains('?') { '&' } else { '?' };
        Secret::from(format!("{base}{separator}options=-c%20search_path%3D{}", self.schema))
    }

    /// How to connect to this schema.
    ///
    /// # Panics
    /// If the variable holds no database URL.
    pub fn options(&self) -> ConnectOptions {
        ConnectOptions::parse(&self.url()).expect("a database URL")
    }

    /// A pool of its own, as each instance has one.
    ///
    /// # Panics
    /// If the database does not answer.
    pub async fn pool(&self) -> Pool {
        let settings =
            PoolSettings { max_size: 4, wait_timeout: Duration::from_secs(20), ..PoolSettings::default() };
        Pool::connect(self.options(), settings).await.expect("the database answers")
    }

    /// Executes SQL in this schema, to bring about what no function would.
    ///
    /// # Panics
    /// If the database refuses it.
    pub async fn execute(&self, sql: &str) {
        let mut conn = self.connection().await;
        if let Err(error) = conn.batch_execute(sql).await {
            panic!("{sql}: {error}");
        }
    }

    /// A connection for the test itself.
    ///
    /// # Panics
    /// If the database does not answer.
    pub async fn connection(&self) -> AsyncPgConnection {
        self.options()
            .open_for_queries(SessionSettings::Queries(Duration::ZERO))
            .await
            .expect("the database answers")
    }

    /// Drops the schema with everything in it.
    ///
    /// # Panics
    /// If the database does not answer.
    pub async fn drop_schema(mut self) {
        self.is_dropped = true;
        self.execute(&format!("DROP SCHEMA {} CASCADE", self.schema)).await;
    }
}

impl Drop for TestDb {
    /// A test that failed, or forgot: the schema goes on a thread of its own, as this may be any runtime.
    fn drop(&mut self) {
        if self.is_dropped {
            return;
        }
        let options = ConnectOptions::parse(&self.base_url);
        let sql = format!("DROP SCHEMA IF EXISTS {} CASCADE", self.schema);
        let dropper = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            if let (Ok(runtime), Ok(options)) = (runtime, options) {
                runtime.block_on(async {
                    if let Ok(mut conn) =
                        options.open_for_queries(SessionSettings::Queries(Duration::from_secs(10))).await
                    {
                        // Best effort: a schema that stays costs only room on a cluster for tests.
                        conn.batch_execute(&sql).await.ok();
                    }
                });
            }
        });
        dropper.join().ok();
    }
}

/// So that the cases of authentication can run against this store.
#[async_trait]
#[expect(clippy::expect_used, reason = "a test that cannot look has failed")]
impl InspectAccounts for PgAccountStore {
    async fn audit_trail(&self) -> Vec<AuditEvent> {
        let records = self.list_audit_events(&AuditFilter::default(), 1000).await.expect("the audit record");
        records.into_iter().rev().map(|record| record.event).collect()
    }
}
