//! Whether the time of an answer reveals what the answer itself does not.
//!
//! The groups take turns, so that whatever else the machine does meets all of them.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::connection::Connection;
use crate::stand::{Stand, fresh_email, login_request, registration_request, wrong_login_request};
use crate::statistics::{quantile, rank_test};
use crate::table::{Comparison, Report};

/// Rounds before the first that counts.
const N_WARM_UP: usize = 3;

/// Requests of one kind, and how long their answers took.
struct Group<'a> {
    name: &'static str,
    status: u16,
    /// The request of a round.
    request: Box<dyn Fn(usize) -> Vec<u8> + 'a>,
    times: Vec<Duration>,
}

impl<'a> Group<'a> {
    fn new(name: &'static str, status: u16, request: impl Fn(usize) -> Vec<u8> + 'a) -> Self {
        Self { name, status, request: Box::new(request), times: Vec::new() }
    }
}

/// Compares logins that are refused for different causes, and registrations of free and of taken e-mails.
pub(crate) fn measure(stand: &Stand, n_samples: usize, report: &mut Report) -> Result<()> {
    eprintln!("comparing the times of answers at cost {}, {n_samples} samples a group", stand.cost);
    let Stand { active, disabled, outdated, .. } = stand;
    let mut logins = vec![
        Group::new("login: unknown e-mail", 401, |_| wrong_login_request(&fresh_email())),
        Group::new("wrong password", 401, |round| wrong_login_request(nth(active, round))),
        Group::new("disabled account", 401, |round| login_request(nth(disabled, round))),
    ];
    if !outdated.is_empty() {
        let request = |round| wrong_login_request(nth(outdated, round));
        logins.push(Group::new("wrong password, hash of a lower cost", 401, request));
    }
    let mut registrations = [
        Group::new("registration: free e-mail", 201, |_| registration_request(&fresh_email())),
        Group::new("taken e-mail", 409, |round| registration_request(nth(active, round))),
    ];
    for groups in [&mut logins[..], &mut registrations[..]] {
        take_turns(&mut stand.connection()?, groups, n_samples)?;
        for second in 1..groups.len() {
            report.comparisons.push(compare(stand.cost, &groups[0], &groups[second])?);
        }
    }
    report.comparisons.push(compare(stand.cost, &logins[1], &logins[2])?);
    Ok(())
}

fn nth(emails: &[String], round: usize) -> &str {
    &emails[round % emails.len()]
}

/// Rounds of one request of each group, each round in another order, so that none always follows the same one.
fn take_turns(connection: &mut Connection, groups: &mut [Group<'_>], n_samples: usize) -> Result<()> {
    for round in 0..N_WARM_UP + n_samples {
        let mut order: Vec<usize> = (0..groups.len()).collect();
        order.sort_by_cached_key(|index| shuffled(round, *index));
        for index in order {
            let group = &mut groups[index];
            let request = (group.request)(round);
            let answer = connection.exchange(&request)?.expect(group.status).context(group.name)?;
            if round >= N_WARM_UP {
                group.times.push(answer.time);
            }
        }
    }
    Ok(())
}

/// A number that looks random, and is the same in each run.
fn shuffled(round: usize, index: usize) -> u64 {
    let mut hasher = DefaultHasher::new();
    (round, index).hash(&mut hasher);
    hasher.finish()
}

fn compare(cost: u32, first: &Group<'_>, second: &Group<'_>) -> Result<Comparison> {
    let median = |group: &Group<'_>| quantile(&group.times, 0.5).context("there are no samples");
    Ok(Comparison {
        cost,
        names: [first.name, second.name],
        medians: [median(first)?, median(second)?],
        test: rank_test(&first.times, &second.times),
    })
}
