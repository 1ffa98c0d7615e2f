//! Extractive writing: everything in an answer except its frame comes from the text itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Words that say nothing about the topic of a text.
const STOP_WORDS: &str = " a about above after again all also although am among an and any are as at be because been \
    before being between both but by can cannot could did do does doing down during each either else every few for \
    from further had has have having he her here hers him his how however i if in into is it its itself just may me \
    might more most much must my neither no nor not now of off on once one only or other our out over own per same \
    shall she should since so some such than that the their them then there these they this those through thus to too \
    under until up upon us use used uses using very was we well were what when where whether which while who whom \
    whose why will with within without would yet you your ";

const SUMMARY_SENTENCES: usize = 3;
const TOPICS: usize = 5;
const KEYWORDS: usize = 10;
const OUTLINE_ITEMS: usize = 20;
const GIST_ITEMS: usize = 8;
/// The additional weight of the first sentence of a text.
const LEAD: f64 = 1.5;
const MAX_SENTENCE_BYTES: usize = 600;
/// The longest part of a prompt that is read: 256 KiB.
const MAX_READ_BYTES: usize = 256 * 1024;

pub(super) fn summary(text: &str) -> String {
    let read = Reading::of(text);
    if read.sentences.is_empty() {
        return "The text is empty.".to_owned();
    }
    let mut answer = read.most_central(SUMMARY_SENTENCES).join(" ");
    read.add_topics(&mut answer, "Topics");
    let _ = write!(answer, "\n\nFrom {} words in {} sentences.", read.n_words, read.sentences.len());
    answer
}

pub(super) fn keywords(text: &str) -> String {
    let read = Reading::of(text);
    let lines = read.topics(KEYWORDS).into_iter().map(|(word, count)| format!("- {word} ({count})"));
    let lines: Vec<String> = lines.collect();
    if lines.is_empty() { "The text has no keywords.".to_owned() } else { lines.join("\n") }
}

pub(super) fn outline(text: &str) -> String {
    let text = cut(text);
    let headings: Vec<String> =
        outside_code(text).filter_map(heading).map(|title| format!("- {title}")).collect();
    let mut lines = headings;
    if lines.is_empty() {
        lines = paragraphs(text)
            .iter()
            .filter_map(|part| Some(format!("- {}", sentences(part).first()?)))
            .collect();
    }
    lines.truncate(OUTLINE_ITEMS);
    if lines.is_empty() { "The text is empty.".to_owned() } else { lines.join("\n") }
}

pub(super) fn combine(text: &str) -> String {
    let whole = Reading::of(text);
    let parts = parts(cut(text));
    if parts.is_empty() {
        return "There is nothing to combine.".to_owned();
    }
    let mut answer = format!("Combined from {} parts, {} words.\n", parts.len(), whole.n_words);
    for (title, body) in parts.iter().take(OUTLINE_ITEMS) {
        let best = gist(body);
        match (title.as_deref(), best.is_empty()) {
            (Some(title), true) => {
                let _ = write!(answer, "\n- {title}");
            }
            (Some(title), false) => {
                let _ = write!(answer, "\n- {title}: {best}");
            }
            (None, _) => {
                let _ = write!(answer, "\n- {best}");
            }
        }
    }
    whole.add_topics(&mut answer, "Common topics");
    answer
}

/// A part in one or two lines: the first items of a list, or the two most central sentences.
fn gist(body: &str) -> String {
    let items: Vec<&str> =
        body.lines().filter_map(|line| line.trim().strip_prefix("- ")).take(GIST_ITEMS).collect();
    let lines = body.lines().filter(|line| !line.trim().is_empty()).count();
    if items.len() > 1 && items.len() * 2 >= lines.min(GIST_ITEMS * 2) {
        return items.join(", ");
    }
    let prose: Vec<&str> = body.lines().filter(|line| !is_trailer(line)).collect();
    Reading::of(&prose.join("\n")).most_central(2).join(" ")
}

/// The last lines of this provider's answers. As sentences they would look central, because their words are frequent.
fn is_trailer(line: &str) -> bool {
    ["Topics: ", "Common topics: ", "From "].iter().any(|begin| line.starts_with(begin))
        && line.ends_with('.')
}

/// The sentences of a text and the count of each keyword.
struct Reading {
    sentences: Vec<String>,
    frequencies: BTreeMap<String, usize>,
    n_words: usize,
}

impl Reading {
    fn of(text: &str) -> Self {
        let text = cut(text);
        let sentences: Vec<String> = paragraphs(text).iter().flat_map(|part| sentences(part)).collect();
        let mut frequencies = BTreeMap::new();
        for word in telling_words(text) {
            *frequencies.entry(word).or_insert(0) += 1;
        }
        Self { sentences, frequencies, n_words: text.split_whitespace().count() }
    }

    /// The sentences with the most frequent words, in the order of the text. Length and repeated words in a sentence do
    /// not count. An early sentence counts slightly more, because a text names its topic first.
    fn most_central(&self, count: usize) -> Vec<String> {
        let score = |at: usize, sentence: &str| -> f64 {
            let words: BTreeSet<String> = telling_words(sentence).collect();
            let sum: usize = words.iter().filter_map(|word| self.frequencies.get(word)).sum();
            (1.0 + LEAD / (1.0 + at as f64 / 4.0)) * sum as f64 / (words.len() as f64 + 3.0)
        };
        let mut ranked: Vec<(usize, f64)> =
            self.sentences.iter().enumerate().map(|(at, sentence)| (at, score(at, sentence))).collect();
        ranked.sort_by(|one, other| other.1.total_cmp(&one.1).then(one.0.cmp(&other.0)));
        let mut chosen: Vec<usize> = ranked.into_iter().take(count).map(|(at, _)| at).collect();
        chosen.sort_unstable();
        chosen.into_iter().map(|at| self.sentences[at].clone()).collect()
    }

    /// The most frequent keywords; equal counts in alphabetical order.
    fn topics(&self, count: usize) -> Vec<(&str, usize)> {
        let mut topics: Vec<(&str, usize)> =
            self.frequencies.iter().map(|(word, count)| (word.as_str(), *count)).collect();
        topics.sort_by(|one, other| other.1.cmp(&one.1).then(one.0.cmp(other.0)));
        // A word that occurs once is not a topic if another occurs more often.
        if topics.first().is_some_and(|(_, most)| *most > 1) {
            topics.retain(|(_, count)| *count > 1);
        }
        topics.truncate(count);
        topics
    }

    fn add_topics(&self, answer: &mut String, title: &str) {
        let topics: Vec<&str> = self.topics(TOPICS).into_iter().map(|(word, _)| word).collect();
        if !topics.is_empty() {
            let _ = write!(answer, "\n\n{title}: {}.", topics.join(", "));
        }
    }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_READ_BYTES)]
}

fn telling_words(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|char: char| !char.is_alphanumeric() && char != '\'' && char != '-');
    words.map(|word| word.trim_matches(['\'', '-']).to_lowercase()).filter(|word| {
        word.chars().count() > 2
            && word.chars().any(char::is_alphabetic)
            && !STOP_WORDS.contains(&format!(" {word} "))
    })
}

/// The lines outside fenced code: a `#` in a shell script is not a heading.
fn outside_code(text: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        !in_code && !fence
    })
}

/// The title of a Markdown heading.
fn heading(line: &str) -> Option<String> {
    let line = line.trim();
    let title = line.trim_start_matches('#');
    let title = (title.len() < line.len() && title.starts_with(' ')).then(|| title.trim())?;
    (!title.is_empty()).then(|| title.to_owned())
}

/// Blocks of prose without headings, code and tables. Each list item is a block.
fn paragraphs(text: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    for line in outside_code(text).map(str::trim) {
        let prose = !(line.is_empty() || line.starts_with('|') || heading(line).is_some());
        let item = line.strip_prefix("- ").or_else(|| line.strip_prefix("* "));
        if !prose || item.is_some() {
            found.push(String::new());
        }
        if prose && let Some(block) = found.last_mut() {
            block.push_str(item.unwrap_or(line));
            block.push(' ');
        }
    }
    found.into_iter().map(|block| block.trim().to_owned()).filter(|block| !block.is_empty()).collect()
}

/// Headings with their text if there are headings, else paragraphs.
fn parts(text: &str) -> Vec<(Option<String>, String)> {
    if !outside_code(text).any(|line| heading(line).is_some()) {
        return paragraphs(text).into_iter().map(|part| (None, part)).collect();
    }
    let mut found: Vec<(Option<String>, String)> = vec![(None, String::new())];
    for line in outside_code(text) {
        match heading(line) {
            Some(title) => found.push((Some(title), String::new())),
            None => {
                if let Some((_, body)) = found.last_mut() {
                    body.push_str(line);
                    body.push('\n');
                }
            }
        }
    }
    found.retain(|(title, body)| title.is_some() || !body.trim().is_empty());
    found
}

/// The sentences of a block: they end with `.`, `!` or `?` before a blank.
fn sentences(block: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut begin = 0;
    let mut chars = block.char_indices().peekable();
    while let Some((at, char)) = chars.next() {
        let ends = matches!(char, '.' | '!' | '?' | '。')
            && chars.peek().is_none_or(|(_, next)| next.is_whitespace());
        if ends {
            let end = at + char.len_utf8();
            found.push(block[begin..end].trim().to_owned());
            begin = end;
        }
    }
    found.push(block[begin..].trim().to_owned());
    found.retain(|sentence| sentence.chars().any(char::is_alphanumeric));
    found.into_iter().map(shortened).collect()
}

/// Shortens a very long sentence.
fn shortened(mut sentence: String) -> String {
    if sentence.len() > MAX_SENTENCE_BYTES {
        sentence.truncate(sentence.floor_char_boundary(MAX_SENTENCE_BYTES));
        sentence.push('…');
    }
    sentence
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Tides\n\nTides are made by the moon. The moon pulls the sea, and the sea follows the moon. \
        Fishermen like soup.\n\n# Harbours\n\nA harbour knows the tides of its sea. It was cheap in 1901.";

    #[test]
    fn a_summary_consists_of_the_central_sentences() {
        let summary = summary(TEXT);
        assert!(summary.contains("The moon pulls the sea, and the sea follows the moon."), "{summary}");
        assert!(!summary.contains("soup") && !summary.contains("cheap"), "{summary}");
        assert!(summary.contains("Topics: moon, sea, tides."), "{summary}");
        assert!(summary.ends_with("From 37 words in 5 sentences."), "{summary}");
    }

    #[test]
    fn keywords_outline_and_combination_follow_the_text() {
        assert_eq!(keywords(TEXT), "- moon (3)\n- sea (3)\n- tides (3)");
        assert_eq!(outline(TEXT), "- Tides\n- Harbours");
        assert_eq!(outline("# One\n```sh\n# no heading\n```\n# Two"), "- One\n- Two");
        assert_eq!(outline("First one. More.\n\nSecond one."), "- First one.\n- Second one.");
        let combined = combine(TEXT);
        assert!(combined.contains("- Harbours: A harbour knows the tides of its sea."), "{combined}");
        assert!(combined.starts_with("Combined from 2 parts"), "{combined}");
    }

    #[test]
    fn the_answer_depends_only_on_the_text() {
        for style in [summary, keywords, outline, combine] {
            assert_eq!(style(TEXT), style(TEXT));
            assert_ne!(style(TEXT), style("Bread is baked at night. Bakers sleep by day."));
            assert!(!style("").is_empty());
            assert!(!style("!!! ...").is_empty());
        }
    }

    #[test]
    fn code_and_tables_are_not_quoted() {
        let text =
            "Prose comes first.\n\n```\nlet code = prose.\n```\n\n| a | table. |\n\n- An item of prose.";
        assert_eq!(paragraphs(text), ["Prose comes first.", "An item of prose."]);
    }

    #[test]
    fn a_huge_text_is_cut_at_a_character() {
        assert!(!summary(&"日本 ".repeat(100_000)).is_empty());
    }
}
