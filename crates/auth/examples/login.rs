//! Registers an account, logs in, authenticates, refreshes and logs out. Everything is in memory.
//!
//! `cargo run -p gathering-auth --example login`

use std::sync::Arc;

use gathering_auth::testing::{InspectAccounts, MemoryAccounts};
use gathering_auth::{
    Action, Auth, AuthError, AuthSettings, KeyRing, Origin, ProjectRole, RegistrationRequest, authorize,
};
use gathering_domain::{ExposeSecret, Secret};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = Arc::new(MemoryAccounts::new());
    let auth = Auth::new(store.clone(), KeyRing::generate()?, AuthSettings::default())?;
    let origin = Origin::default();

    for (email, name) in [("ada@example.org", "Ada"), ("bob@example.org", "Bob")] {
        let password = Secret::from("correct horse battery");
        let request = RegistrationRequest { email: email.to_owned(), name: name.to_owned(), password };
        let account = auth.register(request, origin).await?;
        say(&format!("{} registered as {}", account.name, account.role));
    }

    let pair = auth.login("bob@example.org", Secret::from("correct horse battery"), origin).await?;
    let caller = auth.authenticate(pair.access_token.expose_secret(), origin).await?;
    say(&format!("the token is {}'s", auth.me(&caller).await?.name));
    say(&format!(
        "as an editor he may run: {}",
        authorize(&caller, Some(ProjectRole::Editor), Action::Run).is_ok()
    ));
    say(&format!("as a stranger: {:?}", authorize(&caller, None, Action::Read)));

    let next = auth.refresh(pair.refresh_token.expose(), origin).await?;
    auth.logout(&caller, None).await?;
    match auth.authenticate(next.access_token.expose_secret(), origin).await {
        Err(AuthError::Revoked) => say("after the logout every token of the session is invalid"),
        other => say(&format!("unexpected: {other:?}")),
    }

    for event in store.audit_trail().await {
        say(&format!("audit: {}", event.kind));
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "an example prints its result")]
fn say(line: &str) {
    println!("{line}");
}
