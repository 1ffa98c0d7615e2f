//! Quantiles, and the rank test that tells whether two groups of times differ.
//!
//! Owns the arithmetic only. Never knows what was timed.

use std::f64::consts::{PI, SQRT_2};

/// The outcome of a two-sided Mann-Whitney U test.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RankTest {
    /// U of the first group: how many of the pairs its member wins by being larger; ties count one half.
    pub(crate) u: f64,
    /// U's distance from its expectation, in standard deviations. Negative if the first group is the smaller one.
    pub(crate) z: f64,
    /// How likely a distance of at least this is if both groups come from one distribution.
    pub(crate) p: f64,
}

/// The least sample that at least the share `q` of all samples does not exceed (nearest rank). `None` of no samples.
pub(crate) fn quantile<T: Ord + Copy>(samples: &[T], q: f64) -> Option<T> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied()
}

/// Compares two groups by rank, with the normal approximation, its correction for ties, and its correction for
/// continuity. The approximation is good from about 20 samples a group on.
///
/// Source: H. B. Mann and D. R. Whitney, "On a test of whether one of two random variables is stochastically larger than
/// the other", Annals of Mathematical Statistics 18 (1947), 50-60; for ties E. L. Lehmann, "Nonparametrics: Statistical
/// Methods Based on Ranks" (1975), section 1.4.
pub(crate) fn rank_test<T: Ord>(first: &[T], second: &[T]) -> RankTest {
    let (n_first, n_second) = (first.len() as f64, second.len() as f64);
    let n = n_first + n_second;
    let (rank_sum, ties) = rank_sum_and_ties(first, second);
    let u = rank_sum - n_first * (n_first + 1.0) / 2.0;
    let deviation = (n_first * n_second / 12.0 * (n + 1.0 - ties / (n * (n - 1.0)))).sqrt();
    let distance = u - n_first * n_second / 2.0;
    // No deviation: one of the groups is empty, or all samples are equal.
    let z =
        if deviation > 0.0 { (distance.abs() - 0.5).max(0.0).copysign(distance) / deviation } else { 0.0 };
    RankTest { u, z, p: complementary_error_function(z.abs() / SQRT_2) }
}

/// The sum of the first group's ranks in the joint order, where equals share their mean rank, and the sum of t³ - t over
/// the groups of t equals.
fn rank_sum_and_ties<T: Ord>(first: &[T], second: &[T]) -> (f64, f64) {
    let tagged = first.iter().map(|sample| (sample, true)).chain(second.iter().map(|sample| (sample, false)));
    let mut joint: Vec<(&T, bool)> = tagged.collect();
    joint.sort_unstable_by_key(|(sample, _)| *sample);
    let (mut rank_sum, mut ties, mut n_before) = (0.0, 0.0, 0.0);
    for equals in joint.chunk_by(|left, right| left.0 == right.0) {
        let t = equals.len() as f64;
        let n_of_first = equals.iter().filter(|(_, is_of_first)| *is_of_first).count() as f64;
        rank_sum += n_of_first * (n_before + (t + 1.0) / 2.0);
        ties += t * t * t - t;
        n_before += t;
    }
    (rank_sum, ties)
}

/// erfc of `x`, not negative, to about twelve digits even where it is tiny.
///
/// Source: M. Abramowitz and I. A. Stegun, "Handbook of Mathematical Functions" (1964): the series 7.1.6 near zero, the
/// continued fraction 7.1.14 beyond.
fn complementary_error_function(x: f64) -> f64 {
    const SERIES_BELOW: f64 = 2.5;
    const N_FRACTIONS: u32 = 100;
    let bell = (-x * x).exp() / PI.sqrt();
    if x < SERIES_BELOW {
        let (mut term, mut sum, mut odd) = (x, x, 1.0);
        while term > sum * f64::EPSILON {
            odd += 2.0;
            term *= 2.0 * x * x / odd;
            sum += term;
        }
        return 1.0 - 2.0 * bell * sum;
    }
    let fraction = (1..=N_FRACTIONS).rev().fold(x, |inner, k| x + f64::from(k) / 2.0 / inner);
    bell / fraction
}
