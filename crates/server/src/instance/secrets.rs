//! The secrets of projects and hooks: their keys, what the operator gives by other ways, and their tasks.

use std::time::Duration;

use anyhow::Context as _;
use gathering_auth::{KeyFile, KeyRing};
use gathering_control::{ControlError, ControlStore, HookControl, SecretControl, SecretSources};
use gathering_domain::ExposeSecret as _;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

use super::Work;
use super::task::Task;
use crate::config::Config;

/// How often secrets of older keys are looked for, as another instance may still have one.
const INTERVAL: Duration = Duration::from_secs(3600);

/// The pause after a failure.
const RETRY: Duration = Duration::from_secs(60);

/// The secrets of this store.
///
/// # Errors
/// If there are no keys, or they cannot be used.
pub(super) async fn open(
    config: &Config,
    store: Arc<dyn ControlStore>,
    work: Work,
) -> anyhow::Result<SecretControl> {
    let keys = match work {
        Work::Queue => {
            let config = config.clone();
            let keys = tokio::task::spawn_blocking(move || key_ring(&config));
            keys.await.context("loading the keys of secrets")??
        }
        // Nothing is stored for the operator's local projects, so no key is of use.
        Work::Tree(_) => KeyRing::generate()?,
    };
    let mut sources = SecretSources::none();
    if let Some(prefix) = &config.secrets_env_prefix {
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?.strip_prefix(prefix.as_str())?.to_owned();
            Some((name, value.into_string().ok()?))
        });
        sources = sources.with_environment(variables);
    }
    if let Some(directory) = &config.secrets_dir {
        sources = sources.with_directory(directory.clone());
    }
    Ok(SecretControl::new(store, keys, sources))
}

/// The keys that this instance shares with the others. Blocks.
fn key_ring(config: &Config) -> anyhow::Result<KeyRing> {
    if let Some(keys) = &config.secrets_key {
        return KeyRing::parse(keys.expose_secret()).context("GATHERING_SECRETS_KEY cannot be used");
    }
    let file = KeyFile::load_or_create_of_secrets(&config.data_dir)?;
    if file.is_new && config.database_url.is_some() {
        tracing::warn!(
            path = %file.path.display(),
            "a key of secrets was made: keep a copy, as secrets cannot be read without it; instances of this database on \
             other hosts need the same GATHERING_SECRETS_KEY"
        );
    }
    Ok(file.keys)
}

/// Starts what records the uses of secrets, and, where the queue is served, what encrypts with the current key.
pub(super) fn tasks(secrets: &SecretControl, hooks: &HookControl, work: Work) -> Vec<Task> {
    let uses = secrets.use_service();
    let mut tasks = vec![Task::start("uses of secrets", |stop| uses.run(stop))];
    if work == Work::Queue {
        let (secrets, hooks) = (secrets.clone(), hooks.clone());
        tasks.push(Task::start("secrets of older keys", move |stop| reseal(secrets, hooks, stop)));
    }
    tasks
}

/// Encrypts with the current key what older keys encrypted, and what earlier versions have not encrypted, now and at every
/// interval. A stop drops a batch.
async fn reseal(secrets: SecretControl, hooks: HookControl, stop: CancellationToken) {
    loop {
        let both = async {
            secrets.reseal().await?;
            hooks.reseal().await?;
            Ok::<(), ControlError>(())
        };
        let resealed = tokio::select! {
            () = stop.cancelled() => return,
            resealed = both => resealed,
        };
        let pause = match resealed {
            Ok(()) => INTERVAL,
            Err(error) => {
                let cause = &error as &dyn std::error::Error;
                tracing::warn!(error = cause, "cannot encrypt secrets with the current key: {error}");
                RETRY
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}
