//! A small world: one store in memory, instances that start and die, and a witness that observes every execution.

mod case;
mod judge;
mod kinds;
mod people;
pub mod shapes;
mod witness;
mod world;

pub use case::{Case, CaseBreaker, CaseEdge, CaseNode, Failing, Kind, Meddling, When};
pub use world::{Ending, Episode, ProcessPlan, check};
