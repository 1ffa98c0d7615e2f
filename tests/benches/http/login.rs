//! Logins against bcrypt alone: one after the other, several at once, and what a flood of them leaves to others.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::connection::get;
use crate::load;
use crate::machine::n_password_threads;
use crate::stand::{Stand, login_request};
use crate::statistics::quantile;
use crate::table::Figure::{PerSecond, Time};
use crate::table::Report;

const N_CLIENTS: usize = 8;
const LOGINS_PER_CLIENT: usize = 2;

/// The clients of the flood.
const N_FLOOD: usize = 50;
const FLOOD_DURATION: Duration = Duration::from_secs(8);

/// Fills the lines about logins.
pub(crate) fn measure(stand: &Stand, n_logins: usize, n_rounds: usize, report: &mut Report) -> Result<()> {
    let hash = Hash::new(stand.cost)?;
    one_after_the_other(stand, &hash, n_logins, report)?;
    several_at_once(stand, &hash, n_rounds, report)?;
    flood(stand, report)
}

/// A hash to be verified, as the server does it and nothing else.
struct Hash(String);

impl Hash {
    const PASSWORD: &str = "correct horse battery staple";

    fn new(cost: u32) -> Result<Hash> {
        Ok(Hash(bcrypt::hash(Self::PASSWORD, cost)?))
    }

    fn verify(&self) -> Result<Duration> {
        let start = Instant::now();
        let is_right = bcrypt::verify(Self::PASSWORD, &self.0)?;
        anyhow::ensure!(is_right, "bcrypt does not know its own hash");
        Ok(start.elapsed())
    }
}

/// One bcrypt and one login in turn, so that both meet the same machine.
fn one_after_the_other(stand: &Stand, hash: &Hash, n_logins: usize, report: &mut Report) -> Result<()> {
    eprintln!("{n_logins} logins one after the other");
    let mut connection = stand.connection()?;
    let (mut limits, mut logins) = (Vec::new(), Vec::new());
    for number in 0..n_logins {
        limits.push(hash.verify()?);
        let request = login_request(&stand.active[number % stand.active.len()]);
        logins.push(connection.exchange(&request)?.expect(200)?.time);
    }
    let at = |times: &[Duration], q| quantile(times, q).map(Time).context("no login was measured");
    report.add_limit("`bcrypt::verify`, one thread, p50", at(&limits, 0.5)?);
    report.add("login, p50", at(&logins, 0.5)?, ("`bcrypt::verify`, p50", at(&limits, 0.5)?));
    report.add("login, p99", at(&logins, 0.99)?, ("`bcrypt::verify`, p99", at(&limits, 0.99)?));
    Ok(())
}

/// As many bcrypts at once as the server has threads for, and logins of more clients than that, in turn.
fn several_at_once(stand: &Stand, hash: &Hash, n_rounds: usize, report: &mut Report) -> Result<()> {
    eprintln!("{n_rounds} rounds of logins by {N_CLIENTS} clients at once");
    let n_threads = n_password_threads();
    let (mut limit, mut logins) = (Duration::ZERO, Duration::ZERO);
    let per_round = N_CLIENTS * LOGINS_PER_CLIENT;
    let per_thread = per_round.div_ceil(n_threads);
    for _ in 0..n_rounds {
        let start = Instant::now();
        load::at_once(n_threads, |_| (0..per_thread).try_for_each(|_| hash.verify().map(drop)))?;
        limit += start.elapsed();
        let start = Instant::now();
        load::at_once(N_CLIENTS, |client| {
            let mut connection = stand.connection()?;
            let request = || login_request(&stand.active[client % stand.active.len()]);
            (0..LOGINS_PER_CLIENT).try_for_each(|_| connection.exchange(&request())?.expect(200).map(drop))
        })?;
        logins += start.elapsed();
    }
    let rate = |count: usize, time: Duration| PerSecond((n_rounds * count) as f64 / time.as_secs_f64());
    let limit = rate(per_thread * n_threads, limit);
    report.add_limit(format!("`bcrypt::verify`, as many threads as the server's ({n_threads})"), limit);
    let what = format!("logins, {N_CLIENTS} clients at once");
    report.add(what, rate(per_round, logins), ("`bcrypt::verify`, as many threads", limit));
    Ok(())
}

/// What became of the logins of a flood.
#[derive(Default)]
struct Flooded {
    n_succeeded: u32,
    n_refused: u32,
}

/// Another client's requests before and while many log in without a pause.
fn flood(stand: &Stand, report: &mut Report) -> Result<()> {
    eprintln!("{N_FLOOD} clients that log in, and one that asks something else");
    let request = get("/api/v1/auth/me", Some(&stand.log_in()?));
    let mut connection = stand.connection()?;
    let before = load::times(&mut connection, &request, FLOOD_DURATION)?;
    let (start_together, stop) = (Barrier::new(N_FLOOD + 1), AtomicBool::new(false));
    let (during, flooded) = thread::scope(|scope| {
        let flood = scope
            .spawn(|| load::at_once(N_FLOOD, |client| log_in_until(stand, client, &start_together, &stop)));
        start_together.wait();
        let during = load::times(&mut connection, &request, FLOOD_DURATION);
        stop.store(true, Ordering::Relaxed);
        let flooded = flood.join().unwrap_or_else(|_| bail!("the flood panicked"));
        anyhow::Ok((during?, flooded?))
    })?;
    for (name, q) in [("p50", 0.5), ("p99", 0.99)] {
        let at = |times: &[Duration]| quantile(times, q).map(Time).context("nothing was measured");
        let what = format!("`GET /auth/me` while {N_FLOOD} clients log in, {name}");
        report.add(what, at(&during)?, ("the same without logins", at(&before)?));
    }
    let n_succeeded: u32 = flooded.iter().map(|client| client.n_succeeded).sum();
    let n_refused: u32 = flooded.iter().map(|client| client.n_refused).sum();
    report.notes.push(format!(
        "While {N_FLOOD} clients logged in, {n_succeeded} logins succeeded and {n_refused} were told to come back later."
    ));
    Ok(())
}

/// Logs in repeatedly; after a refusal it waits for as long as the answer says.
fn log_in_until(
    stand: &Stand,
    client: usize,
    start_together: &Barrier,
    stop: &AtomicBool,
) -> Result<Flooded> {
    let connection = stand.connection();
    // Even who could not connect: the others wait for them.
    start_together.wait();
    let mut connection = connection?;
    let mut flooded = Flooded::default();
    while !stop.load(Ordering::Relaxed) {
        let answer = connection.exchange(&login_request(&stand.active[client % stand.active.len()]))?;
        match answer.retry_after {
            Some(wait) => {
                answer.expect(503)?;
                flooded.n_refused += 1;
                thread::sleep(wait);
            }
            None => {
                answer.expect(200)?;
                flooded.n_succeeded += 1;
            }
        }
    }
    Ok(flooded)
}
