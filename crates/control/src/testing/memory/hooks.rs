//! Hooks and their ledgers in memory.

use std::collections::BTreeMap;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use gathering_auth::{AuditEvent, Caller, SealedValue};
use gathering_dag_engine::RunStore as _;
use gathering_dag_engine::testing::MemoryStore;
use gathering_domain::{DeliveryId, Digest, HookId, ProjectId, UserId};
use serde_json::Value;

use super::MemoryControl;
use super::idempotency::Claim;
use super::state::State;
use crate::{
    ControlError, Creation, Delivered, DeliveryOutcome, Found, Hook, HookChange, HookChangeRule,
    HookDelivery, HookSealRule, HookSecret, HookSecrets, HookStore, KnownHook, NewHook, PlannedAct,
    PlannedDelivery, PlannedRun, REFUSALS_PER_HOUR, Refusal, ResealedHooks, Scoped, StoredCall, right,
};

pub(super) struct StoredHook {
    hook: Hook,
    token: Digest,
    secrets: Vec<HookSecret>,
    ledger: BTreeMap<DeliveryId, (HookDelivery, Option<Value>)>,
    /// When the hour began in which refusals are counted, and how many came since.
    refused: (DateTime<Utc>, i32),
}

impl StoredHook {
    fn enter(&mut self, delivery: HookDelivery, call: Option<Value>) {
        self.ledger.insert(delivery.id, (HookDelivery { is_kept: call.is_some(), ..delivery }, call));
    }

    /// The first delivery of this key.
    fn first_of(&mut self, delivery: &PlannedDelivery) -> Option<&mut HookDelivery> {
        delivery.key.as_ref().filter(|_| delivery.redelivery_of.is_none())?;
        let mut entries = self.ledger.values_mut().map(|(entry, _)| entry);
        entries.find(|entry| {
            entry.key == delivery.key
                && entry.redelivery_of.is_none()
                && entry.outcome != DeliveryOutcome::Refused
        })
    }

    fn refuse(&mut self, refusal: &Refusal) {
        let now = Utc::now();
        if now - self.refused.0 >= TimeDelta::hours(1) {
            self.refused = (now, 0);
        }
        self.refused.1 += 1;
        let is_alike = |entry: &HookDelivery| {
            entry.outcome == DeliveryOutcome::Refused
                && entry.reason.as_deref() == Some(refusal.reason.as_str())
        };
        let mut latest_first = self.ledger.values_mut().rev().map(|(entry, _)| entry);
        match latest_first.find(|entry| is_alike(entry)) {
            Some(latest) if self.refused.1 > REFUSALS_PER_HOUR => latest.n_calls += refusal.n_calls,
            _ => self.enter(entry_of_refusal(refusal, now), refusal.call.clone()),
        }
    }
}

fn entry_of_refusal(refusal: &Refusal, now: DateTime<Utc>) -> HookDelivery {
    HookDelivery {
        id: refusal.id,
        key: refusal.key.clone(),
        outcome: DeliveryOutcome::Refused,
        reason: Some(refusal.reason.to_string()),
        detail: refusal.detail.clone(),
        run: None,
        event: None,
        redelivery_of: refusal.redelivery_of,
        size_bytes: refusal.size_bytes,
        n_repeats: 0,
        n_calls: refusal.n_calls,
        is_kept: false,
        received_at: now,
    }
}

fn entry_of(planned: &PlannedDelivery) -> HookDelivery {
    let (outcome, reason) = planned.outcome();
    HookDelivery {
        id: planned.id,
        key: planned.key.clone(),
        outcome,
        reason: reason.map(|reason| reason.to_string()),
        detail: None,
        run: None,
        event: None,
        redelivery_of: planned.redelivery_of,
        size_bytes: planned.size_bytes,
        n_repeats: 0,
        n_calls: 1,
        is_kept: true,
        received_at: Utc::now(),
    }
}

fn sealed(secrets: Vec<SealedValue>) -> Vec<HookSecret> {
    secrets.into_iter().map(HookSecret::Sealed).collect()
}

impl State {
    fn create_hook(
        &mut self,
        project: ProjectId,
        by: Option<UserId>,
        new: &NewHook,
    ) -> Result<Creation<Hook>, ControlError> {
        if !self.has_project(project) {
            return Err(ControlError::NotFound);
        }
        if let Some((user, once)) = by.zip(new.once.as_ref()) {
            match self.hook_keys.claim(user, once, new.hook.id) {
                Claim::Granted => {}
                Claim::CreatedBefore(id) => {
                    let earlier = self.hooks.get(&id).map(|stored| stored.hook.clone());
                    return Ok(earlier.map_or(Creation::Deleted, Creation::Repeated));
                }
                Claim::OtherRequest => return Ok(Creation::OtherRequest),
            }
        }
        let now = Utc::now();
        let (hook, secrets) = (new.at(now), sealed(new.secrets.clone()));
        let stored =
            StoredHook { hook, token: new.token, secrets, ledger: BTreeMap::new(), refused: (now, 0) };
        let hook = stored.hook.clone();
        self.hooks.insert(hook.id, stored);
        self.audit.push(new.audit.clone());
        Ok(Creation::Created(hook))
    }

    fn deliver(
        &mut self,
        planned: &PlannedDelivery,
        graphs: &MemoryStore,
    ) -> Result<(Delivered, Option<PlannedRun>), ControlError> {
        let pipeline = match &planned.act {
            PlannedAct::Run { pipeline, version, .. } => self.to_start(*pipeline, *version, graphs),
            _ => None,
        };
        let stored = self.hooks.get_mut(&planned.hook).ok_or(ControlError::NotFound)?;
        if let Some(first) = stored.first_of(planned) {
            first.n_repeats += 1;
            return Ok((Delivered { delivery: first.clone(), is_repeated: true }, None));
        }
        let mut entry = entry_of(planned);
        let run = match &planned.act {
            PlannedAct::Nothing(_) => None,
            PlannedAct::Event(event) => {
                entry.event = Some(self.append(planned.project, event).event.seq);
                None
            }
            PlannedAct::Run { .. } => Some(planned.plan_run(pipeline.as_ref())?),
        };
        if let Some(run) = &run {
            entry.run = Some(run.id);
            self.accept(planned.project, run);
        }
        let stored = self.hooks.get_mut(&planned.hook).ok_or(ControlError::NotFound)?;
        stored.enter(entry.clone(), Some(planned.call.clone()));
        Ok((Delivered { delivery: entry, is_repeated: false }, run))
    }
}

#[async_trait]
impl HookStore for MemoryControl {
    async fn create_hook(
        &self,
        project: &Scoped<ProjectId, right::Write>,
        new: &NewHook,
    ) -> Result<Creation<Hook>, ControlError> {
        self.lock().create_hook(*project.thing(), project.user(), new)
    }

    async fn find_hook(&self, by: &Caller, hook: HookId) -> Result<Option<Found<Hook>>, ControlError> {
        let state = self.lock();
        let Some(stored) = state.hooks.get(&hook) else { return Ok(None) };
        Ok(state.found(by, stored.hook.project, stored.hook.clone()))
    }

    async fn list_hooks(
        &self,
        visible_to: Option<UserId>,
        project: Option<ProjectId>,
        before: Option<HookId>,
        limit: usize,
    ) -> Result<Vec<Hook>, ControlError> {
        let state = self.lock();
        let visible = |hook: &&Hook| {
            let Some(owning) = state.projects.get(&hook.project) else { return false };
            visible_to.is_none_or(|user| owning.role(user).is_some())
                && project.is_none_or(|project| hook.project == project)
                && before.is_none_or(|before| hook.id < before)
        };
        let newest_first = state.hooks.values().rev().map(|stored| &stored.hook);
        Ok(newest_first.filter(visible).take(limit).cloned().collect())
    }

    async fn change_hook(
        &self,
        hook: &Scoped<Hook, right::Write>,
        rule: &HookChangeRule<'_>,
    ) -> Result<Hook, ControlError> {
        let mut state = self.lock();
        let stored = state.hooks.get_mut(&hook.id).ok_or(ControlError::NotFound)?;
        let known = KnownHook { hook: stored.hook.clone(), secrets: stored.secrets.clone() };
        let HookChange { hook, secrets, audit } = rule(known)?;
        let hook = Hook { updated_at: Utc::now(), ..hook };
        (stored.hook, stored.secrets) = (hook.clone(), sealed(secrets));
        state.audit.extend(audit);
        Ok(hook)
    }

    async fn delete_hook(
        &self,
        hook: &Scoped<Hook, right::Write>,
        audit: &AuditEvent,
    ) -> Result<(), ControlError> {
        let mut state = self.lock();
        if state.hooks.remove(&hook.id).is_some() {
            state.audit.push(audit.clone());
        }
        Ok(())
    }

    async fn find_called_hook(
        &self,
        token: &Digest,
    ) -> Result<(Option<KnownHook>, DateTime<Utc>), ControlError> {
        let state = self.lock();
        let known = state.hooks.values().find(|stored| stored.token == *token);
        let known =
            known.map(|stored| KnownHook { hook: stored.hook.clone(), secrets: stored.secrets.clone() });
        Ok((known, Utc::now()))
    }

    async fn reseal_hooks(
        &self,
        key_id: &str,
        after: Option<HookId>,
        limit: usize,
        seal: &HookSealRule<'_>,
    ) -> Result<ResealedHooks, ControlError> {
        let mut state = self.lock();
        let others = state.hooks.values_mut().filter(|stored| {
            after.is_none_or(|after| stored.hook.id > after)
                && stored.secrets.iter().any(|secret| !secret.is_of_key(key_id))
        });
        let mut batch = ResealedHooks::default();
        for stored in others.take(limit) {
            let (hook, project) = (stored.hook.id, stored.hook.project);
            batch.last = Some(hook);
            if let Some(secrets) = seal(&HookSecrets { hook, project, secrets: stored.secrets.clone() }) {
                stored.secrets = sealed(secrets);
                batch.n_resealed += 1;
            }
        }
        Ok(batch)
    }

    async fn deliver(&self, delivery: &PlannedDelivery) -> Result<Delivered, ControlError> {
        let (delivered, run) = self.lock().deliver(delivery, &self.runs)?;
        if let Some(run) = run {
            self.runs.enqueue(run.in_project(delivery.project)).await?;
            if let Some((pipeline, _)) = run.pipeline {
                self.runs.make_run_of(pipeline, run.id);
            }
        }
        Ok(delivered)
    }

    async fn note_refusals(&self, refusals: &[Refusal]) -> Result<(), ControlError> {
        let mut state = self.lock();
        for refusal in refusals {
            if let Some(stored) = state.hooks.get_mut(&refusal.hook) {
                stored.refuse(refusal);
            }
        }
        Ok(())
    }

    async fn list_deliveries(
        &self,
        hook: &Scoped<Hook, right::Read>,
        before: Option<DeliveryId>,
        limit: usize,
    ) -> Result<Vec<HookDelivery>, ControlError> {
        let state = self.lock();
        let Some(stored) = state.hooks.get(&hook.id) else { return Ok(Vec::new()) };
        let latest_first = stored.ledger.values().rev().map(|(entry, _)| entry);
        let older = latest_first.filter(|entry| before.is_none_or(|before| entry.id < before));
        Ok(older.take(limit).cloned().collect())
    }

    async fn find_call(
        &self,
        hook: &Scoped<Hook, right::Run>,
        delivery: DeliveryId,
    ) -> Result<Option<StoredCall>, ControlError> {
        let state = self.lock();
        let entry = state.hooks.get(&hook.id).and_then(|stored| stored.ledger.get(&delivery));
        Ok(entry.map(|(entry, call)| StoredCall {
            call: call.clone(),
            key: entry.key.clone(),
            redelivery_of: entry.redelivery_of,
            size_bytes: entry.size_bytes,
        }))
    }
}
