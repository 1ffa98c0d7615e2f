//! The header `Idempotency-Key` on requests that create something: sent again, they create nothing more.

use anyhow::{Context as _, Result};
use gathering_e2e::{Client, Database, Reply, Server, begin, pipeline};
use serde_json::{Value, json};
use tokio::task::JoinSet;

const REUSED: &str = "this idempotency key was used for another request";

fn keyed(client: &Client, key: &str) -> Client {
    client.with_header("idempotency-key", key)
}

/// The answers to the same request, sent eight times at once.
async fn eight_times(client: &Client, path: &'static str, body: &Value) -> Result<Vec<Reply>> {
    let mut requests = JoinSet::new();
    for _ in 0..8 {
        let (client, body) = (client.clone(), body.clone());
        requests.spawn(async move { client.post(path, &body).await });
    }
    requests.join_all().await.into_iter().collect()
}

async fn n_items(client: &Client, path: &str) -> Result<usize> {
    let page = client.get(path).await?.expect(200)?;
    Ok(page["items"].as_array().context("no items")?.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_and_body_make_one_pipeline() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let path = "/api/v1/pipelines";
    let body = json!({"name": "one", "definition": pipeline(&[begin()], &[])});
    let once = keyed(&ada, "order-1");
    let mut created = Vec::new();
    for reply in eight_times(&once, path, &body).await? {
        let location = reply.header("location").to_owned();
        created.push((location, reply.header("etag").to_owned(), reply.expect(201)?));
    }
    assert!(created.iter().all(|reply| *reply == created[0]), "{created:?}");
    assert_eq!(n_items(&ada, path).await?, 1);

    let other = json!({"name": "another", "definition": pipeline(&[begin()], &[])});
    let refused = once.post(path, &other).await?;
    refused.expect_problem(409, "conflict")?;
    assert_eq!(refused.body["detail"], REUSED);
    // A key belongs to its account, and to one kind of thing.
    let bob = server.client().join("bob@example.org").await?;
    keyed(&bob, "order-1").post(path, &other).await?.expect(201)?;
    let key = json!({"name": "ci", "scopes": ["read"]});
    once.post("/api/v1/auth/api-keys", &key).await?.expect(201)?;

    let location = &created[0].0;
    let renamed = ada.put(location, &json!({"name": "renamed"})).await?.expect(200)?;
    assert_eq!(once.post(path, &body).await?.expect(201)?, renamed, "as it stands now");
    ada.delete(location).await?.expect(204)?;
    once.post(path, &body).await?.expect_problem(409, "conflict")?;
    assert_eq!(n_items(&ada, path).await?, 1, "the first account is an admin, who sees Bob's");
    keyed(&ada, &"x".repeat(256)).post(path, &body).await?.expect_problem(422, "invalid")?;
    keyed(&ada, "order-2").post(path, &body).await?.expect(201)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_makes_one_api_key_whose_secret_is_shown_once() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let path = "/api/v1/auth/api-keys";
    let body = json!({"name": "ci", "scopes": ["read"]});
    let once = keyed(&ada, "order-1");
    let replies = eight_times(&once, path, &body).await?;
    let (created, refused): (Vec<_>, Vec<_>) = replies.into_iter().partition(|reply| reply.status == 201);
    assert_eq!((created.len(), n_items(&ada, path).await?), (1, 1));
    let id = created[0].body["id"].as_str().context("no id")?;
    for reply in refused {
        reply.expect_problem(409, "conflict")?;
        assert!(reply.text_of("detail")?.contains(id), "{}", reply.text);
        assert!(!reply.text.contains("grk_"), "{}", reply.text);
    }
    let refused = once.post(path, &json!({"name": "cd", "scopes": ["read"]})).await?;
    refused.expect_problem(409, "conflict")?;
    assert_eq!(refused.body["detail"], REUSED);
    keyed(&ada, "order-2").post(path, &body).await?.expect(201)?;
    assert_eq!(n_items(&ada, path).await?, 2);
    Ok(())
}
