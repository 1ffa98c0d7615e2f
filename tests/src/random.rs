//! Random moments that can be repeated: everything follows from a seed that is printed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

/// Repeats an earlier draw.
const SEED: &str = "GATHERING_TEST_SEED";

/// A source of random numbers (SplitMix64).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A source from the seed in `GATHERING_TEST_SEED`, or else from the clock. The seed is printed, so that a failure
    /// shows it.
    ///
    /// # Errors
    /// If the variable holds no number.
    #[expect(clippy::print_stdout, reason = "cargo shows it with the test that failed")]
    pub fn printed() -> Result<Random> {
        let seed = match std::env::var(SEED) {
            Ok(text) => text.parse().with_context(|| format!("{SEED} is no number"))?,
            Err(_) => u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros())?,
        };
        println!("{SEED}={seed}");
        Ok(Random(seed))
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A time below `most`, in whole microseconds.
    pub fn below(&mut self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_micros()).unwrap_or(u64::MAX).max(1);
        Duration::from_micros(self.number() % most)
    }
}
