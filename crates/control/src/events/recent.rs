//! The latest events, for readers that come back a moment later.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gathering_cache::BoundedCache;
use gathering_domain::ProjectId;

use super::{EventSeq, EventsOf, FeedEvent};

/// The most events that are kept of a project, and of all together.
const MAX_EVENTS: usize = 256;

/// The most bytes of data that are kept of a project, and of all together.
const MAX_BYTES: usize = 512 * 1024;

/// The latest events of the projects with the latest events, and of all projects together.
pub(super) struct RecentEvents {
    by_project: BoundedCache<ProjectId, Arc<Mutex<Ring>>>,
    of_all: Mutex<Ring>,
}

/// Events without a gap.
#[derive(Default)]
struct Ring {
    events: VecDeque<Arc<FeedEvent>>,
    n_bytes: usize,
    /// All events after this one are here.
    after: EventSeq,
    /// The reading of the log that they belong to.
    reading: EventSeq,
}

impl Ring {
    /// An empty one of a reading of the log that began after an event.
    fn begin(reading: EventSeq, after: EventSeq) -> Self {
        Self { after, reading, ..Self::default() }
    }

    fn push(&mut self, event: Arc<FeedEvent>) {
        self.n_bytes += event.n_bytes();
        self.events.push_back(event);
        while self.events.len() > MAX_EVENTS || self.n_bytes > MAX_BYTES {
            let Some(oldest) = self.events.pop_front() else { return };
            self.n_bytes -= oldest.n_bytes();
            self.after = oldest.event().seq;
        }
    }

    fn between(&self, after: EventSeq, until: EventSeq) -> Option<Vec<Arc<FeedEvent>>> {
        if after < self.after {
            return None;
        }
        let is_between = |event: &&Arc<FeedEvent>| event.event().seq > after && event.event().seq <= until;
        Some(self.events.iter().filter(is_between).cloned().collect())
    }
}

impl RecentEvents {
    pub(super) fn new(n_projects: u64) -> Self {
        Self { by_project: BoundedCache::new("events", n_projects), of_all: Mutex::default() }
    }

    /// The log is read from after this event on, and no longer from where it was read before.
    pub(super) fn begin(&self, after: EventSeq) {
        *locked(&self.of_all) = Ring::begin(after, after);
    }

    /// Adds the next event of the log.
    pub(super) fn push(&self, event: &Arc<FeedEvent>) {
        let reading = {
            let mut of_all = locked(&self.of_all);
            of_all.push(Arc::clone(event));
            of_all.reading
        };
        let Some(project) = event.event().project else { return };
        // Of a project that is not here, events before this one may have been.
        let before = event.event().seq - 1;
        let new = || Arc::new(Mutex::new(Ring::begin(reading, before)));
        let ring = self.by_project.get_or_insert_with(&project, new);
        let mut ring = locked(&ring);
        if ring.reading != reading {
            *ring = Ring::begin(reading, before);
        }
        ring.push(Arc::clone(event));
    }

    /// The events of a project, or of all, after `after` and up to `until`, if they are all here. Whether the reader sees
    /// each of them is not decided here.
    pub(super) fn between(
        &self,
        of: &EventsOf,
        after: EventSeq,
        until: EventSeq,
    ) -> Option<Vec<Arc<FeedEvent>>> {
        let (of_all, reading) = {
            let ring = locked(&self.of_all);
            (ring.between(after, until), ring.reading)
        };
        let EventsOf::Project(project) = of else { return of_all };
        let of_project = |event: &Arc<FeedEvent>| event.event().project == Some(*project);
        if let Some(events) = of_all {
            return Some(events.into_iter().filter(of_project).collect());
        }
        let ring = self.by_project.get(project)?;
        let ring = locked(&ring);
        if ring.reading == reading { ring.between(after, until) } else { None }
    }
}

/// Nothing that panics happens under the lock.
fn locked(ring: &Mutex<Ring>) -> MutexGuard<'_, Ring> {
    ring.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;
    use crate::LoggedEvent;

    fn event(seq: EventSeq, project: ProjectId) -> Arc<FeedEvent> {
        Arc::new(FeedEvent::of(LoggedEvent {
            seq,
            project: Some(project),
            event_type: "a.b".to_owned(),
            id: None,
            key: None,
            source: None,
            subject: None,
            attributes: Map::new(),
            data: json!({}),
            at: chrono::Utc::now(),
        }))
    }

    fn seqs(events: Option<Vec<Arc<FeedEvent>>>) -> Option<Vec<EventSeq>> {
        events.map(|events| events.iter().map(|event| event.event().seq).collect())
    }

    #[test]
    fn what_is_here_is_without_a_gap_and_what_is_not_is_not_answered() {
        let recent = RecentEvents::new(2);
        let (busy, quiet) = (ProjectId::new(), ProjectId::new());
        recent.begin(10);
        recent.push(&event(12, quiet));
        recent.push(&event(13, busy));
        let between = |of: &EventsOf, after, until| seqs(recent.between(of, after, until));
        assert_eq!(between(&EventsOf::Admin, 10, 13), Some(vec![12, 13]));
        assert_eq!(between(&EventsOf::Admin, 12, 12), Some(vec![]));
        assert_eq!(between(&EventsOf::Admin, 9, 13), None, "the log was not read there");
        assert_eq!(between(&EventsOf::Project(quiet), 10, 13), Some(vec![12]));
        assert_eq!(between(&EventsOf::Project(ProjectId::new()), 10, 13), Some(vec![]));
        for seq in 20..1000 {
            recent.push(&event(seq, busy));
        }
        assert_eq!(between(&EventsOf::Admin, 13, 999), None, "too long ago for all together");
        assert_eq!(between(&EventsOf::Project(quiet), 12, 999), Some(vec![]), "but not for a quiet project");
        assert_eq!(between(&EventsOf::Project(quiet), 11, 999), Some(vec![12]));
        assert_eq!(between(&EventsOf::Project(quiet), 10, 999), None, "before it was known");
        assert_eq!(between(&EventsOf::Project(busy), 500, 999), None);
        assert_eq!(between(&EventsOf::Project(busy), 990, 992), Some(vec![991, 992]));
        recent.begin(2000);
        assert_eq!(between(&EventsOf::Project(quiet), 12, 2000), None, "the log was not read in between");
        assert_eq!(between(&EventsOf::Project(quiet), 2000, 2000), Some(vec![]));
    }
}
