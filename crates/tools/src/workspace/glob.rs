//! Patterns for paths: `*`, `**` and `?`.

/// A pattern such as `*.md`, `docs/*.md` or `src/**/*.rs`. `*` and `?` stop at a `/`, `**` does not, and `**/` stands for
/// no directory too. A pattern without `/` is held against the name alone.
#[derive(Debug, Clone)]
pub(super) struct Glob {
    tokens: Vec<Token>,
    names_only: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Token {
    Exactly(char),
    AnyOne,
    AnyInName,
    AnyPath,
    /// The choice before [`Token::Directories`]: take them or skip them.
    MaybeDirectories,
    /// Anything that ends with a `/`.
    Directories,
}

impl Glob {
    pub(super) fn new(pattern: &str) -> Self {
        let mut tokens = Vec::new();
        let mut rest = pattern;
        while let Some(first) = rest.chars().next() {
            let length = match first {
                '*' if rest.starts_with("**/") => {
                    tokens.extend([Token::MaybeDirectories, Token::Directories]);
                    3
                }
                '*' if rest.starts_with("**") => {
                    tokens.push(Token::AnyPath);
                    2
                }
                other => {
                    tokens.push(match other {
                        '*' => Token::AnyInName,
                        '?' => Token::AnyOne,
                        char => Token::Exactly(char),
                    });
                    other.len_utf8()
                }
            };
            rest = &rest[length..];
        }
        Self { tokens, names_only: !pattern.contains('/') }
    }

    /// Whether `path`, relative to where the search began, matches.
    pub(super) fn matches(&self, path: &str) -> bool {
        let text = if self.names_only { path.rsplit('/').next().unwrap_or(path) } else { path };
        // The positions in the pattern that the text so far can have reached: time is pattern × text, never more.
        let mut reached = vec![false; self.tokens.len() + 1];
        reached[0] = true;
        self.skip_optional(&mut reached);
        for char in text.chars() {
            reached = self.after(char, &reached);
        }
        reached[self.tokens.len()]
    }

    fn after(&self, char: char, reached: &[bool]) -> Vec<bool> {
        let mut next = vec![false; reached.len()];
        for (at, token) in self.tokens.iter().enumerate().filter(|(at, _)| reached[*at]) {
            match token {
                Token::Exactly(expected) => next[at + 1] |= *expected == char,
                Token::AnyOne => next[at + 1] |= char != '/',
                Token::AnyInName => next[at] |= char != '/',
                Token::AnyPath => next[at] = true,
                Token::MaybeDirectories => {}
                Token::Directories => {
                    next[at] = true;
                    next[at + 1] |= char == '/';
                }
            }
        }
        self.skip_optional(&mut next);
        next
    }

    fn skip_optional(&self, reached: &mut [bool]) {
        for (at, token) in self.tokens.iter().enumerate() {
            let here = reached[at];
            match token {
                Token::AnyInName | Token::AnyPath => reached[at + 1] |= here,
                Token::MaybeDirectories => {
                    reached[at + 1] |= here;
                    reached[at + 2] |= here;
                }
                Token::Exactly(_) | Token::AnyOne | Token::Directories => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_people_expect() {
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
            ("日?", "日本", true),
        ] {
            assert_eq!(Glob::new(pattern).matches(path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn a_hostile_pattern_takes_no_exponential_time() {
        let pattern = "*a".repeat(100);
        assert!(!Glob::new(&pattern).matches(&format!("{}b", "a".repeat(250))));
    }
}
