//! `search_files`.

use serde_json::{Value, json};

use super::Fixture;

fn places(found: &Value) -> Vec<String> {
    let place = |one: &Value| format!("{}:{}:{}", one["path"].as_str().unwrap(), one["line"], one["column"]);
    found["matches"].as_array().unwrap().iter().map(place).collect()
}

#[tokio::test]
async fn matches_have_a_place_and_a_stable_order() {
    let tools = Fixture::new().await;
    tools.write("b.md", "none\r\nähm Needle\r\n");
    tools.write("a/z.rs", "needle needle\n");
    tools.write("a/b/c.md", "a\nb\nneedle");
    tools.write("binary", b"needle\0needle");
    tools.write("latin", b"\xe4 needle");
    let found = tools.call("search_files", json!({"pattern": "needle"})).await.unwrap();
    assert_eq!(places(&found), ["a/b/c.md:3:1", "a/z.rs:1:1", "latin:1:3"]);
    assert_eq!(
        (&found["n_files"], &found["n_binary"], &found["truncated"]),
        (&json!(4), &json!(1), &json!(false))
    );
    let any_case = json!({"pattern": "NEEDLE$", "case_sensitive": false, "glob": "*.md", "context_lines": 1});
    let found = tools.call("search_files", any_case).await.unwrap();
    assert_eq!(places(&found), ["a/b/c.md:3:1", "b.md:2:5"]);
    let expected = json!({"path": "b.md", "line": 2, "column": 5, "text": "ähm Needle", "before": ["none"], "after": []});
    assert_eq!(found["matches"][1], expected);
    let one = json!({"pattern": "^.", "path": "a/z.rs"});
    assert_eq!(places(&tools.call("search_files", one).await.unwrap()), ["a/z.rs:1:1"]);
}

#[tokio::test]
async fn what_is_left_out_is_told() {
    let tools = Fixture::new().await;
    tools.write("a", "x\n".repeat(10));
    let few = tools.call("search_files", json!({"pattern": "x", "max_matches": 3})).await.unwrap();
    assert_eq!((places(&few).len(), &few["truncated_by"]), (3, &json!("matches")), "{few}");
    let all = tools.call("search_files", json!({"pattern": "x", "max_matches": 10})).await.unwrap();
    assert_eq!((places(&all).len(), &all["truncated"]), (10, &json!(false)), "{all}");
    let part = tools.call("search_files", json!({"pattern": "x", "max_bytes_per_file": 4})).await.unwrap();
    assert_eq!((places(&part).len(), &part["n_partly"]), (2, &json!(1)), "{part}");
}

#[tokio::test]
async fn a_long_line_is_cut_around_its_match() {
    let tools = Fixture::new().await;
    tools.write("a", format!("{}needle{}", "é".repeat(5000), "z".repeat(5000)));
    let found = tools.call("search_files", json!({"pattern": "needle"})).await.unwrap();
    let text = found["matches"][0]["text"].as_str().unwrap();
    assert!(text.starts_with("…é") && text.contains("needlez"), "{text}");
    assert!(text.ends_with("…[cut: 500 of 15006 bytes]") && text.len() < 600, "{text}");
    assert_eq!(found["matches"][0]["column"], 5001);
}

#[tokio::test]
async fn a_bad_pattern_is_a_problem_of_its_parameter() {
    let tools = Fixture::new().await;
    for (pattern, told) in [
        ("a(", "/pattern: is not a regular expression: unclosed group"),
        ("(?=a)", "/pattern: is not a regular expression: look-around"),
        ("\\w{1000}{1000}", "/pattern: is not a regular expression: it is too large"),
    ] {
        let problems = tools.tools.validate("search_files", &json!({"pattern": pattern})).unwrap_err();
        assert!(problems.to_string().starts_with(told), "{problems}");
    }
    // Exponential for an engine that backtracks.
    tools.write("a", "a".repeat(100_000));
    let found = tools.call("search_files", json!({"pattern": "(a|aa|a*)*$b"})).await.unwrap();
    assert_eq!(places(&found).len(), 0);
}

#[tokio::test]
async fn no_path_and_no_link_leads_outside() {
    let tools = Fixture::new().await;
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "needle").unwrap();
    let link = |name: &str, target: &std::path::Path| {
        std::os::unix::fs::symlink(target, tools.directory.path().join(name)).unwrap();
    };
    link("directory", outside.path());
    link("file", &outside.path().join("secret"));
    tools.write("inside", "needle");
    let found = tools.call("search_files", json!({"pattern": "needle"})).await.unwrap();
    assert_eq!(places(&found), ["inside:1:1"]);
    for path in ["../", "file", "directory/secret"] {
        let error = tools.call("search_files", json!({"pattern": "x", "path": path})).await.unwrap_err();
        assert_eq!(error.kind().as_str(), "forbidden", "{path}: {error}");
    }
}

#[tokio::test]
async fn a_closed_directory_is_not_searched_not_even_through_a_link() {
    let mut tools = Fixture::new().await;
    tools.write("closed/secret", "needle");
    std::os::unix::fs::symlink("closed/secret", tools.directory.path().join("link")).unwrap();
    tools.context.workspace = tools.context.workspace.map(|all| all.without("closed".parse().unwrap()));
    let found = tools.context.workspace.clone().unwrap();
    let options = gathering_tools::SearchOptions::new("needle", true).unwrap();
    let found = found.search(&"".parse().unwrap(), options).await.unwrap();
    assert_eq!((found.matches.len(), found.n_unreadable), (0, 1));
}
