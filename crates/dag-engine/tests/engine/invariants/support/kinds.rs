//! Node types that do what their config says, observed by a witness.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gathering_dag_engine::{
    Approval, Attempt, ChildKind, ChildRuns, EffectClass, Fields, MapNode, NewChild, NodeExecutor,
    NodeFailure, NodeSpec, Outcome, Parent, PollOutcome, Shape, Wait, end_earlier_round, poll_only_child,
    retry_while_unavailable, start_children,
};
use gathering_domain::{Digest, FailureKind, WaitingFor};
use serde_json::json;

use super::case::Kind;
use super::people::People;
use super::witness::{Eyes, index_of};

/// A node type that does what its config says.
pub struct Work {
    pub eyes: Eyes,
    pub people: People,
    pub decides: bool,
}

impl NodeSpec for Work {
    fn check(&self, config: &mut Fields<'_>) {
        for field in ["fails", "takes_ms", "waits_ms", "acts_ms"] {
            config.required(field, Shape::Whole(0, 1_000_000));
        }
        config.required("how", Shape::OneOf(&["retryable", "permanent", "hanging"]));
        config.required("result", Shape::Bool);
        config.optional("effect", Shape::OneOf(&["pure", "idempotent", "unsafe"]));
    }

    fn decides_edges(&self) -> bool {
        self.decides
    }
}

#[async_trait]
impl NodeExecutor for Work {
    async fn execute(&self, attempt: Attempt) -> Result<Outcome, NodeFailure> {
        let _active = self.eyes.enter(&attempt);
        let number = |field: &str| attempt.config[field].as_u64().unwrap();
        tokio::time::sleep(Duration::from_millis(number("takes_ms"))).await;
        let failures = self.eyes.node_runs(attempt.run)[&attempt.node].failures;
        if u64::from(failures) < number("fails") {
            return match attempt.config["how"].as_str() {
                Some("permanent") => Err(NodeFailure::permanent("planned".parse().unwrap(), "as planned")),
                Some("hanging") => std::future::pending().await,
                _ => Err(NodeFailure::retryable("planned".parse().unwrap(), "as planned")),
            };
        }
        self.act_outside(&attempt).await?;
        match number("waits_ms") {
            0 => {}
            _ if attempt.woken => {}
            wait => return Ok(Outcome::Wait(Wait::until(attempt.now + Duration::from_millis(wait)))),
        }
        match number("acts_ms") {
            0 => Ok(Outcome::Done(json!({"result": attempt.config["result"]}))),
            after => {
                self.people.act_after(
                    Duration::from_millis(after),
                    attempt.run,
                    &attempt.node,
                    &self.eyes.store,
                );
                Ok(Outcome::Wait(Wait { on: WaitingFor::Approval, until: None }))
            }
        }
    }

    async fn poll(&self, attempt: Attempt) -> Result<PollOutcome, NodeFailure> {
        let has_acted = self.people.have_acted(attempt.run, &attempt.node);
        Ok(has_acted.then(|| Outcome::Done(json!({"result": attempt.config["result"]}))).into())
    }
}

impl Work {
    /// Does the node's effect, if it has one, through the ledger.
    async fn act_outside(&self, attempt: &Attempt) -> Result<(), NodeFailure> {
        let class = match attempt.config["effect"].as_str() {
            None => return Ok(()),
            Some("pure") => EffectClass::Pure,
            Some("idempotent") => EffectClass::Idempotent,
            Some(_) => EffectClass::Unsafe,
        };
        let request = json!({"node": attempt.node.as_str()});
        let act = || async {
            self.eyes.see_act(attempt, class);
            tokio::time::sleep(Duration::from_millis(2)).await;
            Ok(json!("done"))
        };
        attempt.effects.once("act", class, &request, act).await.map(|_| ())
    }
}

/// An approval that people decide as the case says.
pub struct Ask {
    pub eyes: Eyes,
    pub people: People,
    pub approval: Approval,
}

#[async_trait]
impl NodeExecutor for Ask {
    async fn execute(&self, attempt: Attempt) -> Result<Outcome, NodeFailure> {
        let _active = self.eyes.enter(&attempt);
        let node = &self.eyes.case.nodes[index_of(&attempt.node).expect("it is a node of the case")];
        if let Kind::Ask(Some(approve)) = node.kind {
            let after = Duration::from_millis(node.acts_ms);
            self.people.decide_after(after, attempt.run, &attempt.node, approve, &self.eyes.store);
        }
        self.approval.execute(attempt).await
    }

    async fn poll(&self, attempt: Attempt) -> Result<PollOutcome, NodeFailure> {
        self.approval.poll(attempt).await
    }
}

/// A map, observed.
pub struct Each {
    pub eyes: Eyes,
    pub map: MapNode,
}

#[async_trait]
impl NodeExecutor for Each {
    async fn execute(&self, attempt: Attempt) -> Result<Outcome, NodeFailure> {
        let _active = self.eyes.enter(&attempt);
        self.map.execute(attempt).await
    }

    async fn poll(&self, attempt: Attempt) -> Result<PollOutcome, NodeFailure> {
        self.map.poll(attempt).await
    }
}

/// Starts one child run and waits for it. The first so many rounds fail.
pub struct Call {
    pub eyes: Eyes,
    pub children: Arc<dyn ChildRuns>,
}

impl NodeSpec for Call {
    fn check(&self, config: &mut Fields<'_>) {
        config.required("fails", Shape::Whole(0, 1000));
        config.required("graph", Shape::Object);
    }

    fn sub_graph(&self) -> Option<&'static str> {
        Some("graph")
    }
}

#[async_trait]
impl NodeExecutor for Call {
    async fn execute(&self, attempt: Attempt) -> Result<Outcome, NodeFailure> {
        let _active = self.eyes.enter(&attempt);
        let parent = Parent::of(&attempt);
        if attempt.woken {
            retry_while_unavailable(|| self.children.cancel(&parent)).await?;
            return Err(NodeFailure::retryable(FailureKind::TimedOut, "the run took too long"));
        }
        end_earlier_round(&*self.children, &attempt).await?;
        self.start(&parent, &attempt).await?;
        let output = poll_only_child(&*self.children, &parent).await?;
        Ok(output.map_or(Outcome::Wait(Wait { on: WaitingFor::Child, until: None }), Outcome::Done))
    }

    async fn poll(&self, attempt: Attempt) -> Result<PollOutcome, NodeFailure> {
        let output = poll_only_child(&*self.children, &Parent::of(&attempt)).await?;
        Ok(output.map(Outcome::Done).into())
    }
}

impl Call {
    async fn start(&self, parent: &Parent, attempt: &Attempt) -> Result<(), NodeFailure> {
        let definition = &attempt.config["graph"];
        let graph = Digest::of_json(definition);
        retry_while_unavailable(|| self.children.ensure_graph(graph, definition)).await?;
        let fails = attempt.config["fails"].as_u64().expect("it is a number");
        let input = json!({"yes": true, "fails": u32::from(u64::from(attempt.failures) < fails)});
        let child = NewChild { item: 0, graph, input, pipeline: None, deadline_at: None, permit: None };
        start_children(&*self.children, parent, ChildKind::Awaited, vec![child], &[]).await
    }
}
