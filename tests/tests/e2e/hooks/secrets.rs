//! The secrets of hooks are readable in no row of the database.

use anyhow::Result;
use gathering_e2e::{Database, Server, wait_until};
use serde_json::json;

use super::{LIMIT, create};

/// A row of an earlier version is readable, and the next start encrypts it.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_an_earlier_version_stored_as_text_is_encrypted_by_the_next_start() -> Result<()> {
    let database = Database::empty().await?;
    let mut server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let hook = json!({
        "name": "h", "target": {"event_type": "call.received"}, "verification": {"scheme": "token"},
        "secret": "a secret of long ago"
    });
    let path = create(&ada, &hook).await?.path;
    let session = database.session().await?;
    let readable = "SELECT count(*) FROM hooks WHERE hooks::text LIKE '%long ago%'";
    assert_eq!(session.query_one(readable, &[]).await?.get::<_, i64>(0), 0, "a new one is encrypted at once");
    let old =
        "UPDATE hooks SET secrets = '{a secret of long ago}', sealed_secrets = '{}', secret_key_ids = '{}'";
    session.execute(old, &[]).await?;
    server.stop(LIMIT).await?;
    let server = Server::start(&database).await?;
    wait_until(LIMIT, "the secret is encrypted", async || match session.query_one(readable, &[]).await {
        Ok(row) if row.get::<_, i64>(0) == 0 => Ok(()),
        Ok(_) => Err("it is not".to_owned()),
        Err(error) => Err(error.to_string()),
    })
    .await?;
    for (secret, status) in [("a secret of long ago", 202), ("another secret", 401)] {
        let sender = server.client().with_header("x-hook-token", secret);
        assert_eq!(sender.post(&path, &json!({})).await?.status, status, "{secret}");
    }
    Ok(())
}
