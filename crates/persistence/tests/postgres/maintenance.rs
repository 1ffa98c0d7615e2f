//! Clearing away: what is over goes, what still matters stays.

use std::time::Duration;

use gathering_auth::{
    AccountStore, AuditKind, Charge, Charged, RoleAtCreation, Rotation, SessionEnd, TokenId, TokenRevocation,
};
use gathering_persistence::{Cleared, clear_expired};

use crate::accounts::{LONG, begin, create_account, digest, empty_store, event, rotate};
use crate::common::count;

const OLD: &str = "UPDATE refresh_tokens SET expires_at = now() - interval '25 hours'";

#[tokio::test]
async fn a_session_goes_as_a_whole_a_day_after_its_last_token_expired() {
    let fixture = empty_store().await;
    let ada = create_account(&fixture, "ada@example.org", RoleAtCreation::AdminIfFirst).await.unwrap();
    for (name, n_refreshes) in [("over", 3), ("recent", 1), ("live", 2)] {
        begin(&fixture, ada.id, &format!("{name} 0"), LONG).await;
        for n in 0..n_refreshes {
            let rotated = rotate(&fixture, &format!("{name} {n}"), &format!("{name} {}", n + 1)).await;
            assert!(matches!(rotated, Rotation::Rotated { .. }));
        }
    }
    fixture.db.execute(OLD).await;
    for (token, age) in [("recent 1", "23 hours"), ("live 2", "-23 hours")] {
        let hash: String = digest(token).as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let sql = format!(
            "UPDATE refresh_tokens SET expires_at = now() - interval '{age}' WHERE token_hash = '\\x{hash}'"
        );
        fixture.db.execute(&sql).await;
    }
    let cleared = clear_expired(&fixture.pool).await.unwrap();
    assert_eq!(cleared, Cleared { n_refresh_tokens: 4, ..Cleared::default() });
    assert_eq!(count(&fixture.db, "SELECT count(*) FROM refresh_tokens").await, 5);
    // A theft from long ago still ends the session that goes on.
    assert!(matches!(rotate(&fixture, "live 0", "stolen").await, Rotation::Refused { .. }));
    assert!(matches!(rotate(&fixture, "live 2", "next").await, Rotation::Refused { .. }));
    assert_eq!(clear_expired(&fixture.pool).await.unwrap(), Cleared::default());
}

#[tokio::test]
async fn a_revocation_is_kept_while_an_access_token_of_it_may_live() {
    let fixture = empty_store().await;
    let ada = create_account(&fixture, "ada@example.org", RoleAtCreation::AdminIfFirst).await.unwrap();
    let session = begin(&fixture, ada.id, "first", LONG).await;
    assert!(matches!(rotate(&fixture, "first", "second").await, Rotation::Rotated { .. }));
    let token = TokenId::new();
    let revocation = TokenRevocation { id: token, remaining: Duration::ZERO };
    let end = SessionEnd { user: ada.id, session, token: revocation, refresh_token: None };
    fixture.end_session(end, event(AuditKind::LoggedOut)).await.unwrap();
    let is_revoked =
        async || fixture.find_token_status(ada.id, session, token).await.unwrap().unwrap().is_revoked;
    // Only the first of its tokens is long over.
    fixture.db.execute(&format!("{OLD} WHERE spent_at IS NOT NULL")).await;
    fixture.db.execute("UPDATE revoked_tokens SET expires_at = now() - interval '23 hours'").await;
    assert_eq!(clear_expired(&fixture.pool).await.unwrap(), Cleared::default());
    assert!(is_revoked().await);
    // Tokens lived longer before the settings were changed: its last one is over, an earlier one is not.
    fixture.db.execute(OLD).await;
    fixture.db.execute("UPDATE refresh_tokens SET expires_at = now() WHERE spent_at IS NOT NULL").await;
    assert_eq!(clear_expired(&fixture.pool).await.unwrap(), Cleared::default());
    assert!(is_revoked().await);
    fixture.db.execute(OLD).await;
    let cleared = clear_expired(&fixture.pool).await.unwrap();
    assert_eq!(cleared, Cleared { n_refresh_tokens: 2, ..Cleared::default() });
    assert!(is_revoked().await, "the token itself is still remembered");
    fixture.db.execute("UPDATE revoked_tokens SET expires_at = now() - interval '25 hours'").await;
    let cleared = clear_expired(&fixture.pool).await.unwrap();
    assert_eq!(cleared, Cleared { n_revoked_tokens: 1, ..Cleared::default() });
}

#[tokio::test]
async fn a_login_budget_is_kept_until_it_is_full() {
    let fixture = empty_store().await;
    let charge =
        |key: &str, seconds| Charge { key: digest(key), burst: 1, interval: Duration::from_secs(seconds) };
    assert_eq!(fixture.charge(&[charge("spent", 3600), charge("full", 0)]).await.unwrap(), Charged::Paid);
    let cleared = clear_expired(&fixture.pool).await.unwrap();
    assert_eq!(cleared, Cleared { n_login_throttles: 1, ..Cleared::default() });
    let again = fixture.charge(&[charge("spent", 3600)]).await.unwrap();
    assert!(matches!(again, Charged::Refused { .. }), "{again:?}");
}

#[tokio::test]
async fn an_idempotency_key_is_kept_for_a_day() {
    let fixture = empty_store().await;
    let ada = create_account(&fixture, "ada@example.org", RoleAtCreation::AdminIfFirst).await.unwrap();
    for (key, age) in [("old", "25 hours"), ("recent", "23 hours")] {
        let sql = format!(
            "INSERT INTO idempotency_keys (user_id, key, kind, digest, created_id, created_at)
                 VALUES ('{}', '{key}', 'api_key', sha256('x'), gen_random_uuid(), now() - interval '{age}')",
            ada.id
        );
        fixture.db.execute(&sql).await;
    }
    let cleared = clear_expired(&fixture.pool).await.unwrap();
    assert_eq!(cleared, Cleared { n_idempotency_keys: 1, ..Cleared::default() });
    assert_eq!(count(&fixture.db, "SELECT count(*) FROM idempotency_keys WHERE key = 'recent'").await, 1);
}

#[tokio::test]
async fn much_is_cleared_away_in_batches_by_several_at_once() {
    let fixture = empty_store().await;
    create_account(&fixture, "ada@example.org", RoleAtCreation::AdminIfFirst).await.unwrap();
    fixture
        .db
        .execute(
            "INSERT INTO refresh_tokens (token_hash, session_id, user_id, expires_at, spent_at)
                 SELECT sha256(s::text::bytea || t::text::bytea || 'x'), md5(s::text)::uuid, users.id, now() - interval '2 days',
                     CASE WHEN t < 10 THEN now() END
                 FROM users, generate_series(1, 350) AS s, generate_series(1, 10) AS t ON CONFLICT DO NOTHING;
             INSERT INTO revoked_tokens (token_id, expires_at)
                 SELECT gen_random_uuid(), now() - interval '2 days' FROM generate_series(1, 2500);
             INSERT INTO login_throttles (key, spent_until)
                 SELECT sha256(n::text::bytea), now() FROM generate_series(1, 2500) AS n;
             INSERT INTO idempotency_keys (user_id, key, kind, digest, created_id, created_at)
                 SELECT users.id, n::text, 'api_key', sha256('x'), gen_random_uuid(), now() - interval '2 days'
                 FROM users, generate_series(1, 2500) AS n;",
        )
        .await;
    let n_tokens = count(&fixture.db, "SELECT count(*) FROM refresh_tokens").await;
    let other = fixture.db.pool().await;
    let (one, two) = tokio::join!(clear_expired(&fixture.pool), clear_expired(&other));
    // What one has just taken, the other passes over.
    let last = clear_expired(&fixture.pool).await.unwrap();
    let all = [one.unwrap(), two.unwrap(), last];
    let sum = |n: fn(&Cleared) -> usize| all.iter().map(n).sum::<usize>();
    assert_eq!(i64::try_from(sum(|cleared| cleared.n_refresh_tokens)).unwrap(), n_tokens);
    assert_eq!(sum(|cleared| cleared.n_revoked_tokens), 2500);
    assert_eq!(sum(|cleared| cleared.n_login_throttles), 2500);
    assert_eq!(sum(|cleared| cleared.n_idempotency_keys), 2500);
    assert_eq!(count(&fixture.db, "SELECT count(*) FROM refresh_tokens").await, 0);
}
