//! Child runs in memory.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gathering_domain::{Digest, RunId, RunState};
use serde_json::Value;

use super::runs::{Place, StoredRun};
use super::{MemoryStore, Shared};
use crate::children::{
    ChildKind, ChildRuns, ChildState, ChildSummary, MAX_DEPTH, NewChild, Parent, StartChildrenError,
    Unsuccessful,
};
use crate::store::{NewRun, RunStore, StoreError};

impl Shared {
    /// Marks the run that waits for this one.
    pub(super) fn wake_parent(&mut self, child: RunId, now: DateTime<Utc>) {
        let place = self.runs.get(&child).and_then(|run| run.place.as_ref());
        let Some(parent) = place.map(|place| place.parent.run) else { return };
        if let Some(parent) = self.runs.get_mut(&parent) {
            parent.act(now);
        }
    }

    /// Cancels the awaited children of a run that has ended.
    pub(super) fn abandon_children(&mut self, parent: RunId, now: DateTime<Utc>) {
        let Some(ended) = self.runs.get(&parent).map(|run| run.state) else { return };
        let reason = format!("run {parent} {}", ended.as_clause());
        for child in self.children.get(&parent).into_iter().flatten() {
            if let Some(child) = self.runs.get_mut(child).filter(|child| !child.state.is_terminal()) {
                child.request_cancel(Some(reason.clone()));
                child.become_available(now);
            }
        }
    }

    /// The awaited children of a node's attempt, with their items.
    fn children_of(&self, parent: &Parent) -> impl Iterator<Item = (u32, &StoredRun)> {
        let ids = self.children.get(&parent.run).into_iter().flatten();
        let children = ids.filter_map(|id| self.runs.get(id));
        children.filter_map(move |child| {
            let place = child.place.as_ref()?;
            (place.parent == *parent).then_some((place.item, child))
        })
    }

    fn start(
        &mut self,
        parent: &Parent,
        kind: ChildKind,
        children: Vec<NewChild>,
        earlier: &[RunId],
        now: DateTime<Utc>,
    ) -> Result<(), StartChildrenError> {
        let alive = self.runs.get(&parent.run);
        let alive = alive.filter(|run| matches!(run.state, RunState::Running | RunState::Waiting));
        let above = alive.ok_or(StartChildrenError::ParentEnded)?;
        let depth = above.depth + 1;
        let (project, priority, deadline_at) = (above.new.project, above.new.priority, above.deadline_at);
        if depth > MAX_DEPTH {
            return Err(StartChildrenError::TooDeep);
        }
        if children.iter().any(|child| !self.graphs.contains_key(&child.graph)) {
            return Err(StoreError::Missing { what: "the graph".to_owned() }.into());
        }
        let takes_up = children
            .iter()
            .map(|child| self.find_earlier(parent, kind, child, earlier))
            .collect::<Result<Vec<_>, _>>()?;
        for (child, takes_up) in children.into_iter().zip(takes_up) {
            let id = parent.child(child.item);
            if self.runs.contains_key(&id) {
                continue;
            }
            let NewChild { item, graph, input, pipeline, deadline_at: own_deadline_at, permit: _ } = child;
            let new = NewRun { id, project, graph, input, priority, available_at: None, timeout: None };
            let mut run = StoredRun::accepted(new, now);
            let inherited = deadline_at.filter(|_| kind != ChildKind::Detached);
            run.deadline_at = [inherited, own_deadline_at].into_iter().flatten().min();
            run.depth = depth;
            run.takes_up = takes_up;
            run.pipeline = pipeline.map(|(pipeline, _version)| pipeline);
            if kind != ChildKind::Detached {
                let is_item = kind == ChildKind::Item;
                run.place = Some(Place { parent: parent.clone(), item, is_item });
                self.children.entry(parent.run).or_default().push(id);
            }
            self.runs.insert(id, run);
        }
        Ok(())
    }

    /// The run whose work the child takes up.
    fn find_earlier(
        &self,
        parent: &Parent,
        kind: ChildKind,
        child: &NewChild,
        earlier: &[RunId],
    ) -> Result<Option<RunId>, StartChildrenError> {
        if kind == ChildKind::Detached || self.runs.contains_key(&parent.child(child.item)) {
            return Ok(None);
        }
        let runs = std::iter::once(&parent.run).chain(earlier);
        let places = runs.flat_map(|run| self.children.get(run).into_iter().flatten().rev());
        let mut candidates: Vec<&StoredRun> = places
            .filter_map(|id| self.runs.get(id))
            .filter(|run| {
                run.place.as_ref().is_some_and(|place| {
                    let is_before = place.parent.run != parent.run || place.parent.round < parent.round;
                    place.parent.node == parent.node && place.item == child.item && is_before
                })
            })
            .filter(|run| run.epoch > 0)
            .collect();
        let differs = |run: &StoredRun| run.new.graph != child.graph || run.new.input != child.input;
        candidates.sort_by_key(|run| (differs(run), run.state != RunState::Succeeded));
        match candidates.first() {
            Some(found) if !found.state.is_terminal() => Err(StartChildrenError::EarlierActive),
            found => Ok(found.map(|found| found.new.id)),
        }
    }

    fn summarize(&self, parent: &Parent) -> ChildSummary {
        let mut summary = ChildSummary::default();
        let mut unsuccessful: Vec<(u32, &StoredRun)> = Vec::new();
        for (item, child) in self.children_of(parent) {
            // Items are started in their order and none is left out.
            summary.n_started = summary.n_started.max(item + 1);
            match child.state {
                RunState::Succeeded => {}
                state if state.is_terminal() => unsuccessful.push((item, child)),
                _ => summary.n_unfinished += 1,
            }
        }
        summary.n_unsuccessful = u32::try_from(unsuccessful.len()).unwrap_or(u32::MAX);
        let first =
            unsuccessful.into_iter().min_by_key(|(item, child)| (child.state == RunState::Cancelled, *item));
        summary.unsuccessful = first.map(|(item, child)| unsuccessful_child(item, child));
        summary
    }
}

fn output_of(child: &StoredRun) -> Value {
    child.end.as_ref().and_then(|end| end.result.output().cloned()).unwrap_or_default()
}

fn unsuccessful_child(item: u32, child: &StoredRun) -> Unsuccessful {
    let error = child.end.as_ref().and_then(|end| end.result.error().cloned());
    Unsuccessful { run: child.new.id, item, state: child.state, error }
}

#[async_trait]
impl ChildRuns for MemoryStore {
    async fn ensure_graph(&self, digest: Digest, definition: &Value) -> Result<(), StoreError> {
        RunStore::ensure_graph(self, digest, definition).await
    }

    async fn start(
        &self,
        parent: &Parent,
        kind: ChildKind,
        children: Vec<NewChild>,
        earlier: &[RunId],
    ) -> Result<(), StartChildrenError> {
        let now = self.clock.now();
        self.call(|shared| shared.start(parent, kind, children, earlier, now)).await
    }

    async fn summarize(&self, parent: &Parent) -> Result<ChildSummary, StoreError> {
        self.call(|shared| Ok(shared.summarize(parent))).await
    }

    async fn list_unsuccessful(
        &self,
        parent: &Parent,
        limit: usize,
    ) -> Result<Vec<Unsuccessful>, StoreError> {
        self.call(|shared| {
            let mut unsuccessful: Vec<Unsuccessful> = shared
                .children_of(parent)
                .filter(|(_, child)| child.state.is_terminal() && child.state != RunState::Succeeded)
                .map(|(item, child)| unsuccessful_child(item, child))
                .collect();
            unsuccessful.sort_unstable_by_key(|child| child.item);
            unsuccessful.truncate(limit);
            Ok(unsuccessful)
        })
        .await
    }

    async fn load_outputs(
        &self,
        parent: &Parent,
        from: u32,
        limit: usize,
    ) -> Result<Vec<(u32, Value)>, StoreError> {
        self.call(|shared| {
            let mut outputs: Vec<(u32, Value)> = shared
                .children_of(parent)
                .filter(|(item, child)| *item >= from && child.state == RunState::Succeeded)
                .map(|(item, child)| (item, output_of(child)))
                .collect();
            outputs.sort_unstable_by_key(|(item, _)| *item);
            outputs.truncate(limit);
            Ok(outputs)
        })
        .await
    }

    async fn find(&self, parent: &Parent, item: u32) -> Result<Option<ChildState>, StoreError> {
        self.call(|shared| {
            let child = shared.children_of(parent).find(|(other, _)| *other == item).map(|(_, child)| child);
            Ok(child.map(|child| match child.state {
                RunState::Succeeded => ChildState::Succeeded(output_of(child)),
                state if state.is_terminal() => ChildState::Unsuccessful(unsuccessful_child(item, child)),
                _ => ChildState::Active,
            }))
        })
        .await
    }

    async fn cancel(&self, parent: &Parent) -> Result<(), StoreError> {
        let now = self.clock.now();
        self.call(|shared| {
            let children: Vec<RunId> = shared.children_of(parent).map(|(_, child)| child.new.id).collect();
            for child in children {
                if let Some(child) = shared.runs.get_mut(&child) {
                    // This does not wake the parent, which is the caller.
                    child.ask_for_its_end(Some(parent.cancel_reason()), now);
                }
            }
            Ok(())
        })
        .await
    }
}
