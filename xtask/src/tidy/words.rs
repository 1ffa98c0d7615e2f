//! One word for one thing: the words that the glossary in CONTRIBUTING.md replaces do not come back.
//!
//! Owns both tables. To refuse a word, free the tree of it and add a line.

use super::sources::{Source, Sources};

/// Phrases of prose, and what to write instead. Matched as whole words, in any case, across line ends.
const PHRASES: &[(&str, &str)] = &[
    ("asked for until", "polled until"),
    ("begins anew", "is reset"),
    ("bring back", "recover"),
    ("brings back", "recovers"),
    ("brought back", "recovered"),
    ("comes to nothing", "fails, or has no effect"),
    ("hand back", "release"),
    ("handed back", "released"),
    ("handing back", "releasing"),
    ("hands back", "releases"),
    ("inner run", "child run"),
    ("is looked at", "is read, or is polled"),
    ("is looked for", "name what checks for it"),
    ("lease", "claim, or liveness lock"),
    ("leases", "claims, or liveness locks"),
    ("let go", "release"),
    ("lets go", "releases"),
    ("looks after", "drives"),
    ("nobody else", "no other instance, or no other caller"),
    ("nobody waits", "unknown wait reason"),
    ("proof of life", "liveness lock"),
    ("put aside", "park"),
    ("run below", "child run"),
    ("runs below", "child runs"),
    ("sign of life", "heartbeat"),
    ("signs of life", "heartbeats"),
    ("somebody else holds", "another instance holds"),
    ("taken for dead", "declared dead"),
    ("taken up again", "taken over"),
    ("takes up again", "takes over"),
    ("there is no such thing", "not found"),
    ("who asks", "the caller"),
    ("whoever", "name the actor"),
];

/// Names, and their successors. Matched as whole words, in this case.
const NAMES: &[(&str, &str)] = &[
    ("ActedOn", "SignalledRun"),
    ("Bond", "ChildKind"),
    ("Deed", "Effect"),
    ("Floor", "ScanWindow"),
    ("Halt", "CallStop"),
    ("Life", "InstanceLifecycle"),
    ("LookBack", "Scan"),
    ("Places", "NodeServices, or SourceMap"),
    ("Standing", "TokenStatus"),
    ("Surroundings", "DriverContext"),
    ("Tally", "ChildSummary"),
    ("end_broken", "fail_after_panic"),
    ("hand_back", "release_now"),
    ("list_acted_on", "list_signalled"),
    ("one_row", "exactly_one"),
    ("pass_on_acts", "forward_signals"),
    ("patiently", "retry_while_unavailable"),
    ("take_up", "restore"),
];

/// Where the rules apply.
const EXTENSIONS: &[&str] = &[".rs", ".md", ".sql", ".yaml", ".yml", ".toml"];

/// Files that quote the old words: what happened stays as it was told, and these tables name them.
const EXEMPT: &[&str] = &["CHANGELOG.md", "xtask/src/tidy/words.rs"];

/// The file of the glossary; its tables name what they replace.
const GLOSSARY: &str = "CONTRIBUTING.md";

/// Checks the prose and the names of all files.
pub(super) fn check(sources: &Sources) -> Vec<String> {
    let mut breaches = Vec::new();
    for source in sources.files.iter().filter(|source| is_checked(source)) {
        let words = words(source);
        for (refused, instead) in PHRASES {
            let matches = |word: &str, wanted: &str| word.eq_ignore_ascii_case(wanted);
            report(source, &words, refused, instead, matches, &mut breaches);
        }
        for (refused, instead) in NAMES {
            report(source, &words, refused, instead, |word, wanted| word == wanted, &mut breaches);
        }
    }
    breaches
}

fn is_checked(source: &Source) -> bool {
    let path = source.path.as_str();
    !EXEMPT.contains(&path) && EXTENSIONS.iter().any(|extension| path.ends_with(extension))
}

fn report(
    source: &Source,
    words: &[(usize, &str)],
    refused: &str,
    instead: &str,
    matches: impl Fn(&str, &str) -> bool,
    breaches: &mut Vec<String>,
) {
    let wanted: Vec<&str> = refused.split(' ').collect();
    for window in words.windows(wanted.len()) {
        if window.iter().zip(&wanted).all(|((_, word), wanted)| matches(word, wanted)) {
            let line = window[0].0;
            breaches.push(format!("{}:{line}: say `{instead}`, not `{refused}`", source.path));
        }
    }
}

/// The words of a file with their lines. A sign that ends a phrase is a word of its own; marks of comments are none.
fn words(source: &Source) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        let text = line.trim_start().trim_start_matches(['/', '!', '-', '#', '*', '>', '"']);
        if source.path == GLOSSARY && text.starts_with('|') {
            continue;
        }
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '-' || c == '\'';
            let end = match rest.find(|c: char| !is_part(c)) {
                Some(0) => first.len_utf8(),
                Some(end) => end,
                None => rest.len(),
            };
            let (word, after) = rest.split_at(end);
            if !word.trim().is_empty() {
                found.push((index + 1, word));
            }
            rest = after;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use anyhow::Result;

    use super::*;

    fn lines(text: &str, refused: &str) -> Result<Vec<String>> {
        let source = Source::parse("a.md", text.to_owned())?;
        let mut breaches = Vec::new();
        let matches = |word: &str, wanted: &str| word.eq_ignore_ascii_case(wanted);
        report(&source, &words(&source), refused, "release", matches, &mut breaches);
        Ok(breaches)
    }

    #[test]
    fn a_phrase_is_found_in_any_case_and_across_lines() -> Result<()> {
        let found = lines("a\n/// Hand\n/// back, please\nthey hand back", "hand back")?;
        assert_eq!(
            found,
            ["a.md:2: say `release`, not `hand back`", "a.md:4: say `release`, not `hand back`"]
        );
        Ok(())
    }

    #[test]
    fn a_part_of_a_word_or_of_two_sentences_is_none() -> Result<()> {
        assert_eq!(lines("unhand back, by hand. Back then, hand backs, hand_back", "hand back")?, [""; 0]);
        Ok(())
    }
}
