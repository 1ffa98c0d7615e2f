//! What a schedule starts, checked when it is defined: a pipeline with its input, an action, a notification.

use gathering_auth::Caller;
use gathering_domain::{Digest, Pointer, Problems, ProjectId};
use serde_json::{Value, json};

use super::action::{self, ReadAction};
use super::{ScheduleControl, ScheduledAction};
use crate::ControlError;
use crate::access::{Scoped, right};
use crate::runs::Startable;

impl ScheduleControl {
    /// The input of runs that start `of_events` has the event as well, so that only they know whether it fits.
    pub(super) async fn check_action(
        &self,
        caller: &Caller,
        project: ProjectId,
        action: Value,
        of_events: bool,
        problems: &mut Problems,
    ) -> Result<Option<ScheduledAction>, ControlError> {
        let at = Pointer::root().join("action");
        let read = match action::read(action, &at) {
            Ok(read) => read,
            Err(wrong) => {
                problems.extend(wrong);
                return Ok(None);
            }
        };
        match read {
            ReadAction::Pipeline { pipeline, version, input } => {
                let found = self.store.find_pipeline(caller, pipeline).await?;
                let found = found.filter(|found| found.thing.pipeline.project == project);
                let head = match Scoped::<_, right::Run>::check(caller, found) {
                    Ok(head) => head,
                    Err(ControlError::NotFound) => {
                        problems.add(at.join("pipeline_id"), "no such pipeline in this project");
                        return Ok(None);
                    }
                    Err(error) => return Err(error),
                };
                match Startable::choose(&*self.store, &head, version).await {
                    Ok(startable) if !of_events => {
                        self.check_input(startable.graph, input.clone(), &at, problems).await?;
                    }
                    Ok(_) | Err(ControlError::Conflict(_)) => {}
                    Err(ControlError::Invalid(_)) => {
                        problems.add(at.join("version"), "no such version of the pipeline");
                        return Ok(None);
                    }
                    Err(error) => return Err(error),
                }
                Ok(Some(ScheduledAction::Pipeline { pipeline, version, input }))
            }
            ReadAction::Node { written, definition } => {
                let graph = self.check_node(definition, &at, problems).await?;
                Ok(graph.map(|graph| ScheduledAction::Node { written, graph }))
            }
        }
    }

    async fn check_input(
        &self,
        graph: Digest,
        input: Value,
        at: &Pointer,
        problems: &mut Problems,
    ) -> Result<(), ControlError> {
        let rules = &self.graphs.summarize(graph).await?.rules;
        match rules.admit_request(input).await {
            Err(ControlError::Invalid(wrong)) => problems.extend(wrong.below(at)),
            admitted => drop(admitted?),
        }
        Ok(())
    }

    pub(super) async fn check_notification(
        &self,
        notify: Value,
        problems: &mut Problems,
    ) -> Result<Option<(Value, Digest)>, ControlError> {
        let at = Pointer::root().join("on_failure").join("notify");
        let mut action = notify.clone();
        match action.as_object_mut() {
            Some(fields) => fields.insert("action".to_owned(), json!("send_notification")),
            None => {
                problems.add(at, "must be an object, such as {channel, url, message}");
                return Ok(None);
            }
        };
        let ReadAction::Node { definition, .. } = action::read(action, &at).map_err(ControlError::Invalid)?
        else {
            return Ok(None);
        };
        let graph = self.check_node(definition, &at, problems).await?;
        Ok(graph.map(|graph| (notify, graph)))
    }

    /// Checks the graph of an action and stores it.
    async fn check_node(
        &self,
        definition: Value,
        at: &Pointer,
        problems: &mut Problems,
    ) -> Result<Option<Digest>, ControlError> {
        let (definition, checked) = self.graphs.check(definition).await?;
        if let Err(wrong) = checked {
            problems.extend(action::problems_of_action(at, wrong));
            return Ok(None);
        }
        Ok(Some(self.graphs.ensure(&definition).await?))
    }
}
