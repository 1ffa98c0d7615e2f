//! The providers that are configured, by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::ChatModel;
use crate::scripted::Scripted;

/// Providers that GatheRing can speak to, and what the operator sets to have them.
const KNOWN: [(&str, &str); 1] =
    [("openai", "set OPENAI_API_KEY, or OPENAI_BASE_URL for another server that speaks its protocol")];

/// Providers by name.
#[derive(Clone, Default)]
pub struct Providers {
    models: BTreeMap<String, Arc<dyn ChatModel>>,
}

/// A provider that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// It is known, and lacks its settings.
    #[error("provider `{name}` is not configured: {hint}")]
    NotConfigured {
        /// Which.
        name: String,
        /// What to do.
        hint: &'static str,
    },
    /// Nobody knows it.
    #[error("provider `{name}` is unknown; there are: {configured}")]
    Unknown {
        /// Which.
        name: String,
        /// Those that there are.
        configured: String,
    },
}

impl Providers {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only `scripted`, which needs no settings.
    pub fn with_scripted() -> Self {
        let mut providers = Self::new();
        providers.register(Arc::new(Scripted::from_prompt()));
        providers
    }

    /// Adds a provider under its own name, in place of one of that name.
    pub fn register(&mut self, model: Arc<dyn ChatModel>) {
        self.models.insert(model.provider().to_owned(), model);
    }

    /// The names of those that there are, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.models.keys().map(String::as_str)
    }

    /// The provider of this name.
    ///
    /// # Errors
    /// [`ProviderError`], which says what to configure; permanent until somebody does.
    pub fn get(&self, name: &str) -> Result<Arc<dyn ChatModel>, ProviderError> {
        if let Some(model) = self.models.get(name) {
            return Ok(Arc::clone(model));
        }
        match KNOWN.iter().find(|(known, _)| *known == name) {
            Some((_, hint)) => Err(ProviderError::NotConfigured { name: name.to_owned(), hint }),
            None => Err(ProviderError::Unknown {
                name: name.chars().take(64).collect(),
                configured: self.names().collect::<Vec<_>>().join(", "),
            }),
        }
    }
}

impl std::fmt::Debug for Providers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_provider_says_what_to_configure() {
        let providers = Providers::with_scripted();
        assert_eq!(
            providers.get("scripted").map(|model| model.provider().to_owned()),
            Ok("scripted".to_owned())
        );
        let openai = providers.get("openai").err().unwrap().to_string();
        assert!(openai.contains("not configured") && openai.contains("OPENAI_BASE_URL"), "{openai}");
        let other = providers.get("oracle").err().unwrap().to_string();
        assert_eq!(other, "provider `oracle` is unknown; there are: scripted");
    }
}
