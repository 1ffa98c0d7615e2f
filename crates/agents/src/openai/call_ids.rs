//! The ids of tool calls as servers get them: none is empty, and none comes twice.
//!
//! Some servers give no ids, or the same ones in every reply, and others refuse or mix up a conversation with such ids.

use std::collections::{BTreeSet, VecDeque};

use crate::chat::ToolCall;

/// The ids of a conversation, which is read from its beginning.
#[derive(Debug, Default)]
pub(super) struct CallIds {
    used: BTreeSet<String>,
    n_replies: usize,
    /// The calls of the last reply without a result: their own ids, and those that servers get.
    open: VecDeque<(String, String)>,
}

impl CallIds {
    /// The ids of the calls of the next reply.
    pub(super) fn of_reply(&mut self, calls: &[ToolCall]) -> Vec<String> {
        self.n_replies += 1;
        let ids: Vec<String> = calls.iter().enumerate().map(|(at, call)| self.unused(at, &call.id)).collect();
        self.open = calls.iter().map(|call| call.id.clone()).zip(ids.iter().cloned()).collect();
        ids
    }

    /// The id of the call whose result is next. Results come in the order of the calls.
    pub(super) fn of_result(&mut self, call_id: &str) -> String {
        let place = self.open.iter().position(|(own, _)| own == call_id);
        place.and_then(|place| self.open.remove(place)).map_or_else(|| call_id.to_owned(), |(_, id)| id)
    }

    fn unused(&mut self, at: usize, own: &str) -> String {
        let mut id = own.to_owned();
        if id.is_empty() || self.used.contains(&id) {
            id = format!("call_{}_{at}", self.n_replies);
        }
        while !self.used.insert(id.clone()) {
            id.push('_');
        }
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(replies: &[&[&str]]) -> Vec<Vec<String>> {
        let mut ids = CallIds::default();
        let call = |id: &&str| ToolCall { id: (*id).to_owned(), name: String::new(), arguments: ().into() };
        let in_order = |reply: &&[&str]| {
            let of_calls = ids.of_reply(&reply.iter().map(call).collect::<Vec<_>>());
            let of_results: Vec<String> = reply.iter().map(|id| ids.of_result(id)).collect();
            assert_eq!(of_results, of_calls);
            of_calls
        };
        replies.iter().map(in_order).collect()
    }

    #[test]
    fn every_call_and_its_result_have_one_id_of_their_own() {
        assert_eq!(ids(&[&["a", "b"], &["c"]]), [vec!["a", "b"], vec!["c"]]);
        assert_eq!(ids(&[&["", ""], &[""]]), [vec!["call_1_0", "call_1_1"], vec!["call_2_0"]]);
        assert_eq!(ids(&[&["a", "a"], &["b", "a"]]), [vec!["a", "call_1_1"], vec!["b", "call_2_1"]]);
        // Even if a server gives such ids itself.
        assert_eq!(ids(&[&["call_2_0"], &["call_2_0"]]), [vec!["call_2_0"], vec!["call_2_0_"]]);
    }

    #[test]
    fn a_result_finds_its_call_in_any_order() {
        let call = |id: &str| ToolCall { id: id.to_owned(), name: String::new(), arguments: ().into() };
        let mut ids = CallIds::default();
        ids.of_reply(&[call("a"), call("b")]);
        ids.of_reply(&[call("a"), call("b")]);
        assert_eq!(["b", "a", "x"].map(|id| ids.of_result(id)), ["call_2_1", "call_2_0", "x"]);
    }
}
