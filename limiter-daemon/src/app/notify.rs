//! What systemd is told (sd_notify(3)): `Type=notify` and `Type=notify-reload`. Without
//! `NOTIFY_SOCKET` in the environment nothing is sent.

use std::time::Duration;

use sd_notify::NotifyState;

/// systemd ends a service that has said nothing for the time of its watchdog (`WatchdogSec=`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Watchdog {
    on: bool,
}

impl Watchdog {
    /// As the environment says. `every`: how often [`Watchdog::alive`] will be called.
    pub(super) fn by_systemd(every: Duration) -> Self {
        let after = sd_notify::watchdog_enabled();
        if let Some(after) = after.filter(|after| *after < every * 3) {
            tracing::warn!(
                watchdog = ?after,
                "a sign of life is given every {every:?}: set WatchdogSec= to three times that, or \
                 more"
            );
        }
        Self {
            on: after.is_some(),
        }
    }

    /// The control thread does its work.
    pub(super) fn alive(self) {
        if self.on {
            send(&[NotifyState::Watchdog]);
        }
    }
}

/// The start, or a reload, is over.
pub(super) fn ready() {
    send(&[NotifyState::Ready]);
}

/// The policy files are being read again.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "cannot tell systemd of the reload"),
    }
}

/// The daemon drains.
pub(super) fn stopping() {
    send(&[NotifyState::Stopping]);
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot tell systemd: NOTIFY_SOCKET is of no use");
    }
}
