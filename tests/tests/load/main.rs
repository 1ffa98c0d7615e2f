//! The server under load, killed and measured. These tests keep the machine busy, so they run after all others.

mod kills;
mod several;
mod soak;
mod takeover;
