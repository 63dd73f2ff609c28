//! The limiterd daemon as a library. Imports point one way:
//! `policy → engine → {l4, l7} → app → main`.

pub mod l4;
pub mod policy;
