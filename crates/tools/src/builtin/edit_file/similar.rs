//! What to say about a text that a file does not contain.

/// The longest part of a line that is compared and shown, in characters.
const MAX_LINE_CHARS: usize = 120;

/// How many pairs of characters are compared at most, which takes a fraction of a second.
const MAX_COMPARED: usize = 20_000_000;

/// A line that is less similar helps nobody.
const LEAST_SIMILARITY: f64 = 0.6;

/// Says that `old` does not occur in `text`, and which line is most similar.
pub(super) fn not_found(text: &str, old: &str) -> String {
    if text.contains('\r') && !old.contains('\r') && text.replace("\r\n", "\n").contains(old) {
        return "occurs 0 times: the lines of the file end with \\r\\n".to_owned();
    }
    match most_similar(text, old) {
        Some((number, line)) => format!("occurs 0 times; the most similar line is line {number}: `{line}`"),
        None => "occurs 0 times, and no line of the file is similar to it".to_owned(),
    }
}

/// The line that is most similar to the first line of `old` with text, and its number.
fn most_similar(text: &str, old: &str) -> Option<(usize, String)> {
    let wanted = old.lines().map(str::trim).find(|line| !line.is_empty())?;
    let wanted: String = wanted.chars().take(MAX_LINE_CHARS).collect();
    let mut compared = 0_usize;
    let mut best: Option<(f64, usize, &str)> = None;
    for (index, line) in text.lines().enumerate() {
        let start: String = line.trim().chars().take(MAX_LINE_CHARS).collect();
        compared += (wanted.len() * start.len()).max(1);
        if compared > MAX_COMPARED {
            break;
        }
        let similarity = strsim::normalized_levenshtein(&wanted, &start);
        if similarity >= LEAST_SIMILARITY && best.is_none_or(|(least, ..)| similarity > least) {
            best = Some((similarity, index + 1, line));
        }
    }
    best.map(|(_, number, line)| {
        let shown: String = line.chars().take(MAX_LINE_CHARS).collect();
        (number, if shown.len() < line.len() { format!("{shown}…") } else { shown })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_similar_line_is_shown_as_it_is_in_the_file() {
        let text = "fn main() {\n    let total = count(3);\n}\n";
        let expected = "occurs 0 times; the most similar line is line 2: `    let total = count(3);`";
        assert_eq!(not_found(text, "\n  let totals = count(3);\n"), expected);
        assert_eq!(not_found(text, "zzz"), "occurs 0 times, and no line of the file is similar to it");
        assert_eq!(not_found("a\r\nb", "a\nb"), "occurs 0 times: the lines of the file end with \\r\\n");
    }

    #[test]
    fn a_long_line_is_cut_and_a_large_file_is_compared_in_part() {
        let line = "größe ".repeat(100);
        let told = not_found(&line, &format!("{line}!"));
        assert!(told.ends_with("…`") && told.chars().count() < 200, "{told}");
        let large = format!("{}\nthe needle", "x".repeat(120).as_str().to_owned() + "\n").repeat(100_000);
        assert!(not_found(&large, &"y".repeat(120)).starts_with("occurs 0 times"));
    }
}
