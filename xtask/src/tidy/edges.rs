//! The crates and the direction of their dependencies.
//!
//! Owns the one table of the edges that the design allows. What only tests and examples need is free.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::process;
use crate::workspace::Workspace;

/// A crate of the workspace, and what it may depend on.
struct Rule {
    package: &'static str,
    /// The crates of the workspace that it may name in its manifest.
    may_use: &'static [&'static str],
    /// What its tree must not contain: a program that embeds the crate would get it, too.
    never: &'static [&'static str],
}

/// What no crate above `persistence` needs: they build and pass their tests without a database and a web server.
const WITHOUT_DATABASE: &[&str] = &[
    "diesel",
    "diesel-async",
    "diesel_migrations",
    "tokio-postgres",
    "actix-web",
    "gathering-postgres",
    "gathering-persistence",
];

const RULES: &[Rule] = &[
    Rule {
        package: "gathering-domain",
        may_use: &[],
        never: &["tokio", "diesel", "tokio-postgres", "actix-web", "reqwest"],
    },
    Rule {
        package: "gathering-cache",
        may_use: &[],
        never: &["gathering-domain", "tokio", "diesel", "tokio-postgres", "actix-web"],
    },
    Rule {
        package: "gathering-schema",
        may_use: &["gathering-domain"],
        never: &["tokio", "diesel", "tokio-postgres", "actix-web", "reqwest"],
    },
    Rule {
        package: "gathering-dag-engine",
        may_use: &["gathering-domain", "gathering-schema"],
        never: WITHOUT_DATABASE,
    },
    Rule { package: "gathering-scheduler", may_use: &["gathering-domain"], never: WITHOUT_DATABASE },
    Rule {
        package: "gathering-auth",
        may_use: &["gathering-domain", "gathering-cache"],
        never: WITHOUT_DATABASE,
    },
    Rule {
        package: "gathering-tools",
        may_use: &["gathering-domain", "gathering-schema", "gathering-cache"],
        never: WITHOUT_DATABASE,
    },
    Rule {
        package: "gathering-mcp",
        may_use: &["gathering-domain", "gathering-tools"],
        never: WITHOUT_DATABASE,
    },
    Rule { package: "gathering-events", may_use: &["gathering-domain"], never: WITHOUT_DATABASE },
    Rule {
        package: "gathering-agents",
        may_use: &["gathering-domain", "gathering-tools"],
        never: WITHOUT_DATABASE,
    },
    Rule {
        package: "gathering-nodes",
        may_use: &["gathering-domain", "gathering-dag-engine", "gathering-tools", "gathering-agents"],
        never: WITHOUT_DATABASE,
    },
    Rule {
        package: "gathering-control",
        may_use: &[
            "gathering-domain",
            "gathering-cache",
            "gathering-dag-engine",
            "gathering-scheduler",
            "gathering-auth",
            "gathering-tools",
            "gathering-events",
            "gathering-agents",
            "gathering-nodes",
        ],
        never: WITHOUT_DATABASE,
    },
    Rule {
        package: "gathering-persistence",
        may_use: &[
            "gathering-domain",
            "gathering-dag-engine",
            "gathering-scheduler",
            "gathering-auth",
            "gathering-tools",
            "gathering-events",
            "gathering-agents",
            "gathering-nodes",
            "gathering-control",
        ],
        never: &["actix-web"],
    },
    Rule {
        package: "gathering-postgres",
        may_use: &[],
        never: &["diesel", "diesel-async", "tokio-postgres", "actix-web"],
    },
    Rule {
        package: "gathering-edge",
        may_use: &[
            "gathering-domain",
            "gathering-cache",
            "gathering-dag-engine",
            "gathering-auth",
            "gathering-tools",
            "gathering-control",
        ],
        never: &["diesel", "diesel-async", "tokio-postgres", "gathering-persistence"],
    },
    Rule {
        package: "gathering-server",
        may_use: &[
            "gathering-domain",
            "gathering-cache",
            "gathering-dag-engine",
            "gathering-scheduler",
            "gathering-auth",
            "gathering-tools",
            "gathering-events",
            "gathering-agents",
            "gathering-mcp",
            "gathering-nodes",
            "gathering-control",
            "gathering-postgres",
            "gathering-persistence",
            "gathering-edge",
        ],
        never: &[],
    },
    // Only tests use it.
    Rule { package: "gathering-test-packages", may_use: &[], never: WITHOUT_DATABASE },
    Rule {
        package: "xtask",
        may_use: &["gathering-postgres"],
        never: &["diesel", "tokio-postgres", "actix-web"],
    },
];

/// The end-to-end tests use whatever they test.
const FREE: &str = "gathering-e2e";

/// Checks the graph that cargo resolves.
pub(super) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    Ok(breaches(&Graph::load(workspace)?))
}

fn breaches(graph: &Graph) -> Vec<String> {
    let mut breaches = Vec::new();
    for member in graph.members.iter().filter(|member| *member != FREE) {
        let Some(rule) = RULES.iter().find(|rule| rule.package == *member) else {
            breaches.push(format!("{member}: a new crate; say in `xtask/src/tidy/edges.rs` what it may use"));
            continue;
        };
        for used in graph.uses(member).filter(|used| graph.members.contains(*used)) {
            if !rule.may_use.contains(&used) {
                breaches.push(format!("{member} -> {used}: a new edge is a change of the design"));
            }
        }
        let tree = graph.tree(member);
        for name in rule.never.iter().filter(|name| tree.contains(**name)) {
            breaches.push(format!("{member}: depends on {name}: see `cargo tree -p {member} -i {name}`"));
        }
    }
    breaches
}

/// Who uses whom by name, tests and examples left out.
struct Graph {
    members: BTreeSet<String>,
    uses: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    kind: Option<String>,
}

impl Graph {
    fn load(workspace: &Workspace) -> Result<Graph> {
        let mut metadata = workspace.cargo(&["metadata", "--format-version=1", "--locked", "--offline"]);
        // Packages of other platforms may not be downloaded.
        metadata.args(["--filter-platform", &host()?]);
        let metadata: Metadata =
            serde_json::from_str(&process::output(&mut metadata)?).context("read cargo metadata")?;
        let names: BTreeMap<&str, &str> =
            metadata.packages.iter().map(|package| (package.id.as_str(), package.name.as_str())).collect();
        let name = |id: &str| names.get(id).map(|name| (*name).to_owned());
        let mut uses = BTreeMap::<String, BTreeSet<String>>::new();
        for node in &metadata.resolve.nodes {
            let shipped = node
                .deps
                .iter()
                .filter(|used| used.dep_kinds.iter().any(|kind| kind.kind.as_deref() != Some("dev")));
            uses.entry(name(&node.id).unwrap_or_default())
                .or_default()
                .extend(shipped.filter_map(|used| name(&used.pkg)));
        }
        let members = metadata.workspace_members.iter().filter_map(|id| name(id)).collect();
        Ok(Graph { members, uses })
    }

    fn uses(&self, package: &str) -> impl Iterator<Item = &str> {
        self.uses.get(package).into_iter().flatten().map(String::as_str)
    }

    /// Everything below a package.
    fn tree<'a>(&'a self, package: &'a str) -> BTreeSet<&'a str> {
        let (mut found, mut open) = (BTreeSet::new(), vec![package]);
        while let Some(next) = open.pop() {
            open.extend(self.uses(next).filter(|used| found.insert(*used)));
        }
        found
    }
}

/// The platform of this machine.
fn host() -> Result<String> {
    let text = process::output(Command::new("rustc").arg("-vV"))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc names no host")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(&str, &str)]) -> Graph {
        let mut uses = BTreeMap::<String, BTreeSet<String>>::new();
        for (from, to) in edges {
            uses.entry((*from).to_owned()).or_default().insert((*to).to_owned());
        }
        let members = uses.keys().filter(|name| name.starts_with("gathering-")).cloned().collect();
        Graph { members, uses }
    }

    #[test]
    fn an_edge_against_the_design_is_a_breach() {
        let against = [("gathering-auth", "gathering-events"), ("gathering-events", "gathering-domain")];
        assert_eq!(
            breaches(&graph(&against)),
            ["gathering-auth -> gathering-events: a new edge is a change of the design"]
        );
        assert_eq!(breaches(&graph(&against[1..])), [""; 0]);
    }

    #[test]
    fn a_database_anywhere_below_the_engine_is_a_breach() {
        let found = breaches(&graph(&[("gathering-dag-engine", "helper"), ("helper", "diesel")]));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("gathering-dag-engine: depends on diesel"), "{found:?}");
    }

    #[test]
    fn a_crate_that_the_table_does_not_know_is_a_breach() {
        assert_eq!(breaches(&graph(&[("gathering-new", "serde")])).len(), 1);
    }

    #[test]
    fn the_edges_of_this_workspace_are_read() -> Result<()> {
        let graph = Graph::load(&Workspace::find()?)?;
        assert!(graph.uses("gathering-persistence").any(|used| used == "gathering-dag-engine"));
        assert!(graph.tree("gathering-persistence").contains("diesel-async"));
        assert!(!graph.uses("gathering-auth").any(|used| used == "actix-web"), "only its example needs that");
        Ok(())
    }
}
