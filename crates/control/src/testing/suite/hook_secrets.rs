//! Secrets of hooks as they are stored: encrypted, with the key of this moment after a while.
#![expect(clippy::unwrap_used, reason = "the cases are tests")]

use std::sync::Arc;

use gathering_auth::{HookToken, KeyRing};
use gathering_domain::{ExposeSecret as _, Secret};
use serde_json::json;

use super::World;
use super::hooks::{OTHER_SECRET, Place, SECRET, answer, is_untrusted};
use super::secrets::ring;
use crate::testing::ControlFixture;
use crate::{CallRefused, ControlError, HookControl, HookSecret, SecretChange, SubmittedHook};

impl Place {
    /// The same place by another server, which has these keys.
    fn with_keys<F: ControlFixture>(&self, fixture: &F, keys: KeyRing) -> Self {
        let world: World = self.world.clone();
        Self { world, hooks: HookControl::new(fixture.store(), Arc::new(keys)) }
    }

    /// The ids of the keys of the hook's secrets, as they are stored.
    async fn key_ids<F: ControlFixture>(&self, fixture: &F, token: &HookToken) -> Vec<String> {
        let (known, _) = fixture.store().find_called_hook(&token.digest()).await.unwrap();
        let secrets = known.unwrap().secrets.into_iter();
        let key_id = |secret| match secret {
            HookSecret::Sealed(sealed) => {
                let text = SECRET.as_bytes();
                assert!(!sealed.bytes.windows(text.len()).any(|part| part == text));
                sealed.key_id
            }
            HookSecret::Open(_) => "none".to_owned(),
        };
        secrets.map(key_id).collect()
    }
}

fn same(ring: &KeyRing) -> KeyRing {
    KeyRing::parse(ring.to_text().expose_secret()).unwrap()
}

/// From a new hook on, and where one is replaced.
pub async fn secrets_of_hooks_are_stored_encrypted<F: ControlFixture>(fixture: &F) {
    let keys = ring();
    let place = Place::new(fixture).await.with_keys(fixture, same(&keys));
    let (hook, token) = place.define(place.to_pipeline(), Some(SECRET)).await;
    let id = keys.current_id();
    assert_eq!(place.key_ids(fixture, &token).await, [id]);
    let new = SecretChange { new: Some(Secret::from(OTHER_SECRET)), retire: false };
    place.hooks.change(&place.world.owner, hook.id, &new, SubmittedHook::of).await.unwrap();
    assert_eq!(place.key_ids(fixture, &token).await, [id, id]);
    for (secret, nth) in [(OTHER_SECRET, "msg_1"), (SECRET, "msg_2")] {
        assert!(answer(place.signed(&token, secret, nth, 0, &json!({})).await).run.is_some());
    }
}

/// Calls are verified all the time, and then nothing needs the old key.
pub async fn after_a_rotation_the_secrets_of_hooks_are_of_the_new_key<F: ControlFixture>(fixture: &F) {
    let old = ring();
    let before = Place::new(fixture).await.with_keys(fixture, same(&old));
    let (hook, token) = before.define(before.to_pipeline(), Some(SECRET)).await;
    for _ in 0..120 {
        before.define(before.to_pipeline(), Some(OTHER_SECRET)).await;
    }
    let (_, open) = before.define(before.to_pipeline(), None).await;
    let rotated = old.rotated().unwrap();
    let new_alone = KeyRing::parse(rotated.to_text().expose_secret().lines().next().unwrap()).unwrap();
    let during = before.with_keys(fixture, rotated);
    assert!(answer(during.signed(&token, SECRET, "msg_1", 0, &json!({})).await).run.is_some());
    assert_eq!(during.hooks.reseal().await.unwrap(), 121, "in more than one batch");
    assert_eq!(during.hooks.reseal().await.unwrap(), 0);
    assert_eq!(during.key_ids(fixture, &token).await, [new_alone.current_id()]);
    assert!(during.key_ids(fixture, &open).await.is_empty());
    let after = before.with_keys(fixture, new_alone);
    assert!(answer(after.signed(&token, SECRET, "msg_2", 0, &json!({})).await).run.is_some());
    assert!(is_untrusted(&after.signed(&token, OTHER_SECRET, "msg_3", 0, &json!({})).await));
    let found = after.hooks.find::<crate::right::Read>(&after.world.owner, hook.id).await.unwrap();
    assert_eq!(found.updated_at, hook.updated_at, "nobody has changed it");
}

/// The server cannot tell whether it is trusted: the sender is to try again, and is not told that they are not.
pub async fn a_call_of_a_hook_without_its_key_is_to_be_sent_again<F: ControlFixture>(fixture: &F) {
    let place = Place::new(fixture).await.with_keys(fixture, ring());
    let (hook, token) = place.define(place.to_pipeline(), Some(SECRET)).await;
    let without = place.with_keys(fixture, ring());
    let refused = without.signed(&token, SECRET, "msg_1", 0, &json!({})).await;
    assert!(
        matches!(refused, Err(CallRefused::Store(ControlError::Unavailable(_)))),
        "without the key it is unknown"
    );
    assert_eq!(without.hooks.reseal().await.unwrap(), 0, "it cannot be encrypted anew without its key");
    assert!(place.ledger(&hook).await.is_empty());
    assert!(answer(place.signed(&token, SECRET, "msg_1", 0, &json!({})).await).run.is_some());
}
