//! What systemd is told (sd_notify(3)): `Type=notify` and `Type=notify-reload`. Without
//! `NOTIFY_SOCKET` in the environment nothing is sent.

use sd_notify::NotifyState;

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
