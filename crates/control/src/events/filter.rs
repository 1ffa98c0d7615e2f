//! Which events a reader wants.

use gathering_dag_engine::Expression;
use gathering_domain::{Pointer, Problems};
use gathering_scheduler::EventPattern;
use serde_json::Value;
use std::sync::Arc;

use super::LoggedEvent;
use super::names::TypePatterns;

/// Which events a reader wants, by type and by what is in them. The default wants all.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    types: TypePatterns,
    when: Option<Arc<Expression>>,
}

impl EventFilter {
    /// The filter of a request: patterns of types with commas between them, and an expression over `event`.
    ///
    /// # Errors
    /// Every problem, at `/type` and `/when`.
    pub fn read(types: Option<&str>, when: Option<&str>) -> Result<Self, Problems> {
        let mut problems = Problems::new();
        let types = types.map_or_else(|| Ok(TypePatterns::default()), str::parse).unwrap_or_else(|error| {
            problems.add(Pointer::root().join("type"), error.to_string());
            TypePatterns::default()
        });
        let when = when.and_then(|source| match Expression::compile_over_event(source) {
            Ok(expression) => Some(Arc::new(expression)),
            Err(found) => {
                let at = Pointer::root().join("when");
                found.into_iter().for_each(|problem| problems.add(at.clone(), problem.message));
                None
            }
        });
        problems.into_result()?;
        Ok(Self { types, when })
    }

    /// The filter of a trigger, with its problems below `at`.
    pub(crate) fn of_trigger(events: &EventPattern, at: &Pointer) -> Result<Self, Problems> {
        let EventPattern { event_type, when } = events;
        Self::read(Some(event_type), when.as_deref()).map_err(|wrong| {
            let mut problems = Problems::new();
            for problem in wrong {
                let is_of_type = problem.pointer == Pointer::root().join("type");
                problems.add(at.join(if is_of_type { "event_type" } else { "when" }), problem.message);
            }
            problems
        })
    }

    /// Whether the type fits.
    pub fn fits_type(&self, event_type: &str) -> bool {
        self.types.fit(event_type)
    }

    /// Whether the event fits. One about which the expression says nothing, because it lacks what is read, does not.
    pub fn fits(&self, event: &LoggedEvent) -> bool {
        self.fits_type(&event.event_type)
            && self.when.as_ref().is_none_or(|_| self.fits_json(&event.to_json()))
    }

    /// Whether the event fits whose type does; it is given as expressions see it.
    pub(super) fn fits_json(&self, event: &Value) -> bool {
        let Some(when) = &self.when else { return true };
        matches!(when.evaluate_over_event(event), Ok(Value::Bool(true)))
    }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use serde_json::{Map, json};

    use super::*;

    fn event(event_type: &str, data: Value) -> LoggedEvent {
        LoggedEvent {
            seq: 7,
            project: None,
            event_type: event_type.to_owned(),
            id: None,
            key: None,
            source: None,
            subject: None,
            attributes: Map::new(),
            data,
            at: Utc::now(),
        }
    }

    #[test]
    fn an_event_fits_by_its_type_and_by_the_expression() {
        let filter = EventFilter::read(Some("order.*"), Some("event.data.total > 10")).unwrap();
        assert!(filter.fits(&event("order.paid", json!({"total": 11}))));
        assert!(!filter.fits(&event("order.paid", json!({"total": 10}))));
        assert!(!filter.fits(&event("run.failed", json!({"total": 11}))));
        assert!(!filter.fits(&event("order.paid", json!({}))), "nothing is known about it");
        assert!(EventFilter::default().fits(&event("run.failed", json!(null))));
        let no_condition = EventFilter::read(None, Some("event.data.total")).unwrap();
        assert!(!no_condition.fits(&event("order.paid", json!({"total": 11}))), "a number is not true");
    }

    #[test]
    fn every_problem_of_a_filter_is_named() {
        let problems = EventFilter::read(Some("Order.*"), Some("input.n > 1 && nothing")).unwrap_err();
        let pointers: Vec<_> = problems.iter().map(|problem| problem.pointer.as_str().to_owned()).collect();
        assert_eq!(pointers, ["/type", "/when", "/when"]);
    }
}
