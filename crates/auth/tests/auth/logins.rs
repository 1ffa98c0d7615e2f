//! Logins: equal refusals, budgets, and hashes of another cost.

use std::time::Duration;

use gathering_auth::testing::InspectAccounts;
use gathering_auth::{AccountChange, AccountStore, AuthError, PasswordSettings, Passwords};
use gathering_domain::Secret;

use super::*;

#[tokio::test]
async fn every_refused_login_takes_the_same_steps_and_gets_the_same_answer() {
    let (store, auth) = watched_with(settings());
    let ada = register(&auth, "ada@example.org").await;
    let bob = register(&auth, "bob@example.org").await;
    disable(&store, bob, ada).await;
    let long = "x".repeat(100);
    let cases = [
        ("nobody@example.org", PASSWORD, None, "unknown_email"),
        ("ada@example.org", "wrong", Some(ada), "wrong_password"),
        ("ada@example.org", &long, Some(ada), "wrong_password"),
        ("ada@example.org", "", Some(ada), "wrong_password"),
        ("bob@example.org", PASSWORD, Some(bob), "account_disabled"),
        ("bob@example.org", "wrong", Some(bob), "wrong_password"),
    ];
    for (email, password, user, reason) in cases {
        store.calls();
        let before = (auth.passwords().n_computed(), auth.passwords().work_computed());
        let refused = try_login(&auth, email, password).await;
        assert!(matches!(refused, Err(AuthError::LoginRefused)), "{email}");
        assert_eq!(refused.unwrap_err().to_string(), "the login was refused");
        assert_eq!(store.calls(), ["charge", "find_account_by_email", "record_audit"], "{email}");
        let after = (auth.passwords().n_computed(), auth.passwords().work_computed());
        assert_eq!(after, (before.0 + 1, before.1 + (1 << settings().passwords.cost)), "{email}");
        assert_eq!(last_audit(&*store).await, ("login_failed".into(), user, reason.into()), "{email}");
    }
    let trail = format!("{:?}", store.audit_trail().await);
    assert!(!trail.contains("nobody@example.org") && !trail.contains(PASSWORD));
}

#[tokio::test]
async fn an_invalid_address_is_refused_after_the_same_bcrypt() {
    let (store, auth) = watched_with(settings());
    let refused = try_login(&auth, "no address", PASSWORD).await;
    assert!(matches!(refused, Err(AuthError::LoginRefused)));
    assert_eq!((auth.passwords().n_computed(), store.calls()), (1, vec!["charge", "record_audit"]));
    assert_eq!(last_audit(&*store).await, ("login_failed".into(), None, "unknown_email".into()));
}

#[tokio::test]
async fn guesses_are_throttled_before_anything_is_checked() {
    let (store, auth) = watched_with(settings());
    register(&auth, "ada@example.org").await;
    for email in ["ada@example.org", "nobody@example.org", "no address"] {
        for _ in 0..5 {
            assert!(matches!(try_login(&auth, email, "wrong").await, Err(AuthError::LoginRefused)));
        }
        store.calls();
        let computed = auth.passwords().n_computed();
        let throttled = try_login(&auth, &format!(" {}", email.to_uppercase()), PASSWORD).await;
        let Err(AuthError::Throttled { retry_after }) = throttled else { panic!("{email}: {throttled:?}") };
        assert!(retry_after > Duration::from_secs(30) && retry_after <= Duration::from_secs(60));
        assert_eq!(store.calls(), ["charge", "record_audit"], "{email}");
        assert_eq!(auth.passwords().n_computed(), computed, "{email}");
        assert_eq!(last_audit(&*store).await, ("login_failed".into(), None, "throttled".into()));
    }
}

#[tokio::test]
async fn an_attacker_elsewhere_locks_nobody_out() {
    let (_store, auth) = auth_with(settings());
    register(&auth, "ada@example.org").await;
    for attempt in 0..6 {
        let refused = try_login(&auth, "ada@example.org", "wrong").await;
        assert_eq!(matches!(refused, Err(AuthError::Throttled { .. })), attempt == 5);
    }
    for elsewhere in [from_address("192.0.2.2"), from_address("2001:db8::1"), Origin::default()] {
        assert!(auth.login("ada@example.org", Secret::from(PASSWORD), elsewhere).await.is_ok());
    }
    let neighbours = ["2001:db8:0:1::1", "2001:db8:0:1::2"].map(from_address);
    for attempt in 0..6 {
        let refused = auth.login("ada@example.org", Secret::from("wrong"), neighbours[attempt % 2]).await;
        assert_eq!(matches!(refused, Err(AuthError::Throttled { .. })), attempt == 5);
    }
}

#[tokio::test]
async fn many_accounts_tried_from_one_network_are_throttled() {
    let (_store, auth) = auth_with(settings());
    for attempt in 0..30 {
        let refused = try_login(&auth, &format!("{attempt}@example.org"), "wrong").await;
        assert!(matches!(refused, Err(AuthError::LoginRefused)), "attempt {attempt}");
    }
    let refused = try_login(&auth, "another@example.org", "wrong").await;
    let Err(AuthError::Throttled { retry_after }) = refused else { panic!("{refused:?}") };
    assert!(retry_after <= Duration::from_secs(2));
}

#[tokio::test]
async fn a_successful_login_costs_no_budget() {
    let (_store, auth) = auth_with(settings());
    register(&auth, "ada@example.org").await;
    for _ in 0..4 {
        assert!(try_login(&auth, "ada@example.org", "wrong").await.is_err());
    }
    for _ in 0..40 {
        login(&auth, "ada@example.org").await;
    }
    assert!(matches!(try_login(&auth, "ada@example.org", "wrong").await, Err(AuthError::LoginRefused)));
    assert!(matches!(try_login(&auth, "ada@example.org", PASSWORD).await, Err(AuthError::Throttled { .. })));
}

#[tokio::test]
async fn a_successful_login_renews_a_hash_of_another_cost() {
    let (store, auth) = watched_with(settings());
    let ada = register(&auth, "ada@example.org").await;
    let session = login(&auth, "ada@example.org").await;
    let at =
        |cost| AuthSettings { passwords: PasswordSettings { cost, ..settings().passwords }, ..settings() };
    for cost in [6, 5] {
        let auth = Auth::new(store.clone(), KeyRing::generate().unwrap(), at(cost)).unwrap();
        let before = hash_of(&store, ada).await;
        assert!(try_login(&auth, "ada@example.org", "wrong").await.is_err());
        assert_eq!(hash_of(&store, ada).await, before, "a wrong password changes nothing");
        store.calls();
        login(&auth, "ada@example.org").await;
        assert!(store.calls().contains(&"replace_password_hash"));
        assert_eq!(hash_of(&store, ada).await[..7], format!("$2b$0{cost}$"));
        let n_computed = auth.passwords().n_computed();
        login(&auth, "ada@example.org").await;
        assert!(!store.calls().contains(&"replace_password_hash"), "once is enough");
        assert_eq!(auth.passwords().n_computed(), n_computed + 1);
    }
    assert!(is_accepted(&auth, &session).await && can_refresh(&auth, &session).await);
}

#[tokio::test]
async fn a_guess_at_a_hash_of_a_lower_cost_has_the_full_cost() {
    let (store, cheap) = watched_with(settings());
    register(&cheap, "ada@example.org").await;
    let passwords = PasswordSettings { cost: 7, ..settings().passwords };
    let auth =
        Auth::new(store, KeyRing::generate().unwrap(), AuthSettings { passwords, ..settings() }).unwrap();
    for email in ["ada@example.org", "nobody@example.org"] {
        let before = auth.passwords().work_computed();
        assert!(try_login(&auth, email, "wrong").await.is_err());
        assert_eq!(auth.passwords().work_computed(), before + (1 << 7), "{email}");
    }
}

#[tokio::test]
async fn two_concurrent_logins_that_renew_the_hash_both_succeed() {
    let (store, cheap) = watched_with(settings());
    let ada = register(&cheap, "ada@example.org").await;
    let passwords = PasswordSettings { cost: 5, ..settings().passwords };
    let auth =
        Auth::new(store.clone(), KeyRing::generate().unwrap(), AuthSettings { passwords, ..settings() })
            .unwrap();
    let (inner, expected) = (store.inner.clone(), hash_of(&store, ada).await);
    let others = Passwords::new(passwords).unwrap().hash(Secret::from(PASSWORD)).await.unwrap();
    let kept = others.clone();
    store.before("replace_password_hash", async move {
        inner.replace_password_hash(ada, expected.into(), others).await.unwrap();
    });
    let pair = login(&auth, "ada@example.org").await;
    assert!(is_accepted(&auth, &pair).await);
    assert_eq!(hash_of(&store, ada).await, kept.expose());
}

#[tokio::test]
async fn a_password_changed_during_the_login_gives_no_tokens() {
    let (store, auth) = watched_with(settings());
    let ada = register(&auth, "ada@example.org").await;
    let (inner, expected) = (store.inner.clone(), hash_of(&store, ada).await);
    let next = Passwords::new(settings().passwords).unwrap().hash(Secret::from("another one")).await.unwrap();
    store.before("begin_session", async move {
        inner.replace_password_hash(ada, expected.into(), next).await.unwrap();
    });
    store.calls();
    let refused = try_login(&auth, "ada@example.org", PASSWORD).await;
    assert!(matches!(refused, Err(AuthError::LoginRefused)));
    assert_eq!(store.calls().last(), Some(&"end_session"));
    assert_eq!(last_audit(&*store).await, ("login_failed".into(), Some(ada), "changed_meanwhile".into()));
}

#[tokio::test]
async fn an_account_disabled_during_the_login_gets_no_tokens() {
    let (store, auth) = watched_with(settings());
    let ada = register(&auth, "ada@example.org").await;
    let bob = register(&auth, "bob@example.org").await;
    let inner = store.inner.clone();
    store.before("begin_session", async move {
        let change = AccountChange { role: None, is_active: Some(false), by: ada };
        inner.update_account(bob, change, Origin::default()).await.unwrap();
    });
    let refused = try_login(&auth, "bob@example.org", PASSWORD).await;
    assert!(matches!(refused, Err(AuthError::LoginRefused)));
    assert_eq!(store.calls().last(), Some(&"end_session"), "so that enabling the account revives nothing");
}

async fn disable(store: &Watched, user: UserId, by: UserId) {
    let change = AccountChange { role: None, is_active: Some(false), by };
    store.inner.update_account(user, change, Origin::default()).await.unwrap();
}

async fn hash_of(store: &Watched, user: UserId) -> String {
    store.inner.find_account(user).await.unwrap().unwrap().password_hash.expose().to_owned()
}

/// All attempts at once while no password can be hashed, and then the rest of the budget.
#[test]
fn a_flood_that_fills_the_queue_uses_nobodys_budget() {
    // The only hashing thread is busy until the test releases it, so nothing depends on how long a hash takes.
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.max_blocking_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let passwords = PasswordSettings { cost: 4, n_threads: 1, n_waiting: 0 };
        let (store, auth) = auth_with(AuthSettings { passwords, ..settings() });
        let auth = Arc::new(auth);
        register(&auth, "ada@example.org").await;
        let caller = logged_in(&auth, "ada@example.org").await;
        let (let_go, held) = std::sync::mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || held.recv());
        let flood = tokio::spawn({
            let passwords = auth.passwords().clone();
            async move { passwords.verify(Secret::from("wrong"), None).await }
        });
        tokio::task::yield_now().await;
        for email in ["ada@example.org", "nobody@example.org", "no address"] {
            for attempt in 0..10 {
                let refused = try_login(&auth, email, PASSWORD).await;
                assert!(matches!(refused, Err(AuthError::Overloaded)), "{email}, {attempt}: {refused:?}");
            }
        }
        for attempt in 0..10 {
            let refused =
                auth.change_password(&caller, Secret::from(PASSWORD), Secret::from("a new one")).await;
            assert!(matches!(refused, Err(AuthError::Overloaded)), "{attempt}: {refused:?}");
        }
        let_go.send(()).unwrap();
        busy.await.unwrap().unwrap();
        assert!(!flood.await.unwrap().unwrap());
        for email in ["ada@example.org", "nobody@example.org", "no address"] {
            for attempt in 0..5 {
                let refused = try_login(&auth, email, "wrong").await;
                assert!(matches!(refused, Err(AuthError::LoginRefused)), "{email}, {attempt}: {refused:?}");
            }
            assert!(matches!(try_login(&auth, email, "wrong").await, Err(AuthError::Throttled { .. })));
        }
        assert!(store.audit_trail().await.len() > 15, "logins with a wrong password are recorded");
    });
}
