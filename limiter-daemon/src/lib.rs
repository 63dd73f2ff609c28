//! The limiterd daemon as a library. Imports point one way:
//! `policy → engine → traces → {l4, l7, global, rls} → simulate → {admin, app, cli} → main`; `names`
//! knows none of them.

pub mod admin;
pub mod app;
pub mod cli;
pub mod engine;
pub mod global;
pub mod l4;
pub mod l7;
pub mod log;
pub mod names;
pub mod policy;
pub mod rls;
pub mod simulate;
pub mod traces;
