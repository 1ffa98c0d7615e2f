//! Bounds on schemas: a validator follows every reference, so a small schema can describe endless work.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Map, Value};

use crate::json_schema::MAX_SCHEMA_BYTES;

/// The maximum number of subschemas with every reference written out, up to where it repeats itself.
const MAX_SUBSCHEMAS: u64 = 20_000;

/// The maximum nesting of a schema, and of references.
const MAX_DEPTH: usize = 64;

/// The subschemas that the search for branching circles visits; a schema beyond counts as branching.
const MAX_VISITS: u64 = 200_000;

/// Why a schema is not compiled, though it may be valid.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutOfBounds {
    /// Its text is too long.
    #[error("a JSON Schema must have at most {MAX_SCHEMA_BYTES} bytes")]
    Bytes,
    /// It is nested too deeply.
    #[error("a JSON Schema must be nested at most {MAX_DEPTH} levels deep, with its references")]
    Depth,
    /// Its references multiply.
    #[error(
        "a JSON Schema must have at most {MAX_SUBSCHEMAS} subschemas, counting what `$ref` names each time"
    )]
    Subschemas,
}

/// Checks the bounds of a schema.
pub(crate) fn check(schema: &Value) -> Result<(), OutOfBounds> {
    if schema.to_string().len() > MAX_SCHEMA_BYTES {
        return Err(OutOfBounds::Bytes);
    }
    if !is_at_most(schema, MAX_DEPTH) {
        return Err(OutOfBounds::Depth);
    }
    Sizes { root: schema, known: HashMap::new(), open: Vec::new() }.size_of(schema).map(drop)
}

/// Whether a subschema can be applied to one value more than once through circles of references. The validator then
/// still decides quickly, as it remembers its answers, but the time to collect every problem doubles with each level of
/// the value (jsonschema 0.61.2).
pub(crate) fn is_branching(schema: &Value) -> bool {
    let mut targets = BTreeSet::new();
    collect_targets(schema, &mut targets);
    let mut circles = Circles { root: schema, target: "", open: Vec::new(), n_visits: 0 };
    targets.into_iter().any(|target| {
        circles.target = target;
        circles.applications_of_target(target).total() > 1 || circles.n_visits > MAX_VISITS
    })
}

fn is_at_most(value: &Value, depth: usize) -> bool {
    match value {
        Value::Array(items) => depth > 0 && items.iter().all(|item| is_at_most(item, depth - 1)),
        Value::Object(fields) => depth > 0 && fields.values().all(|field| is_at_most(field, depth - 1)),
        _ => true,
    }
}

fn target_of(fields: &Map<String, Value>) -> Option<&str> {
    let reference = ["$ref", "$dynamicRef", "$recursiveRef"].iter().find_map(|keyword| fields.get(*keyword));
    reference.and_then(Value::as_str)
}

/// What a reference names; `None` for an anchor or another document. The validator refuses the latter.
fn resolve<'a>(root: &'a Value, target: &str) -> Option<&'a Value> {
    target.strip_prefix('#').and_then(|pointer| root.pointer(pointer))
}

fn collect_targets<'a>(schema: &'a Value, targets: &mut BTreeSet<&'a str>) {
    match schema {
        Value::Array(items) => items.iter().for_each(|item| collect_targets(item, targets)),
        Value::Object(fields) => {
            targets.extend(target_of(fields));
            fields.values().for_each(|field| collect_targets(field, targets));
        }
        _ => {}
    }
}

/// How many subschemas there are with every reference written out. A circle counts once. Every object counts, so that no
/// keyword needs to be known.
struct Sizes<'a> {
    root: &'a Value,
    known: HashMap<&'a str, u64>,
    /// The references that are being written out.
    open: Vec<&'a str>,
}

impl<'a> Sizes<'a> {
    fn size_of(&mut self, schema: &'a Value) -> Result<u64, OutOfBounds> {
        let size = match schema {
            Value::Array(items) => self.sum(items.iter())?,
            Value::Object(fields) => {
                let referenced = target_of(fields).map_or(Ok(0), |target| self.size_of_target(target))?;
                // Definitions count where they are used.
                let below = fields.iter().filter(|(name, _)| !is_definitions(name)).map(|(_, value)| value);
                self.sum(below)?.saturating_add(referenced).saturating_add(1)
            }
            _ => 0,
        };
        if size > MAX_SUBSCHEMAS { Err(OutOfBounds::Subschemas) } else { Ok(size) }
    }

    fn sum(&mut self, schemas: impl Iterator<Item = &'a Value>) -> Result<u64, OutOfBounds> {
        let mut sum: u64 = 0;
        for schema in schemas {
            sum = sum.saturating_add(self.size_of(schema)?);
        }
        Ok(sum)
    }

    fn size_of_target(&mut self, target: &'a str) -> Result<u64, OutOfBounds> {
        if let Some(&size) = self.known.get(target) {
            return Ok(size);
        }
        if self.open.contains(&target) {
            return Ok(0);
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(OutOfBounds::Depth);
        }
        let Some(found) = resolve(self.root, target) else { return Ok(1) };
        self.open.push(target);
        let size = self.size_of(found);
        self.open.pop();
        let size = size?;
        self.known.insert(target, size);
        Ok(size)
    }
}

fn is_definitions(name: &str) -> bool {
    matches!(name, "$defs" | "definitions")
}

/// How often one target is applied again to one value below, or to the same, when it is applied to a value.
struct Circles<'a> {
    root: &'a Value,
    target: &'a str,
    open: Vec<&'a str>,
    n_visits: u64,
}

/// How often a target is applied: to the value itself, to one of its items, to one of its fields.
#[derive(Debug, Clone, Copy, Default)]
struct Applications {
    here: u64,
    items: u64,
    fields: u64,
}

impl Applications {
    const fn to_value(here: u64) -> Self {
        Self { here, items: 0, fields: 0 }
    }

    fn add(&mut self, other: Self) {
        self.here += other.here;
        self.items += other.items;
        self.fields += other.fields;
    }

    /// All of them, for one way down. A value is an array or an object, not both.
    fn total(self) -> u64 {
        self.here + self.items.max(self.fields)
    }
}

impl<'a> Circles<'a> {
    fn applications_of_target(&mut self, target: &'a str) -> Applications {
        // An anchor may be anywhere.
        let Some(found) = resolve(self.root, target) else { return Applications::to_value(2) };
        self.open.push(target);
        let found = self.applications(found);
        self.open.pop();
        found
    }

    fn applications(&mut self, schema: &'a Value) -> Applications {
        let Value::Object(keywords) = schema else { return Applications::default() };
        self.n_visits += 1;
        if self.n_visits > MAX_VISITS {
            return Applications::to_value(2);
        }
        let mut found = match target_of(keywords) {
            Some(target) if target == self.target => Applications::to_value(1),
            Some(target) if !self.open.contains(&target) => self.applications_of_target(target),
            _ => Applications::default(),
        };
        for (keyword, value) in keywords {
            match keyword.as_str() {
                "prefixItems" => found.items += self.most(value),
                "items" | "additionalItems" | "contains" | "unevaluatedItems" => {
                    found.items += self.all(value).total()
                }
                "properties" => found.fields += self.most(value),
                "patternProperties" => found.fields += self.all_below(value).total(),
                "additionalProperties" | "unevaluatedProperties" => {
                    found.fields += self.applications(value).total()
                }
                "dependentSchemas" | "dependencies" => found.add(self.all_below(value)),
                keyword if is_definitions(keyword) => {}
                _ => found.add(self.all(value)),
            }
        }
        found
    }

    /// The most of several, of which at most one applies to a value.
    fn most(&mut self, schemas: &'a Value) -> u64 {
        children(schemas).map(|schema| self.applications(schema).total()).max().unwrap_or(0)
    }

    fn all_below(&mut self, schemas: &'a Value) -> Applications {
        children(schemas).fold(Applications::default(), |mut all, schema| {
            all.add(self.applications(schema));
            all
        })
    }

    /// Those of a schema, or of a list of them.
    fn all(&mut self, value: &'a Value) -> Applications {
        if value.is_array() { self.all_below(value) } else { self.applications(value) }
    }
}

fn children(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Array(items) => Box::new(items.iter()),
        Value::Object(fields) => Box::new(fields.values()),
        _ => Box::new(std::iter::empty()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn a(schema: Value) -> Value {
        json!({"$defs": {"a": schema}, "$ref": "#/$defs/a"})
    }

    #[test]
    fn references_that_multiply_are_out_of_bounds() {
        let levels = |n: usize| {
            let mut definitions = json!({"0": {"type": "string"}});
            for level in 1..=n {
                let below = json!({"$ref": format!("#/$defs/{}", level - 1)});
                definitions[level.to_string()] = json!({"allOf": [below, below]});
            }
            json!({"$defs": definitions, "$ref": format!("#/$defs/{n}")})
        };
        assert_eq!(check(&levels(10)), Ok(()));
        assert_eq!(check(&levels(30)), Err(OutOfBounds::Subschemas));
        assert_eq!(check(&json!({"description": "x".repeat(MAX_SCHEMA_BYTES)})), Err(OutOfBounds::Bytes));
        let deep = |n: usize| (0..n).fold(json!({}), |inner, _| json!({"not": inner}));
        assert_eq!((check(&deep(60)), check(&deep(70))), (Ok(()), Err(OutOfBounds::Depth)));
    }

    #[test]
    fn trees_lists_and_json_itself_do_not_branch() {
        let again = json!({"$ref": "#/$defs/a"});
        for schema in [
            json!({"type": "string"}),
            json!({"properties": {"children": {"items": again}}}),
            json!({"properties": {"left": again, "right": again}}),
            json!({"anyOf": [{"items": again}, {"additionalProperties": again}, {"type": "null"}]}),
        ] {
            assert!(!is_branching(&a(schema.clone())), "{schema}");
        }
        assert!(!is_branching(&json!({"properties": {"next": {"$ref": "#"}}})));
    }

    #[test]
    fn a_subschema_that_meets_one_value_twice_branches() {
        let again = json!({"$ref": "#/$defs/a"});
        for schema in [
            json!({"properties": {"x": {"allOf": [again, again]}}}),
            json!({"oneOf": [{"properties": {"x": again}}, {"properties": {"x": again}}]}),
            json!({"properties": {"x": again}, "patternProperties": {"^x": again}}),
            json!({"properties": {"x": {"$ref": "#anchor"}}}),
        ] {
            assert!(is_branching(&a(schema.clone())), "{schema}");
        }
        let two = json!({
            "$defs": {
                "a": {"properties": {"x": {"allOf": [{"$ref": "#/$defs/b"}, {"$ref": "#/$defs/b"}]}}},
                "b": {"properties": {"x": {"$ref": "#/$defs/a"}}},
            },
            "$ref": "#/$defs/a",
        });
        assert!(is_branching(&two));
    }
}
