//! Projects, pipelines and runs under the rules of `gathering-control`, on PostgreSQL.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use gathering_auth::testing::InspectAccounts;
use gathering_auth::{AuditEvent, Caller, ProjectRole, Role, RoleAtCreation};
use gathering_control::ControlStore;
use gathering_control::testing::{ControlFixture, session_caller};
use gathering_dag_engine::{BudgetLedger, ChildRuns, RunStore};
use gathering_domain::{InstanceId, ProjectId};
use gathering_persistence::{PgAccountStore, PgBudgetLedger, PgControlStore, WakeBus};

use crate::accounts::create_account;
use crate::common::World;

struct Fixture {
    world: World,
    n_accounts: AtomicUsize,
}

async fn fixture() -> Fixture {
    Fixture { world: World::new().await, n_accounts: AtomicUsize::new(0) }
}

#[async_trait]
impl ControlFixture for Fixture {
    fn store(&self) -> Arc<dyn ControlStore> {
        Arc::new(PgControlStore::new(self.world.pool.clone(), WakeBus::new()))
    }

    fn run_store(&self) -> Arc<dyn RunStore> {
        Arc::new(self.world.store.clone())
    }

    fn child_runs(&self) -> Arc<dyn ChildRuns> {
        Arc::new(self.world.store.clone())
    }

    fn budget_ledger(&self) -> Arc<dyn BudgetLedger> {
        Arc::new(PgBudgetLedger::new(self.world.pool.clone(), WakeBus::new()))
    }

    async fn account(&self, role: Role) -> Caller {
        let accounts = PgAccountStore::new(self.world.pool.clone());
        let number = self.n_accounts.fetch_add(1, Ordering::Relaxed);
        let email = format!("account{number}@example.org");
        let account = create_account(&accounts, &email, RoleAtCreation::Given(role)).await.unwrap();
        session_caller(account.id, role)
    }

    async fn change_account(&self, account: &Caller, role: Role, is_active: bool) {
        let user = account.user;
        let sql = format!("UPDATE users SET role = '{role}', is_active = {is_active} WHERE id = '{user}'");
        self.world.db.execute(&sql).await;
    }

    async fn audit_trail(&self) -> Vec<AuditEvent> {
        InspectAccounts::audit_trail(&PgAccountStore::new(self.world.pool.clone())).await
    }

    async fn instance(&self) -> InstanceId {
        self.world.begin_instance().await
    }

    async fn join(&self, project: ProjectId, member: &Caller, role: ProjectRole) {
        let user = member.user;
        let sql = format!(
            "INSERT INTO project_members (project_id, user_id, role) VALUES ('{project}', '{user}', '{role}')"
        );
        self.world.db.execute(&sql).await;
    }
}

gathering_control::control_store_suite!(fixture);
