//! Notifications to systemd, where it asks for them (`NOTIFY_SOCKET`): ready, reloading, stopping, status, alive.
//!
//! Elsewhere every call does nothing. A message that cannot be sent changes nothing either.

use std::time::Duration;

use sd_notify::NotifyState;

/// The port is bound.
pub fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The configuration is being read; `ready` follows.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(_) => send(&[NotifyState::Reloading]),
    }
}

/// The process shuts down.
pub fn stopping(status: &str) {
    send(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// One line for `systemctl status`.
pub fn status(status: &str) {
    send(&[NotifyState::Status(status)]);
}

/// The process works.
pub fn alive() {
    send(&[NotifyState::Watchdog]);
}

/// Time between two calls of `alive`: half of what systemd waits for, as its manual advises.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|timeout| timeout / 2)
}

fn send(notifications: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(notifications);
}
