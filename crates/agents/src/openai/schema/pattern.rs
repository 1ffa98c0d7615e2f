//! Patterns that every server reads alike.

use std::iter::Peekable;
use std::str::Chars;

use super::plain::MAX_LENGTH;

/// Whether a pattern is for the whole text, and made only of ASCII characters, classes in brackets, groups, alternatives
/// and repetitions.
pub(super) fn is_simple(pattern: &str) -> bool {
    let inner = pattern.strip_prefix('^').and_then(|rest| rest.strip_suffix('$'));
    inner.is_some_and(|inner| sequence(inner).is_some())
}

/// `None` if it is not simple.
fn sequence(text: &str) -> Option<()> {
    let mut chars = text.chars().peekable();
    let mut depth = 0_usize;
    // Whether what comes before can be repeated, and whether an alternative has just begun.
    let (mut repeatable, mut begins) = (false, false);
    while let Some(char) = chars.next() {
        // A repeated group may not be empty.
        if begins && matches!(char, '|' | ')') {
            return None;
        }
        begins = matches!(char, '(' | '|');
        repeatable = match char {
            '\\' => chars.next().is_some_and(|escaped| escaped.is_ascii_punctuation()).then_some(true)?,
            '[' => class(&mut chars).map(|()| true)?,
            '(' if chars.peek() != Some(&'?') => {
                depth += 1;
                false
            }
            ')' => {
                depth = depth.checked_sub(1)?;
                true
            }
            // Outside a group it would end the part that `^` is for.
            '|' if depth > 0 => false,
            '*' | '+' | '?' if repeatable => false,
            '{' if repeatable => repetition(&mut chars).map(|()| false)?,
            '(' | '|' | '*' | '+' | '?' | '{' | '}' | ']' | '^' | '$' => return None,
            ' '..='~' => true,
            _ => return None,
        };
    }
    (depth == 0).then_some(())
}

/// The rest of a class in brackets.
fn class(chars: &mut Peekable<Chars<'_>>) -> Option<()> {
    chars.next_if_eq(&'^');
    let (mut n, mut before) = (0_usize, None);
    loop {
        let char = match chars.next()? {
            ']' => return (n > 0).then_some(()),
            '\\' => chars.next().filter(char::is_ascii_punctuation)?,
            '-' if before.is_some() && chars.peek() != Some(&']') => {
                let to = chars.next().filter(char::is_ascii_alphanumeric)?;
                before.filter(|from| *from <= to)?;
                before = None;
                continue;
            }
            '[' => return None,
            char @ ' '..='~' => char,
            _ => return None,
        };
        (n, before) = (n + 1, Some(char));
    }
}

/// The rest of `{2}`, `{2,}` or `{2,5}`.
fn repetition(chars: &mut Peekable<Chars<'_>>) -> Option<()> {
    let mut inside = String::new();
    loop {
        match chars.next()? {
            '}' => break,
            char => inside.push(char),
        }
    }
    let number = |text: &str| text.parse::<u64>().ok().filter(|number| *number <= MAX_LENGTH);
    let (least, most) = inside.split_once(',').unwrap_or((&inside, &inside));
    let least = number(least)?;
    (most.is_empty() || number(most)? >= least.max(1)).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_of_common_parts_is_simple() {
        for pattern in [
            "^$",
            "^[a-z]+\\.md$",
            "^(a|b(c|d))?$",
            "^[A-Za-z0-9_.-]{1,64}$",
            "^a{2}b{2,}c{0,1000}$",
            "^[^\"\\\\]+$",
            "^[\\]\\-]*$",
            "^a\\\\$",
            "^https://.*$",
        ] {
            assert!(is_simple(pattern), "{pattern}");
        }
    }

    #[test]
    fn a_pattern_that_some_server_refuses_is_not_simple() {
        for pattern in [
            "",
            "^",
            "a",
            "^a",
            "a$",
            "^a\\$",
            "^\\d$",
            "^\\u0041$",
            "^(?:a)$",
            "^a|b$",
            "^(a$",
            "^a)$",
            "^[a$",
            "^[]$",
            "^[z-a]$",
            "^[[:alpha:]]$",
            "^a**$",
            "^a+?$",
            "^+$",
            "^(?a)$",
            "^{2}$",
            "^()$",
            "^(|a)*$",
            "^(a|)+$",
            "^(a{0})*$",
            "^(*a)$",
            "^a{,3}$",
            "^a{3$",
            "^a{x}$",
            "^a{1001}$",
            "^a}$",
            "^a]$",
            "^a^$",
            "^ü$",
            "^[ü]$",
            "^a\n$",
            "^[a\\d]$",
        ] {
            assert!(!is_simple(pattern), "{pattern}");
        }
    }
}
