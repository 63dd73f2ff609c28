//! What is logged: what somebody asked for by hand, or else the environment, or else the configuration.
//! The target `audit` is logged whatever the level, unless a filter names it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing_subscriber::filter::ParseError;
use tracing_subscriber::{EnvFilter, Registry, reload};

use super::LogError;
use crate::policy::plan::LogLevel;

/// Names what is logged, in place of the configuration.
const VARIABLE: &str = "LIMITERD_LOG";
const AUDIT: &str = "audit";

#[derive(Debug)]
pub(super) struct Filter {
    handle: reload::Handle<EnvFilter, Registry>,
    wanted: Mutex<Wanted>,
}

#[derive(Debug)]
struct Wanted {
    by_hand: Option<String>,
    by_environment: Option<String>,
    configured: LogLevel,
}

impl Wanted {
    /// What holds when nobody has asked for anything by hand.
    fn standing(&self) -> String {
        let given = self.by_environment.clone();
        given.unwrap_or_else(|| of_level(self.configured))
    }

    fn in_force(&self) -> String {
        self.by_hand.clone().unwrap_or_else(|| self.standing())
    }
}

impl Filter {
    /// What the environment says, or else `info`; what cannot be read there says nothing.
    pub(super) fn start() -> (reload::Layer<EnvFilter, Registry>, Self) {
        let given = std::env::var(VARIABLE).ok();
        let wanted = Wanted {
            by_hand: None,
            by_environment: given.filter(|directives| parse(directives).is_ok()),
            configured: LogLevel::Info,
        };
        let filter = parse(&wanted.in_force()).unwrap_or_else(|_unread| EnvFilter::new("info"));
        let (layer, handle) = reload::Layer::new(filter);
        let wanted = Mutex::new(wanted);
        (layer, Self { handle, wanted })
    }

    /// The configuration says this now.
    pub(super) fn configure(&self, level: LogLevel) -> Result<(), LogError> {
        self.change(|wanted| wanted.configured = level)
    }

    /// Somebody wants this; `None`: what holds without him.
    pub(super) fn by_hand(&self, directives: Option<&str>) -> Result<(), LogError> {
        if let Some(directives) = directives {
            parse(directives)?;
        }
        self.change(|wanted| wanted.by_hand = directives.map(str::to_owned))
    }

    fn change(&self, change: impl FnOnce(&mut Wanted)) -> Result<(), LogError> {
        let mut wanted = self.wanted();
        change(&mut wanted);
        Ok(self.handle.reload(parse(&wanted.in_force())?)?)
    }

    pub(super) fn in_force(&self) -> String {
        self.wanted().in_force()
    }

    pub(super) fn standing(&self) -> String {
        self.wanted().standing()
    }

    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Directives for a level: what libraries say below `info` helps nobody, and is much.
pub(super) fn of_level(level: LogLevel) -> String {
    match level {
        LogLevel::Error | LogLevel::Warn | LogLevel::Info => level.name().to_owned(),
        LogLevel::Debug | LogLevel::Trace => format!("info,limiter_daemon={}", level.name()),
    }
}

fn parse(directives: &str) -> Result<EnvFilter, ParseError> {
    let audited = directives
        .split(',')
        .any(|one| one.trim().starts_with(AUDIT));
    let builder = EnvFilter::builder();
    if audited {
        builder.parse(directives)
    } else {
        builder.parse(format!("{directives},{AUDIT}=info"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_audit_log_is_there_unless_somebody_names_it() {
        for (directives, told) in [("off", "audit=info"), ("warn,audit=off", "audit=off")] {
            let filter = parse(directives).unwrap().to_string();
            assert!(filter.contains(told), "{filter}");
        }
        assert!(parse("limiter_daemon=loud").is_err());
    }

    #[test]
    fn by_hand_comes_before_the_environment_and_that_before_the_configuration() {
        let mut wanted = Wanted {
            by_hand: None,
            by_environment: None,
            configured: LogLevel::Debug,
        };
        assert_eq!(wanted.in_force(), "info,limiter_daemon=debug");
        wanted.by_environment = Some("warn".to_owned());
        assert_eq!(wanted.in_force(), "warn");
        wanted.by_hand = Some("trace".to_owned());
        assert_eq!(
            (wanted.in_force(), wanted.standing()),
            ("trace".to_owned(), "warn".to_owned())
        );
    }
}
