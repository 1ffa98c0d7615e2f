//! The length of a test: short by default, full on request.

/// `full` asks for the long form of every test that has one.
const SOAK: &str = "GATHERING_TEST_SOAK";

/// Whether the long form is asked for.
pub fn is_full_soak() -> bool {
    std::env::var(SOAK).is_ok_and(|value| value == "full")
}

/// What a test does by default, or in its long form.
pub fn soak<T>(short: T, full: T) -> T {
    if is_full_soak() { full } else { short }
}
