//! Policy files: read, checked, compiled to one [`plan`].

pub mod diagnostic;
pub mod plan;

pub use diagnostic::{Diagnostic, Severity};
pub use plan::Plan;
