//! What must never be found in the journal, nor by a peer, whatever was killed.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};

use crate::Peer;

/// What cannot be, and a query for how often it is.
const CONTRADICTIONS: [(&str, &str); 8] = [
    (
        "a node succeeded twice",
        "SELECT count(*) FROM (SELECT FROM run_journal WHERE kind = 'node_succeeded' \
         GROUP BY run_id, node_id HAVING count(*) > 1) x",
    ),
    (
        "a node began after it had succeeded",
        "SELECT count(*) FROM run_journal a JOIN run_journal b USING (run_id, node_id) \
         WHERE a.kind = 'node_succeeded' AND b.kind = 'node_started' AND b.seq > a.seq",
    ),
    (
        "a node began again although nothing had interrupted it",
        "SELECT count(*) FROM (SELECT run_id, seq, lag(seq) OVER (PARTITION BY run_id, node_id ORDER BY seq) AS before \
         FROM run_journal WHERE kind = 'node_started') again WHERE before IS NOT NULL AND NOT EXISTS (\
         SELECT FROM run_journal j WHERE j.run_id = again.run_id AND j.seq > again.before AND j.seq < again.seq \
         AND j.kind IN ('taken_over', 'node_retrying'))",
    ),
    (
        "an epoch went back",
        "SELECT count(*) FROM (SELECT epoch < lag(epoch) OVER (PARTITION BY run_id ORDER BY seq) AS back \
         FROM run_journal) x WHERE back",
    ),
    (
        "two instances wrote under one epoch",
        "SELECT count(*) FROM (SELECT FROM run_journal WHERE kind <> 'taken_over' \
         GROUP BY run_id, epoch HAVING count(DISTINCT owner) > 1) x",
    ),
    (
        "a number is missing",
        "SELECT count(*) FROM (SELECT FROM run_journal GROUP BY run_id HAVING max(seq) <> count(*)) x",
    ),
    (
        "an entry came after the end of its run",
        "SELECT count(*) FROM run_journal j JOIN all_runs r ON r.id = j.run_id WHERE j.at > r.ended_at",
    ),
    (
        "an entry belongs to no run",
        "SELECT count(*) FROM run_journal j WHERE NOT EXISTS (SELECT FROM all_runs WHERE id = j.run_id)",
    ),
];

/// The journals in which a number is missing, to find the cause.
const GAPS: &str = "SELECT concat_ws(' ', run_id, seq, node_id, kind, 'attempt', attempt, 'epoch', epoch, owner, at) \
                    FROM run_journal WHERE run_id IN \
                    (SELECT run_id FROM run_journal GROUP BY run_id HAVING max(seq) <> count(*)) \
                    ORDER BY run_id, seq LIMIT 100";

/// Checks that nothing in the journal contradicts the invariants: a node succeeds once and never begins again, and an
/// epoch belongs to one owner.
///
/// # Errors
/// With everything that was found.
pub async fn check_journals(session: &tokio_postgres::Client) -> Result<()> {
    let mut found = Vec::new();
    for (what, query) in CONTRADICTIONS {
        let n_found: i64 = session.query_one(query, &[]).await?.get(0);
        if n_found > 0 {
            found.push(format!("{what}: {n_found} times"));
        }
    }
    if !found.is_empty() {
        let rows = session.query(GAPS, &[]).await?;
        found.extend(rows.iter().map(|row| row.get::<_, String>(0)));
    }
    ensure!(found.is_empty(), "{}", found.join("\n"));
    Ok(())
}

/// Checks what a peer was asked by runs that have succeeded, of which every node but `begin` calls it: each node asks at
/// least once, and at most once for each time that it began without knowing an answer, always with the same key.
///
/// # Errors
/// With the first node that asked too often, or never, or that is unknown.
pub async fn check_requests(peer: &Peer, session: &tokio_postgres::Client) -> Result<()> {
    let mut asked: HashMap<String, i64> = HashMap::new();
    for request in peer.requests() {
        *asked.entry(request.idempotency_key().context("no key")?.to_owned()).or_default() += 1;
    }
    let begun = "SELECT run_id::text || '/' || node_id, count(*) FROM run_journal s \
                 WHERE kind = 'node_started' AND node_id <> 'begin' AND NOT EXISTS (\
                 SELECT FROM run_journal d WHERE d.run_id = s.run_id AND d.node_id = s.node_id \
                 AND d.kind = 'effect_done' AND d.seq < s.seq) GROUP BY 1";
    let rows = session.query(begun, &[]).await?;
    ensure!(rows.len() == asked.len(), "{} nodes began, and {} asked", rows.len(), asked.len());
    for row in rows {
        let (key, n_begun): (String, i64) = (row.get(0), row.get(1));
        let n_asked = asked.get(&key).copied().unwrap_or(0);
        ensure!((1..=n_begun).contains(&n_asked), "{key}: asked {n_asked} times, begun {n_begun} times");
    }
    Ok(())
}
