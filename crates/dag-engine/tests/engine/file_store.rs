//! The store of the example `file_store` keeps the promises of the port, and those of a store on a disk.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use gathering_dag_engine::testing::{StoreFixture, store_cases};
use gathering_dag_engine::{
    Attempt, ClaimScope, Engine, EngineSettings, JournalEvent, NewRun, NodeExecutor, NodeFailure, NodeRun,
    NodeSpec, NodeState, NodeTypes, Outcome, RunStore, Runner, RunnerSettings, SystemClock,
};
use gathering_domain::{Digest, InstanceId, ProjectId, RunId, RunState};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::store::FileStore;

#[path = "../../examples/file_store/log.rs"]
mod log;
#[path = "../../examples/file_store/store.rs"]
mod store;

/// Where the child of a test keeps its runs.
const DIRECTORY: &str = "FILE_STORE_TEST_DIRECTORY";
const N_RUNS: usize = 40;

/// No process takes longer to execute its program.
const FORKING: Duration = Duration::from_secs(30);

/// Opens a store that nobody has. Another test may start a process at this moment: until that executes its program, it
/// holds every file that was open here, and the locks of those that were closed since.
fn open(directory: &Path) -> FileStore {
    let began = Instant::now();
    loop {
        match FileStore::open(directory, Arc::new(SystemClock)) {
            Err(error) if error.kind() == ErrorKind::WouldBlock && began.elapsed() < FORKING => {
                std::thread::yield_now();
            }
            opened => return opened.unwrap(),
        }
    }
}

struct Fixture {
    store: FileStore,
    project: ProjectId,
    _directory: tempfile::TempDir,
}

#[async_trait]
impl StoreFixture for Fixture {
    fn store(&self) -> Arc<dyn RunStore> {
        Arc::new(self.store.clone())
    }
    async fn project(&self) -> ProjectId {
        self.project
    }
    async fn instance(&self) -> InstanceId {
        InstanceId::new()
    }
    async fn kill(&self, instance: InstanceId) {
        self.store.bury(instance);
    }
}

#[tokio::test]
async fn the_store_in_a_file_passes_every_case() {
    store_cases(|| async {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        Box::new(Fixture { store, project: ProjectId::new(), _directory: directory }) as Box<dyn StoreFixture>
    })
    .await;
}

fn chain() -> Value {
    let node = |n: usize| json!({"id": format!("n{n}"), "type": "note"});
    let edge = |n: usize| json!({"from": format!("n{n}"), "to": format!("n{}", n + 1)});
    json!({"nodes": (0..4).map(node).collect::<Vec<_>>(), "edges": (0..3).map(edge).collect::<Vec<_>>()})
}

async fn accept(store: &FileStore) -> RunId {
    let (id, definition) = (RunId::new(), chain());
    let graph = Digest::of_json(&definition);
    store.ensure_graph(graph, &definition).await.unwrap();
    let (project, input) = (ProjectId::new(), json!({}));
    store
        .enqueue(NewRun { id, project, graph, input, priority: 5, available_at: None, timeout: None })
        .await
        .unwrap();
    id
}

#[tokio::test]
async fn i7_what_was_answered_is_there_when_the_store_is_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let run = accept(&store).await;
    let owner = InstanceId::new();
    assert!(store.claim_run(owner, run).await.unwrap().is_some());
    assert!(FileStore::open(directory.path(), Arc::new(SystemClock)).is_err(), "only one process has it");
    drop(store);
    let store = open(directory.path());
    assert_eq!(store.list_runs().await.unwrap(), [(run, RunState::Running, None)]);
    assert_eq!(
        store.recover_dead_instances(20).await.unwrap().n_runs,
        1,
        "its owner was of the process before"
    );
    let claimed = store.claim(InstanceId::new(), ClaimScope::Queue, 1).await.unwrap().remove(0);
    assert_eq!((claimed.claim.run, claimed.claim.epoch), (run, 3));
}

#[tokio::test]
async fn a_line_that_was_cut_off_is_dropped_and_damage_elsewhere_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("runs.log");
    let store = open(directory.path());
    let (first, second) = (accept(&store).await, accept(&store).await);
    drop(store);
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 5]).unwrap();
    let store = open(directory.path());
    let ids =
        |runs: Vec<(RunId, RunState, Option<Value>)>| runs.into_iter().map(|run| run.0).collect::<Vec<_>>();
    assert_eq!(ids(store.list_runs().await.unwrap()), [first], "{second} was never answered as accepted");
    let third = accept(&store).await;
    drop(store);
    let store = open(directory.path());
    assert_eq!(ids(store.list_runs().await.unwrap()), [first, third]);
    drop(store);
    let mut damaged = std::fs::read(&path).unwrap();
    damaged[30] ^= 1;
    std::fs::write(&path, damaged).unwrap();
    assert!(FileStore::open(directory.path(), Arc::new(SystemClock)).is_err());
}

/// A node that writes down that it began.
struct Note(PathBuf);

impl NodeSpec for Note {}

#[async_trait]
impl NodeExecutor for Note {
    async fn execute(&self, attempt: Attempt) -> Result<Outcome, NodeFailure> {
        let line = format!("{} {} {}\n", attempt.run, attempt.node, attempt.attempt);
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(&self.0).unwrap();
        file.write_all(line.as_bytes()).unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok(Outcome::Done(json!(attempt.attempt)))
    }
}

/// The process that gets killed: accepts runs until there are enough of them, and drives them.
#[tokio::test]
#[ignore = "a part of i1_i4_i5_and_i7_hold_when_the_process_is_killed_at_any_moment"]
async fn child() {
    let Ok(directory) = std::env::var(DIRECTORY).map(PathBuf::from) else { return };
    let store = open(&directory);
    let types = NodeTypes::builtin().with("note", Note(directory.join("notes")));
    let (engine, service) =
        Engine::new(Arc::new(store.clone()), types, Arc::new(SystemClock), EngineSettings::default());
    tokio::spawn(service.run(CancellationToken::new()));
    let runner = Runner::new(engine, InstanceId::new(), RunnerSettings::default());
    let handle = runner.handle();
    tokio::spawn(runner.run(CancellationToken::new(), CancellationToken::new()));
    let n_accepted = store.list_runs().await.unwrap().len();
    for _ in n_accepted..N_RUNS {
        let run = accept(&store).await;
        println!("accepted {run}");
        handle.wake();
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    while store.list_runs().await.unwrap().iter().any(|(_, state, _)| !state.is_terminal()) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn i1_i4_i5_and_i7_hold_when_the_process_is_killed_at_any_moment() {
    let directory = tempfile::tempdir().unwrap();
    let mut accepted = HashSet::new();
    let mut n_killed = 0;
    // Later and later, so that each moment of a process's life gets its turn, and the last one is left alone.
    for lives_ms in (2..14).map(|n| n * n * 3).map(Some).chain([None]) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "file_store::child", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = child.stdout.take().unwrap();
        let said = std::thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).collect::<Vec<_>>()
        });
        if let Some(lives_ms) = lives_ms {
            tokio::time::sleep(Duration::from_millis(lives_ms)).await;
            n_killed += usize::from(child.try_wait().unwrap().is_none());
            // SIGKILL.
            child.kill().unwrap();
            child.wait().unwrap();
        } else {
            assert!(child.wait().unwrap().success());
        }
        let said = said.join().unwrap();
        accepted
            .extend(said.iter().filter_map(|line| line.rsplit_once("accepted ")?.1.parse::<RunId>().ok()));
    }
    assert!(n_killed > 3, "{n_killed}");
    let store = open(directory.path());
    let runs = store.list_runs().await.unwrap();
    assert_eq!(runs.len(), N_RUNS);
    for run in accepted {
        assert!(runs.iter().any(|(id, ..)| *id == run), "I7: {run} was accepted and got lost");
    }
    for (run, state, _) in runs {
        assert_eq!(state, RunState::Succeeded, "I4");
        let journal = store.load_journal(run, 0, 10_000).await.unwrap();
        for (entry, seq) in journal.iter().zip(1..) {
            assert_eq!(entry.seq, seq, "the journal has no gaps");
        }
        let nodes = NodeRun::fold(&journal).unwrap();
        assert!(nodes.len() == 4 && nodes.values().all(|node| node.state == NodeState::Succeeded));
        let is_result = |event: &JournalEvent| matches!(event, JournalEvent::Succeeded { .. });
        assert_eq!(journal.iter().filter(|entry| is_result(&entry.record.event)).count(), 4, "I1");
        judge_notes(run, &journal, directory.path());
    }
}

/// I1: the attempts that began are those of the journal, each once, and none after the one that succeeded.
fn judge_notes(run: RunId, journal: &[gathering_dag_engine::JournalEntry], directory: &Path) {
    let notes = std::fs::read_to_string(directory.join("notes")).unwrap();
    let begun: Vec<&str> = notes.lines().filter(|line| line.starts_with(&run.to_string())).collect();
    let distinct: HashSet<&&str> = begun.iter().collect();
    assert_eq!(distinct.len(), begun.len(), "I1: an attempt executed twice: {begun:?}");
    for note in begun {
        let started = journal.iter().any(|entry| {
            let node = entry.record.node.as_ref().map(ToString::to_string).unwrap_or_default();
            entry.record.event == JournalEvent::Started
                && note == format!("{run} {node} {}", entry.record.attempt)
        });
        assert!(started, "I3: {note} began, and the journal does not know");
    }
}
