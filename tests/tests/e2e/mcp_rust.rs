//! Rust's official SDK as a client of `/mcp`, and of `gathering mcp`.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use gathering_e2e::{Database, Server, begin, command, pipeline};
use rmcp::model::{CallToolRequestParams, ProtocolVersion};
use rmcp::service::RunningService;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::transport::{StreamableHttpClientTransport, TokioChildProcess};
use rmcp::{ClientLifecycleMode, ClientServiceExt as _, RoleClient, ServiceExt as _};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

type Connected = RunningService<RoleClient, ()>;

fn over_http(url: &str, key: Option<&str>) -> StreamableHttpClientTransport<reqwest::Client> {
    let config = StreamableHttpClientTransportConfig::with_uri(url);
    StreamableHttpClientTransport::from_config(match key {
        Some(key) => config.auth_header(key),
        None => config,
    })
}

/// Asks first, and shakes hands only with a server that is older.
fn auto() -> ClientLifecycleMode {
    let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
    ClientLifecycleMode::Auto { preferred_versions, legacy_version: None }
}

/// Starts the pipeline, and looks at what both ends have agreed on.
async fn use_it(client: Connected, version: &str, pipeline: &str) -> Result<()> {
    let agreed = client.peer_info().context("what the server is")?.protocol_version.clone();
    ensure!(agreed.to_string() == version, "{agreed} instead of {version}");
    let tools = client.list_all_tools().await?;
    ensure!(tools.iter().any(|tool| tool.name == "start_run"), "{tools:?}");
    let arguments = json!({"pipeline_id": pipeline}).as_object().cloned().unwrap_or_default();
    let call = CallToolRequestParams::new("start_run").with_arguments(arguments);
    let result = serde_json::to_value(client.call_tool(call).await?)?;
    ensure!(result["structuredContent"]["state"] == "succeeded", "{result}");
    let wrong = CallToolRequestParams::new("get_run").with_arguments(serde_json::Map::new());
    let refused: Value = serde_json::to_value(client.call_tool(wrong).await?)?;
    ensure!(refused["isError"] == true, "{refused}");
    client.cancel().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rusts_client_uses_a_server_over_http_and_through_a_relay() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let id = ada.create_pipeline(&pipeline(&[begin()], &[])).await?;
    let (key, _) = ada.create_key(&["run"]).await?;
    let key = key.token().context("a key")?;
    let url = format!("http://{}/mcp", server.address());
    let relay = || -> Result<TokioChildProcess> {
        let mut relay = command(&["mcp", "--server", &url])?;
        relay.env("GATHERING_API_KEY", key);
        Ok(TokioChildProcess::new(tokio::process::Command::from(relay))?)
    };
    let all = async {
        // Its handshake asks for a version that has none.
        use_it(().serve(over_http(&url, Some(key))).await?, "2025-11-25", &id).await?;
        use_it(().serve_with_lifecycle(over_http(&url, Some(key)), auto()).await?, "2026-07-28", &id).await?;
        use_it(().serve(relay()?).await?, "2025-11-25", &id).await?;
        use_it(().serve_with_lifecycle(relay()?, auto()).await?, "2026-07-28", &id).await
    };
    tokio::time::timeout(LIMIT, all).await?
}

#[tokio::test(flavor = "multi_thread")]
async fn rusts_client_reads_in_a_401_where_the_metadata_are() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let url = format!("http://{}/mcp", server.address());
    for key in [None, Some("wrong")] {
        let refused =
            ().serve_with_lifecycle(over_http(&url, key), auto()).await.err().context("it was let in")?;
        ensure!(refused.is_authorization_required(), "{refused}");
        let challenge = refused.auth_challenge().context("a challenge")?;
        let metadata = format!("http://{}/.well-known/oauth-protected-resource/mcp", server.address());
        ensure!(challenge.contains(&format!("resource_metadata=\"{metadata}\"")), "{challenge}");
    }
    Ok(())
}
