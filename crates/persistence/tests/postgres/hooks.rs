//! Hooks on PostgreSQL: what a cut transaction leaves, what retention deletes, which words the schema checks.

use std::sync::Arc;
use std::time::Duration;

use diesel_async::SimpleAsyncConnection;
use gathering_auth::{Caller, HookToken, KeyRing, RoleAtCreation};
use gathering_control::testing::session_caller;
use gathering_control::{
    CallRefused, ControlError, ControlStore, DefineHook, DefinePipeline, DeliveryOutcome, Graphs, Hook,
    HookAnswer, HookControl, PipelineControl, ReceivedCall, SubmittedHook,
};
use gathering_dag_engine::{NodeSpecs, RunStore};
use gathering_domain::{HookId, ProjectId, Secret};
use gathering_persistence::{PgAccountStore, PgControlStore, WakeBus, prune_hook_deliveries};
use gathering_tools::{ReceivedHeaders, WebhookScheme};
use serde_json::json;

use crate::accounts::create_account;
use crate::common::{ANALYZE, World, wait_until};
use crate::plans::rows_read;
use crate::projects::{create_project, projects};
use crate::retention::at;

struct Place {
    world: World,
    store: Arc<dyn ControlStore>,
    hooks: HookControl,
    keys: Arc<KeyRing>,
    ada: Caller,
    project: ProjectId,
}

impl Place {
    async fn new() -> Self {
        let world = World::new().await;
        let accounts = PgAccountStore::new(world.pool.clone());
        let ada = create_account(&accounts, "ada@example.org", RoleAtCreation::AdminIfFirst).await.unwrap();
        let ada = session_caller(ada.id, ada.role);
        let project = create_project(&projects(&world.pool), &ada).await;
        let store: Arc<dyn ControlStore> = Arc::new(PgControlStore::new(world.pool.clone(), WakeBus::new()));
        let keys = Arc::new(KeyRing::generate().unwrap());
        Self {
            hooks: HookControl::new(Arc::clone(&store), Arc::clone(&keys)),
            keys,
            world,
            store,
            ada,
            project,
        }
    }

    async fn define(&self, target: serde_json::Value) -> (Hook, HookToken) {
        let hook = SubmittedHook::new("h", target);
        let define = DefineHook { project: Some(self.project), hook, secret: None, once: None };
        self.hooks.define(&self.ada, define).await.unwrap()
    }

    /// A hook that starts a pipeline.
    async fn define_to_pipeline(&self) -> (Hook, HookToken) {
        let runs: Arc<dyn RunStore> = Arc::new(self.world.store.clone());
        let graphs = Graphs::new(runs, NodeSpecs::builtin(), 16);
        let pipelines = PipelineControl::new(Arc::clone(&self.store), graphs);
        let definition = json!({ "nodes": [{ "id": "a", "type": "trigger" }] });
        let define = DefinePipeline { project: Some(self.project), ..DefinePipeline::new("p", definition) };
        let pipeline = pipelines.define(&self.ada, define).await.unwrap().pipeline.id;
        self.define(json!({ "pipeline_id": pipeline })).await
    }

    async fn call(&self, token: &HookToken, key: &str) -> Result<ReceivedCall, CallRefused> {
        let headers: ReceivedHeaders = [("idempotency-key", key.as_bytes())].into_iter().collect();
        let called = self.hooks.find_called(token.expose()).await.unwrap();
        self.hooks.receive(called, &headers, b"{}").await
    }

    async fn count(&self, table: &str) -> i64 {
        self.world.count(&format!("SELECT count(*) FROM {table}")).await
    }
}

fn answer(received: Result<ReceivedCall, CallRefused>) -> HookAnswer {
    match received {
        Ok(ReceivedCall::Answer(answer)) => answer,
        other => panic!("{other:?}"),
    }
}

/// Entry, run and key are one transaction: of one that was cut nothing is there, and the sender's next attempt counts.
#[tokio::test]
async fn a_delivery_that_is_cut_leaves_nothing_and_its_key_is_free() {
    let place = Place::new().await;
    let (_, token) = place.define_to_pipeline().await;
    let mut blocker = place.world.db.connection().await;
    blocker.batch_execute("BEGIN; LOCK TABLE runs IN EXCLUSIVE MODE").await.unwrap();
    let waiting = "FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%new_run%' \
                   AND datname = current_database() AND pid IN (SELECT pid FROM pg_locks WHERE NOT granted \
                   AND relation = 'runs'::regclass)";
    let (received, ()) = tokio::join!(place.call(&token, "k1"), async {
        let is_waiting = format!("SELECT count(*) {waiting}");
        wait_until("the delivery waits to start its run", async || place.world.count(&is_waiting).await > 0)
            .await;
        place.world.db.execute(&format!("SELECT pg_terminate_backend(pid) {waiting}")).await;
    });
    assert!(matches!(received, Err(CallRefused::Store(ControlError::Unavailable(_)))), "{received:?}");
    blocker.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!((place.count("hook_deliveries").await, place.count("runs").await), (0, 0));
    let again = answer(place.call(&token, "k1").await);
    assert!(again.run.is_some() && !again.is_repeated, "{again:?}");
    assert_eq!((place.count("hook_deliveries").await, place.count("runs").await), (1, 1));
}

/// What comes again waits for the first, and then finds it.
#[tokio::test]
async fn a_repetition_waits_for_the_first_delivery() {
    let place = Place::new().await;
    let (_, token) = place.define_to_pipeline().await;
    let mut blocker = place.world.db.connection().await;
    blocker.batch_execute("BEGIN; LOCK TABLE runs IN EXCLUSIVE MODE").await.unwrap();
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                   AND (query LIKE '%new_run%' OR query LIKE '%hook_deliveries%') AND pid <> pg_backend_pid()";
    let (first, second, ()) = tokio::join!(place.call(&token, "k1"), place.call(&token, "k1"), async {
        wait_until("both wait", async || place.world.count(waiting).await >= 2).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        blocker.batch_execute("ROLLBACK").await.unwrap();
    });
    let (first, second) = (answer(first), answer(second));
    assert_ne!(first.is_repeated, second.is_repeated, "one of both came first");
    assert_eq!((first.run, first.delivery), (second.run, second.delivery));
    assert_eq!(place.count("runs").await, 1);
}

#[tokio::test]
async fn old_deliveries_leave_by_retention_and_free_their_keys() {
    let place = Place::new().await;
    let (hook, token) = place.define(json!({ "event_type": "order.paid" })).await;
    let fill = format!(
        "INSERT INTO hook_deliveries (id, hook_id, key, outcome, size_bytes, received_at)
             SELECT gen_random_uuid(), '{}', 'k' || n, 'accepted', 0, '2025-01-01Z' FROM generate_series(1, 2500) AS n",
        hook.id
    );
    place.world.db.execute(&fill).await;
    assert!(answer(place.call(&token, "k1").await).is_repeated);
    let young = answer(place.call(&token, "new").await);
    assert_eq!(prune_hook_deliveries(&place.world.pool, at("2025-02-01")).await.unwrap(), 2500);
    assert_eq!(prune_hook_deliveries(&place.world.pool, at("2025-02-01")).await.unwrap(), 0);
    assert_eq!(answer(place.call(&token, "new").await), HookAnswer { is_repeated: true, ..young });
    assert!(!answer(place.call(&token, "k1").await).is_repeated);
}

/// Every call looks for its hook, a repetition for the first, a refusal for the latest one.
#[tokio::test]
async fn a_call_reads_a_handful_of_rows_however_many_hooks_and_calls_there_are() {
    let place = Place::new().await;
    let (hook, token) = place.define(json!({ "event_type": "order.paid" })).await;
    let fill = format!(
        "INSERT INTO hooks (id, project_id, name, target, token_hash, scheme, token_header, max_body_bytes, max_per_minute)
             SELECT gen_random_uuid(), '{project}', 'h', '{{}}', sha256(n::text::bytea), 'none', 'x', 1, 1
             FROM generate_series(1, 5000) AS n;
         INSERT INTO hook_deliveries (id, hook_id, key, outcome, size_bytes)
             SELECT uuid_v7_floor(now() - n * interval '1 second'), '{hook}', 'k' || n, 'accepted', 0
             FROM generate_series(1, 5000) AS n;
         INSERT INTO hook_deliveries (id, hook_id, outcome, reason, size_bytes)
             SELECT gen_random_uuid(), '{hook}', 'refused', 'not_json', 0 FROM generate_series(1, 5000) AS n;
         UPDATE hooks SET n_refused = 1000 WHERE id = '{hook}';
         {ANALYZE}",
        project = place.project,
        hook = hook.id,
    );
    place.world.db.execute(&fill).await;
    let control = |pool| {
        let store: Arc<dyn ControlStore> = Arc::new(PgControlStore::new(pool, WakeBus::new()));
        HookControl::new(store, Arc::clone(&place.keys))
    };
    let headers: ReceivedHeaders = [("idempotency-key", b"k77".as_slice())].into_iter().collect();
    let n_rows = rows_read(&place.world.db, async |pool| {
        let hooks = control(pool);
        let called = hooks.find_called(token.expose()).await.unwrap();
        assert!(answer(hooks.receive(called, &headers, b"{}").await).is_repeated);
    })
    .await;
    assert!((2..=30).contains(&n_rows), "a repetition reads {n_rows}");
    let n_rows = rows_read(&place.world.db, async |pool| {
        let hooks = control(pool);
        let called = hooks.find_called(token.expose()).await.unwrap();
        let refused = hooks.receive(called, &headers, b"{").await;
        assert!(matches!(refused, Err(CallRefused::Refused { .. })), "{refused:?}");
    })
    .await;
    assert!((2..=30).contains(&n_rows), "a refused call reads {n_rows}");
    let n_rows = rows_read(&place.world.db, async |pool| {
        assert_eq!(control(pool).list_deliveries(&place.ada, hook.id, None, 51).await.unwrap().len(), 51);
    })
    .await;
    assert!((51..=150).contains(&n_rows), "a page of the ledger reads {n_rows}");
}

#[tokio::test]
async fn a_deleted_project_takes_its_hooks_and_their_many_calls_along() {
    let place = Place::new().await;
    let (hook, token) = place.define(json!({ "event_type": "order.paid" })).await;
    let fill = format!(
        "INSERT INTO hook_deliveries (id, hook_id, outcome, size_bytes)
             SELECT gen_random_uuid(), '{}', 'accepted', 0 FROM generate_series(1, 1500) AS n",
        hook.id
    );
    place.world.db.execute(&fill).await;
    projects(&place.world.pool).delete(&place.ada, place.project).await.unwrap();
    let received = place.call(&token, "k1").await;
    assert!(matches!(received, Err(CallRefused::Untrusted)), "{received:?}");
    gathering_persistence::finish_deletions(&place.world.pool).await.unwrap();
    assert_eq!((place.count("hooks").await, place.count("hook_deliveries").await), (0, 0));
}

#[tokio::test]
async fn a_ledger_knows_no_call_of_another_hook() {
    let place = Place::new().await;
    let (_, token) = place.define(json!({ "event_type": "order.paid" })).await;
    let (other, _) = place.define(json!({ "event_type": "order.paid" })).await;
    let delivery = answer(place.call(&token, "k1").await).delivery;
    let of_other = place.hooks.redeliver(&place.ada, other.id, delivery).await;
    assert!(matches!(of_other, Err(ControlError::NotFound)), "{of_other:?}");
    let of_none = place.hooks.redeliver(&place.ada, HookId::new(), delivery).await;
    assert!(matches!(of_none, Err(ControlError::NotFound)), "{of_none:?}");
}

#[tokio::test]
async fn the_schema_knows_every_word_of_the_types() {
    let place = Place::new().await;
    for scheme in WebhookScheme::ALL {
        let secrets = if scheme == WebhookScheme::None { "{}" } else { "{s}" };
        let sql = format!(
            "INSERT INTO hooks (id, project_id, name, target, token_hash, scheme, token_header, secrets,
                 max_body_bytes, max_per_minute)
             VALUES (gen_random_uuid(), '{}', 'h', '{{}}', sha256('{scheme}'), '{scheme}', 'x', '{secrets}', 1, 1)",
            place.project
        );
        place.world.db.execute(&sql).await;
    }
    for outcome in DeliveryOutcome::ALL {
        let reason = if outcome == DeliveryOutcome::Accepted { "NULL" } else { "'when'" };
        let sql = format!(
            "INSERT INTO hook_deliveries (id, hook_id, outcome, reason, size_bytes)
             SELECT gen_random_uuid(), id, '{outcome}', {reason}, 0 FROM hooks LIMIT 1"
        );
        place.world.db.execute(&sql).await;
    }
}

/// Rows of earlier versions are readable until they are encrypted, and then their text is nowhere in the row.
#[tokio::test]
async fn a_secret_of_an_earlier_version_is_accepted_and_then_encrypted() {
    let place = Place::new().await;
    let hook = SubmittedHook {
        scheme: Some(WebhookScheme::Token),
        ..SubmittedHook::new("h", json!({ "event_type": "call.received" }))
    };
    let secret = Some(Secret::from("a secret of long ago"));
    let define = DefineHook { project: Some(place.project), hook, secret, once: None };
    let (hook, token) = place.hooks.define(&place.ada, define).await.unwrap();
    let row =
        format!("SELECT count(*) FROM hooks WHERE id = '{}' AND hooks::text LIKE '%long ago%'", hook.id);
    assert_eq!(place.world.count(&row).await, 0, "a new one is encrypted at once");
    let old = format!(
        "UPDATE hooks SET secrets = '{{a secret of long ago, one before}}', sealed_secrets = '{{}}', secret_key_ids = '{{}}'
         WHERE id = '{}'",
        hook.id
    );
    place.world.db.execute(&old).await;
    let call = async |secret: &str, key: &str| {
        let headers: ReceivedHeaders =
            [("x-hook-token", secret.as_bytes()), ("idempotency-key", key.as_bytes())].into_iter().collect();
        let called = place.hooks.find_called(token.expose()).await.unwrap();
        place.hooks.receive(called, &headers, b"{}").await
    };
    answer(call("a secret of long ago", "k1").await);
    answer(call("one before", "k2").await);
    assert_eq!(place.hooks.reseal().await.unwrap(), 1);
    assert_eq!(place.hooks.reseal().await.unwrap(), 0);
    assert_eq!(place.world.count(&row).await, 0);
    answer(call("a secret of long ago", "k3").await);
    answer(call("one before", "k4").await);
    assert!(matches!(call("another", "k5").await, Err(CallRefused::Untrusted)));
}

/// What is sealed opens for its own hook alone.
#[tokio::test]
async fn a_secret_that_was_copied_to_the_row_of_another_hook_verifies_nobody() {
    let place = Place::new().await;
    let define = async |secret: &str| {
        let hook = SubmittedHook {
            scheme: Some(WebhookScheme::Token),
            ..SubmittedHook::new("h", json!({ "event_type": "call.received" }))
        };
        let secret = Some(Secret::from(secret));
        let define = DefineHook { project: Some(place.project), hook, secret, once: None };
        place.hooks.define(&place.ada, define).await.unwrap()
    };
    let ((own, own_token), (other, other_token)) =
        (define("my own secret").await, define("another one").await);
    let copy = format!(
        "UPDATE hooks SET sealed_secrets = own.sealed_secrets FROM hooks AS own
         WHERE hooks.id = '{}' AND own.id = '{}'",
        other.id, own.id
    );
    place.world.db.execute(&copy).await;
    let call = async |token: &HookToken| {
        let headers: ReceivedHeaders = [("x-hook-token", b"my own secret".as_slice())].into_iter().collect();
        let called = place.hooks.find_called(token.expose()).await.unwrap();
        place.hooks.receive(called, &headers, b"{}").await
    };
    answer(call(&own_token).await);
    let refused = call(&other_token).await;
    assert!(matches!(refused, Err(CallRefused::Store(ControlError::Unavailable(_)))), "{refused:?}");
    assert_eq!(place.hooks.reseal().await.unwrap(), 0);
}
