//! All tests, with a database of their own.

use std::time::{Duration, Instant};

use anyhow::Result;
use gathering_postgres::Cluster;

use crate::process;
use crate::workspace::Workspace;

/// The empty database that tests make their schemas in.
const DATABASE: &str = "gathering_test";

/// Settings that would make a test use a developer's own database, or a provider that costs money.
const FORGOTTEN: &[&str] = &[
    "DATABASE_URL",
    "DATABASE_DIRECT_URL",
    "GATHERING_BIND",
    "GATHERING_DATA_DIR",
    "OPENAI_BASE_URL",
    "OPENAI_API_KEY",
    "ANTHROPIC_API_KEY",
];

/// Runs `cargo test` with `arguments`, over the whole workspace unless they choose packages.
///
/// Stops and deletes the database however the tests end. Builds the server first: without optimisation, or as it is
/// released where `GATHERING_TEST_RELEASE` is in the environment.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    process::catch_interrupts()?;
    let mut phases = Phases::default();
    let cluster = phases.time("start the database", || {
        let cluster = Cluster::temporary()?;
        cluster.ensure_database(DATABASE)?;
        Ok(cluster)
    })?;
    let tested = build_and_test(workspace, arguments, &cluster, &mut phases);
    let stopped = phases.time("stop the database", || Ok(cluster.stop()?));
    phases.print();
    tested.and(stopped)
}

fn build_and_test(
    workspace: &Workspace,
    arguments: &[String],
    cluster: &Cluster,
    phases: &mut Phases,
) -> Result<()> {
    if needs_server(arguments) {
        let mut build = if is_release() {
            workspace.cargo(&["build", "--release", "--package", "gathering-server"])
        } else {
            workspace.build_for_tests()
        };
        phases.time("build the server and the tests", || process::run(&mut build))?;
    }
    let selection: &[&str] =
        if chosen_packages(arguments).is_empty() { &["test", "--workspace"] } else { &["test"] };
    let mut tests = workspace.cargo(selection);
    tests.args(arguments);
    for variable in FORGOTTEN {
        tests.env_remove(variable);
    }
    tests.env("GATHERING_TEST_DATABASE_URL", cluster.url(DATABASE));
    tests.env("GATHERING_TEST_BINARY", workspace.server(if is_release() { "release" } else { "debug" }));
    phases.time("run the tests", || process::run(&mut tests))
}

/// Whether the end-to-end tests start the server as it is released. Building that takes minutes.
fn is_release() -> bool {
    std::env::var_os("GATHERING_TEST_RELEASE").is_some()
}

/// The packages that cargo's arguments choose; empty for all.
fn chosen_packages(arguments: &[String]) -> Vec<&str> {
    let mut own = arguments.iter().map(String::as_str).take_while(|argument| *argument != "--");
    let mut chosen = Vec::new();
    while let Some(argument) = own.next() {
        if matches!(argument, "-p" | "--package") {
            chosen.extend(own.next());
        } else if let Some(name) = argument.strip_prefix("--package=").or_else(|| argument.strip_prefix("-p"))
        {
            chosen.push(name);
        }
    }
    chosen
}

fn needs_server(arguments: &[String]) -> bool {
    let chosen = chosen_packages(arguments);
    chosen.is_empty() || chosen.contains(&"gathering-e2e") || chosen.contains(&"gathering-server")
}

/// The durations of the phases, for a summary.
#[derive(Default)]
struct Phases {
    durations: Vec<(&'static str, Duration)>,
}

impl Phases {
    fn time<T>(&mut self, name: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let result = work();
        self.durations.push((name, start.elapsed()));
        result
    }

    fn print(&self) {
        let total: Duration = self.durations.iter().map(|(_, duration)| *duration).sum();
        for (name, duration) in self.durations.iter().chain([&("total", total)]) {
            eprintln!("{name:<32} {:>8.1} s", duration.as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_built_unless_other_packages_are_chosen() {
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        for line in
            ["", "some_test", "-- -p", "-p gathering-e2e", "--package=gathering-server", "-pgathering-e2e"]
        {
            assert!(needs_server(&words(line)), "{line}");
        }
        for line in ["-p gathering-domain", "--package=gathering-auth -- name"] {
            assert!(!needs_server(&words(line)), "{line}");
        }
    }
}
