//! One store, and the processes that start and end.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use gathering_dag_engine::testing::{Fault, Faults, MemoryStore, VirtualClock};
use gathering_dag_engine::{
    Approval, ApprovalSpec, Breakers, ClaimScope, Engine, EngineSettings, MapNode, MapSpec, NewRun,
    NodeTypes, RunStore, Runner, RunnerHandle, RunnerSettings,
};
use gathering_domain::{Digest, InstanceId, PipelineId, ProjectId, RunId, RunState};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::case::Case;
use super::kinds::{Ask, Call, Each, Work};
use super::people::People;
use super::witness::{Eyes, Witness};

/// More calls than a process makes until all runs have ended, unless it loops while no time passes.
const MAX_CALLS: usize = 5_000;

/// Processes that run at the same time, until one dies, all runs have ended, or this time is over.
#[derive(Debug, Clone)]
pub struct Episode {
    pub processes: Vec<ProcessPlan>,
    pub lasts_ms: Option<u64>,
}

/// The faults of one process, and how it ends if it does not crash before.
#[derive(Debug, Clone)]
pub struct ProcessPlan {
    pub faults: Vec<(usize, Fault)>,
    pub ending: Ending,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It is killed.
    Killed,
    /// It is stopped, and releases what it cannot finish.
    Stopped,
    /// It learns that it may have lost its claims, and drops everything.
    Fenced,
    /// It is declared dead, but its nodes continue, and it writes until a write is refused.
    TakenForDead,
}

impl Episode {
    /// One process with these faults that is killed at the end.
    pub fn of(faults: Vec<(usize, Fault)>) -> Self {
        Self { processes: vec![ProcessPlan { faults, ending: Ending::Killed }], lasts_ms: None }
    }
}

/// One process: an engine and a claim loop on the shared store.
struct Process {
    id: InstanceId,
    faults: Arc<Faults>,
    runner: JoinSet<()>,
    service: JoinSet<()>,
    handle: RunnerHandle,
    stop: CancellationToken,
    fence: CancellationToken,
    ending: Ending,
    /// Whether its calls have no faults: if the answer to a claim is lost as it stops, it leaves a run behind.
    is_healthy: bool,
}

pub struct World {
    pub store: MemoryStore,
    pub clock: VirtualClock,
    pub case: Arc<Case>,
    pub witness: Arc<Mutex<Witness>>,
    pub runs: Vec<RunId>,
    people: People,
}

/// Drives `n_runs` runs of the case through the episodes, one after the other, and then through processes without faults.
/// Checks the invariants and the outcome. Answers with the number of calls of the first process.
pub fn check(case: &Case, episodes: &[Episode], n_runs: usize) -> usize {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let n_calls = runtime.block_on(check_in_virtual_time(case, episodes, n_runs));
    assert_eq!(runtime.metrics().num_alive_tasks(), 0, "I5: a task is left behind");
    n_calls
}

async fn check_in_virtual_time(case: &Case, episodes: &[Episode], n_runs: usize) -> usize {
    let world = World::new(case, n_runs).await;
    let mut n_calls = None;
    let mut undead = Vec::new();
    for episode in episodes {
        let plans = episode.processes.iter().enumerate();
        let mut processes: Vec<Process> =
            plans.map(|(place, plan)| world.start(plan, world.scope(place))).collect();
        // Each tree needs its own process to end.
        let leaves_trees = case.by_tree && processes.len() < n_runs;
        let lasts_ms = episode.lasts_ms.or(leaves_trees.then_some(3000));
        world.watch(&processes, lasts_ms.map(Duration::from_millis)).await;
        n_calls.get_or_insert(processes.first().map_or(0, |process| process.faults.n_calls()));
        for process in processes.drain(..) {
            undead.extend(world.end(process).await);
        }
    }
    // One process for the whole queue, or one for each tree.
    let n_last = if case.by_tree { n_runs } else { 1 };
    let healthy = ProcessPlan { faults: Vec::new(), ending: Ending::Stopped };
    let last: Vec<Process> = (0..n_last).map(|place| world.start(&healthy, world.scope(place))).collect();
    world.watch(&last, None).await;
    let stood = world.stands();
    for process in last {
        world.end(process).await;
    }
    for process in undead {
        world.kill(process).await;
    }
    world.people.leave().await;
    assert_eq!(stood, world.stands(), "I5: something changed after the end");
    world.judge();
    n_calls.unwrap_or(0)
}

impl World {
    async fn new(case: &Case, n_runs: usize) -> Self {
        let clock = VirtualClock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
        let store = MemoryStore::new(Arc::new(clock));
        let definition = case.definition();
        let graph = Digest::of_json(&definition);
        RunStore::ensure_graph(&store, graph, &definition).await.unwrap();
        let people = People::default();
        let mut runs = Vec::new();
        let pipeline = PipelineId::new();
        for index in 0..n_runs {
            let timeout = case.meddling.timeout_ms.filter(|_| index == 0).map(Duration::from_millis);
            let run = NewRun {
                id: RunId::new(),
                project: ProjectId::new(),
                graph,
                input: Case::input(),
                priority: 5,
                available_at: None,
                timeout,
            };
            runs.push(run.id);
            store.enqueue(run).await.unwrap();
            store.make_run_of(pipeline, runs[index]);
        }
        if case.meddling.is_announced {
            people.send_wake_ups(&store);
        }
        if let Some(after) = case.meddling.cancel_after_ms {
            people.cancel_after(Duration::from_millis(after), runs[0], &store);
        }
        Self { store, clock, case: Arc::new(case.clone()), witness: Arc::default(), runs, people }
    }

    /// What this process claims.
    fn scope(&self, place: usize) -> ClaimScope {
        match self.case.by_tree {
            false => ClaimScope::Queue,
            true => ClaimScope::Tree(self.runs[place % self.runs.len()]),
        }
    }

    fn start(&self, plan: &ProcessPlan, scope: ClaimScope) -> Process {
        let id = InstanceId::new();
        let too_many = (MAX_CALLS, Fault::CrashBefore);
        let faults = Arc::new(Faults::planned(plan.faults.iter().copied().chain([too_many])));
        let store = Arc::new(self.store.seen_with(Arc::clone(&faults)));
        let types = self.node_types(id, &store);
        // Short, so that runs are parked and claimed again.
        let settings = EngineSettings { park_after: Duration::from_millis(300), ..EngineSettings::default() };
        let (engine, service) = Engine::new(store.clone(), types, Arc::new(self.clock), settings);
        let breakers = Breakers::new(store, Arc::new(self.clock));
        let engine = engine.with_breakers(breakers.clone());
        let settings =
            RunnerSettings { grace: Duration::from_millis(200), scope, ..RunnerSettings::default() };
        let runner = Runner::new(engine, id, settings);
        let handle = runner.handle();
        if self.case.meddling.is_announced {
            self.people.tell(handle.clone());
        }
        let (stop, fence) = (CancellationToken::new(), CancellationToken::new());
        let (mut tasks, mut services) = (JoinSet::new(), JoinSet::new());
        services.spawn(service.run(CancellationToken::new()));
        if self.case.has_breakers() {
            services.spawn(keep_up_with(breakers));
        }
        tasks.spawn(runner.run(stop.clone(), fence.clone()));
        Process {
            id,
            faults,
            runner: tasks,
            service: services,
            handle,
            stop,
            fence,
            ending: plan.ending,
            is_healthy: plan.faults.is_empty(),
        }
    }

    fn node_types(&self, instance: InstanceId, store: &Arc<MemoryStore>) -> NodeTypes {
        let eyes = Eyes {
            case: Arc::clone(&self.case),
            store: self.store.clone(),
            instance,
            witness: Arc::clone(&self.witness),
        };
        let work = |decides| Work { eyes: eyes.clone(), people: self.people.clone(), decides };
        let (people, approval) = (self.people.clone(), Approval::new(store.clone()));
        NodeTypes::builtin()
            .with("work", work(false))
            .with("decide", work(true))
            .with_parts("ask", ApprovalSpec, Ask { eyes: eyes.clone(), people, approval })
            .with_parts("each", MapSpec, Each { eyes: eyes.clone(), map: MapNode::new(store.clone()) })
            .with("call", Call { eyes: eyes.clone(), children: store.clone() })
    }

    /// Waits until every run has ended, a process died, or the time has passed.
    async fn watch(&self, processes: &[Process], limit: Option<Duration>) {
        let all_ended = async {
            while !self.store.runs().iter().all(|run| run.state.is_terminal()) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let crashes: Vec<_> = processes.iter().map(|process| process.faults.crashed()).collect();
        let one_crashed = async {
            match crashes.iter().map(|crash| Box::pin(crash.cancelled())).collect::<Vec<_>>() {
                crashes if crashes.is_empty() => {}
                crashes => drop(futures::future::select_all(crashes).await),
            }
        };
        let for_ever = Duration::from_secs(3600);
        tokio::select! {
            biased;
            () = one_crashed => {}
            () = all_ended => {}
            () = tokio::time::sleep(limit.unwrap_or(for_ever)) => assert!(
                limit.is_some(),
                "I4: after an hour a run has not ended: {:?}",
                self.store.runs().iter().map(|run| (run, self.store.journal(run.new.id))).collect::<Vec<_>>(),
            ),
        }
        for process in processes {
            assert!(process.faults.n_calls() <= MAX_CALLS, "I4: a process goes round in circles");
        }
        let witness = self.witness.lock().unwrap();
        for run in self.store.runs().iter().filter(|run| run.state.is_terminal()) {
            let executing = witness.executing(run.new.id);
            assert!(executing.is_empty(), "I5: {executing:?} of a run that has ended");
        }
    }

    /// The state of each run, and the length of its journal.
    fn stands(&self) -> Vec<(RunId, RunState, usize)> {
        let runs = self.store.runs().into_iter();
        runs.map(|run| (run.new.id, run.state, self.store.journal(run.new.id).len())).collect()
    }

    /// Ends a process as planned; answers with it if it continues.
    async fn end(&self, mut process: Process) -> Option<Process> {
        let has_crashed = process.faults.crashed().is_cancelled();
        match process.ending {
            _ if has_crashed => self.kill(process).await,
            Ending::Killed => self.kill(process).await,
            Ending::TakenForDead => {
                self.witness.lock().unwrap().declare_dead(process.id);
                self.store.kill(process.id);
                // It cannot claim any more, but it writes the results of its nodes, and tries to release its runs.
                process.stop.cancel();
                return Some(process);
            }
            Ending::Stopped | Ending::Fenced => {
                let is_fenced = process.ending == Ending::Fenced;
                let may_hold = is_fenced || !process.is_healthy;
                if is_fenced {
                    process.fence.cancel()
                } else {
                    process.stop.cancel()
                }
                // A call that crashes it may still be to come.
                let crashed = process.faults.crashed();
                tokio::select! {
                    () = crashed.cancelled() => {}
                    _ = process.runner.join_next() => {
                        assert_eq!(process.handle.n_driven(), 0, "I5: a run is driven after the end of its runner");
                        assert!(may_hold || !self.holds_a_run(process.id), "I4: a stopped instance holds a run");
                    }
                }
                self.kill(process).await;
            }
        }
        None
    }

    fn holds_a_run(&self, instance: InstanceId) -> bool {
        self.store.runs().iter().any(|run| run.owner == Some(instance))
    }

    async fn kill(&self, mut process: Process) {
        process.runner.shutdown().await;
        process.service.shutdown().await;
        self.store.kill(process.id);
    }
}

/// Reloads the breakers, as a wake-up of the store on PostgreSQL would.
async fn keep_up_with(breakers: Breakers) {
    let mut pause = Duration::from_millis(100);
    loop {
        // If it fails, the copy stays: it is right, or the guard asks the store.
        breakers.reload().await.ok();
        tokio::time::sleep(pause).await;
        pause = (pause + pause / 8).min(Duration::from_secs(60));
    }
}
