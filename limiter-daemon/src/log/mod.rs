//! The daemon's own log on standard error: what is logged, in which form, and how much of it.
//!
//! Many lines are caused by whoever connects. So each place in the code that logs has a bucket
//! (`sites`); what is over it is left out, counted, and told of within a second. That holds for every
//! line, those of libraries among them, but for those that no client can cause.

mod filter;
mod format;
mod sites;

use std::io::{self, IsTerminal as _};
use std::sync::Arc;

use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use crate::l7::clock::Clock;
use crate::policy::plan::{LogConfig, LogFormat, LogLevel};
use filter::Filter;
use format::Switch;
use sites::Limiter;
pub use sites::Sites;

/// The running log.
#[derive(Clone, Debug)]
pub struct Log {
    sites: Arc<Sites>,
    format: Switch,
    filter: Arc<Filter>,
    /// The command line says which format.
    format_is_given: bool,
}

/// The log cannot be had, or not changed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("there is a log already: {0}")]
    There(#[from] TryInitError),
    #[error(transparent)]
    Directives(#[from] ParseError),
    #[error("what is logged cannot be changed: {0}")]
    Unchanged(#[from] reload::Error),
}

impl Log {
    /// Begins to log to standard error: in `format`, or else in text until the configuration is known;
    /// what `LIMITERD_LOG` says, or else `info` until then.
    ///
    /// # Errors
    /// [`LogError`]
    pub fn start(given: Option<LogFormat>) -> Result<Self, LogError> {
        let (layer, filter) = Filter::start();
        let clock = Clock::start();
        let sites = Arc::new(Sites::new(LogConfig::default().lines_per_second));
        let format = Switch::new(given.unwrap_or(LogFormat::Text), io::stderr().is_terminal());
        let limiter = Limiter::new(Arc::clone(&sites), move || clock.now());
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(io::stderr)
            .event_format(format.clone());
        tracing_subscriber::registry()
            .with(layer)
            .with(limiter)
            .with(lines)
            .try_init()?;
        Ok(Self {
            sites,
            format,
            filter: Arc::new(filter),
            format_is_given: given.is_some(),
        })
    }

    /// Goes by `config` from now on; the command line and the environment come first.
    pub fn follow(&self, config: &LogConfig) {
        if !self.format_is_given {
            self.format.set(config.format);
        }
        if let Err(error) = self.filter.configure(config.level) {
            tracing::error!(%error, "the level of the log cannot be changed");
        }
        self.sites.set_limit(config.lines_per_second);
    }

    /// Logs what somebody asks for, in directives of `LIMITERD_LOG`, until the end of the process; `None`:
    /// what holds without him.
    ///
    /// # Errors
    /// When they cannot be read; nothing is changed then.
    pub fn by_hand(&self, directives: Option<&str>) -> Result<(), LogError> {
        self.filter.by_hand(directives)
    }

    /// The directives in force.
    #[must_use]
    pub fn in_force(&self) -> String {
        self.filter.in_force()
    }

    /// Those of the environment or the configuration.
    #[must_use]
    pub fn standing(&self) -> String {
        self.filter.standing()
    }

    /// Says which lines were left out since this was asked last.
    pub fn tell_left_out(&self) {
        for left_out in self.sites.take_left_out() {
            tracing::warn!(
                target: sites::TOLD,
                from = left_out.target,
                line = left_out.line,
                level = %left_out.level,
                left_out = left_out.count,
                "log lines like the last ones were left out"
            );
        }
    }

    /// What was left out, for metrics.
    #[must_use]
    pub const fn sites(&self) -> &Arc<Sites> {
        &self.sites
    }
}

/// What a level is in directives.
#[must_use]
pub fn directives(level: LogLevel) -> String {
    filter::of_level(level)
}

#[cfg(test)]
mod tests;
