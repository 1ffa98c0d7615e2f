//! `edit_file`, and the versions that tie it to `read_file` and `write_file`.

use gathering_tools::EffectClass;
use serde_json::{Value, json};

use super::Fixture;

fn edits(pairs: &[(&str, &str)]) -> Value {
    pairs.iter().map(|(old, new)| json!({"old_text": old, "new_text": new})).collect()
}

#[tokio::test]
async fn edits_replace_exactly_what_they_name() {
    let tools = Fixture::new().await;
    tools.write("a.rs", "let a = 1;\nlet b = 1;\n");
    let params = json!({"path": "a.rs", "edits": edits(&[("a = 1", "a = 2"), ("let b", "const B")])});
    let edited = tools.call("edit_file", params).await.unwrap();
    assert_eq!((&edited["replacements"], &edited["size"]), (&json!(2), &json!(24)), "{edited}");
    assert_eq!(tools.read("a.rs"), "let a = 2;\nconst B = 1;\n");
    let read = tools.call("read_file", json!({"path": "a.rs"})).await.unwrap();
    assert_eq!(read["version"], edited["version"]);
    let all = json!({"path": "a.rs", "edits": [{"old_text": "=", "new_text": ":=", "replace_all": true}]});
    assert_eq!(tools.call("edit_file", all).await.unwrap()["replacements"], 2);
}

#[tokio::test]
async fn nothing_is_written_unless_every_edit_fits() {
    let tools = Fixture::new().await;
    tools.write("a.txt", "one two\ntwo three\n");
    for (second, told) in [
        (("two", "2"), "/edits/1/old_text: occurs 2 times: give more of the text around it"),
        (
            ("two thre!", "2"),
            "/edits/1/old_text: occurs 0 times; the most similar line is line 2: `two three`",
        ),
    ] {
        let params = json!({"path": "a.txt", "edits": edits(&[("one", "1"), second])});
        let error = tools.call("edit_file", params).await.unwrap_err();
        assert!(error.to_string().contains(told), "{error}");
        assert!(!error.may_have_taken_place());
        assert_eq!(tools.read("a.txt"), "one two\ntwo three\n");
    }
    let same = json!({"path": "a.txt", "edits": edits(&[("one", "one")])});
    let problems = tools.tools.validate("edit_file", &same).unwrap_err();
    assert_eq!(problems.to_string(), "/edits/0/new_text: is the same as `old_text`");
}

#[tokio::test]
async fn a_file_that_has_changed_is_not_edited() {
    let tools = Fixture::new().await;
    tools.write("a.txt", "one");
    let read = tools.call("read_file", json!({"path": "a.txt"})).await.unwrap();
    let version = read["version"].as_str().unwrap();
    let edit = |old: &str, version: &str| json!({"path": "a.txt", "edits": edits(&[(old, "x")]), "if_match": version});
    let write = |version: &str| json!({"path": "a.txt", "content": "two", "if_match": version});
    // In quotes, as the HTTP API writes it.
    tools.call("write_file", write(&format!("\"{version}\""))).await.unwrap();
    for (tool, params) in [("edit_file", edit("two", version)), ("write_file", write(version))] {
        let error = tools.call(tool, params).await.unwrap_err();
        assert_eq!((error.kind().as_str(), error.may_have_taken_place()), ("precondition_failed", false));
    }
    assert_eq!(tools.read("a.txt"), "two");
}

#[tokio::test]
async fn no_edit_of_many_at_once_is_lost() {
    let tools = Fixture::new().await;
    let lines: Vec<String> = (0..8).map(|line| format!("<{line}>")).collect();
    tools.write("a.txt", lines.join("\n"));
    let mut edits_at_once = tokio::task::JoinSet::new();
    for line in lines {
        let (tools, context) = (tools.tools.clone(), tools.context.clone());
        edits_at_once.spawn(async move {
            let params = json!({"path": "a.txt", "edits": edits(&[(&line, "done")])});
            loop {
                match tools.call("edit_file", params.clone(), &context).await {
                    Ok(_) => return,
                    Err(error) => assert_eq!(error.kind().as_str(), "precondition_failed", "{error}"),
                }
            }
        });
    }
    edits_at_once.join_all().await;
    assert_eq!(tools.read("a.txt"), ["done"; 8].join("\n"));
}

#[tokio::test]
async fn only_text_within_the_workspace_is_edited() {
    let tools = Fixture::new().await;
    tools.write("binary", [0xff, 0x00]);
    let edit = |path: &str| json!({"path": path, "edits": edits(&[("a", "b")])});
    for (path, kind) in [("binary", "invalid_parameters"), ("none", "not_found"), ("../x", "forbidden")] {
        let error = tools.call("edit_file", edit(path)).await.unwrap_err();
        assert_eq!(error.kind().as_str(), kind, "{error}");
    }
}

#[tokio::test]
async fn a_repeat_of_a_conditional_write_is_not_safe() {
    let tools = Fixture::new().await.tools;
    for (tool, params, class) in [
        ("edit_file", json!({}), EffectClass::Unsafe),
        ("write_file", json!({"if_match": "v"}), EffectClass::Unsafe),
        ("write_file", json!({}), EffectClass::Idempotent),
    ] {
        assert_eq!(tools.class_of(tool, &params).unwrap(), class, "{tool} {params}");
    }
}
