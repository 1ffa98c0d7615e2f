//! Guessing passwords is bounded, for all instances together, and locks no other account out. Rate limits are off here.

use std::time::{Duration, Instant};

use anyhow::Result;
use gathering_e2e::{Client, Database, Metrics, PASSWORD, Reply, Server, wait_until};
use serde_json::json;

/// The burst of attempts for one e-mail, and from one network.
const BURST: usize = 5;
const NETWORK_BURST: usize = 30;
const LIMIT: Duration = Duration::from_secs(30);

async fn behind_a_proxy(database: &Database) -> Result<Server> {
    Server::start_with(database, |command| {
        command.env("GATHERING_TRUSTED_PROXIES", "127.0.0.0/8");
    })
    .await
}

async fn guess(client: &Client, email: &str) -> Result<Reply> {
    client.try_login(email, "a wrong horse").await
}

/// Spends the budget of this e-mail from this client's network.
async fn spend(client: &Client, email: &str) -> Result<()> {
    for _ in 0..BURST {
        guess(client, email).await?.expect_problem(401, "not-authenticated")?;
    }
    Ok(())
}

fn check_refused(reply: &Reply) -> Result<Duration> {
    reply.expect_problem(429, "rate-limited")?;
    let wait = reply.retry_after()?;
    assert!(wait > Duration::ZERO && wait <= Duration::from_secs(60), "{wait:?}");
    Ok(wait)
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_are_refused_alike_whether_the_account_exists_and_the_victim_is_not_locked_out() -> Result<()>
{
    let database = Database::empty().await?;
    let server = behind_a_proxy(&database).await?;
    server.client().register("ada@example.org").await?;
    let guesser = server.client().from_address("198.51.100.7");
    let mut answers = Vec::new();
    for email in ["ada@example.org", "nobody@example.org"] {
        spend(&guesser, email).await?;
        for spelling in [email.to_owned(), format!(" {} ", email.to_uppercase())] {
            let mut refused = guess(&guesser, &spelling).await?;
            check_refused(&refused)?;
            refused.body["instance"].take();
            answers.push(refused.body);
        }
    }
    let right = guesser.try_login("ada@example.org", PASSWORD).await?;
    check_refused(&right)?;
    let detail =
        |body: &serde_json::Value| body["detail"].as_str().map(|text| text.replace(char::is_numeric, "0"));
    assert!(answers.iter().all(|body| detail(body) == detail(&answers[0])), "{answers:?}");
    let victim = server.client().from_address("203.0.113.20");
    assert_eq!(victim.try_login("ada@example.org", PASSWORD).await?.status, 200);
    assert_eq!(guess(&guesser, "bob@example.org").await?.status, 401, "only these e-mails are spent");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_guess_computes_no_password() -> Result<()> {
    let database = Database::empty().await?;
    let server = behind_a_proxy(&database).await?;
    let guesser = server.client().from_address("198.51.100.7");
    spend(&guesser, "ada@example.org").await?;
    let computed = async || {
        Ok::<_, anyhow::Error>(
            Metrics::read(server.client()).await?.sum("gathering_passwords_computed_total", &[]),
        )
    };
    let before = computed().await?;
    assert!(before >= 5.0, "the attempts before were checked: {before}");
    for _ in 0..20 {
        check_refused(&guess(&guesser, "ada@example.org").await?)?;
    }
    assert_eq!(computed().await?, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_throttle_survives_a_restart_and_holds_on_every_instance() -> Result<()> {
    let database = Database::empty().await?;
    let mut one = behind_a_proxy(&database).await?;
    let other = behind_a_proxy(&database).await?;
    let from = |server: &Server| server.client().from_address("198.51.100.7");
    spend(&from(&one), "ada@example.org").await?;
    check_refused(&guess(&from(&other), "ada@example.org").await?)?;
    one.kill()?;
    let one = behind_a_proxy(&database).await?;
    check_refused(&guess(&from(&one), "ada@example.org").await?)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_is_bounded_over_all_accounts_and_served_again_when_it_was_told() -> Result<()> {
    let database = Database::empty().await?;
    let server = behind_a_proxy(&database).await?;
    server.client().register("ada@example.org").await?;
    let guesser = server.client().from_address("198.51.100.7");
    let begun = Instant::now();
    let mut n_looked_at = 0;
    let wait = loop {
        let reply = guess(&guesser, &format!("nobody{n_looked_at}@example.org")).await?;
        if reply.status == 429 {
            break check_refused(&reply)?;
        }
        n_looked_at += 1;
        assert!(n_looked_at < 2 * NETWORK_BURST, "no attempt is throttled");
    };
    let regained = usize::try_from(begun.elapsed().as_secs() / 2)? + 1;
    assert!((NETWORK_BURST..=NETWORK_BURST + regained).contains(&n_looked_at), "{n_looked_at}");
    assert!(wait <= Duration::from_secs(2), "{wait:?}");
    let told = Instant::now();
    // What was said is enough: no attempt before it, and the first one after it.
    wait_until(LIMIT, "the announced time passes", async || {
        if told.elapsed() >= wait { Ok(()) } else { Err("not yet") }
    })
    .await?;
    let again = guesser.try_login("ada@example.org", PASSWORD).await?;
    assert_eq!(again.status, 200, "{}", again.text);
    let neighbour = server.client().from_address("198.51.100.8");
    assert_eq!(guess(&neighbour, "nobody@example.org").await?.status, 401);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn all_addresses_of_an_ipv6_site_share_one_budget() -> Result<()> {
    let database = Database::empty().await?;
    let server = behind_a_proxy(&database).await?;
    for n in 0..BURST {
        let client = server.client().from_address(&format!("2001:db8::{n:x}:1"));
        guess(&client, "ada@example.org").await?.expect_problem(401, "not-authenticated")?;
    }
    check_refused(&guess(&server.client().from_address("2001:db8::ffff"), "ada@example.org").await?)?;
    let elsewhere = server.client().from_address("2001:db8:0:1::1");
    assert_eq!(guess(&elsewhere, "ada@example.org").await?.status, 401);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_address_buys_no_guesses_where_no_proxy_is_trusted() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    for n in 0..BURST {
        let client = server.client().from_address(&format!("198.51.100.{n}"));
        guess(&client, "ada@example.org").await?.expect_problem(401, "not-authenticated")?;
    }
    check_refused(&guess(&server.client().from_address("203.0.113.9"), "ada@example.org").await?)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_password_costs_no_budget_and_guesses_at_once_are_charged_one_by_one() -> Result<()> {
    let database = Database::empty().await?;
    let server = behind_a_proxy(&database).await?;
    let client = server.client().from_address("198.51.100.7");
    client.register("ada@example.org").await?;
    for _ in 0..2 * NETWORK_BURST {
        assert_eq!(client.try_login("ada@example.org", PASSWORD).await?.status, 200);
    }
    let mut guesses = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let client = client.clone();
        guesses.spawn(async move { Ok(guess(&client, "ada@example.org").await?.status) });
    }
    let statuses = guesses.join_all().await.into_iter().collect::<Result<Vec<u16>>>()?;
    let n_looked_at = statuses.iter().filter(|status| **status == 401).count();
    assert_eq!((n_looked_at, statuses.iter().filter(|status| **status == 429).count()), (BURST, 40 - BURST));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_the_current_password_of_an_open_session_is_bounded_too() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let change = json!({"current_password": "a wrong horse", "new_password": "quite a new password"});
    let mut statuses = Vec::new();
    for _ in 0..=BURST {
        statuses.push(ada.put("/api/v1/auth/password", &change).await?.status);
    }
    assert_eq!(statuses, [403, 403, 403, 403, 403, 429]);
    check_refused(&guess(server.client(), "ada@example.org").await?)?;
    Ok(())
}
