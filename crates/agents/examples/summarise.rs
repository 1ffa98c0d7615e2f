//! Summarises a file: with a model if `OPENAI_BASE_URL` (and `OPENAI_API_KEY`) are set, else with `scripted`.
//!
//! `cargo run -p gathering-agents --example summarise -- FILE [MODEL]`

use std::io::Write as _;
use std::sync::Arc;

use gathering_agents::{
    AgentDefinition, Conversation, DirectRunner, OpenAiCompatible, Providers, ToolDescription, run_agent,
};
use gathering_tools::{BlockingPool, Outbound, OutboundPolicy, ToolContext, Toolbox, Workspace};
use serde_json::json;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args().nth(1).ok_or("usage: summarise FILE [MODEL]")?;
    let model = std::env::args().nth(2).unwrap_or_default();
    let mut providers = Providers::with_scripted();
    if let Ok(base_url) = std::env::var("OPENAI_BASE_URL") {
        let key = std::env::var("OPENAI_API_KEY").ok().map(Into::into);
        providers.register(Arc::new(OpenAiCompatible::new(&base_url, key)?));
    }
    let provider = if providers.get("openai").is_ok() { "openai" } else { "scripted" };
    let call = json!({"path": file});
    let agent = AgentDefinition::parse(&json!({
        "provider": provider,
        "model": model,
        "instructions": format!("Read the file and summarise it in three sentences.\nscripted: call read_file {call}"),
    }))?;

    let pool = BlockingPool::new(2);
    let tools = Toolbox::with_builtin(&Outbound::new(OutboundPolicy::public_only())?, pool.clone())?;
    let tools = tools.select(["read_file"])?;
    let described = tools.list().map(ToolDescription::from).collect();
    let context = ToolContext::new().with_workspace(Workspace::open(".", pool).await?);
    let runner = DirectRunner::new(providers.get(&agent.provider)?, tools, context);
    let prompt = format!("Summarise the file {file}.");
    let outcome = run_agent(Conversation::new(&agent, described, prompt), &runner).await?;

    let mut out = std::io::stdout().lock();
    writeln!(out, "{}\n\n({}, {} tokens)", outcome.content, outcome.provider, outcome.usage.total())?;
    Ok(())
}
