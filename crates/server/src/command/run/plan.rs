//! What a run keeps of the run that it continues, as the command line shows it.

use gathering_control::Run;
use gathering_dag_engine::RerunPlan;
use gathering_domain::RunId;
use serde_json::{Value, json};

use crate::command::progress::{print_line, tell};

/// How many nodes are named.
const MAX_NAMED: usize = 20;

/// Says what `run` keeps of `earlier` and why the other nodes run: before any of them does.
pub(super) fn tell_plan(run: RunId, earlier: &Run, plan: &RerunPlan, json: bool) {
    if json {
        print_line(&as_json(run, earlier.id, plan));
    }
    let state = earlier.state.as_str().replace('_', " ");
    tell(&format!("run {} {state}; run {run} continues it", earlier.id));
    as_text(plan).iter().for_each(|line| tell(line));
}

fn as_json(run: RunId, earlier: RunId, plan: &RerunPlan) -> Value {
    let not_kept = plan.not_kept.iter().map(|node| {
        json!({
            "node_id": node.node,
            "reason": node.reason.as_str(),
            "message": node.reason.to_string(),
            "reused_effects": node.n_reused_effects,
        })
    });
    let not_kept: Value = not_kept.collect();
    json!({ "kind": "plan", "run_id": run, "rerun_of": earlier, "kept": plan.kept, "not_kept": not_kept })
}

fn as_text(plan: &RerunPlan) -> Vec<String> {
    let mut lines = Vec::new();
    if !plan.kept.is_empty() {
        let named: Vec<&str> = plan.kept.iter().take(MAX_NAMED).map(|node| node.as_str()).collect();
        lines.push(format!("  kept: {}{}", named.join(", "), more(plan.kept.len())));
    }
    for node in plan.not_kept.iter().take(MAX_NAMED) {
        let reused = match node.n_reused_effects {
            0 => String::new(),
            1 => "; 1 effect is not repeated".to_owned(),
            n => format!("; {n} effects are not repeated"),
        };
        lines.push(format!("  runs: {} ({}{reused})", node.node, node.reason));
    }
    if plan.not_kept.len() > MAX_NAMED {
        lines.push(format!("  runs:{}", more(plan.not_kept.len())));
    }
    lines
}

fn more(n: usize) -> String {
    if n > MAX_NAMED { format!(" and {} more", n - MAX_NAMED) } else { String::new() }
}

#[cfg(test)]
mod tests {
    use gathering_dag_engine::{NotKept, NotKeptReason};
    use gathering_domain::NodeId;

    use super::*;

    #[test]
    fn the_plan_names_what_is_kept_and_why_the_rest_runs() {
        let node = |id: &str| id.parse::<NodeId>().unwrap();
        let runs = |id: &str, reason, n_reused_effects| NotKept { node: node(id), reason, n_reused_effects };
        let plan = RerunPlan {
            kept: vec![node("a"), node("b")],
            not_kept: vec![
                runs("c", NotKeptReason::ConfigChanged, 2),
                runs("d", NotKeptReason::Upstream(node("c")), 0),
            ],
            ..RerunPlan::default()
        };
        assert_eq!(
            as_text(&plan),
            [
                "  kept: a, b",
                "  runs: c (its config has another value; 2 effects are not repeated)",
                "  runs: d (it comes after `c`, which runs)",
            ]
        );
        let many = (0..25).map(|n| runs(&format!("n{n}"), NotKeptReason::New, 0)).collect();
        let lines = as_text(&RerunPlan { not_kept: many, ..RerunPlan::default() });
        assert_eq!((lines.len(), lines[20].as_str()), (21, "  runs: and 5 more"));
    }
}
