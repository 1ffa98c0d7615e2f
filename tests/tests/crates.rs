//! The crates and the direction of their dependencies.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use gathering_e2e::workspace_root;
use serde_json::Value;

/// Those that build and pass their tests without a database and without a web server.
const FREE: [&str; 9] = [
    "gathering-domain",
    "gathering-cache",
    "gathering-dag-engine",
    "gathering-scheduler",
    "gathering-auth",
    "gathering-tools",
    "gathering-events",
    "gathering-agents",
    "gathering-nodes",
];

const HEAVY: [&str; 6] =
    ["diesel", "diesel-async", "diesel_migrations", "tokio-postgres", "actix-web", "gathering-postgres"];

/// Which crates of the workspace a crate may depend on; what is not named here may depend on none.
const ARROWS: [(&str, &[&str]); 10] = [
    ("gathering-dag-engine", &["gathering-domain"]),
    ("gathering-scheduler", &["gathering-domain"]),
    ("gathering-auth", &["gathering-domain", "gathering-cache"]),
    ("gathering-tools", &["gathering-domain", "gathering-cache"]),
    ("gathering-events", &["gathering-domain"]),
    ("gathering-agents", &["gathering-domain", "gathering-tools"]),
    ("gathering-nodes", &["gathering-domain", "gathering-dag-engine", "gathering-tools", "gathering-agents"]),
    (
        "gathering-persistence",
        &[
            "gathering-domain",
            "gathering-dag-engine",
            "gathering-scheduler",
            "gathering-auth",
            "gathering-tools",
            "gathering-events",
            "gathering-agents",
        ],
    ),
    (
        "gathering-server",
        &[
            "gathering-domain",
            "gathering-cache",
            "gathering-dag-engine",
            "gathering-scheduler",
            "gathering-auth",
            "gathering-tools",
            "gathering-events",
            "gathering-agents",
            "gathering-nodes",
            "gathering-postgres",
            "gathering-persistence",
        ],
    ),
    ("xtask", &["gathering-postgres"]),
];

/// The graph of packages that cargo resolved, without what only tests need.
struct Packages {
    names: BTreeMap<String, String>,
    manifests: BTreeMap<String, String>,
    needs: BTreeMap<String, BTreeSet<String>>,
    members: BTreeSet<String>,
}

impl Packages {
    fn load() -> Result<Packages> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        // Without the packages of other platforms, which nobody downloaded.
        let output = Command::new(cargo)
            .args([
                "metadata",
                "--format-version",
                "1",
                "--locked",
                "--offline",
                "--filter-platform",
                &host()?,
            ])
            .current_dir(workspace_root()?)
            .output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let metadata: Value = serde_json::from_slice(&output.stdout)?;
        let text = |value: &Value| value.as_str().map(str::to_owned).unwrap_or_default();
        let all = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let (mut names, mut manifests, mut needs) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for package in all(&metadata["packages"]) {
            names.insert(text(&package["id"]), text(&package["name"]));
            manifests.insert(text(&package["name"]), text(&package["manifest_path"]));
        }
        for node in all(&metadata["resolve"]["nodes"]) {
            let normal = |need: &Value| all(&need["dep_kinds"]).iter().any(|kind| kind["kind"] != "dev");
            let packages = all(&node["deps"])
                .iter()
                .filter(|need| normal(need))
                .map(|need| text(&need["pkg"]))
                .collect();
            needs.insert(text(&node["id"]), packages);
        }
        let members = all(&metadata["workspace_members"]).iter().map(text).collect();
        Ok(Packages { names, manifests, needs, members })
    }

    fn id(&self, name: &str) -> Result<&String> {
        let found = self.members.iter().find(|id| self.names.get(*id).is_some_and(|known| known == name));
        found.with_context(|| format!("there is no crate {name}"))
    }

    fn name(&self, id: &str) -> &str {
        self.names.get(id).map(String::as_str).unwrap_or_default()
    }

    /// Everything below a package.
    fn tree(&self, id: &str) -> BTreeSet<&str> {
        let (mut found, mut open) = (BTreeSet::new(), vec![id]);
        while let Some(id) = open.pop() {
            for need in self.needs.get(id).into_iter().flatten() {
                if found.insert(self.name(need)) {
                    open.push(need);
                }
            }
        }
        found
    }
}

/// The platform of this machine.
fn host() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .find_map(|line| line.strip_prefix("host: ").map(str::to_owned))
        .context("rustc names no host")
}

#[test]
fn what_can_be_embedded_needs_neither_a_database_nor_a_web_server() -> Result<()> {
    let packages = Packages::load()?;
    for name in FREE {
        let tree = packages.tree(packages.id(name)?);
        let found: Vec<_> = HEAVY.iter().filter(|heavy| tree.contains(*heavy)).collect();
        assert!(found.is_empty(), "{name} needs {found:?}");
    }
    assert!(
        packages.tree(packages.id("gathering-persistence")?).contains("diesel-async"),
        "the test looks at nothing"
    );
    Ok(())
}

#[test]
fn only_the_arrows_of_the_design_exist() -> Result<()> {
    let packages = Packages::load()?;
    for id in &packages.members {
        let name = packages.name(id);
        if name == "gathering-e2e" {
            continue;
        }
        let allowed = ARROWS.iter().find(|(from, _)| *from == name).map_or(&[] as &[&str], |(_, to)| to);
        for need in
            packages.needs.get(id).into_iter().flatten().filter(|need| packages.members.contains(*need))
        {
            let need = packages.name(need);
            assert!(allowed.contains(&need), "{name} -> {need} is a change of the design");
        }
    }
    Ok(())
}

#[test]
fn every_crate_has_a_front_page_and_a_program_that_embeds_it() -> Result<()> {
    let packages = Packages::load()?;
    for id in &packages.members {
        let name = packages.name(id);
        if !name.starts_with("gathering-") || ["gathering-server", "gathering-e2e"].contains(&name) {
            continue;
        }
        let manifest = packages.manifests.get(name).context("no manifest")?;
        let home = Path::new(manifest).parent().context("no directory")?;
        let readme = std::fs::read_to_string(home.join("README.md")).with_context(|| name.to_owned())?;
        assert!(readme.contains("```rust"), "the README of {name} shows no program");
        let examples = std::fs::read_dir(home.join("examples")).with_context(|| name.to_owned())?;
        assert!(examples.count() > 0, "{name} has no example");
    }
    Ok(())
}
