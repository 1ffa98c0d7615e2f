//! The effect class of a tool, from the server's hints and the operator's allowance.

use gathering_domain::EffectClass;

use crate::config::EffectAllowance;
use crate::definition::ToolDefinition;

/// The stricter one of what the server proposes and what the operator allows.
pub(crate) fn class_of(tool: &ToolDefinition, allowance: &EffectAllowance) -> EffectClass {
    let allowed = allowance.tools.get(tool.name()).copied().unwrap_or(allowance.most_lenient);
    proposed(tool).stricter(allowed)
}

/// What the hints say. One that contradicts another is not believed.
fn proposed(tool: &ToolDefinition) -> EffectClass {
    let says = |hint| tool.hint(hint) == Some(true);
    match (says("readOnlyHint"), says("destructiveHint"), says("idempotentHint")) {
        (true, false, _) => EffectClass::Pure,
        (true, true, _) => EffectClass::Unsafe,
        (false, _, true) => EffectClass::Idempotent,
        (false, _, false) => EffectClass::Unsafe,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn class(hints: serde_json::Value, most_lenient: EffectClass) -> EffectClass {
        let tool = ToolDefinition::read(&json!({"name": "a", "annotations": hints})).unwrap();
        class_of(&tool, &EffectAllowance { most_lenient, ..EffectAllowance::default() })
    }

    #[test]
    fn a_hint_is_never_more_lenient_than_the_allowance() {
        let reads = || json!({"readOnlyHint": true});
        assert_eq!(class(reads(), EffectClass::Unsafe), EffectClass::Unsafe);
        assert_eq!(class(reads(), EffectClass::Idempotent), EffectClass::Idempotent);
        assert_eq!(class(reads(), EffectClass::Pure), EffectClass::Pure);
    }

    #[test]
    fn an_allowance_does_not_make_a_tool_more_lenient_than_its_hints() {
        assert_eq!(class(json!({}), EffectClass::Pure), EffectClass::Unsafe);
        assert_eq!(class(json!({"idempotentHint": true}), EffectClass::Pure), EffectClass::Idempotent);
        let contradiction = json!({"readOnlyHint": true, "destructiveHint": true});
        assert_eq!(class(contradiction, EffectClass::Pure), EffectClass::Unsafe);
    }
}
