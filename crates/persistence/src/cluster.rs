//! The instances of a cluster: which are alive, which are stuck, and how they wake one another.

pub(crate) mod instances;
pub(crate) mod liveness;
pub(crate) mod overdue;
pub(crate) mod wake;
