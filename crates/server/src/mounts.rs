//! The MCP servers that are mounted in projects: their tools, and their connections in this process.
//!
//! What a project has mounted, and which definitions are accepted, is in the database; one small query before each use
//! says whether this process knows it. So a change that another instance made holds from the next call on. A server is
//! connected by the first call of one of its tools, and all calls of this process share the connection.

mod settings;
mod shown;
mod tool;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use gathering_cache::BoundedCache;
use gathering_control::{
    AllowedMount, ControlError, McpMount, McpPins, McpServerControl, McpSettings, Scoped, SecretControl,
    pins_bytes, pins_digest, right,
};
use gathering_dag_engine::{Redaction as _, StoreError};
use gathering_domain::{McpServerName, ProjectId, with_causes};
use gathering_mcp::{
    McpCatalogue, McpError, McpNotice, McpNoticeKind, McpPool, McpPoolSettings, McpServerConfig, McpServices,
    OnConnect, PooledServer, ToolPins,
};
use gathering_nodes::{KnownSecrets, ProjectSecrets as _, ProjectTools};
use gathering_tools::{DeclineQuestions, Outbound, ToolQuestions, Toolbox};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use self::tool::ProjectTool;

pub(crate) use self::shown::{ShownServer, ShownTool, ToolStatus};

/// Of how many projects the tools are kept in memory.
const N_CACHED_PROJECTS: u64 = 64;

/// The most bytes of the definitions of one server, as JSON.
const MAX_DEFINITIONS_BYTES: usize = 1024 * 1024;

/// The mounted servers of all projects, as this process uses them. Cloning is cheap and shares the connections.
#[derive(Clone)]
pub struct Mounts {
    inner: Arc<Inner>,
}

struct Inner {
    /// The tools of this program.
    own: Toolbox,
    servers: McpServerControl,
    secrets: SecretControl,
    pool: McpPool,
    opened: BoundedCache<ProjectId, Arc<Opened>>,
}

/// What a project has mounted, as this process knows it.
struct Opened {
    version: i64,
    mounts: BTreeMap<McpServerName, McpMount>,
    /// The tools of this program, and those of the servers that may be called.
    tools: Toolbox,
}

/// Why there is no connection to be made.
#[derive(Debug)]
enum NoConnection {
    /// The operator or the secrets do not allow it.
    Refused(String),
    Store(StoreError),
}

/// Why a server was not mounted, or its definitions not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MountError {
    /// A rule of the project.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The server cannot be used; the text says why, without the values of secrets.
    #[error("{0}")]
    Unusable(String),
    /// The server describes its tools differently from what the caller saw.
    #[error("the server describes its tools differently by now: read it again, and accept what it says then")]
    ChangedMeanwhile,
}

impl From<StoreError> for MountError {
    fn from(error: StoreError) -> Self {
        Self::Control(error.into())
    }
}

impl Mounts {
    /// The servers that `servers` knows, with tools beside `own`. Requests over HTTP go through `outbound`.
    pub fn new(own: Toolbox, servers: McpServerControl, secrets: SecretControl, outbound: Outbound) -> Self {
        // The nodes of runs bring respondents of their own. A question outside of a call, or of one that cannot be told
        // from another, is declined.
        let questions = Some(ToolQuestions::to(DeclineQuestions));
        let services = McpServices { questions, ..McpServices::new(outbound) };
        let pool = McpPool::new(services, McpPoolSettings::default());
        let opened = BoundedCache::new("mcp_servers", N_CACHED_PROJECTS);
        Self { inner: Arc::new(Inner { own, servers, secrets, pool, opened }) }
    }

    /// Ends connections that nobody uses; at `stop` it ends all of them in order, and returns when the last one has ended.
    pub async fn run(self, stop: CancellationToken) {
        let pool = self.inner.pool.clone();
        drop(self);
        pool.run(stop, log_notice).await;
    }

    /// What may be done with mounted servers.
    pub(crate) fn control(&self) -> &McpServerControl {
        &self.inner.servers
    }

    /// Connects to a server, and mounts it with what it says of its tools.
    ///
    /// # Errors
    /// [`MountError`]; nothing was stored.
    pub(crate) async fn mount(&self, allowed: AllowedMount) -> Result<ShownServer, MountError> {
        let (project, name, settings) =
            (allowed.project(), allowed.name().clone(), allowed.settings().clone());
        let secrets = self.secrets_of(project, &settings).await?;
        let config = self.to_connect((project, &name), &settings, &McpPins::new(), &secrets);
        let config = config.map_err(MountError::Unusable)?;
        let unusable = |error: &McpError| MountError::Unusable(redacted(&secrets, with_causes(error)));
        let server = self.inner.pool.open_single(config).await.map_err(|error| unusable(&error))?;
        let catalogue = server.ready().await.map_err(|error| unusable(&error))?;
        let pins = pins_of(&catalogue, &secrets)?;
        let mount = self.inner.servers.mount(allowed, pins).await?;
        server.set_pins(settings::to_pins(&mount.pins));
        let catalogue = server.catalogue().unwrap_or(catalogue);
        Ok(ShownServer::connected(mount, &catalogue).redacted(&secrets))
    }

    /// Accepts what the server says of its tools, if that is what the caller saw: the definitions with this digest.
    ///
    /// # Errors
    /// [`MountError`]; nothing was changed.
    pub(crate) async fn accept(
        &self,
        mount: &Scoped<McpMount, right::Write>,
        digest: &str,
    ) -> Result<ShownServer, MountError> {
        let secrets = self.secrets_of(mount.project, &mount.settings).await?;
        let unusable = |error: &McpError| MountError::Unusable(redacted(&secrets, with_causes(error)));
        let config = match self.config_of(mount.project, &mount.name, &mount.settings, &mount.pins).await {
            Ok(config) => config,
            Err(NoConnection::Refused(why)) => return Err(MountError::Unusable(why)),
            Err(NoConnection::Store(error)) => return Err(error.into()),
        };
        let server =
            self.connect(mount.project, &mount.name, config).await.map_err(|error| unusable(&error))?;
        let catalogue = server.ready().await.map_err(|error| unusable(&error))?;
        let pins = pins_of(&catalogue, &secrets)?;
        if pins_digest(&pins).to_string() != digest {
            return Err(MountError::ChangedMeanwhile);
        }
        let accepted = self.inner.servers.accept(mount, pins).await?;
        let pins = settings::to_pins(&accepted.pins);
        let live = self.inner.pool.find(&key(accepted.project, &accepted.name), &pins);
        let catalogue = live.and_then(|server| server.catalogue()).unwrap_or(catalogue);
        Ok(ShownServer::connected(accepted, &catalogue).redacted(&secrets))
    }

    /// Ends the connection of a server that was unmounted here.
    pub(crate) fn forget(&self, project: ProjectId, name: &McpServerName) {
        self.inner.pool.close(&key(project, name));
    }

    /// A server as this process knows it, without connecting.
    pub(crate) async fn peek(&self, mount: McpMount) -> Result<ShownServer, MountError> {
        let secrets = self.inner.secrets.open(mount.project, false).await?;
        let rules = self.inner.servers.rules();
        let pins = settings::to_pins(&mount.pins);
        let live = self.inner.pool.find(&key(mount.project, &mount.name), &pins);
        let shown = match live.as_ref().and_then(|server| server.catalogue()) {
            Some(catalogue) => ShownServer::connected(mount, &catalogue),
            None => {
                let known = McpCatalogue::pinned(&settings::without_secrets(&mount, rules));
                ShownServer::pinned(mount, &known, live.map(|server| server.status()))
            }
        };
        Ok(shown.redacted(&secrets))
    }

    /// A server as it is now: it is connected for that, as by a call.
    pub(crate) async fn look(&self, mount: McpMount) -> Result<ShownServer, MountError> {
        let secrets = self.secrets_of(mount.project, &mount.settings).await?;
        let config = self.config_of(mount.project, &mount.name, &mount.settings, &mount.pins).await;
        let catalogue = match config {
            Ok(config) => match self.connect(mount.project, &mount.name, config).await {
                Ok(server) => server.ready().await.map_err(|error| with_causes(&error)),
                Err(error) => Err(with_causes(&error)),
            },
            Err(NoConnection::Refused(why)) => Err(why),
            Err(NoConnection::Store(error)) => return Err(error.into()),
        };
        let shown = match catalogue {
            Ok(catalogue) => ShownServer::connected(mount, &catalogue),
            Err(why) => {
                let known =
                    McpCatalogue::pinned(&settings::without_secrets(&mount, self.inner.servers.rules()));
                let down = gathering_mcp::McpStatus::Down { reason: why };
                ShownServer::pinned(mount, &known, Some(down))
            }
        };
        Ok(shown.redacted(&secrets))
    }

    /// The secrets of a project: those of this moment if the settings refer to some.
    async fn secrets_of(
        &self,
        project: ProjectId,
        settings: &McpSettings,
    ) -> Result<Arc<KnownSecrets>, StoreError> {
        self.inner.secrets.open(project, !settings.secrets().is_empty()).await
    }

    async fn config_of(
        &self,
        project: ProjectId,
        name: &McpServerName,
        settings: &McpSettings,
        pins: &McpPins,
    ) -> Result<McpServerConfig, NoConnection> {
        let secrets = self.secrets_of(project, settings).await.map_err(NoConnection::Store)?;
        self.to_connect((project, name), settings, pins, &secrets).map_err(NoConnection::Refused)
    }

    /// The settings for a connection. Each time that it is made, the audit record names the secrets that it uses.
    fn to_connect(
        &self,
        (project, name): (ProjectId, &McpServerName),
        settings: &McpSettings,
        pins: &McpPins,
        known: &KnownSecrets,
    ) -> Result<McpServerConfig, String> {
        let mut config = settings::of_connection(name, settings, pins, self.inner.servers.rules(), known)?;
        let names = settings.secrets();
        if !names.is_empty() {
            let (secrets, name) = (self.inner.secrets.clone(), name.clone());
            config.on_connect = OnConnect::new(move || secrets.note_connection(project, &name, &names));
        }
        Ok(config)
    }

    async fn connect(
        &self,
        project: ProjectId,
        name: &McpServerName,
        config: McpServerConfig,
    ) -> Result<PooledServer, McpError> {
        self.inner.pool.open(&key(project, name), config).await
    }

    /// What the project has mounted at this moment.
    async fn open_now(&self, project: ProjectId) -> Result<Arc<Opened>, StoreError> {
        let before = self.inner.opened.get(&project);
        let known = before.as_ref().map(|opened| opened.version);
        let found = self.inner.servers.load(project, known).await.map_err(|error| match error {
            ControlError::Unavailable(cause) => StoreError::Unavailable(cause),
            ControlError::TimedOut(cause) => StoreError::TimedOut(cause),
            other => StoreError::Fault(other.into()),
        })?;
        let servers = match (found.servers, before) {
            (Some(servers), _) => servers,
            (None, Some(before)) => return Ok(before),
            (None, None) => Vec::new(),
        };
        // Compiling schemas takes a while.
        let inner = Arc::clone(&self.inner);
        let built = tokio::task::spawn_blocking(move || Inner::build(&inner, found.version, servers)).await;
        let opened = Arc::new(built.map_err(|panicked| StoreError::Fault(panicked.into()))?);
        self.inner.opened.insert(project, Arc::clone(&opened));
        Ok(opened)
    }
}

impl Inner {
    fn build(inner: &Arc<Self>, version: i64, servers: Vec<McpMount>) -> Opened {
        let mut tools = inner.own.clone();
        for mount in &servers {
            let known = McpCatalogue::pinned(&settings::without_secrets(mount, inner.servers.rules()));
            for tool in known.callable() {
                let tool = ProjectTool::new(Arc::downgrade(inner), mount.project, mount.name.clone(), tool);
                if let Err(error) = tools.register(tool) {
                    tracing::warn!(project.id = %mount.project, mcp.server = %mount.name, "a mounted tool is left out: {error}");
                }
            }
        }
        let mounts = servers.into_iter().map(|mount| (mount.name.clone(), mount)).collect();
        Opened { version, mounts, tools }
    }
}

#[async_trait]
impl ProjectTools for Mounts {
    async fn open(&self, project: ProjectId) -> Result<Toolbox, StoreError> {
        Ok(self.open_now(project).await?.tools.clone())
    }
}

/// The definitions that the server lists, to be stored.
fn pins_of(catalogue: &McpCatalogue, secrets: &KnownSecrets) -> Result<McpPins, MountError> {
    let ToolPins::Only(definitions) = catalogue.to_pins() else { return Ok(McpPins::new()) };
    let pins: McpPins =
        definitions.into_iter().map(|(name, definition)| (name, definition.as_json().clone())).collect();
    if pins_bytes(&pins) > MAX_DEFINITIONS_BYTES {
        let message = format!("the definitions of its tools have more than {MAX_DEFINITIONS_BYTES} bytes");
        return Err(MountError::Unusable(message));
    }
    let text = serde_json::json!(pins).to_string();
    if serde_json::from_str::<Value>(&text).is_err() {
        return Err(MountError::Unusable("a definition of its tools is nested too deep".to_owned()));
    }
    if redacted(secrets, text.clone()) != text {
        let message = "a definition of its tools contains the value of a secret of the project";
        return Err(MountError::Unusable(message.to_owned()));
    }
    Ok(pins)
}

fn redacted(secrets: &KnownSecrets, mut text: String) -> String {
    secrets.redact_text(&mut text);
    text
}

fn key(project: ProjectId, name: &McpServerName) -> String {
    format!("{project}/{name}")
}

fn log_notice(notice: McpNotice) {
    let server = notice.server;
    match notice.kind {
        McpNoticeKind::Progress { tool, progress, total, message } => {
            tracing::debug!(mcp.server = server, tool, progress, ?total, ?message, "progress of a call");
        }
        McpNoticeKind::Log { level, text } => {
            tracing::debug!(mcp.server = server, level, text, "a server logs")
        }
        other => tracing::debug!(mcp.server = server, ?other, "an MCP server"),
    }
}
