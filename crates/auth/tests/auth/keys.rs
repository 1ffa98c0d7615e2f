//! Rotating the keys of access tokens while users are logged in.

use gathering_auth::InvalidToken;

use super::*;

/// The keys of a ring, one text each.
fn keys_of(ring: &KeyRing) -> Vec<String> {
    ring.to_text().expose_secret().lines().map(str::to_owned).collect()
}

fn auth_with_keys(store: &Arc<MemoryAccounts>, keys: &[&String]) -> Auth {
    let text: Vec<&str> = keys.iter().map(|key| key.as_str()).collect();
    Auth::new(store.clone(), KeyRing::parse(&text.join("\n")).unwrap(), settings()).unwrap()
}

#[tokio::test]
async fn keys_are_rotated_without_logging_anybody_out() {
    let ring = KeyRing::generate().unwrap().rotated().unwrap();
    let keys = keys_of(&ring);
    let (new, old) = (&keys[0], &keys[1]);
    let store = Arc::new(MemoryAccounts::new());

    let before = auth_with_keys(&store, &[old]);
    register(&before, "ada@example.org").await;
    let (active, idle) = (login(&before, "ada@example.org").await, login(&before, "ada@example.org").await);

    let during = auth_with_keys(&store, &[new, old]);
    assert!(is_accepted(&during, &active).await, "a token of the old key");
    let active = during.refresh(active.refresh_token.expose(), from_somewhere()).await.unwrap();
    assert!(is_accepted(&during, &active).await, "a token of the new key");

    let after = auth_with_keys(&store, &[new]);
    assert!(is_accepted(&after, &active).await);
    assert!(can_refresh(&after, &active).await);
    // An idle user's access token is invalid without its key, but the session continues.
    let gone = after.authenticate(idle.access_token.expose_secret(), from_somewhere()).await;
    assert!(matches!(gone, Err(AuthError::NotAuthenticated(InvalidToken::UnknownKey))));
    assert_eq!(after.verified_user(idle.access_token.expose_secret()), None);
    let idle = after.refresh(idle.refresh_token.expose(), from_somewhere()).await.unwrap();
    assert!(is_accepted(&after, &idle).await);
}

#[tokio::test]
async fn instances_accept_each_others_tokens_at_every_step_of_a_rotation() {
    let keys = keys_of(&KeyRing::generate().unwrap().rotated().unwrap());
    let (new, old) = (&keys[0], &keys[1]);
    let store = Arc::new(MemoryAccounts::new());
    register(&auth_with_keys(&store, &[old]), "ada@example.org").await;
    let steps: [&[&String]; 4] = [&[old], &[old, new], &[new, old], &[new]];
    for (ahead, step) in steps.iter().enumerate().skip(1) {
        let (behind, ahead) = (auth_with_keys(&store, steps[ahead - 1]), auth_with_keys(&store, step));
        let of_both = [login(&behind, "ada@example.org").await, login(&ahead, "ada@example.org").await];
        for (index, pair) in of_both.iter().enumerate() {
            assert!(is_accepted(&ahead, pair).await || (step.len() == 1 && index == 0));
            assert!(is_accepted(&behind, pair).await);
        }
    }
}
