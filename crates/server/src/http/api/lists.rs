//! The lists of the API. The number of a list is in its cursors, so none is ever given to another list.

use gathering_edge::page::List;

pub(crate) const PIPELINES: List = List(1);
pub(crate) const RUNS: List = List(2);
pub(crate) const JOURNAL: List = List(3);
pub(crate) const USERS: List = List(4);
pub(crate) const AUDIT_EVENTS: List = List(5);
pub(crate) const PROJECTS: List = List(6);
pub(crate) const MEMBERS: List = List(7);
pub(crate) const API_KEYS: List = List(8);
pub(crate) const VERSIONS: List = List(9);
pub(crate) const EVENTS: List = List(10);
pub(crate) const SCHEDULES: List = List(11);
pub(crate) const SCHEDULE_FIRES: List = List(12);
pub(crate) const HOOKS: List = List(13);
pub(crate) const HOOK_DELIVERIES: List = List(14);
pub(crate) const TOOLS: List = List(15);
pub(crate) const SECRETS: List = List(16);
pub(crate) const MCP_SERVERS: List = List(17);
pub(crate) const AGENTS: List = List(18);
