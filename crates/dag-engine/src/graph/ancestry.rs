//! Which nodes come before which, for any number of pairs at once.
//!
//! Most pairs are answered by two comparisons: by the topological order (a later node is not upstream), and by the
//! intervals of a spanning forest (an enclosing node is). What is left goes through the graph once per 64 different
//! nodes, a bit for each, so that a hostile graph costs a bounded multiple of its size too.

use std::collections::BTreeMap;

use super::Graph;

/// The order and the spanning forest of a graph without cycles.
pub(super) struct Ancestry<'a> {
    graph: &'a Graph,
    /// Per node, its place in the topological order.
    rank: Vec<usize>,
    /// Per node, the interval of those below it in the forest.
    span: Vec<(usize, usize)>,
}

impl<'a> Ancestry<'a> {
    /// Takes a graph whose order is known; linear in its size.
    pub(super) fn of(graph: &'a Graph) -> Self {
        let n = graph.nodes.len();
        let mut rank = vec![0; n];
        for (place, &node) in graph.order.iter().enumerate() {
            rank[node] = place;
        }
        // The parent is the source of the first edge; sizes are summed up from the leaves, intervals given from the top.
        let parent = |node: usize| graph.nodes[node].incoming.first().map(|&edge| graph.edges[edge].from);
        let mut size = vec![1usize; n];
        for &node in graph.order.iter().rev() {
            if let Some(parent) = parent(node) {
                size[parent] += size[node];
            }
        }
        let mut span = vec![(0, 0); n];
        // Per node, where the interval of its next child begins; for the roots together, `next_root`.
        let mut next_child = vec![0usize; n];
        let mut next_root = 0;
        for &node in &graph.order {
            let begin = match parent(node) {
                Some(parent) => {
                    let begin = next_child[parent];
                    next_child[parent] += size[node];
                    begin
                }
                None => {
                    let begin = next_root;
                    next_root += size[node];
                    begin
                }
            };
            span[node] = (begin, begin + size[node]);
            next_child[node] = begin + 1;
        }
        Self { graph, rank, span }
    }

    /// For each pair, whether a path of edges leads from the first node to the second. A node is not upstream of itself.
    pub(super) fn are_upstream(&self, pairs: &[(usize, usize)]) -> Vec<bool> {
        let mut answers = vec![false; pairs.len()];
        // What two comparisons cannot tell, by the node that is named.
        let mut open: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (index, &(from, to)) in pairs.iter().enumerate() {
            if self.rank[from] >= self.rank[to] {
                continue;
            }
            if self.encloses(from, to) {
                answers[index] = true;
            } else {
                open.entry(from).or_default().push(index);
            }
        }
        let open: Vec<(usize, Vec<usize>)> = open.into_iter().collect();
        for batch in open.chunks(64) {
            let reached = self.reached_from(batch.iter().map(|(from, _)| *from));
            for (bit, (_, indices)) in batch.iter().enumerate() {
                for &index in indices {
                    answers[index] = reached[pairs[index].1] & (1 << bit) != 0;
                }
            }
        }
        answers
    }

    fn encloses(&self, from: usize, to: usize) -> bool {
        let ((begin, end), (inner, _)) = (self.span[from], self.span[to]);
        begin < inner && inner < end
    }

    /// Per node, a bit for each of up to 64 sources from which a path leads to it.
    fn reached_from(&self, sources: impl Iterator<Item = usize>) -> Vec<u64> {
        let mut own = vec![0u64; self.rank.len()];
        for (bit, source) in sources.enumerate() {
            own[source] = 1 << bit;
        }
        let mut reached = vec![0u64; self.rank.len()];
        for &node in &self.graph.order {
            for &edge in &self.graph.nodes[node].incoming {
                let from = self.graph.edges[edge].from;
                reached[node] |= reached[from] | own[from];
            }
        }
        reached
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::node_type::NodeSpecs;

    proptest! {
        #[test]
        fn it_is_upstream_exactly_when_a_path_leads_there(
            n in 1usize..90,
            edges in proptest::collection::btree_set((0usize..90, 0usize..90), 0..160),
        ) {
            let edges: Vec<(usize, usize)> =
                edges.into_iter().filter(|(from, to)| from < to && *to < n).collect();
            let graph = Graph::validate(
                &json!({
                    "nodes": (0..n).map(|node| json!({"id": format!("n{node}"), "type": "parallel"})).collect::<Vec<_>>(),
                    "edges": edges.iter()
                        .map(|(from, to)| json!({"from": format!("n{from}"), "to": format!("n{to}")}))
                        .collect::<Vec<_>>(),
                }),
                &NodeSpecs::builtin(),
            ).unwrap();
            // Per node, all that are upstream of it; edges lead from lower numbers to higher ones.
            let mut upstream: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); n];
            for to in 0..n {
                for &(from, _) in edges.iter().filter(|(_, direct)| *direct == to) {
                    let further = upstream[from].clone();
                    upstream[to].extend(further);
                    upstream[to].insert(from);
                }
            }
            let pairs: Vec<(usize, usize)> = (0..n).flat_map(|from| (0..n).map(move |to| (from, to))).collect();
            let answers = Ancestry::of(&graph).are_upstream(&pairs);
            for ((from, to), answer) in pairs.into_iter().zip(answers) {
                prop_assert_eq!(answer, upstream[to].contains(&from), "{} -> {}", from, to);
            }
        }
    }
}
