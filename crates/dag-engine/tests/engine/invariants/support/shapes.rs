//! Every shape that a graph of up to six nodes can have.

use std::collections::BTreeSet;

/// How many graphs without cycles there are of 1 to 6 nodes, connected or not, when the nodes have no names.
pub const N_SHAPES: [usize; 6] = [1, 2, 6, 31, 302, 5984];

/// The edges of one graph; they lead from lower numbers to higher ones.
pub type Edges = Vec<(usize, usize)>;

/// Every graph of `n` nodes whose edges lead from lower numbers to higher ones: all of them, also where two differ only
/// in the order in which independent nodes are written.
pub fn ordered(n: usize) -> Vec<Edges> {
    let pairs: Vec<(usize, usize)> = (0..n).flat_map(|to| (0..to).map(move |from| (from, to))).collect();
    (0u32..1 << pairs.len())
        .map(|mask| {
            let chosen = pairs.iter().enumerate().filter(|(bit, _)| mask & (1 << bit) != 0);
            chosen.map(|(_, pair)| *pair).collect()
        })
        .collect()
}

/// One graph of `n` nodes for each shape, in a stable order: no two of them are the same up to the names of their nodes.
pub fn shapes(n: usize) -> Vec<Edges> {
    if n == 0 {
        return vec![Vec::new()];
    }
    // Each graph of n nodes is one of n - 1 with a last node behind some of them.
    let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
    for smaller in shapes(n - 1) {
        for sources in 0u32..1 << (n - 1) {
            let mut edges = smaller.clone();
            edges.extend((0..n - 1).filter(|from| sources & (1 << from) != 0).map(|from| (from, n - 1)));
            if seen.insert(canonical(n, &edges)) {
                found.push(edges);
            }
        }
    }
    found
}

/// The same number for two graphs exactly if they are the same up to the names of their nodes.
fn canonical(n: usize, edges: &[(usize, usize)]) -> u64 {
    // Only nodes that look alike can stand for each other: as many edges in and out, as far from the ends.
    let mut looks = vec![(0usize, 0usize, 0usize, 0usize); n];
    for _ in 0..n {
        for &(from, to) in edges {
            looks[to].0 = looks[to].0.max(looks[from].0 + 1);
            looks[from].1 = looks[from].1.max(looks[to].1 + 1);
        }
    }
    for &(from, to) in edges {
        looks[from].2 += 1;
        looks[to].3 += 1;
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by_key(|&node| looks[node]);
    let mut least = u64::MAX;
    permute(&mut order, 0, &looks, &mut |order| {
        let mut place = [0usize; 8];
        for (at, &node) in order.iter().enumerate() {
            place[node] = at;
        }
        let bits = edges.iter().fold(0u64, |bits, &(from, to)| bits | 1 << (place[from] * n + place[to]));
        least = least.min(bits);
    });
    least
}

/// Every order in which nodes that look alike change places.
fn permute<L: PartialEq>(order: &mut Vec<usize>, at: usize, looks: &[L], visit: &mut impl FnMut(&[usize])) {
    if at == order.len() {
        return visit(order);
    }
    for other in at..order.len() {
        if looks[order[other]] == looks[order[at]] {
            order.swap(at, other);
            permute(order, at + 1, looks, visit);
            order.swap(at, other);
        }
    }
}
