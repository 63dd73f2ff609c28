//! The decisions: which route a request takes, which limits it meets, whether it conforms, which
//! endpoint it goes to. Pure: no I/O, no runtime, no clock. Time is a parameter, in nanoseconds of
//! one monotonic clock.

pub mod balance;
pub mod buckets;
pub mod decide;
pub mod explain;
pub mod request;
pub mod route;
pub mod state;

use crate::policy::plan::Plan;
use balance::Balancer;
use route::RouteTable;
use state::State;

/// A plan made ready to decide. Immutable; what changes lies in the [`State`] it was compiled with.
#[derive(Debug)]
pub struct Engine {
    /// In the order of the plan's listeners.
    pub listeners: Vec<Listener>,
    /// In the order of the plan's backends.
    pub backends: Vec<Balancer>,
}

/// One listener, ready to route.
#[derive(Debug)]
pub struct Listener {
    /// `namespace/gateway/listener`.
    pub name: String,
    pub routes: RouteTable,
}

impl Engine {
    /// Compiles `plan`, taking over from `state` the buckets and counters of everything that still
    /// exists by name.
    #[must_use]
    pub fn compile(plan: &Plan, state: &State) -> Self {
        let listeners = plan
            .listeners
            .iter()
            .map(|listener| Listener {
                name: listener.name.clone(),
                routes: RouteTable::compile(listener, state),
            })
            .collect();
        let backends = plan.backends.iter().map(Balancer::new).collect();
        Self {
            listeners,
            backends,
        }
    }
}
