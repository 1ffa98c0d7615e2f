//! Starts a private PostgreSQL in a directory, counts its starts in a table, and stops it.
//!
//! Run it twice: `cargo run -p gathering-postgres --example private_database -- /tmp/my-cluster`

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use gathering_postgres::{Cluster, Settings};

const COUNT_A_START: &str = "\
    CREATE TABLE IF NOT EXISTS starts (at timestamptz NOT NULL DEFAULT now()); \
    INSERT INTO starts DEFAULT VALUES; \
    SELECT count(*) || ' starts so far' FROM starts";

fn main() -> Result<(), Box<dyn Error>> {
    let data_dir =
        std::env::args_os().nth(1).map_or_else(|| std::env::temp_dir().join("my-cluster"), PathBuf::from);
    let begin = Instant::now();
    let cluster = Cluster::start(&Settings::new(data_dir))?;
    cluster.ensure_database("counter")?;
    eprintln!("{} after {} ms", cluster.url("counter"), begin.elapsed().as_millis());

    let status = cluster.command("psql").args(["-XAtq", "-d", "counter", "-c", COUNT_A_START]).status()?;
    eprintln!("psql ended with {status}");
    cluster.stop()?;
    Ok(())
}
