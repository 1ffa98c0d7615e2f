//! Configs with expressions in them: every string may hold `${{ expression }}`.
//!
//! A string that is one whole `${{ … }}` keeps the value's type; in a longer string values become text: a string as it
//! is, null as nothing, any other value as JSON. `$${{` is a literal `${{`. `${{ secrets.NAME }}` is no expression: it
//! stays as it is written, and its place is noted ([`SecretSlots`](crate::SecretSlots)).

use gathering_domain::{Pointer, Problems, SecretName};
use serde_json::{Map, Value};

use crate::expression::Expression;
use crate::secret_slots::reference_of;

mod resolve;

const OPEN: &str = "${{";
const CLOSE: &str = "}}";

/// A JSON value in which some strings are computed.
#[derive(Debug)]
pub enum Template {
    /// Nothing in it is computed.
    Literal(Value),
    /// One expression, whose value keeps its type.
    Whole(Expression),
    /// Text with expressions in it.
    Text(Vec<Part>),
    /// An array of which some element is computed.
    Array(Vec<Template>),
    /// An object of which some value is computed.
    Object(Vec<(String, Template)>),
}

/// A piece of a text.
#[derive(Debug)]
pub enum Part {
    /// Written as it is.
    Literal(String),
    /// Computed.
    Computed(Expression),
    /// The value of a secret, which is not known here.
    Secret(SecretName),
}

/// The fields of a config that are not text with expressions.
#[derive(Debug, Clone, Copy, Default)]
pub struct SpecialFields<'a> {
    /// They are plain expressions.
    pub expressions: &'a [&'a str],
    /// It stays as it is.
    pub literal: Option<&'a str>,
}

/// The names that expressions are over; a run if absent.
pub(crate) type Over = Option<&'static [&'static str]>;

/// Whether a config's string holds expressions, so that its value is not known before the node runs.
pub fn is_computed(text: &str) -> bool {
    text.match_indices(OPEN).any(|(at, _)| !text[..at].ends_with('$'))
}

impl Template {
    /// Reads a config; problems are added at their place below `at`. The fields of the top level that `expressions`
    /// names are expressions as a whole, without `${{ }}`.
    pub fn compile(
        config: &Value,
        special: SpecialFields<'_>,
        at: &Pointer,
        problems: &mut Problems,
    ) -> Self {
        match config {
            Value::Object(fields) => Self::object(fields, special, None, at, problems),
            value => Self::value(value, None, at, problems),
        }
    }

    /// Reads a value; its expressions are over these names, or a run.
    pub(crate) fn value(value: &Value, over: Over, at: &Pointer, problems: &mut Problems) -> Self {
        match value {
            Value::String(text) if text.contains(OPEN) => Self::text(text, over, at, problems),
            Value::Array(items) => {
                let items: Vec<_> = items
                    .iter()
                    .enumerate()
                    .map(|(i, item)| Self::value(item, over, &at.join(i), problems))
                    .collect();
                if items.iter().all(|item| matches!(item, Template::Literal(_))) {
                    Template::Literal(value.clone())
                } else {
                    Template::Array(items)
                }
            }
            Value::Object(fields) => Self::object(fields, SpecialFields::default(), over, at, problems),
            literal => Template::Literal(literal.clone()),
        }
    }

    fn object(
        fields: &Map<String, Value>,
        special: SpecialFields<'_>,
        over: Over,
        at: &Pointer,
        problems: &mut Problems,
    ) -> Self {
        let compiled: Vec<_> = fields
            .iter()
            .map(|(name, value)| {
                let at = at.join(name);
                let template = match value {
                    Value::String(source) if special.expressions.contains(&name.as_str()) => {
                        compile_in(source, over, &at, problems)
                            .map_or(Template::Literal(Value::Null), Template::Whole)
                    }
                    value if special.literal == Some(name.as_str()) => Template::Literal(value.clone()),
                    value => Self::value(value, over, &at, problems),
                };
                (name.clone(), template)
            })
            .collect();
        if compiled.iter().all(|(_, value)| matches!(value, Template::Literal(_))) {
            Template::Literal(Value::Object(fields.clone()))
        } else {
            Template::Object(compiled)
        }
    }

    fn text(text: &str, over: Over, at: &Pointer, problems: &mut Problems) -> Self {
        let mut parts: Vec<Part> = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(open) = rest.find(OPEN) {
            let (before, from_open) = rest.split_at(open);
            if let Some(unescaped) = before.strip_suffix('$') {
                literal.push_str(unescaped);
                literal.push_str(OPEN);
                rest = &from_open[OPEN.len()..];
                continue;
            }
            literal.push_str(before);
            let Some((source, after)) = split_at_close(&from_open[OPEN.len()..]) else {
                problems.add(at.clone(), "`${{` is not closed by `}}`");
                return Template::Literal(Value::Null);
            };
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            }
            match compile_part(source, over, at, problems) {
                Some(part) => parts.push(part),
                None => return Template::Literal(Value::Null),
            }
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        match parts.pop() {
            Some(Part::Computed(expression)) if parts.is_empty() => Template::Whole(expression),
            Some(Part::Literal(literal)) if parts.is_empty() => Template::Literal(Value::String(literal)),
            Some(last) => {
                parts.push(last);
                Template::Text(parts)
            }
            None => Template::Literal(Value::String(String::new())),
        }
    }

    /// Calls `found` with every reference to a secret and its place below `at`.
    pub fn for_each_secret(&self, at: &Pointer, found: &mut impl FnMut(&Pointer, &SecretName)) {
        match self {
            Template::Literal(_) | Template::Whole(_) => {}
            Template::Text(parts) => {
                for part in parts {
                    if let Part::Secret(name) = part {
                        found(at, name);
                    }
                }
            }
            Template::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    item.for_each_secret(&at.join(index), found);
                }
            }
            Template::Object(fields) => {
                for (name, value) in fields {
                    value.for_each_secret(&at.join(name), found);
                }
            }
        }
    }

    /// Calls `found` with every expression and its place below `at`.
    pub fn for_each_expression(&self, at: &Pointer, found: &mut impl FnMut(&Pointer, &Expression)) {
        match self {
            Template::Literal(_) => {}
            Template::Whole(expression) => found(at, expression),
            Template::Text(parts) => {
                for part in parts {
                    if let Part::Computed(expression) = part {
                        found(at, expression);
                    }
                }
            }
            Template::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    item.for_each_expression(&at.join(index), found);
                }
            }
            Template::Object(fields) => {
                for (name, value) in fields {
                    value.for_each_expression(&at.join(name), found);
                }
            }
        }
    }
}

/// Compiles the expression at `at`, adding its problems.
pub fn compile(source: &str, at: &Pointer, problems: &mut Problems) -> Option<Expression> {
    compile_in(source, None, at, problems)
}

/// Compiles what stands between `${{` and `}}`. Secrets are of a run: other expressions know none.
fn compile_part(source: &str, over: Over, at: &Pointer, problems: &mut Problems) -> Option<Part> {
    match reference_of(source).filter(|_| over.is_none()) {
        Some(Ok(name)) => Some(Part::Secret(name)),
        Some(Err(wrong)) => {
            problems.add(at.clone(), wrong);
            None
        }
        None => compile_in(source, over, at, problems).map(Part::Computed),
    }
}

fn compile_in(source: &str, over: Over, at: &Pointer, problems: &mut Problems) -> Option<Expression> {
    let compiled = match over {
        Some(names) => Expression::compile_over(source, names),
        None => Expression::compile(source),
    };
    match compiled {
        Ok(expression) => Some(expression),
        Err(found) => {
            for problem in found {
                problems.add(at.clone(), problem.message);
            }
            None
        }
    }
}

/// Splits after the first `}}` that is outside of the expression's own strings and braces.
fn split_at_close(text: &str) -> Option<(&str, &str)> {
    let mut quote = None;
    let mut braces = 0usize;
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match (quote, char) {
            (Some(_), '\\') => drop(chars.next()),
            (Some(end), char) if end == char => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(char),
            (None, '{') => braces += 1,
            (None, '}') if braces > 0 => braces -= 1,
            (None, '}') if text[at..].starts_with(CLOSE) => {
                return Some((&text[..at], &text[at + CLOSE.len()..]));
            }
            (None, _) => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expression::tests::scope;
    use serde_json::json;

    fn resolved(config: Value) -> Value {
        let mut problems = Problems::new();
        let template = Template::compile(&config, SpecialFields::default(), &Pointer::root(), &mut problems);
        assert!(problems.is_empty(), "{problems}");
        template.resolve(&scope()).unwrap().value
    }

    #[test]
    fn a_whole_expression_keeps_its_type_and_a_part_becomes_text() {
        assert_eq!(
            resolved(json!({
                "whole": "${{ input.n }}",
                "part": "n=${{ input.n }}, ${{ nodes.a.output.text }}, ${{ {'k': [1]} }}, ${{ null }}.",
                "deep": [1, {"x": "${{ input.list }}"}],
                "escaped": "$${{ input.n }}",
                "literal": "plain",
                "braces": "${{ {'a': {'b': '}}'}}.a.b }}",
            })),
            json!({
                "whole": 41,
                "part": "n=41, hi, {\"k\":[1]}, .",
                "deep": [1, {"x": [3, 1, 2]}],
                "escaped": "${{ input.n }}",
                "literal": "plain",
                "braces": "}}",
            })
        );
    }

    #[test]
    fn problems_name_the_place_of_the_string() {
        let mut problems = Problems::new();
        let config = json!({"a": [{"b": "x ${{ nope }}"}], "c": "${{ 1", "d/e": "${{ 1 + }}"});
        Template::compile(&config, SpecialFields::default(), &"/config".to_owned().into(), &mut problems);
        let places: Vec<_> = problems.iter().map(|problem| problem.pointer.as_str()).collect();
        assert_eq!(places, ["/config/a/0/b", "/config/c", "/config/d~1e"]);
    }

    #[test]
    fn only_unescaped_openings_are_computed() {
        assert!(is_computed("a ${{ x }}"));
        assert!(!is_computed("a $${{ x }}"));
        assert!(!is_computed("a ${ x }"));
    }
}
