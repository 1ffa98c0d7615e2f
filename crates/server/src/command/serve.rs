//! `gathering serve`: starts everything in order, and stops it in order.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use gathering_auth::{Auth, AuthSettings, KeyFile, KeyRing, PasswordSettings};
use gathering_domain::ExposeSecret as _;
use gathering_edge::gate::Gate;
use gathering_edge::metrics::Metrics;
use gathering_edge::readiness::Readiness;
use gathering_edge::server::{EdgeServices, Server, ServerSettings};
use gathering_persistence::PgAccountStore;
use tokio_util::sync::CancellationToken;

use super::signals::Signals;
use crate::config::Config;
use crate::database::Database;
use crate::http::{self, MaxFileBytes, RunEnds, Services, Streams, Watches};
use crate::instance::{Instance, Work};
use crate::mcp::McpDesk;

/// Serves until SIGTERM or SIGINT, and then ends in order with exit code 0. A second signal hurries.
///
/// # Errors
/// If it cannot start, in words for the operator; nothing is left running.
pub(crate) async fn serve(config: &Config) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    // Before everything that measures.
    let metrics = Metrics::install().context("nothing can be measured")?;
    http::describe_metrics();
    let db = Database::open(config).await?;
    let served = serve_on(config, &db, metrics, &mut signals).await;
    db.close().await;
    served?;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

async fn serve_on(
    config: &Config,
    db: &Database,
    metrics: Metrics,
    signals: &mut Signals,
) -> anyhow::Result<()> {
    let auth = Arc::new(auth(config, db).await?);
    let gate = Gate::new(
        Arc::clone(&auth),
        config.rate_limits,
        config.cache_limiters_entries,
        config.trusted_proxies.clone(),
    );
    let instance = Instance::start(config, db, Work::Queue).await?;
    let readiness = Readiness::default();
    let edge = EdgeServices { gate, document: http::document()?, readiness: readiness.clone(), metrics };
    let watches = Arc::new(Watches::new(instance.feed.clone(), Arc::clone(&auth), readiness.clone()));
    let run_ends = RunEnds::new(instance.runs.clone(), instance.wakes.clone(), readiness.clone());
    let control = &instance.control;
    let mcp = McpDesk::new(
        (control.pipelines.clone(), control.runs.clone()),
        (instance.runs.clone(), run_ends.clone()),
        instance.workspaces.clone(),
    )?;
    let services = Services {
        auth,
        pool: db.pool.clone(),
        control: instance.control.clone(),
        tools: instance.tools.clone(),
        secrets: instance.secrets.clone(),
        mounts: instance.mounts.clone(),
        runs: instance.runs.clone(),
        mcp,
        run_ends,
        identities: instance.identities(),
        readiness: readiness.clone(),
        streams: Streams::new(instance.wakes.clone(), instance.notices.clone()),
        watches: Arc::clone(&watches),
        workspaces: instance.workspaces.clone(),
        max_file_bytes: MaxFileBytes(config.max_file_bytes),
        n_limited_hooks: config.cache_limiters_entries,
    };
    let settings = ServerSettings { bind: config.bind, grace: config.shutdown_grace };
    let mut server = match Server::start(http::ROUTES, services.into_table(), edge, settings) {
        Ok(server) => server,
        Err(error) => {
            instance.stop().await;
            return Err(error)
                .with_context(|| format!("GATHERING_BIND: {} cannot be listened on", config.bind));
        }
    };
    let address = server.address();
    tracing::info!(%address, instance.id = %instance.identity().id, "listening");
    tokio::select! {
        ended = server.ended() => {
            instance.stop().await;
            return ended.context("the HTTP server ended by itself");
        }
        name = signals.next() => tracing::info!(signal = name, "{name}: stopping"),
    }
    readiness.drain();
    stop(config, server, instance, &watches, signals).await
}

/// The listener stays open for the drain delay, so that load balancers notice; then requests in flight finish.
/// Meanwhile, runs end or are released.
async fn stop(
    config: &Config,
    server: Server,
    instance: Instance,
    watches: &Watches,
    signals: &mut Signals,
) -> anyhow::Result<()> {
    instance.drain();
    let (http, identity) = (server.handle(), instance.identity());
    let hurry = CancellationToken::new();
    let requests = async {
        tokio::select! {
            () = tokio::time::sleep(config.shutdown_drain) => {}
            () = hurry.cancelled() => {}
        }
        // They end when the drain begins, each in order.
        watches.close().await;
        server.stop().await
    };
    let in_order = async { tokio::join!(requests, instance.stop()).0 };
    tokio::pin!(in_order);
    let ended = tokio::select! {
        ended = &mut in_order => ended,
        name = signals.next() => {
            tracing::warn!(signal = name, "second {name}: dropping what still executes and releasing its runs now");
            identity.runner.release_now();
            hurry.cancel();
            http.stop(false).await;
            in_order.await
        }
    };
    ended.context("the HTTP server did not stop in order")
}

async fn auth(config: &Config, db: &Database) -> anyhow::Result<Auth> {
    let store = Arc::new(PgAccountStore::new(db.pool.clone()));
    let settings = AuthSettings {
        registration: config.registration,
        passwords: PasswordSettings { cost: config.bcrypt_cost, ..PasswordSettings::default() },
        n_cached_revocations: config.cache_revocations_entries,
        n_cached_key_owners: config.cache_key_owners_entries,
        ..AuthSettings::default()
    };
    let config = config.clone();
    let made = tokio::task::spawn_blocking(move || {
        let keys = key_ring(&config)?;
        Auth::new(store, keys, settings).context("authentication cannot be set up")
    });
    made.await.context("setting up authentication")?
}

/// The key ring that this instance shares with the others. Blocks.
fn key_ring(config: &Config) -> anyhow::Result<KeyRing> {
    if let Some(keys) = &config.token_key {
        return KeyRing::parse(keys.expose_secret()).context("GATHERING_TOKEN_KEY cannot be used");
    }
    let file = KeyFile::load_or_create(&config.data_dir)?;
    if file.is_new && config.database_url.is_some() {
        tracing::warn!(
            path = %file.path.display(),
            "a token key was made; instances of this database on other hosts need the same GATHERING_TOKEN_KEY"
        );
    }
    Ok(file.keys)
}
