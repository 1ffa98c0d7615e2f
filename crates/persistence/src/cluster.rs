//! The instances of a cluster: what their connections must keep, which are alive, which are stuck, and how they wake one
//! another.

pub(crate) mod connections;
pub(crate) mod instances;
pub(crate) mod liveness;
pub(crate) mod overdue;
pub(crate) mod wake;
