//! Caches the results of a slow computation and prints the hits and misses.
//!
//! `cargo run -p gathering-cache --example slow_squares -- 3 1 2 3 1 2 4 1`: the size, then the numbers to square.

use gathering_cache::BoundedCache;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let n_entries = arguments.next().map_or(Ok(3), |text| text.parse())?;
    let mut numbers = arguments.map(|text| text.parse()).collect::<Result<Vec<u64>, _>>()?;
    if numbers.is_empty() {
        numbers = vec![1, 2, 3, 1, 2, 4, 1, 3];
    }
    let cache = BoundedCache::new("squares", n_entries);
    for number in numbers {
        let square = cache.get_or_insert_with(&number, || slow_square(number));
        say(&format!("{number}² = {square}"));
    }
    let done = cache.statistics();
    say(&format!(
        "{} of {} entries; {} hits, {} misses, {} evictions",
        done.n_entries, done.capacity, done.hits, done.misses, done.evictions
    ));
    Ok(())
}

fn slow_square(number: u64) -> u128 {
    say(&format!("computing {number}²"));
    u128::from(number) * u128::from(number)
}

#[expect(clippy::print_stdout, reason = "an example prints its result")]
fn say(line: &str) {
    println!("{line}");
}
