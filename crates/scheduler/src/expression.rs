//! The text of a cron expression: its fields and aliases, and the spelling that it has after parsing.

use std::fmt;

use crate::field::{DAY, Field, HOUR, Item, MINUTE, MONTH, ORDER, SECOND, WEEKDAY, YEAR};

/// Enough to write out every minute of an hour twice.
const MAX_LENGTH: usize = 512;

/// The aliases and what they stand for.
const ALIASES: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * SUN"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// An expression whose every field names a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expression {
    alias: Option<&'static str>,
    /// Minute to day of week, perhaps with seconds in front.
    fields: Vec<Vec<Item>>,
    /// Whether both day fields must match (`+` before the day of week).
    both_days: bool,
    /// The years, if it names some.
    years: Option<Vec<Item>>,
}

impl Expression {
    /// # Errors
    /// What is wrong and what to write instead, in words for the author.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.len() > MAX_LENGTH {
            return Err(format!("must have at most {MAX_LENGTH} characters"));
        }
        let mut words: Vec<&str> = text.split_whitespace().collect();
        if let Some(first) = words.first() {
            refuse_assignment(first)?;
            if first.starts_with('@') {
                return Self::alias(first, words.len());
            }
        }
        let years = if words.len() == 7 { words.pop() } else { None };
        let fields: &[&'static Field] = match words.len() {
            5 => &[&MINUTE, &HOUR, &DAY, &MONTH, &WEEKDAY],
            6 => &[&SECOND, &MINUTE, &HOUR, &DAY, &MONTH, &WEEKDAY],
            n_fields => return Err(wrong_number_of_fields(n_fields)),
        };
        if let Some(year) = words.get(5).filter(|word| is_year(word)) {
            return Err(format!(
                "has the year `{year}` in its last field, but six fields are second, {ORDER}: write a second in front, \
                 such as 0, so that the year is the seventh"
            ));
        }
        let joined = words.last().and_then(|days| days.strip_prefix('+'));
        let texts = words.iter().enumerate().map(|(index, word)| match joined {
            Some(days) if index + 1 == words.len() => days,
            _ => word,
        });
        let fields: Result<Vec<Vec<Item>>, String> =
            fields.iter().zip(texts).map(|(field, text)| field.parse(text)).collect();
        let fields = fields?;
        let years = years.map(|text| YEAR.parse(text)).transpose()?;
        Ok(Self { alias: None, fields, both_days: joined.is_some(), years })
    }

    fn alias(word: &str, n_words: usize) -> Result<Self, String> {
        let name = word.to_ascii_lowercase();
        match name.as_str() {
            "@every" => {
                return Err(
                    "has `@every`, which is not a time of day: use a trigger of type interval, such as \
                            {\"type\": \"interval\", \"seconds\": 300}"
                        .to_owned(),
                );
            }
            "@reboot" => {
                return Err(
                    "has `@reboot`, which names no time: start the run through the API when the machine \
                            starts"
                        .to_owned(),
                );
            }
            _ => {}
        }
        match ALIASES.into_iter().find(|(alias, _)| *alias == name) {
            Some((alias, _)) if n_words > 1 => Err(format!("has fields after {alias}: write {alias} alone")),
            Some((alias, fields)) => Ok(Self { alias: Some(alias), ..Self::parse(fields)? }),
            None => {
                let aliases: Vec<&str> = ALIASES.into_iter().map(|(alias, _)| alias).collect();
                Err(format!("has an unknown alias: write one of {}, or five fields", aliases.join(", ")))
            }
        }
    }

    /// The fields as croner takes them.
    pub(crate) fn fields(&self) -> String {
        self.spell(|item| item.to_string())
    }

    /// The fields for a description. croner describes every step as a rhythm, but `*/25` and `0-30/10` have none.
    pub(crate) fn spelled_out(&self) -> String {
        self.spell(|item| match item {
            Item::Step { values, even: false, .. } => {
                values.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
            }
            item => item.to_string(),
        })
    }

    fn spell(&self, spell: impl Fn(&Item) -> String) -> String {
        let mut fields: Vec<String> =
            self.fields.iter().map(|items| items.iter().map(&spell).collect::<Vec<_>>().join(",")).collect();
        if let Some(days) = fields.last_mut().filter(|_| self.both_days) {
            days.insert(0, '+');
        }
        let years = self.years.iter().map(|items| items.iter().map(&spell).collect::<Vec<_>>().join(","));
        fields.extend(years);
        fields.join(" ")
    }

    /// Whether it names years.
    pub(crate) const fn has_years(&self) -> bool {
        self.years.is_some()
    }

    /// Whether it names the last weekday of the month.
    pub(crate) fn has_last_weekday(&self) -> bool {
        self.fields.iter().flatten().any(|item| item.to_string() == "LW")
    }

    /// What a reader may take wrongly: if both day fields are set, either suffices.
    pub(crate) fn ambiguity(&self) -> Option<String> {
        let [.., days, _, weekdays] = self.fields.as_slice() else { return None };
        if self.both_days || days.contains(&Item::Every) || weekdays.contains(&Item::Every) {
            return None;
        }
        let list = |items: &[Item]| items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let (days, weekdays) = (list(days), list(weekdays));
        Some(format!(
            "fires on each day that matches day of month {days} or day of week {weekdays}: write +{weekdays} for the \
             days that match both"
        ))
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.alias {
            Some(alias) => f.write_str(alias),
            None => f.write_str(&self.fields()),
        }
    }
}

fn refuse_assignment(word: &str) -> Result<(), String> {
    let Some((name, zone)) = word.split_once('=') else { return Ok(()) };
    match name.to_ascii_uppercase().as_str() {
        "TZ" | "CRON_TZ" => Err(format!(
            "has `{name}=`: write the time zone into the trigger's field timezone, as \"timezone\": \"{zone}\""
        )),
        _ => Err(format!("has `{name}=`: write only the fields of the expression")),
    }
}

fn wrong_number_of_fields(n_fields: usize) -> String {
    format!(
        "has {n_fields} fields, but must have 5 ({ORDER}), 6 with seconds in front, or 7 with a year at the end, too"
    )
}

fn is_year(word: &str) -> bool {
    let first: String = word.chars().take_while(char::is_ascii_digit).collect();
    first.len() == 4 && first.as_str() >= "1900"
}
