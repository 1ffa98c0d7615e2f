//! Login budgets.
#![expect(clippy::unwrap_used, clippy::panic, reason = "the cases are tests")]

use std::time::{Duration, Instant};

use super::{HASH, LONG, audit, begin_and_refund, create, digest};
use crate::testing::InspectAccounts;
use crate::{AuditKind, Charge, Charged, PasswordChange, PasswordHash, SessionId};

const HOUR: Duration = Duration::from_secs(3600);

/// A part of an hourly budget: none becomes available while a case runs.
fn hourly(key: &str, burst: u32) -> Charge {
    Charge { key: digest(key), burst, interval: HOUR }
}

async fn is_paid<S: InspectAccounts + ?Sized>(store: &S, charges: &[Charge]) -> bool {
    store.charge(charges).await.unwrap() == Charged::Paid
}

async fn refusal<S: InspectAccounts + ?Sized>(store: &S, charges: &[Charge]) -> Duration {
    match store.charge(charges).await.unwrap() {
        Charged::Refused { retry_after } => retry_after,
        Charged::Paid => panic!("it was paid"),
    }
}

/// The number of charges that the budget still accepts; exhausts it.
async fn n_left<S: InspectAccounts + ?Sized>(store: &S, charge: Charge) -> u32 {
    let mut n_paid = 0;
    while is_paid(store, &[charge]).await {
        n_paid += 1;
        assert!(n_paid < 100, "it never refuses");
    }
    n_paid
}

/// Whether it is this long, apart from the time that the case itself took.
fn is_about(measured: Duration, expected: Duration) -> bool {
    measured <= expected && measured + Duration::from_secs(60) > expected
}

/// A full budget accepts its burst. Then it says when the next charge is available. Refusals cost nothing.
pub async fn a_budget_pays_its_burst_and_then_refuses<S: InspectAccounts + ?Sized>(store: &S) {
    for burst in [1, 3] {
        let key = format!("budget of {burst}");
        assert_eq!(n_left(store, hourly(&key, burst)).await, burst);
        for _ in 0..3 {
            let retry_after = refusal(store, &[hourly(&key, burst)]).await;
            assert!(is_about(retry_after, HOUR), "{retry_after:?}");
        }
    }
    assert!(is_paid(store, &[hourly("another budget", 1)]).await);
    assert!(is_paid(store, &[]).await);
}

/// A charge becomes available again, not before its time.
pub async fn a_spent_budget_comes_back_with_time<S: InspectAccounts + ?Sized>(store: &S) {
    let charge = Charge { interval: Duration::from_millis(200), ..hourly("budget", 1) };
    let before = Instant::now();
    assert!(is_paid(store, &[charge]).await);
    let mut n_refusals = 0;
    while let Charged::Refused { retry_after } = store.charge(&[charge]).await.unwrap() {
        n_refusals += 1;
        assert!(retry_after > Duration::ZERO && retry_after <= charge.interval, "{retry_after:?}");
        assert!(n_refusals < 10, "not available after {retry_after:?}");
        tokio::time::sleep(retry_after).await;
    }
    // A store may keep whole microseconds.
    assert!(before.elapsed() + Duration::from_millis(1) >= charge.interval, "{:?}", before.elapsed());
}

/// If one budget refuses, the others are not charged. The longest delay is returned.
pub async fn charges_are_paid_together_or_not_at_all<S: InspectAccounts + ?Sized>(store: &S) {
    let (spent, long_spent, other) = (hourly("spent", 1), hourly("long spent", 1), hourly("other", 2));
    let long_spent = Charge { interval: 3 * HOUR, ..long_spent };
    assert!(is_paid(store, &[spent]).await && is_paid(store, &[long_spent]).await);
    for charges in [[spent, other], [other, spent]] {
        assert!(is_about(refusal(store, &charges).await, HOUR));
    }
    assert!(is_about(refusal(store, &[spent, other, long_spent]).await, 3 * HOUR));
    assert_eq!(n_left(store, other).await, 2);
}

/// Concurrent charges see each other.
pub async fn charges_at_once_never_exceed_the_burst<S: InspectAccounts + ?Sized>(store: &S) {
    let charge = [hourly("budget", 3)];
    let paid = tokio::join!(
        is_paid(store, &charge),
        is_paid(store, &charge),
        is_paid(store, &charge),
        is_paid(store, &charge),
        is_paid(store, &charge),
        is_paid(store, &charge),
    );
    let paid: [bool; 6] = paid.into();
    assert_eq!(paid.into_iter().filter(|is_paid| *is_paid).count(), 3, "{paid:?}");
}

/// Charges on the same budgets in another order wait for each other without a deadlock.
pub async fn charges_at_once_in_any_order_are_paid<S: InspectAccounts + ?Sized>(store: &S) {
    let (one, other) = (hourly("one", 8), hourly("other", 8));
    let (forth, back) = ([one, other], [other, one]);
    for _ in 0..2 {
        let paid = tokio::join!(
            is_paid(store, &forth),
            is_paid(store, &back),
            is_paid(store, &forth),
            is_paid(store, &back),
        );
        assert_eq!(paid, (true, true, true, true));
    }
    assert_eq!((n_left(store, one).await, n_left(store, other).await), (0, 0));
}

/// A successful login costs nothing.
pub async fn a_session_gives_its_charges_back<S: InspectAccounts + ?Sized>(store: &S) {
    let ada = create(store, "ada@example.org").await;
    let charges = [hourly("account", 2), hourly("network", 3)];
    assert!(is_paid(store, &charges).await && is_paid(store, &charges).await);
    begin_and_refund(store, ada.id, "first", LONG, &charges).await;
    assert!(is_paid(store, &charges).await);
    assert!(is_about(refusal(store, &charges).await, HOUR));
    assert_eq!(n_left(store, charges[1]).await, 1);
}

/// A successful password change costs nothing; a failed one stays charged.
pub async fn a_changed_password_gives_its_charges_back<S: InspectAccounts + ?Sized>(store: &S) {
    let ada = create(store, "ada@example.org").await;
    let refund = vec![hourly("account", 1)];
    let (expected, hash) = (PasswordHash::from("another".to_owned()), PasswordHash::from(HASH.to_owned()));
    let change = PasswordChange { user: ada.id, expected, hash, keep: SessionId::new(), refund };
    assert!(is_paid(store, &change.refund).await);
    assert!(!store.change_password(change.clone(), audit(AuditKind::PasswordChanged)).await.unwrap());
    assert!(!is_paid(store, &change.refund).await);
    let change = PasswordChange { expected: PasswordHash::from(HASH.to_owned()), ..change };
    assert!(store.change_password(change.clone(), audit(AuditKind::PasswordChanged)).await.unwrap());
    assert!(is_paid(store, &change.refund).await);
}

/// A refund fills a budget up to its burst, and does not create a budget.
pub async fn a_refund_is_no_credit<S: InspectAccounts + ?Sized>(store: &S) {
    let ada = create(store, "ada@example.org").await;
    let charges = [hourly("account", 2), hourly("never charged", 1)];
    assert!(is_paid(store, &charges[..1]).await);
    for token in ["one", "two", "three"] {
        begin_and_refund(store, ada.id, token, LONG, &charges).await;
    }
    assert_eq!(n_left(store, charges[0]).await, 2);
    assert_eq!(n_left(store, charges[1]).await, 1);
}
