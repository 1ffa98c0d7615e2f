//! The secrets of a project, where a node meets the outside: their values go into what is sent, and are taken out of
//! everything that comes back.
//!
//! Owns where that happens: [`WithSecrets`] stands around every node type of this crate, so none can forget it. Never knows
//! where secrets are stored.

mod redactor;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use async_trait::async_trait;
use gathering_dag_engine::{
    Attempt, NodeExecutor, NodeFailure, Outcome, PollOutcome, Redaction, SecretSlots, StoreError,
    retry_while_unavailable,
};
use gathering_domain::{ExposeSecret as _, FailureKind, ProjectId, RunId, Secret, SecretName};
use serde_json::Value;

use self::redactor::Redactor;

/// Where the secrets of projects are.
#[async_trait]
pub trait ProjectSecrets: Send + Sync + 'static {
    /// The secrets of a project. With `are_used` they are those of this moment; otherwise they only serve to be taken out
    /// of results, and may be some seconds old.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn open(&self, project: ProjectId, are_used: bool) -> Result<Arc<KnownSecrets>, StoreError>;

    /// Notes that a run uses these secrets of its project. It takes no time.
    fn note_use(&self, project: ProjectId, run: RunId, names: &BTreeSet<SecretName>);
}

/// Projects without secrets.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSecrets;

#[async_trait]
impl ProjectSecrets for NoSecrets {
    async fn open(&self, _project: ProjectId, _are_used: bool) -> Result<Arc<KnownSecrets>, StoreError> {
        Ok(Arc::default())
    }

    fn note_use(&self, _project: ProjectId, _run: RunId, _names: &BTreeSet<SecretName>) {}
}

/// The secrets of a project with their values. `Debug` shows only the names.
#[derive(Default)]
pub struct KnownSecrets {
    values: BTreeMap<SecretName, Result<Secret, String>>,
    redactor: Option<Redactor>,
}

impl KnownSecrets {
    /// These secrets: each with its value, or with why it cannot be read.
    pub fn new(values: BTreeMap<SecretName, Result<Secret, String>>) -> Self {
        let readable = values.iter().filter_map(|(name, value)| Some((name, value.as_ref().ok()?)));
        let redactor = Redactor::new(readable);
        Self { values, redactor }
    }

    /// The value of a secret, for what is sent and for nothing else.
    ///
    /// # Errors
    /// `secret_missing` or `secret_unreadable`, by name.
    pub fn value(&self, name: &SecretName) -> Result<&str, NodeFailure> {
        match self.values.get(name) {
            Some(Ok(value)) => Ok(value.expose_secret()),
            Some(Err(why)) => {
                let message = format!("secret `{name}` cannot be read: {why}");
                Err(NodeFailure::permanent(FailureKind::SecretUnreadable, message))
            }
            None => {
                let message = format!("the project has no secret `{name}`: set it, then run this again");
                Err(NodeFailure::permanent(FailureKind::SecretMissing, message))
            }
        }
    }
}

impl fmt::Debug for KnownSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl Redaction for KnownSecrets {
    fn redact_text(&self, text: &mut String) {
        if let Some(redactor) = &self.redactor {
            redactor.redact_text(text);
        }
    }

    fn redact(&self, value: &mut Value) {
        if let Some(redactor) = &self.redactor {
            redactor.redact(value);
        }
    }
}

/// A config with the values of secrets in it: for what is sent, and for nothing else. It has neither `Debug` nor a JSON
/// form.
pub struct Revealed<'c>(Cow<'c, Value>);

impl Deref for Revealed<'_> {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.0
    }
}

/// What an attempt knows of the secrets of its project.
pub struct AttemptSecrets {
    project: ProjectId,
    run: RunId,
    slots: Arc<SecretSlots>,
    known: Arc<KnownSecrets>,
    secrets: Arc<dyn ProjectSecrets>,
}

impl AttemptSecrets {
    /// The attempt's config with the values of the secrets that it refers to, and notes that the run uses them.
    ///
    /// # Errors
    /// `secret_missing` or `secret_unreadable`, by name: then nothing may be sent.
    pub fn reveal<'c>(&self, config: &'c Value) -> Result<Revealed<'c>, NodeFailure> {
        if self.slots.is_empty() {
            return Ok(Revealed(Cow::Borrowed(config)));
        }
        let names = self.slots.names();
        for name in &names {
            self.known.value(name)?;
        }
        let mut revealed = config.clone();
        let missing = self.slots.reveal_in(&mut revealed, |name| self.known.value(name).ok());
        missing.or_else(|name| self.known.value(&name).map(|_| ()))?;
        self.secrets.note_use(self.project, self.run, &names);
        Ok(Revealed(Cow::Owned(revealed)))
    }

    /// Takes the secrets of the project out of a result that is about to be cut. Effects and outputs are redacted anyway.
    pub fn redact(&self, result: &mut Value) {
        self.known.redact(result);
    }

    /// The secrets of the project, to be taken out of what is told while a call goes on.
    pub(crate) fn known(&self) -> Arc<KnownSecrets> {
        Arc::clone(&self.known)
    }

    /// Whether the attempt's config refers to secrets, so that what it sends is not known before they are revealed.
    pub fn are_used(&self) -> bool {
        !self.slots.is_empty()
    }
}

/// The code of a node type that reaches outside: a [`NodeExecutor`] with the secrets of the project at hand.
#[async_trait]
pub trait OutsideNode: Send + Sync + 'static {
    /// As [`NodeExecutor::execute`].
    ///
    /// # Errors
    /// [`NodeFailure`].
    async fn execute(&self, attempt: Attempt, secrets: &AttemptSecrets) -> Result<Outcome, NodeFailure>;

    /// As [`NodeExecutor::poll`].
    ///
    /// # Errors
    /// [`NodeFailure`].
    async fn poll(&self, _attempt: Attempt, _secrets: &AttemptSecrets) -> Result<PollOutcome, NodeFailure> {
        Ok(PollOutcome::Pending)
    }
}

/// An executor that gives its node the secrets of the project, and takes them out of all that the node gives back: the
/// results and failures of its effects, its output and its failure.
pub struct WithSecrets<N> {
    node: N,
    secrets: Arc<dyn ProjectSecrets>,
}

impl<N: OutsideNode> WithSecrets<N> {
    /// The executor of this node.
    pub fn new(node: N, secrets: Arc<dyn ProjectSecrets>) -> Self {
        Self { node, secrets }
    }

    /// The attempt with redacted effects. `may_send`: whether it may need the values of secrets.
    async fn open(
        &self,
        mut attempt: Attempt,
        may_send: bool,
    ) -> Result<(Attempt, AttemptSecrets), NodeFailure> {
        let (project, run, slots) = (attempt.project, attempt.run, Arc::clone(&attempt.secrets));
        let are_used = may_send && !slots.is_empty();
        let known = retry_while_unavailable(|| self.secrets.open(project, are_used)).await?;
        attempt.effects = attempt.effects.with_redaction(Arc::clone(&known) as Arc<dyn Redaction>);
        Ok((attempt, AttemptSecrets { project, run, slots, known, secrets: Arc::clone(&self.secrets) }))
    }
}

#[async_trait]
impl<N: OutsideNode> NodeExecutor for WithSecrets<N> {
    async fn execute(&self, attempt: Attempt) -> Result<Outcome, NodeFailure> {
        let (attempt, secrets) = self.open(attempt, true).await?;
        let mut result = self.node.execute(attempt, &secrets).await;
        match &mut result {
            Ok(Outcome::Done(output)) => secrets.known.redact(output),
            Ok(Outcome::Wait(_)) => {}
            Err(failure) => secrets.known.redact_failure(failure),
        }
        result
    }

    async fn poll(&self, attempt: Attempt) -> Result<PollOutcome, NodeFailure> {
        let (attempt, secrets) = self.open(attempt, false).await?;
        let mut result = self.node.poll(attempt, &secrets).await;
        match &mut result {
            Ok(PollOutcome::Ended(Outcome::Done(output))) => secrets.known.redact(output),
            Ok(_) => {}
            Err(failure) => secrets.known.redact_failure(failure),
        }
        result
    }
}
