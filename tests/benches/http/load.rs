//! Several clients at once, each sending its next request when the last was answered.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::connection::Connection;

/// Does `work` on as many threads at once, each with its number, and waits for all.
pub(crate) fn at_once<T: Send>(n_threads: usize, work: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..n_threads)
            .map(|number| {
                let work = &work;
                scope.spawn(move || work(number))
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| bail!("a thread panicked")))
            .collect()
    })
}

/// How many times a second `request` is answered with 200 to so many clients, each on a connection of its own.
pub(crate) fn requests_per_second(
    address: &str,
    request: &[u8],
    n_clients: usize,
    duration: Duration,
) -> Result<f64> {
    let start_together = Barrier::new(n_clients);
    let rates = at_once(n_clients, |_| {
        let connection = Connection::open(address);
        // Even who could not connect: the others wait for them.
        start_together.wait();
        let mut connection = connection?;
        let start = Instant::now();
        let mut n_answers = 0_u32;
        while start.elapsed() < duration {
            connection.exchange(request)?.expect(200)?;
            n_answers += 1;
        }
        Ok(f64::from(n_answers) / start.elapsed().as_secs_f64())
    })?;
    Ok(rates.into_iter().sum())
}

/// The times of one request after the other on one connection, for so long; all answered with 200.
pub(crate) fn times(
    connection: &mut Connection,
    request: &[u8],
    duration: Duration,
) -> Result<Vec<Duration>> {
    let (start, mut times) = (Instant::now(), Vec::new());
    while start.elapsed() < duration {
        times.push(connection.exchange(request)?.expect(200)?.time);
    }
    Ok(times)
}
