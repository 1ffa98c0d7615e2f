//! What may be mounted, and what is refused.

use super::*;

fn problems(settings: Value) -> Vec<String> {
    let rules = McpRules { commands: ["time-server".to_owned()].into(), ..McpRules::default() };
    let settings: McpSettings = serde_json::from_value(settings).unwrap();
    match settings.check(&rules) {
        Ok(()) => Vec::new(),
        Err(found) => found.into_iter().map(|problem| problem.to_string()).collect(),
    }
}

fn stdio(command: &str, env: Value) -> Vec<String> {
    problems(json!({"transport": {"type": "stdio", "command": command, "env": env}, "allow": "unsafe"}))
}

fn http(url: &str, headers: Value, auth: Value) -> Vec<String> {
    problems(
        json!({"transport": {"type": "http", "url": url, "headers": headers, "auth": auth}, "allow": "unsafe"}),
    )
}

#[test]
fn only_the_programs_of_the_operator_are_started() {
    assert_eq!(stdio("time-server", json!({"LOG_LEVEL": "debug", "MONKEY": "a", "AUTHOR": "b"})), [""; 0]);
    for other in ["sh", "/bin/time-server", "./time-server", ""] {
        let found = stdio(other, json!({}));
        assert!(found.len() == 1 && found[0].contains("GATHERING_MCP_COMMANDS"), "{found:?}");
    }
    for loader in ["LD_PRELOAD", "PATH", "PYTHONSTARTUP", "node_options"] {
        assert_eq!(stdio("time-server", json!({ loader: "x" })).len(), 1, "{loader}");
    }
}

#[test]
fn a_credential_is_a_reference_to_a_secret() {
    for name in ["Authorization", "X-Api-Key", "api_key", "GITHUB_TOKEN", "PGPASSWORD", "Cookie", "x-auth"] {
        let found = stdio("time-server", json!({ name.replace('-', "_"): "literal" }));
        assert!(found.len() == 1 && found[0].contains("secrets.NAME"), "{name}: {found:?}");
        let found = http("https://example.org/mcp", json!({ name: "literal" }), json!({"type": "none"}));
        assert!(found.len() == 1 && !found[0].contains("literal"), "{name}: {found:?}");
        let referring = json!({ name: "Bearer ${{ secrets.T }}" });
        assert_eq!(http("https://example.org/mcp", referring, json!({"type": "none"})), [""; 0]);
    }
    let token =
        |token: &str| http("https://example.org", json!({}), json!({"type": "bearer", "token": token}));
    assert_eq!(token("${{ secrets.T }}"), [""; 0]);
    assert!(token("literal")[0].starts_with("/transport/auth/token: "));
}

#[test]
fn every_problem_is_named_at_its_place() {
    let auth = json!({"type": "client_credentials", "token_url": "ftp://x", "client_id": "${{ secrets.A }}",
        "client_secret": "x", "scope": null});
    let found = http(
        "https://user:pw@example.org",
        json!({"Mcp-Method": "x", "A B": "x", "X": "${{ input }}"}),
        auth,
    );
    let places: Vec<&str> = found.iter().filter_map(|problem| problem.split(": ").next()).collect();
    assert_eq!(
        places,
        [
            "/transport/url",
            "/transport/headers/A B",
            "/transport/headers/Mcp-Method",
            "/transport/headers/X",
            "/transport/auth/token_url",
            "/transport/auth/client_id",
            "/transport/auth/client_secret"
        ]
    );
}
