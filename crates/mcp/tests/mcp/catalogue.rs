//! Which tools a server has, what they are called, and which of them may be called.

use std::time::Duration;

use gathering_domain::EffectClass;
use gathering_mcp::{McpError, McpNoticeKind, McpServer, NotCallable, ToolPins};
use gathering_tools::{BlockingPool, ToolContext, ToolError, Toolbox};
use serde_json::json;

use crate::support::{fake, heard, is_well, mount, services, text, wait_until};

#[tokio::test]
async fn a_tool_that_cannot_be_called_is_marked_and_the_others_stay() {
    let server = mount(fake(&[]));
    let catalogue = server.ready().await.unwrap();
    let why = |tool: &str| catalogue.find(tool).unwrap().not_callable.clone();
    assert!(matches!(why("bad_schema"), Some(NotCallable::InvalidSchema { .. })));
    assert!(matches!(why("remote_schema"), Some(NotCallable::InvalidSchema { .. })));
    assert_eq!(why("task"), Some(NotCallable::NeedsTask));
    assert_eq!(why("echo"), None);
    let of_hang = catalogue.tools.iter().filter(|tool| tool.name == "fake__hang");
    let of_hang: Vec<bool> = of_hang.map(|tool| tool.not_callable.is_none()).collect();
    assert_eq!(of_hang, [true, false], "the second of a name is left out");
    assert_eq!(catalogue.problems, ["an entry of the list has no name; it is left out"]);
    let error = text(&server, "task").await.unwrap_err();
    assert!(!error.may_have_taken_place() && error.to_string().contains("as a task"), "{error}");
    assert!(heard(&server, "tools/list").await.len() >= 2, "the second page was read");
    server.stop().await;
}

#[tokio::test]
async fn mounted_tools_are_tools_of_a_toolbox() {
    let mut config = fake(&[]);
    config.allowance.tools.insert("echo".to_owned(), EffectClass::Pure);
    let server = mount(config);
    let mut tools = Toolbox::new(BlockingPool::new(1));
    for tool in server.tools().await.unwrap() {
        tools.register(tool).unwrap();
    }
    let echo = tools.get("fake__echo").unwrap();
    assert_eq!((echo.source.to_string().as_str(), echo.class), ("mcp:fake", EffectClass::Pure));
    assert_eq!(tools.get("fake__hang").unwrap().class, EffectClass::Unsafe);
    let altered: Vec<&str> =
        tools.list().map(|tool| tool.name.as_str()).filter(|name| name.contains("last")).collect();
    assert!(altered[0].starts_with("fake__last_of_all_"), "{altered:?}");

    let context = ToolContext::new();
    let said = tools.call("fake__echo", json!({"message": "hi"}), &context).await.unwrap();
    assert_eq!(said, json!({"content": [{"type": "text", "text": "hi"}]}));
    let failed = tools.call("fake__fail", json!({}), &context).await.unwrap_err();
    assert_eq!(failed.to_string(), "no zone `utc`; write `UTC`");
    server.stop().await;
    let stopped = tools.call("fake__echo", json!({"message": "hi"}), &context).await.unwrap_err();
    assert!(matches!(stopped, ToolError::NotConfigured { .. }) && !stopped.may_have_taken_place());
}

#[tokio::test]
async fn a_tool_waits_until_its_definition_is_accepted() {
    let mut config = fake(&[]);
    config.pins = ToolPins::default();
    let server = mount(config);
    let catalogue = server.ready().await.unwrap();
    assert_eq!(catalogue.callable().count(), 0);
    assert!(catalogue.changes.added.contains(&"echo".to_owned()));
    let error = text(&server, "noise").await.unwrap_err();
    assert!(matches!(error, McpError::NotCallable { reason: NotCallable::New, .. }), "{error}");
    server.set_pins(catalogue.to_pins());
    assert!(is_well(&server).await);
    server.stop().await;
}

#[tokio::test]
async fn a_tool_that_changes_under_way_is_not_callable_and_the_catalogue_says_what_changed() {
    let mut config = fake(&[]);
    config.pins = ToolPins::default();
    let server = mount(config);
    server.set_pins(server.ready().await.unwrap().to_pins());
    let mounted = server.tools().await.unwrap();
    assert!(is_well(&server).await);
    text(&server, "rename").await.unwrap();
    let is_changed = async || server.catalogue().is_some_and(|catalogue| !catalogue.changes.is_empty());
    wait_until("the tools were listed anew", is_changed).await;

    let changes = server.catalogue().unwrap().changes.clone();
    assert_eq!((changes.added, changes.removed), (vec!["new".to_owned()], vec!["big".to_owned()]));
    let [change] = &changes.changed[..] else { panic!("{:?}", changes.changed) };
    assert_eq!((change.tool.as_str(), change.fields[0].field.as_str()), ("echo", "description"));
    assert_eq!(change.fields[0].old, Some(json!("Says it again")));
    assert_eq!(change.fields[0].new, Some(json!("Says it again, and sends it to everybody")));
    assert!(!is_well(&server).await);

    // Once the new definition is accepted, the tool that was mounted before is still not the accepted one.
    server.set_pins(server.catalogue().unwrap().to_pins());
    assert!(is_well(&server).await);
    let mut tools = Toolbox::new(BlockingPool::new(1));
    for tool in mounted {
        tools.register(tool).unwrap();
    }
    let params = json!({"message": "hi"});
    let outdated = tools.call("fake__echo", params, &ToolContext::new()).await.unwrap_err();
    assert!(outdated.to_string().contains("since it was mounted"), "{outdated}");
    server.stop().await;
}

#[tokio::test]
async fn a_list_without_end_is_cut_and_what_was_read_of_it_stays() {
    for (behaviour, problem) in
        [("endless-list", "more than 64 pages"), ("looping-list", "leads back to a page that was read")]
    {
        let server = mount(fake(&[behaviour]));
        let catalogue = server.ready().await.unwrap();
        assert!(catalogue.problems[0].contains(problem), "{:?}", catalogue.problems);
        assert!(catalogue.callable().count() >= 1);
        server.stop().await;
    }
    let mut config = fake(&[]);
    config.limits.max_tools = 3;
    let server = mount(config);
    let catalogue = server.ready().await.unwrap();
    assert_eq!((catalogue.tools.len(), catalogue.problems.len()), (3, 2), "{:?}", catalogue.problems);
    server.stop().await;
}

#[tokio::test]
async fn several_changes_at_once_are_read_once() {
    let services = services();
    let notices = services.notices.clone();
    let server = McpServer::mount(fake(&["tells-changes"]), services).unwrap();
    let is_told = async || loop {
        match notices.try_next() {
            Some(notice) if notice.kind == McpNoticeKind::ToolsChanged => return true,
            Some(_) => {}
            None => return false,
        }
    };
    wait_until("the change was read", is_told).await;
    // Two lists of two pages each.
    assert!(heard(&server, "tools/list").await.len() <= 6);
    server.stop().await;
}

#[tokio::test]
async fn a_modern_server_is_asked_to_tell_of_changes() {
    let services = services();
    let notices = services.notices.clone();
    let server = McpServer::mount(fake(&["modern"]), services).unwrap();
    server.ready().await.unwrap();
    let next = async { while notices.next().await.kind != McpNoticeKind::ToolsChanged {} };
    tokio::time::timeout(Duration::from_secs(20), next).await.unwrap();
    server.stop().await;
}
