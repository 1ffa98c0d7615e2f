//! What repeating something outside does.

use serde::{Deserialize, Serialize};

/// What repeating a side effect does, which decides what becomes of one whose end got lost in a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EffectClass {
    /// It changes nothing; repeating it is free.
    Pure,
    /// Repeating it with the same key leaves the world as doing it once does.
    Idempotent,
    /// It may do the thing twice, so it must not be repeated silently.
    Unsafe,
}
