//! Effect classes.

use serde::{Deserialize, Serialize};

/// What repeating an effect may do. The class decides what happens to an effect whose result was lost in a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EffectClass {
    /// It changes nothing, so repeating it is harmless.
    Pure,
    /// Repeating it with the same key has the same result as doing it once.
    Idempotent,
    /// Repeating it may act twice, so it must not be repeated silently.
    Unsafe,
}

impl EffectClass {
    /// Every class, from the least to the most that a repeat may do.
    pub const ALL: [EffectClass; 3] = [EffectClass::Pure, EffectClass::Idempotent, EffectClass::Unsafe];

    /// The one of the two after which less may be repeated.
    #[must_use]
    pub const fn stricter(self, other: Self) -> Self {
        match (self, other) {
            (EffectClass::Unsafe, _) | (_, EffectClass::Unsafe) => EffectClass::Unsafe,
            (EffectClass::Idempotent, _) | (_, EffectClass::Idempotent) => EffectClass::Idempotent,
            (EffectClass::Pure, EffectClass::Pure) => EffectClass::Pure,
        }
    }

    /// The word for it in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            EffectClass::Pure => "pure",
            EffectClass::Idempotent => "idempotent",
            EffectClass::Unsafe => "unsafe",
        }
    }
}
