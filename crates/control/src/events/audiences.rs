//! Who sees the events of a project, known for a moment: many readers ask at once, and the store is asked once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use gathering_cache::BoundedCache;
use gathering_domain::{ProjectId, UserId};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::{ControlError, ControlStore};

/// How long an answer holds: a former member sees nothing that is sent later than that.
const HOLDS: Duration = Duration::from_secs(1);

/// The members of a project, who see its events. Admins do, too.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Audience {
    /// The accounts of the members.
    pub members: HashSet<UserId>,
}

/// The audiences of some projects; of one that no account sees, none.
pub(super) type Known = HashMap<ProjectId, Option<Arc<Audience>>>;

#[derive(Clone)]
struct Loaded {
    at: Instant,
    audience: Option<Arc<Audience>>,
}

pub(super) struct Audiences {
    store: Arc<dyn ControlStore>,
    known: BoundedCache<ProjectId, Loaded>,
    /// Held while the store is asked, so that others wait for the same answer.
    asking: Mutex<()>,
}

impl Audiences {
    pub(super) fn new(store: Arc<dyn ControlStore>, n_projects: u64) -> Self {
        Self { store, known: BoundedCache::new("event_audiences", n_projects), asking: Mutex::new(()) }
    }

    /// Who sees the events of these projects, as of at most a second ago.
    pub(super) async fn of(&self, projects: &HashSet<ProjectId>) -> Result<Known, ControlError> {
        if let Some(known) = self.fresh(projects) {
            return Ok(known);
        }
        let _asking = self.asking.lock().await;
        if let Some(known) = self.fresh(projects) {
            return Ok(known);
        }
        let (at, wanted): (_, Vec<ProjectId>) = (Instant::now(), projects.iter().copied().collect());
        let mut loaded = self.store.list_audiences(&wanted).await?;
        let known = wanted.into_iter().map(|project| {
            let audience = loaded.remove(&project).map(Arc::new);
            self.known.insert(project, Loaded { at, audience: audience.clone() });
            (project, audience)
        });
        Ok(known.collect())
    }

    fn fresh(&self, projects: &HashSet<ProjectId>) -> Option<Known> {
        let fresh = |project: &ProjectId| {
            let loaded = self.known.get(project).filter(|loaded| loaded.at.elapsed() < HOLDS)?;
            Some((*project, loaded.audience))
        };
        projects.iter().map(fresh).collect()
    }
}
