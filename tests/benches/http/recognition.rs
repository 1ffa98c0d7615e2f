//! The cost of authenticating a request, and the throughput in requests a second.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use chrono::Utc;
use gathering_auth::{AccountStore, KeyRing, Tokens};
use gathering_domain::Secret;
use gathering_persistence::{ConnectOptions, PgAccountStore, Pool, PoolSettings};

use crate::bare::{BareServer, Select};
use crate::connection::get;
use crate::load;
use crate::stand::Stand;
use crate::statistics::quantile;
use crate::table::Figure::{self, PerSecond, Time};
use crate::table::Report;

const LIVE: &str = "/health/live";
const ME: &str = "/api/v1/auth/me";

const N_VERIFICATIONS: usize = 20_000;
const N_QUERIES: usize = 3000;
const N_CLIENTS: usize = 16;

/// How long one turn takes.
const TURN: Duration = Duration::from_secs(2);

/// Fills the lines about requests.
pub(crate) fn measure(stand: &Stand, n_rounds: usize, report: &mut Report) -> Result<()> {
    let token = stand.log_in()?;
    shares(stand, &token, n_rounds, report)?;
    rates(stand, &token, n_rounds, report)
}

/// The steps of recognising a caller, alone and as a share of a request.
fn shares(stand: &Stand, token: &str, n_rounds: usize, report: &mut Report) -> Result<()> {
    eprintln!("what it costs to recognise a caller");
    let mut connection = stand.connection()?;
    let (mut live, mut me) = (Vec::new(), Vec::new());
    for _ in 0..n_rounds {
        live.extend(load::times(&mut connection, &get(LIVE, None), TURN / 2)?);
        me.extend(load::times(&mut connection, &get(ME, Some(token)), TURN / 2)?);
    }
    let (live, me) = (p50(&live)?, p50(&me)?);
    let tokens = Tokens::new(KeyRing::parse(&stand.token_keys()?)?, Duration::from_secs(900));
    let (status, select) = queries(stand, &tokens, token)?;
    let whole = ("`GET /auth/me`, p50", me);
    report.add(
        "`GET /auth/me` on one connection, p50",
        me,
        ("`GET /health/live`, which does not authenticate", live),
    );
    report.add("verifying an access token", p50(&verifications(&tokens, token)?)?, whole);
    report.add("checking the token's session", status, whole);
    report.add("checking the token's session", status, ("`SELECT 1`", select));
    Ok(())
}

fn verifications(tokens: &Tokens, token: &str) -> Result<Vec<Duration>> {
    let verify = |_| {
        let start = Instant::now();
        tokens.verify(token, Utc::now())?;
        Ok(start.elapsed())
    };
    (0..N_VERIFICATIONS).map(verify).collect()
}

/// The query that comes with every request and the cheapest query there is, in turn, on one connection.
fn queries(stand: &Stand, tokens: &Tokens, token: &str) -> Result<(Figure, Figure)> {
    let token = tokens.verify(token, Utc::now())?;
    let options = ConnectOptions::parse(&Secret::from(stand.database_url()?))?;
    // On one thread, as a worker of the server is: no thread wakes another for an answer.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let pool = Pool::connect(options, PoolSettings::default()).await?;
        let store = PgAccountStore::new(pool);
        let select = Select::connect(&stand.database_url()?).await?;
        let (mut standings, mut selects) = (Vec::new(), Vec::new());
        for _ in 0..N_QUERIES {
            let start = Instant::now();
            let status = store.find_token_status(token.user, token.session, token.id).await?;
            standings.push(start.elapsed());
            ensure!(status.is_some_and(|status| !status.is_revoked), "the session does not stand");
            let start = Instant::now();
            select.ask().await?;
            selects.push(start.elapsed());
        }
        Ok((p50(&standings)?, p50(&selects)?))
    })
}

/// The server and a bare one in turn; the median of the rounds.
fn rates(stand: &Stand, token: &str, n_rounds: usize, report: &mut Report) -> Result<()> {
    eprintln!("requests a second on {N_CLIENTS} connections");
    let bare = BareServer::start(stand.database_url()?)?;
    let pairs = [
        (LIVE, get(LIVE, None), "/nothing", "a bare handler"),
        (ME, get(ME, Some(token)), "/queries", "a bare handler with two `SELECT 1`"),
    ];
    for (path, request, bare_path, limit) in pairs {
        let (mut ours, mut limits) = (Vec::new(), Vec::new());
        for _ in 0..n_rounds {
            ours.push(load::requests_per_second(stand.address(), &request, N_CLIENTS, TURN)?);
            let request = get(bare_path, None);
            limits.push(load::requests_per_second(bare.address(), &request, N_CLIENTS, TURN)?);
        }
        let path = path.trim_start_matches("/api/v1");
        let what = format!("`GET {path}` on {N_CLIENTS} connections");
        report.add(what, median_rate(&ours)?, (limit, median_rate(&limits)?));
    }
    bare.stop()
}

fn p50(times: &[Duration]) -> Result<Figure> {
    quantile(times, 0.5).map(Time).context("nothing was measured")
}

fn median_rate(rates: &[f64]) -> Result<Figure> {
    let milli: Vec<u64> = rates.iter().map(|rate| (rate * 1000.0) as u64).collect();
    quantile(&milli, 0.5).map(|milli| PerSecond(milli as f64 / 1000.0)).context("nothing was measured")
}
