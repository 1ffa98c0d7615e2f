//! Paths that stay inside by their form. The capability refuses links.

use std::cmp::Ordering;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use super::WorkspaceError;

/// The prefix of the names of unfinished files. No other file may use it, and lists leave such files out.
pub(super) const UNFINISHED_PREFIX: &str = ".gathering-unfinished-";

/// How many nested encodings of a path are examined.
const MAX_DECODINGS: usize = 4;

/// A path of a file or directory relative to the workspace's root, such as `reports/2026.md`; empty for the root.
///
/// Names are separated by `/`. A name is not empty, `.` or `..` and contains no backslash or control character. A path
/// has at most 1024 bytes, a name at most 255. A leading `./` and a trailing `/` are dropped. A path that would leave
/// the workspace after percent-decoding is rejected too: no file needs such a name, and another program may decode it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkspacePath(String);

impl WorkspacePath {
    /// The longest path, in bytes.
    pub const MAX_LEN: usize = 1024;
    /// The longest name, in bytes, which is what file systems accept.
    pub const MAX_NAME_LEN: usize = 255;

    /// The root itself.
    pub const fn root() -> Self {
        Self(String::new())
    }

    /// Reads the percent-encoded path of a URL. It is decoded once and then checked as any other text. A `%` that
    /// begins no escape stands for itself.
    ///
    /// # Errors
    /// As for [`str::parse`]; [`WorkspaceError::Escape`] also for bytes that are not UTF-8.
    pub fn from_percent_encoded(text: &str) -> Result<Self, WorkspaceError> {
        match percent_decoded(text) {
            None => text.parse(),
            Some(Ok(decoded)) => decoded.parse(),
            Some(Err(_)) => Err(WorkspaceError::Escape),
        }
    }

    /// Whether it is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path as text; empty for the root.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path for the capability, which calls the root `.`.
    pub(super) fn as_path(&self) -> &Path {
        Path::new(if self.0.is_empty() { "." } else { &self.0 })
    }

    /// The parent directory and the name in it; `None` for the root.
    pub(super) fn split(&self) -> Option<(WorkspacePath, &str)> {
        match self.0.rsplit_once('/') {
            Some((parent, name)) => Some((WorkspacePath(parent.to_owned()), name)),
            None if self.is_root() => None,
            None => Some((WorkspacePath::root(), &self.0)),
        }
    }

    /// The path of an entry of this directory.
    pub(super) fn child(&self, name: &str) -> WorkspacePath {
        WorkspacePath(if self.is_root() { name.to_owned() } else { format!("{}/{name}", self.0) })
    }

    /// The name, in `directory`, of the entry that leads to this path; `None` if the path is not beneath it.
    pub(super) fn name_beneath(&self, directory: &WorkspacePath) -> Option<&str> {
        let beneath = match directory.as_str() {
            "" => &self.0,
            above => self.0.strip_prefix(above)?.strip_prefix('/')?,
        };
        beneath.split('/').next().filter(|name| !name.is_empty())
    }

    /// The order of lists: name by name, a directory before its entries.
    pub(super) fn cmp_by_name(&self, other: &WorkspacePath) -> Ordering {
        self.0.split('/').cmp(other.0.split('/'))
    }

    /// This directory and those above it, from the top, without the root.
    pub(super) fn steps_down(&self) -> impl Iterator<Item = &str> {
        let ends = self.0.match_indices('/').map(|(at, _)| at).chain([self.0.len()]);
        ends.map(|end| &self.0[..end]).filter(|path| !path.is_empty())
    }
}

impl FromStr for WorkspacePath {
    type Err = WorkspaceError;

    fn from_str(text: &str) -> Result<Self, WorkspaceError> {
        let invalid = |reason| Err(WorkspaceError::InvalidPath { reason });
        if leaves_in_some_decoding(text) {
            return Err(WorkspaceError::Escape);
        }
        if text.len() > Self::MAX_LEN {
            return invalid("it is longer than 1024 bytes");
        }
        if text.chars().any(char::is_control) {
            return invalid("it contains control characters");
        }
        let text = text.strip_suffix('/').unwrap_or(text);
        let names: Vec<&str> = text.split('/').filter(|name| *name != ".").collect();
        if names.is_empty() || names == [""] {
            return Ok(Self::root());
        }
        if names.iter().any(|name| name.is_empty()) {
            return invalid("it contains an empty name");
        }
        if names.iter().any(|name| name.len() > Self::MAX_NAME_LEN) {
            return invalid("a name in it is longer than 255 bytes");
        }
        if names.iter().any(|name| name.starts_with(UNFINISHED_PREFIX)) {
            return invalid("the name is reserved for unfinished files");
        }
        Ok(Self(names.join("/")))
    }
}

impl fmt::Display for WorkspacePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn leaves_in_some_decoding(text: &str) -> bool {
    let mut text = text.to_owned();
    for _ in 0..=MAX_DECODINGS {
        if leaves(&text) {
            return true;
        }
        match percent_decoded(&text) {
            None => return false,
            // Overlong dots and slashes hide in bytes that are not UTF-8.
            Some(Err(_)) => return true,
            Some(Ok(decoded)) => text = decoded,
        }
    }
    true
}

fn leaves(text: &str) -> bool {
    let drive = matches!(text.as_bytes(), [letter, b':', ..] if letter.is_ascii_alphabetic());
    drive || text.starts_with('/') || text.contains(['\\', '\0']) || text.split('/').any(|name| name == "..")
}

/// The text with each `%XX` replaced by its byte; `None` if it has no escape.
fn percent_decoded(text: &str) -> Option<Result<String, std::string::FromUtf8Error>> {
    let hex = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    let mut any = false;
    while let Some((&first, tail)) = rest.split_first() {
        match (first, tail) {
            (b'%', [high, low, tail @ ..]) if hex(*high).is_some() && hex(*low).is_some() => {
                decoded.push(hex(*high).unwrap_or_default() << 4 | hex(*low).unwrap_or_default());
                rest = tail;
                any = true;
            }
            _ => {
                decoded.push(first);
                rest = tail;
            }
        }
    }
    any.then(|| String::from_utf8(decoded))
}

#[cfg(test)]
mod tests {
    use gathering_domain::FailureKind;

    use super::*;

    #[test]
    fn paths_that_leave_are_rejected_in_every_spelling() {
        for text in [
            "..",
            "../x",
            "a/../../x",
            "a/..",
            "a/../b",
            "./../x",
            "/",
            "/etc/passwd",
            "//etc",
            "a\\..\\x",
            "..\\x",
            "C:\\x",
            "C:/x",
            "c:x",
            "\\\\host\\share",
            "a\0b",
            "%2e%2e/x",
            "..%2fx",
            "%2e%2e%2fx",
            "a/%2E./x",
            "%252e%252e%252fx",
            "%25252e%25252e/x",
            "%2fetc/passwd",
            "a%5c..%5cx",
            "a%00b",
            "%c0%ae%c0%ae/x",
            "..%c0%afx",
            "a/%ff",
            "%63:/x",
            "%2525252525252525252e",
        ] {
            let parsed = text.parse::<WorkspacePath>();
            assert!(matches!(parsed, Err(WorkspaceError::Escape)), "{text:?}: {parsed:?}");
        }
        assert_eq!(WorkspaceError::Escape.to_string(), "the path is outside of the workspace");
    }

    #[test]
    fn impossible_file_names_are_invalid() {
        let long_name = "x".repeat(256);
        let long_path = "x/".repeat(513);
        for text in ["a//b", "a\nb", "a\u{7f}", &long_name, &long_path, "x/.gathering-unfinished-1"] {
            let parsed = text.parse::<WorkspacePath>();
            assert!(matches!(parsed, Err(WorkspaceError::InvalidPath { .. })), "{text:?}: {parsed:?}");
        }
    }

    #[test]
    fn paths_inside_are_accepted() {
        for (text, expected) in [
            ("a", "a"),
            ("a/b.md", "a/b.md"),
            ("./a", "a"),
            ("a/./b", "a/b"),
            ("a/", "a"),
            ("", ""),
            (".", ""),
            ("./", ""),
            ("a..b", "a..b"),
            ("...", "..."),
            (".hidden", ".hidden"),
            ("100%", "100%"),
            ("a%20b", "a%20b"),
            ("~/x", "~/x"),
            ("größe/日本", "größe/日本"),
            ("ab:c", "ab:c"),
        ] {
            assert_eq!(text.parse::<WorkspacePath>().unwrap().as_str(), expected, "{text:?}");
        }
    }

    #[test]
    fn an_encoded_path_is_decoded_once() {
        for (text, expected) in [
            ("a%20b/%e6%97%a5", Ok("a b/日")),
            ("100%25", Ok("100%")),
            ("100%", Ok("100%")),
            ("a%2520b", Ok("a%20b")),
            ("a+b", Ok("a+b")),
            ("%61%2fb", Ok("a/b")),
            ("%2e%2e/x", Err(FailureKind::Forbidden)),
            ("%ff", Err(FailureKind::Forbidden)),
            ("a%0ab", Err(FailureKind::InvalidPath)),
        ] {
            let parsed = WorkspacePath::from_percent_encoded(text);
            let shown = parsed.as_ref().map(WorkspacePath::as_str).map_err(WorkspaceError::kind);
            assert_eq!(shown, expected, "{text}");
        }
    }

    #[test]
    fn parents_are_listed_from_the_top() {
        let path: WorkspacePath = "a/b/c".parse().unwrap();
        assert_eq!(path.steps_down().collect::<Vec<_>>(), ["a", "a/b", "a/b/c"]);
        assert_eq!(WorkspacePath::root().steps_down().count(), 0);
        assert_eq!(path.split(), Some(("a/b".parse().unwrap(), "c")));
    }

    #[test]
    fn a_directory_sorts_right_before_its_entries() {
        let path = |text: &str| text.parse::<WorkspacePath>().unwrap();
        let order = ["a", "a/b", "a/b/c", "a/c", "a-b", "a.md", "b"].map(path);
        assert!(order.is_sorted_by(|one, other| one.cmp_by_name(other).is_lt()));
        assert_eq!(path("a/b/c").name_beneath(&path("a")), Some("b"));
        assert_eq!(path("a/b/c").name_beneath(&WorkspacePath::root()), Some("a"));
        for (beneath, directory) in [("a/b", "a/b"), ("ab/c", "a"), ("a", "a/b"), ("b/a", "a")] {
            assert_eq!(path(beneath).name_beneath(&path(directory)), None, "{beneath} {directory}");
        }
        assert_eq!(WorkspacePath::root().name_beneath(&WorkspacePath::root()), None);
    }
}
