//! The arithmetic that the benchmarks judge by, against values that others computed.

#[path = "../../benches/http/statistics.rs"]
mod statistics;

use self::statistics::{quantile, rank_test};

fn check_near(found: f64, expected: f64, what: &str) {
    assert!(
        (found - expected).abs() <= 1e-9 * expected.abs().max(1e-300),
        "{what}: {found} is not {expected}"
    );
}

#[test]
fn a_quantile_is_one_of_the_samples() {
    let samples = [50, 10, 40, 20, 30];
    assert_eq!(
        [0.0, 0.2, 0.21, 0.5, 0.99, 1.0].map(|q| quantile(&samples, q)),
        [Some(10), Some(10), Some(20), Some(30), Some(50), Some(50)]
    );
    assert_eq!(quantile::<u32>(&[], 0.5), None);
}

#[test]
fn groups_without_ties_are_compared_as_in_print() {
    // The example in the documentation of SciPy's `mannwhitneyu`: U = 17, asymptotic p = 0.1113468866.
    let test = rank_test(&[19, 22, 16, 29, 24], &[20, 11, 17, 12]);
    assert_eq!(test.u, 17.0);
    check_near(test.z, 1.592_168_332_809_065_7, "z");
    check_near(test.p, 0.111_346_886_533_140_5, "p");
    // The example in the documentation of R's `wilcox.test` (Hollander and Wolfe, permeability): W = 35.
    let at_term = [80, 83, 189, 104, 145, 138, 191, 164, 73, 146];
    let test = rank_test(&at_term, &[115, 88, 90, 74, 121]);
    assert_eq!(test.u, 35.0);
    check_near(test.p, 0.244_623_605_126_983, "p");
}

#[test]
fn ties_share_their_rank_and_narrow_the_deviation() {
    // Counted by hand: 6.5 of 30 pairs won; four groups of equals take 48 from N³ - N = 1320.
    let test = rank_test(&[1, 2, 2, 3, 5], &[2, 3, 4, 4, 6, 6]);
    assert_eq!(test.u, 6.5);
    check_near(test.z, -1.484_399_838_149_822, "z");
    check_near(test.p, 0.137_702_877_684_035_05, "p");
}

#[test]
fn a_clear_difference_is_clear_in_either_direction() {
    let (low, high): (Vec<u32>, Vec<u32>) = ((0..300).collect(), (250..550).collect());
    let test = rank_test(&low, &high);
    assert_eq!(test.u, 1250.0);
    check_near(test.z, -20.606_561_419_008_088, "z");
    check_near(test.p, 2.396_644_916_217_638_3e-94, "p");
    let mirrored = rank_test(&high, &low);
    assert_eq!((mirrored.z, mirrored.p), (-test.z, test.p));
}

#[test]
fn what_cannot_differ_does_not() {
    for (first, second) in [(vec![7, 7, 7], vec![7, 7]), (vec![], vec![1, 2]), (vec![], vec![])] {
        let test = rank_test(&first, &second);
        assert_eq!((test.z, test.p), (0.0, 1.0), "{first:?} {second:?}");
    }
}
