//! A bounded pool of connected servers, each started when it is first needed.
//!
//! Owns how many are connected at once, how long an unused one stays, and that all of them end in order. Invariant: a
//! server's place is free again only after its process or session has ended.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gathering_domain::Digest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::McpError;
use crate::config::McpServerConfig;
use crate::notices::McpNotice;
use crate::pins::ToolPins;
use crate::server::{McpServer, McpServices};

/// How long to wait for the place of a server that is being ended, beyond the time that its settings give it.
const ENDING: Duration = Duration::from_secs(5);

/// What bounds a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct McpPoolSettings {
    /// The most servers that are connected at once; at least 1.
    pub max_servers: usize,
    /// How long a server that nobody uses stays connected.
    pub idle: Duration,
}

impl Default for McpPoolSettings {
    /// 64 servers, 10 minutes.
    fn default() -> Self {
        Self { max_servers: 64, idle: Duration::from_secs(600) }
    }
}

/// Connected servers by key. Clones share them. [`McpPool::run`] must run beside it: it ends what nobody uses.
#[derive(Clone)]
pub struct McpPool {
    shared: Arc<Shared>,
}

struct Shared {
    services: McpServices,
    settings: McpPoolSettings,
    servers: Mutex<Servers>,
    places: Arc<Semaphore>,
    ending: TaskTracker,
}

#[derive(Default)]
struct Servers {
    by_key: HashMap<String, Entry>,
    is_closed: bool,
}

/// A connected server and its place.
struct Entry {
    server: McpServer,
    place: OwnedSemaphorePermit,
    /// What it was started with, except the pins.
    settings: Digest,
    pins: Option<Digest>,
    /// Each user has a clone.
    users: Arc<()>,
    last_used: Instant,
}

/// A server of a pool. It is not ended for being idle while this lives.
#[derive(Clone)]
pub struct PooledServer {
    server: McpServer,
    _use: Arc<()>,
}

impl std::ops::Deref for PooledServer {
    type Target = McpServer;

    fn deref(&self) -> &McpServer {
        &self.server
    }
}

/// A server with one user. It is ended when this is dropped.
pub struct SingleServer {
    held: Option<(McpServer, OwnedSemaphorePermit)>,
    server: McpServer,
    shared: Arc<Shared>,
}

impl std::ops::Deref for SingleServer {
    type Target = McpServer;

    fn deref(&self) -> &McpServer {
        &self.server
    }
}

impl Drop for SingleServer {
    fn drop(&mut self) {
        if let Some((server, place)) = self.held.take() {
            self.shared.end(server, place);
        }
    }
}

impl McpPool {
    /// An empty pool.
    pub fn new(services: McpServices, settings: McpPoolSettings) -> Self {
        let settings = McpPoolSettings { max_servers: settings.max_servers.max(1), ..settings };
        let shared = Shared {
            services,
            settings,
            servers: Mutex::default(),
            places: Arc::new(Semaphore::new(settings.max_servers)),
            ending: TaskTracker::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The server of this key. One that was started with other settings is ended and replaced; other pins are taken at
    /// once. If the pool is full, the server is ended that was idle for the longest time.
    ///
    /// Cancel: safe.
    ///
    /// # Errors
    /// [`McpError::Busy`] if all places are in use; [`McpError::Config`]; [`McpError::Stopped`] after the end of the pool.
    pub async fn open(&self, key: &str, config: McpServerConfig) -> Result<PooledServer, McpError> {
        let settings = config.settings_digest();
        if let Some(found) = self.shared.find(key, settings, &config)? {
            return Ok(found);
        }
        let place = self.shared.place(&config).await?;
        // Somebody else may have started it meanwhile.
        if let Some(found) = self.shared.find(key, settings, &config)? {
            return Ok(found);
        }
        let pins = config.pins.digest();
        let server = McpServer::mount(config, self.shared.services.clone())?;
        let users = Arc::new(());
        let pooled = PooledServer { server: server.clone(), _use: Arc::clone(&users) };
        let entry = Entry { server, place, settings, pins, users, last_used: Instant::now() };
        let replaced = {
            let mut servers = self.shared.lock();
            if servers.is_closed { Some(entry) } else { servers.by_key.insert(key.to_owned(), entry) }
        };
        if let Some(Entry { server, place, .. }) = replaced {
            self.shared.end(server, place);
        }
        Ok(pooled)
    }

    /// A server for one purpose, beside those with keys.
    ///
    /// # Errors
    /// As [`McpPool::open`].
    pub async fn open_single(&self, config: McpServerConfig) -> Result<SingleServer, McpError> {
        let place = self.shared.place(&config).await?;
        let server = McpServer::mount(config, self.shared.services.clone())?;
        let held = Some((server.clone(), place));
        Ok(SingleServer { held, server, shared: Arc::clone(&self.shared) })
    }

    /// The server of this key, if there is one now; it takes these pins. It does not count as used.
    pub fn find(&self, key: &str, pins: &ToolPins) -> Option<McpServer> {
        let mut servers = self.shared.lock();
        let entry = servers.by_key.get_mut(key)?;
        entry.take_pins(pins);
        Some(entry.server.clone())
    }

    /// Ends the server of this key in order, without waiting for it.
    pub fn close(&self, key: &str) {
        let closed = self.shared.lock().by_key.remove(key);
        if let Some(Entry { server, place, .. }) = closed {
            self.shared.end(server, place);
        }
    }

    /// How many places are taken, also by servers that are being ended.
    pub fn n_taken(&self) -> usize {
        self.shared.settings.max_servers.saturating_sub(self.shared.places.available_permits())
    }

    /// Ends servers that nobody uses, and gives what servers tell to `tell`. At `stop` it ends all servers in order, and
    /// returns when the last one has ended.
    pub async fn run(self, stop: CancellationToken, mut tell: impl FnMut(McpNotice) + Send) {
        let mut rounds = interval((self.shared.settings.idle / 10).max(Duration::from_millis(10)));
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = rounds.tick() => self.shared.end_idle(),
                notice = self.shared.services.notices.next() => tell(notice),
            }
        }
        let all: Vec<Entry> = {
            let mut servers = self.shared.lock();
            servers.is_closed = true;
            servers.by_key.drain().map(|(_, entry)| entry).collect()
        };
        for Entry { server, place, .. } in all {
            self.shared.end(server, place);
        }
        self.shared.ending.close();
        self.shared.ending.wait().await;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Servers> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(
        &self,
        key: &str,
        settings: Digest,
        config: &McpServerConfig,
    ) -> Result<Option<PooledServer>, McpError> {
        let mut servers = self.lock();
        if servers.is_closed {
            return Err(McpError::Stopped);
        }
        let Some(entry) = servers.by_key.get_mut(key).filter(|entry| entry.settings == settings) else {
            return Ok(None);
        };
        entry.take_pins(&config.pins);
        entry.last_used = Instant::now();
        Ok(Some(PooledServer { server: entry.server.clone(), _use: Arc::clone(&entry.users) }))
    }

    /// A free place, if need be that of the server that was idle for the longest time.
    async fn place(&self, config: &McpServerConfig) -> Result<OwnedSemaphorePermit, McpError> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(place);
        }
        let busy = McpError::Busy { limit: self.settings.max_servers };
        if !self.end_longest_idle() && self.ending.is_empty() {
            return Err(busy);
        }
        let freed = Arc::clone(&self.places).acquire_owned();
        match timeout(config.limits.shutdown + ENDING, freed).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) | Err(_) => Err(busy),
        }
    }

    fn end_longest_idle(&self) -> bool {
        let ended = {
            let mut servers = self.lock();
            let idle = servers.by_key.iter().filter(|(_, entry)| entry.is_idle());
            let longest = idle.min_by_key(|(_, entry)| entry.last_used).map(|(key, _)| key.clone());
            longest.and_then(|key| servers.by_key.remove(&key))
        };
        let is_ended = ended.is_some();
        if let Some(Entry { server, place, .. }) = ended {
            self.end(server, place);
        }
        is_ended
    }

    fn end_idle(&self) {
        let idle = self.settings.idle;
        let ended: Vec<Entry> = {
            let mut servers = self.lock();
            for entry in servers.by_key.values_mut().filter(|entry| !entry.is_idle()) {
                entry.last_used = Instant::now();
            }
            let is_over = |_: &String, entry: &mut Entry| entry.last_used.elapsed() >= idle;
            servers.by_key.extract_if(is_over).map(|(_, entry)| entry).collect()
        };
        for Entry { server, place, .. } in ended {
            tracing::debug!(server = server.name(), "an MCP server that nobody uses is ended");
            self.end(server, place);
        }
    }

    fn end(&self, server: McpServer, place: OwnedSemaphorePermit) {
        self.ending.spawn(async move {
            server.stop().await;
            drop(place);
        });
    }
}

impl Entry {
    fn take_pins(&mut self, pins: &ToolPins) {
        let digest = pins.digest();
        if self.pins != digest {
            self.pins = digest;
            self.server.set_pins(pins.clone());
        }
    }

    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.users) == 1
    }
}
