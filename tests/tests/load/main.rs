//! The server under load, killed and measured. These tests keep the machine busy, so they run after all others.

mod continued;
mod dump;
mod kills;
mod pooler;
mod schedules;
mod several;
mod soak;
mod takeover;

use tokio::sync::RwLock;

/// The machine: to be written by a test that measures a time, and so has it alone; to be read by all others.
static MACHINE: RwLock<()> = RwLock::const_new(());
