//! The limits of every call: its time, its room on the blocking threads, and the size of its result.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gathering_tools::{
    BlockingPool, BlockingTool, EffectClass, Outbound, OutboundPolicy, ToolContext, ToolError, ToolSource,
    ToolSpec, Toolbox, Workspace,
};
use serde_json::{Value, json};
use tokio::time::Instant;

/// A blocking tool that waits until it is released, and returns a text of `size` bytes.
struct Stuck {
    spec: ToolSpec,
    released: Mutex<Receiver<()>>,
}

fn stuck(name: &str) -> (Stuck, Sender<()>) {
    let spec = ToolSpec {
        name: name.to_owned(),
        description: String::new(),
        parameters: json!({"type": "object"}),
        class: EffectClass::Pure,
        source: ToolSource::BuiltIn,
    };
    let (release, released) = channel();
    (Stuck { spec, released: Mutex::new(released) }, release)
}

impl BlockingTool for Stuck {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn call(&self, params: Value, _context: &ToolContext) -> Result<Value, ToolError> {
        let _ = self.released.lock().unwrap().recv();
        Ok(json!({"text": "x".repeat(params["size"].as_u64().unwrap_or(0) as usize)}))
    }
}

/// Fails loudly instead of hanging.
async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work).await.unwrap()
}

#[tokio::test]
async fn blocked_tools_delay_neither_other_tools_nor_files() {
    let pool = BlockingPool::new(32);
    let outbound = Outbound::new(OutboundPolicy::public_only()).unwrap();
    let mut tools = Toolbox::with_builtin(&outbound, pool.clone()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let workspace = Workspace::open(directory.path(), pool.clone()).await.unwrap();
    let context = ToolContext::new().with_workspace(workspace);
    let mut releases = Vec::new();
    for index in 0..32 {
        let (tool, release) = stuck(&format!("stuck_{index}"));
        tools.register_blocking(tool).unwrap();
        releases.push(release);
    }
    let tools = Arc::new(tools);
    let blocked: Vec<_> = (0..32)
        .map(|index| {
            let (tools, context) = (Arc::clone(&tools), context.clone());
            tokio::spawn(async move { tools.call(&format!("stuck_{index}"), json!({}), &context).await })
        })
        .collect();
    tokio::task::yield_now().await;
    soon(tools.call("now", json!({}), &context)).await.unwrap();
    let write = json!({"path": "a", "content": "b"});
    soon(tools.call("write_file", write, &context)).await.unwrap();
    drop(releases);
    for call in blocked {
        soon(call).await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_async_tool_is_dropped_at_its_deadline() {
    let outbound = Outbound::new(OutboundPolicy::public_only()).unwrap();
    let tools = Toolbox::with_builtin(&outbound, BlockingPool::new(1)).unwrap();
    let start = Instant::now();
    let context = ToolContext::new().with_deadline(start + Duration::from_secs(5));
    let error = tools.call("wait", json!({"seconds": 60}), &context).await.unwrap_err();
    assert_eq!(error.to_string(), "the tool `wait` did not end in time");
    assert_eq!(
        (error.kind().as_str(), error.is_retryable(), error.may_have_taken_place()),
        ("timeout", true, true)
    );
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    tools.call("wait", json!({"seconds": 0}), &ToolContext::new()).await.unwrap();
}

#[tokio::test]
async fn a_blocking_tool_is_abandoned_at_its_deadline_and_counted() {
    let pool = BlockingPool::new(2);
    let mut tools = Toolbox::new(pool.clone());
    let (tool, release) = stuck("stuck");
    tools.register_blocking(tool).unwrap();
    let context = ToolContext::new().with_deadline(Instant::now() + Duration::from_millis(50));
    let error = soon(tools.call("stuck", json!({}), &context)).await.unwrap_err();
    assert_eq!((error.kind().as_str(), pool.n_abandoned()), ("timeout", 1));
    drop(release);
    soon(async {
        while pool.n_abandoned() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_large_result_is_cut_also_in_a_selection() {
    let mut tools = Toolbox::new(BlockingPool::new(1)).with_result_limit(10_000);
    let (tool, release) = stuck("large");
    tools.register_blocking(tool).unwrap();
    drop(release);
    let selected = tools.select(["large"]).unwrap();
    for tools in [tools, selected] {
        let whole = soon(tools.call("large", json!({"size": 9_000}), &ToolContext::new())).await.unwrap();
        assert_eq!(whole.get("$cut"), None);
        let cut = soon(tools.call("large", json!({"size": 90_000}), &ToolContext::new())).await.unwrap();
        assert!(cut.to_string().len() <= 10_000);
        assert_eq!(
            (&cut["$cut"]["bytes"], &cut["$cut"]["places"][0]["at"]),
            (&json!(90_011), &json!("/text"))
        );
    }
}
