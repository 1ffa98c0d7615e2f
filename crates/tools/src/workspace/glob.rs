//! Patterns for paths: `*`, `**` and `?`.

use regex::Regex;

/// A pattern such as `*.md`, `docs/*.md` or `src/**/*.rs`. `*` and `?` stop at a `/`; `**` does not, and `**/` also
/// matches no directory. A pattern without `/` is matched against the name alone.
///
/// A regular expression does the matching, because it takes linear time for every pattern. The crate `globset` does not
/// fit: its `?` matches one byte of a character, and its `**` crosses directories only as a whole component.
#[derive(Debug, Clone)]
pub(super) struct Glob {
    /// `None` if the pattern is too large to compile; it then matches nothing.
    regex: Option<Regex>,
    names_only: bool,
}

impl Glob {
    pub(super) fn new(pattern: &str) -> Self {
        Self { regex: Regex::new(&to_regex(pattern)).ok(), names_only: !pattern.contains('/') }
    }

    /// Whether `path`, relative to the start of the search, matches.
    pub(super) fn matches(&self, path: &str) -> bool {
        let text = if self.names_only { path.rsplit('/').next().unwrap_or(path) } else { path };
        self.regex.as_ref().is_some_and(|regex| regex.is_match(text))
    }
}

/// The same pattern as a regular expression. Characters without a meaning in patterns stand for themselves.
fn to_regex(pattern: &str) -> String {
    const WILDCARDS: [(&str, &str); 4] = [("**/", "(?:.*/)?"), ("**", ".*"), ("*", "[^/]*"), ("?", "[^/]")];
    let mut regex = "(?s)^".to_owned();
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        let wildcard = WILDCARDS.iter().find(|(wildcard, _)| rest.starts_with(wildcard));
        let length = if let Some((wildcard, meaning)) = wildcard {
            regex.push_str(meaning);
            wildcard.len()
        } else {
            regex.push_str(&regex::escape(&rest[..first.len_utf8()]));
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    regex.push('$');
    regex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_and_other_characters_stand_for_themselves() {
        for (pattern, path, expected) in [
            ("*.md", "a.md", true),
            ("*.md", "x/y/a.md", true),
            ("*.md", "a.mdx", false),
            ("*", "x/y", true),
            ("?.md", "a.md", true),
            ("?.md", "ab.md", false),
            ("docs/*.md", "docs/a.md", true),
            ("docs/*.md", "docs/x/a.md", false),
            ("docs/*.md", "a.md", false),
            ("src/**/*.rs", "src/a.rs", true),
            ("src/**/*.rs", "src/x/y/a.rs", true),
            ("src/**/*.rs", "srcx/a.rs", false),
            ("src/**/a.rs", "src/xa.rs", false),
            ("**/a", "a", true),
            ("**/a", "x/y/a", true),
            ("**/a", "x/ya", false),
            ("a/**", "a/b/c", true),
            ("docs/**.md", "docs/x/a.md", true),
            ("a[1].{md}", "a[1].{md}", true),
            ("a[1].md", "a1.md", false),
            ("a.md", "a-md", false),
            ("*", "a\nb", true),
            ("a", "a\n", false),
            ("日?", "日本", true),
        ] {
            assert_eq!(Glob::new(pattern).matches(path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn a_hostile_pattern_takes_linear_time() {
        let pattern = "*a".repeat(100);
        assert!(!Glob::new(&pattern).matches(&format!("{}b", "a".repeat(250))));
    }
}
