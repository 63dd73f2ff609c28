//! Whom no sentence may touch.

use ipnet::IpNet;

use crate::engine::nets::Nets;

/// Networks of which no address is ever sentenced.
#[derive(Debug, Default)]
pub struct Protected(Nets);

impl Protected {
    #[must_use]
    pub fn new(nets: &[IpNet]) -> Self {
        Self(Nets::new(nets))
    }

    /// Whether a sentence of `net` would touch one of them.
    #[must_use]
    pub fn touches(&self, net: IpNet) -> bool {
        self.0.overlaps(net)
    }
}
