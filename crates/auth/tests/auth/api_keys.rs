//! API keys: who may create which, and what they allow.

use std::time::Duration;

use chrono::{DateTime, Utc};
use gathering_auth::testing::InspectAccounts;
use gathering_auth::{
    Action, ApiKey, ApiKeyRequest, ApiKeySecret, AuthError, Credential, InvalidToken, ProjectRole, Scope,
    Scopes, authorize, authorize_admin,
};
use gathering_domain::{ApiKeyId, KeyedBody, Secret};

use super::*;

fn asking_for(scopes: &[Scope]) -> ApiKeyRequest {
    ApiKeyRequest { name: " robot ".to_owned(), scopes: scopes.to_vec(), expires_at: None, once: None }
}

async fn create(auth: &Auth, caller: &Caller, scopes: &[Scope]) -> (ApiKey, ApiKeySecret) {
    auth.create_api_key(caller, asking_for(scopes)).await.unwrap()
}

async fn show(auth: &Auth, secret: &ApiKeySecret) -> Result<Caller, AuthError> {
    auth.authenticate(secret.expose(), from_somewhere()).await
}

async fn pointers_of(auth: &Auth, caller: &Caller, request: ApiKeyRequest) -> Vec<String> {
    match auth.create_api_key(caller, request).await {
        Err(AuthError::Invalid(problems)) => {
            problems.iter().map(|problem| problem.pointer.as_str().to_owned()).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_key_authenticates_its_owner_with_its_scopes() {
    let (store, auth) = auth_with(settings());
    let ada = register(&auth, "ada@example.org").await;
    let caller = logged_in(&auth, "ada@example.org").await;
    let (key, secret) = create(&auth, &caller, &[Scope::Run, Scope::Write]).await;
    assert_eq!((key.name.as_str(), key.last_used_at), ("robot", None));
    assert!(secret.expose().starts_with("grk_") && secret.expose().len() == 47);
    let event = store.audit_trail().await.pop().unwrap();
    assert_eq!((event.kind.as_str(), event.user), ("api_key_created", Some(ada)));
    let detail = serde_json::json!({ "api_key": key.id, "scopes": ["write", "run"] });
    assert_eq!(event.detail, detail);

    let shown = show(&auth, &secret).await.unwrap();
    let scopes = Scopes::from_iter([Scope::Write, Scope::Run]);
    assert_eq!((shown.user, shown.credential.clone()), (ada, Credential::ApiKey { key: key.id, scopes }));
    assert_eq!(auth.me(&shown).await.unwrap().id, ada);
    let listed = auth.list_api_keys(&shown).await.unwrap();
    assert_eq!(listed.iter().map(|key| key.id).collect::<Vec<_>>(), [key.id]);
    assert!(listed[0].last_used_at.is_some());
    let told = format!("{:?} {shown:?} {secret:?}", store.audit_trail().await);
    assert!(!told.contains(secret.expose()));
}

/// What each pair of owner and scope may do as editor of a project and on the whole server.
#[tokio::test]
async fn a_key_never_exceeds_its_scopes_and_its_owner() {
    let (_store, auth) = auth_with(settings());
    register_as(&auth, "ada@example.org", Role::Admin).await;
    register_as(&auth, "bob@example.org", Role::Member).await;
    let actions = [Action::Read, Action::Write, Action::Run, Action::Manage];
    let mut table = Vec::new();
    for email in ["ada@example.org", "bob@example.org"] {
        let owner = logged_in(&auth, email).await;
        for scope in Scope::ALL.into_iter().filter(|scope| *scope != Scope::Admin || email.starts_with("ada"))
        {
            let caller = show(&auth, &create(&auth, &owner, &[scope]).await.1).await.unwrap();
            let answer = |may| if may { "yes" } else { "no" };
            let editor = Some(ProjectRole::Editor);
            let mut answers: Vec<&str> =
                actions.map(|action| answer(authorize(&caller, editor, action).is_ok())).into();
            answers.push(answer(authorize(&caller, None, Action::Read).is_ok()));
            answers.push(answer(authorize_admin(&caller).is_ok()));
            table.push(format!("{} {scope} as {}: {}", owner.role, caller.role, answers.join(" ")));
        }
    }
    // read write run manage | a stranger's project, the server
    assert_eq!(
        table,
        [
            "admin read as member: yes no no no no no",
            "admin write as member: yes yes no no no no",
            "admin run as member: yes no yes no no no",
            "admin manage as member: yes no no no no no",
            "admin admin as admin: yes yes yes yes yes yes",
            "member read as member: yes no no no no no",
            "member write as member: yes yes no no no no",
            "member run as member: yes no yes no no no",
            "member manage as member: yes no no no no no",
        ]
    );
}

#[tokio::test]
async fn a_key_with_the_scope_admin_has_its_owners_current_permissions() {
    let (_store, auth) = auth_with(settings());
    register_as(&auth, "ada@example.org", Role::Admin).await;
    let bob = register_as(&auth, "bob@example.org", Role::Admin).await;
    let ada = logged_in(&auth, "ada@example.org").await;
    let (_, secret) = create(&auth, &logged_in(&auth, "bob@example.org").await, &[Scope::Admin]).await;
    for role in [Role::Member, Role::Admin] {
        auth.change_account(&ada, bob, Some(role), None).await.unwrap();
        assert_eq!(show(&auth, &secret).await.unwrap().role, role);
    }
}

#[tokio::test]
async fn every_problem_of_a_request_is_reported_and_nothing_is_created() {
    let (_store, auth) = auth_with(settings());
    register_as(&auth, "ada@example.org", Role::Admin).await;
    register_as(&auth, "bob@example.org", Role::Member).await;
    let (ada, bob) = (logged_in(&auth, "ada@example.org").await, logged_in(&auth, "bob@example.org").await);
    let past: DateTime<Utc> = Utc::now() - Duration::from_secs(1);
    let bad = ApiKeyRequest { name: "\n".to_owned(), scopes: Vec::new(), expires_at: Some(past), once: None };
    assert_eq!(pointers_of(&auth, &ada, bad).await, ["/name", "/scopes", "/expires_at"]);
    let long = ApiKeyRequest { name: "x".repeat(101), ..asking_for(&[Scope::Read]) };
    assert_eq!(pointers_of(&auth, &ada, long).await, ["/name"]);
    let twice = asking_for(&[Scope::Read, Scope::Run, Scope::Read, Scope::Run]);
    assert_eq!(pointers_of(&auth, &ada, twice).await, ["/scopes/2", "/scopes/3"]);
    let too_strong = asking_for(&[Scope::Read, Scope::Admin]);
    assert_eq!(pointers_of(&auth, &bob, too_strong.clone()).await, ["/scopes/1"]);
    assert_eq!(
        auth.list_api_keys(&ada).await.unwrap().len() + auth.list_api_keys(&bob).await.unwrap().len(),
        0
    );
    assert!(auth.create_api_key(&ada, too_strong).await.is_ok());
}

#[tokio::test]
async fn operations_on_the_account_itself_need_a_session() {
    let (store, auth) = watched_with(settings());
    register(&auth, "ada@example.org").await;
    let session = logged_in(&auth, "ada@example.org").await;
    let (key, secret) = create(&auth, &session, &Scope::ALL).await;
    let caller = show(&auth, &secret).await.unwrap();
    store.calls();
    let refusals = [
        auth.create_api_key(&caller, asking_for(&[Scope::Read])).await.map(drop),
        auth.revoke_api_key(&caller, key.id).await,
        auth.logout(&caller, None).await,
        auth.change_password(&caller, Secret::from(PASSWORD), Secret::from("another horse")).await,
    ];
    for refusal in refusals {
        assert!(matches!(refusal, Err(AuthError::SessionNeeded)), "{refusal:?}");
    }
    assert_eq!(store.calls(), Vec::<&str>::new());
    assert!(auth.list_accounts(&caller, None, 1).await.is_ok(), "but the key is an admin's");
}

#[tokio::test]
async fn an_invalid_key_is_refused() {
    let (store, auth) = auth_with(settings());
    register_as(&auth, "ada@example.org", Role::Admin).await;
    let bob = register_as(&auth, "bob@example.org", Role::Member).await;
    let (ada, owner) = (logged_in(&auth, "ada@example.org").await, logged_in(&auth, "bob@example.org").await);
    let (key, secret) = create(&auth, &owner, &[Scope::Read]).await;
    auth.change_account(&ada, bob, None, Some(false)).await.unwrap();
    assert!(matches!(show(&auth, &secret).await, Err(AuthError::Revoked)));
    auth.change_account(&ada, bob, None, Some(true)).await.unwrap();
    assert!(show(&auth, &secret).await.is_ok(), "a key is not a session");

    assert!(matches!(auth.revoke_api_key(&ada, key.id).await, Err(AuthError::NoApiKey)), "not hers");
    let owner = logged_in(&auth, "bob@example.org").await;
    auth.revoke_api_key(&owner, key.id).await.unwrap();
    assert_eq!(last_audit(&*store).await.0, "api_key_revoked");
    assert!(matches!(show(&auth, &secret).await, Err(AuthError::Revoked)));
    for key in [key.id, ApiKeyId::new()] {
        assert!(matches!(auth.revoke_api_key(&owner, key).await, Err(AuthError::NoApiKey)));
    }

    let malformed = auth.authenticate("grk_short", from_somewhere()).await;
    assert!(matches!(malformed, Err(AuthError::NotAuthenticated(InvalidToken::Malformed))));
    let unknown = auth.authenticate(&format!("grk_{}", "A".repeat(43)), from_somewhere()).await;
    assert!(matches!(unknown, Err(AuthError::Revoked)));
}

#[tokio::test]
async fn a_key_expires() {
    let (_store, auth) = auth_with(settings());
    register(&auth, "ada@example.org").await;
    let caller = logged_in(&auth, "ada@example.org").await;
    let soon = Utc::now() + Duration::from_millis(200);
    let request = ApiKeyRequest { expires_at: Some(soon), ..asking_for(&[Scope::Read]) };
    let (_, secret) = auth.create_api_key(&caller, request).await.unwrap();
    while show(&auth, &secret).await.is_ok() {
        assert!(Utc::now() < soon + Duration::from_secs(5));
        tokio::task::yield_now().await;
    }
    assert!(Utc::now() >= soon && matches!(show(&auth, &secret).await, Err(AuthError::Revoked)));
    assert_eq!(auth.verified_user(secret.expose()), None);
}

#[tokio::test]
async fn an_account_has_a_hundred_keys_at_most() {
    let (_store, auth) = auth_with(settings());
    register(&auth, "ada@example.org").await;
    let caller = logged_in(&auth, "ada@example.org").await;
    for _ in 0..100 {
        create(&auth, &caller, &[Scope::Read]).await;
    }
    let refused = auth.create_api_key(&caller, asking_for(&[Scope::Read])).await;
    assert!(matches!(refused, Err(AuthError::TooManyKeys)));
}

/// The secret was shown once, so a repeated request names the key instead.
#[tokio::test]
async fn a_repeated_request_names_the_key_that_it_created() {
    let (_store, auth) = auth_with(settings());
    register_as(&auth, "ada@example.org", Role::Member).await;
    let ada = logged_in(&auth, "ada@example.org").await;
    let request = |body: serde_json::Value| {
        let once = Some(KeyedBody::new("k".parse().unwrap(), &body));
        auth.create_api_key(&ada, ApiKeyRequest { once, ..asking_for(&[Scope::Read]) })
    };
    let body = serde_json::json!({ "name": "robot" });
    let (key, _secret) = request(body.clone()).await.unwrap();
    let repeated = request(body).await.unwrap_err();
    assert!(matches!(repeated, AuthError::KeyCreatedBefore(id) if id == key.id), "{repeated:?}");
    assert!(repeated.to_string().contains(&key.id.to_string()));
    let other = request(serde_json::json!({ "name": "another" })).await.unwrap_err();
    assert!(matches!(other, AuthError::IdempotencyKeyReused), "{other:?}");
    assert_eq!(auth.list_api_keys(&ada).await.unwrap(), [key]);
}
