//! Backends that fail, and clients that do not notice: breakers, retries, ejection, timeouts, load
//! balancing, by policy files and over real sockets.

mod balance;
mod breaker;
mod chaos;
mod combined;
mod ejection;
mod failing;
mod order;
mod retry;
mod support;
mod timeouts;
