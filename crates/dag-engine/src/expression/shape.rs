//! The shape of an expression: how deep its text nests, how large its parts are, and which of them may have large values.

use cel::common::ast::{EntryExpr, Expr, IdedExpr, operators};

/// The depth of an open bracket or a conditional: the grammar recurses through every precedence for it.
const RECURSION: usize = 4;

/// The list that is appended in `accu + [...]`.
pub(super) fn appended<'e>(step: &'e mut IdedExpr, accu: &str) -> Option<&'e mut IdedExpr> {
    let Expr::Call(call) = &mut step.expr else { return None };
    match (call.func_name.as_str(), call.args.as_mut_slice()) {
        (operators::ADD, [list, items])
            if matches!(&list.expr, Expr::Ident(name) if name == accu)
                && matches!(items.expr, Expr::List(_)) =>
        {
            Some(items)
        }
        _ => None,
    }
}

pub(super) fn is_comparison(name: &str) -> bool {
    matches!(
        name,
        operators::EQUALS
            | operators::NOT_EQUALS
            | operators::LESS
            | operators::LESS_EQUALS
            | operators::GREATER
            | operators::GREATER_EQUALS
    )
}

/// Whether the value of it is never large: a literal is as long as the source at most, the others give numbers, words or
/// booleans.
pub(super) fn is_small(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(_) => true,
        Expr::Select(select) => select.test,
        Expr::List(list) => list.elements.is_empty(),
        Expr::Call(call) => {
            is_comparison(&call.func_name)
                || matches!(
                    call.func_name.as_str(),
                    operators::LOGICAL_NOT
                        | operators::LOGICAL_AND
                        | operators::LOGICAL_OR
                        | operators::IN
                        | operators::NEGATE
                        | operators::SUBSTRACT
                        | operators::MULTIPLY
                        | operators::DIVIDE
                        | operators::MODULO
                        | "size"
                )
        }
        _ => false,
    }
}

/// Whether it is a variable of the scope or a part of one, which is no optional.
pub(super) fn is_plain(expr: &Expr, local: &[String]) -> bool {
    match expr {
        Expr::Ident(name) => !local.contains(name),
        Expr::Select(select) => is_plain(&select.operand.expr, local),
        Expr::Call(call) if call.func_name == operators::INDEX => {
            call.args.first().is_some_and(|value| is_plain(&value.expr, local))
        }
        _ => false,
    }
}

/// How many nodes a syntax tree has.
pub(super) fn count(expr: &Expr) -> usize {
    let below = match expr {
        Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) | Expr::Struct(_) => 0,
        Expr::Select(select) => count(&select.operand.expr),
        Expr::Call(call) => {
            let target = call.target.as_deref().map_or(0, |target| count(&target.expr));
            target + call.args.iter().map(|argument| count(&argument.expr)).sum::<usize>()
        }
        Expr::List(list) => list.elements.iter().map(|element| count(&element.expr)).sum(),
        Expr::Map(map) => map
            .entries
            .iter()
            .map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => count(&entry.key.expr) + count(&entry.value.expr),
                EntryExpr::StructField(field) => count(&field.value.expr),
            })
            .sum(),
        Expr::Comprehension(inner) => {
            [&inner.iter_range, &inner.accu_init, &inner.loop_cond, &inner.loop_step, &inner.result]
                .into_iter()
                .map(|part| count(&part.expr))
                .sum()
        }
    };
    below + 1
}

/// How deep the syntax tree of a source is at most: brackets nest, and so does every operator of a chain.
///
/// The parser's own bound only comes after its grammar has recursed, so a hostile source is refused before it.
pub(super) fn depth(source: &str) -> usize {
    // Per open bracket, the operators since it was opened or since the last comma.
    let mut chains = vec![0usize];
    let (mut depth, mut deepest) = (0usize, 0usize);
    let mut quote = None;
    let mut chars = source.chars();
    while let Some(char) = chars.next() {
        match (quote, char) {
            (Some(_), '\\') => drop(chars.next()),
            (Some(end), char) if end == char => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(char),
            (None, '(' | '[' | '{') => {
                chains.push(0);
                depth += RECURSION;
            }
            (None, ')' | ']' | '}') if chains.len() > 1 => depth -= chains.pop().unwrap_or(0) + RECURSION,
            (None, ',') => depth -= chains.last_mut().map(std::mem::take).unwrap_or(0),
            (None, '?' | '+' | '-' | '*' | '/' | '%' | '.' | '&' | '|' | '=' | '<' | '>' | '!') => {
                let weight = if char == '?' { RECURSION } else { 1 };
                if let Some(chain) = chains.last_mut() {
                    *chain += weight;
                }
                depth += weight;
            }
            (None, _) => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}
