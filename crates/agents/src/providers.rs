//! The configured providers, by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::ChatModel;
use crate::scripted::Scripted;

/// The providers that GatheRing supports, and the settings that they need.
const KNOWN: [(&str, &str); 1] =
    [("openai", "set OPENAI_API_KEY, or OPENAI_BASE_URL for another server that speaks its protocol")];

/// Providers by name.
#[derive(Clone, Default)]
pub struct Providers {
    models: BTreeMap<String, Arc<dyn ChatModel>>,
}

/// A provider that is not available.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// It is supported but not configured.
    #[error("provider `{name}` is not configured: {hint}")]
    NotConfigured {
        /// The provider.
        name: String,
        /// The settings that it needs.
        hint: &'static str,
    },
    /// It is unknown.
    #[error("unknown provider `{name}`; configured providers: {configured}")]
    Unknown {
        /// The provider.
        name: String,
        /// The configured providers.
        configured: String,
    },
}

impl Providers {
    /// No providers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only `scripted`, which needs no settings.
    pub fn with_scripted() -> Self {
        let mut providers = Self::new();
        providers.register(Arc::new(Scripted::from_prompt()));
        providers
    }

    /// Adds a provider under its own name and replaces one of the same name.
    pub fn register(&mut self, model: Arc<dyn ChatModel>) {
        self.models.insert(model.provider().to_owned(), model);
    }

    /// The names of the configured providers, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.models.keys().map(String::as_str)
    }

    /// The provider with this name.
    ///
    /// # Errors
    /// [`ProviderError`], which says what to configure. It is permanent until then.
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
        assert_eq!(other, "unknown provider `oracle`; configured providers: scripted");
    }
}
