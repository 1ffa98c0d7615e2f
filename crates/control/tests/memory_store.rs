//! The in-memory twin keeps the promises of the port.

use gathering_control::testing::MemoryControl;

async fn fixture() -> MemoryControl {
    MemoryControl::new()
}

gathering_control::control_store_suite!(fixture);
