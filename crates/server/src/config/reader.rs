//! The merged settings while they are read, and what is wrong with them so far.

use figment::Figment;
use figment::providers::Serialized;
use figment::value::Value;

use super::InvalidSetting;
use super::declared::{Fallback, SETTINGS, Setting};
use super::values;

/// Reads settings one by one, and collects every problem.
#[derive(Default)]
pub(super) struct Reader {
    figment: Figment,
    from_environment: Vec<&'static str>,
    pub(super) problems: Vec<InvalidSetting>,
}

impl Reader {
    /// Reads `file`, as it was parsed, and then what `variable` answers for each setting. An empty variable counts as unset.
    pub(super) fn new(file: Figment, written: &Value, variable: impl Fn(&str) -> Option<String>) -> Self {
        let mut reader = Self { figment: file, ..Self::default() };
        for name in written.as_dict().into_iter().flat_map(|dict| dict.keys()) {
            if !SETTINGS.iter().any(|known| known.name == name) {
                let known: Vec<&str> = SETTINGS.iter().map(|known| known.name).collect();
                reader.problem(
                    name,
                    None,
                    format!("unknown setting; the known ones are {}", known.join(", ")),
                );
            }
        }
        for Setting { name, variable: variable_name, .. } in SETTINGS {
            if let Some(value) = variable(variable_name).filter(|value| !value.trim().is_empty()) {
                let merged = std::mem::take(&mut reader.figment).merge(Serialized::default(name, value));
                reader.figment = merged;
                reader.from_environment.push(name);
            }
        }
        reader
    }

    /// The value that was set, or else the default; `None` if it is invalid.
    pub(super) fn value<T>(
        &mut self,
        setting: &Setting,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        match self.text(setting.name)? {
            Some(text) => self.checked(setting.name, &text, read),
            None => match setting.default {
                Fallback::Value(text) => self.checked(setting.name, text, read),
                Fallback::Unset(..) => None,
            },
        }
    }

    /// The value that was set, if one was; `None` if it is invalid.
    pub(super) fn optional<T>(
        &mut self,
        setting: &Setting,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<Option<T>> {
        match self.text(setting.name)? {
            Some(text) => self.checked(setting.name, &text, read).map(Some),
            None => Some(None),
        }
    }

    /// As `optional`, but no problem repeats the value.
    pub(super) fn secret<T>(
        &mut self,
        setting: &Setting,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<Option<T>> {
        let Some(text) = self.text(setting.name)? else { return Some(None) };
        match read(text.trim()) {
            Ok(value) => Some(Some(value)),
            Err(expected) => {
                self.problem(setting.name, None, expected);
                None
            }
        }
    }

    fn checked<T>(
        &mut self,
        name: &str,
        text: &str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        match read(text.trim()) {
            Ok(value) => Some(value),
            Err(expected) => {
                self.problem(name, Some(text.chars().take(80).collect()), expected);
                None
            }
        }
    }

    /// The text of a setting, wherever it was set; a list of a file is joined by commas. The outer `None`: it is no text.
    #[expect(clippy::option_option, reason = "unset is another answer than invalid")]
    fn text(&mut self, name: &str) -> Option<Option<String>> {
        let Ok(value) = self.figment.find_value(name) else { return Some(None) };
        let text = match &value {
            Value::Array(_, items) => {
                items.iter().map(values::scalar).collect::<Option<Vec<_>>>().map(|items| items.join(","))
            }
            other => values::scalar(other),
        };
        if text.is_none() {
            self.problem(name, None, "it must be a text or a number".to_owned());
        }
        text.map(Some)
    }

    /// Notes what is wrong with a setting.
    pub(super) fn problem(&mut self, name: &str, value: Option<String>, expected: String) {
        let variable = SETTINGS
            .iter()
            .find(|known| known.name == name && self.from_environment.contains(&known.name))
            .map(|known| known.variable.to_owned());
        let name = variable.unwrap_or_else(|| format!("`{name}` in the configuration file"));
        self.problems.push(InvalidSetting { name, value, expected });
    }
}
