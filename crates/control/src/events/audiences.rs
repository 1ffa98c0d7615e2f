//! Who sees the events of a project.

use std::collections::HashSet;

use gathering_domain::UserId;

/// The members of a project, who see its events. Admins do, too.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Audience {
    /// The accounts of the members.
    pub members: HashSet<UserId>,
}
