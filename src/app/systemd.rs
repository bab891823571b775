//! What systemd is told, where it has asked to be told (`NOTIFY_SOCKET`): ready, reloading, stopping, status, alive.
//!
//! Elsewhere every call does nothing. That a message could not be sent changes nothing either.

use std::time::Duration;

use sd_notify::NotifyState as Notice;

/// The port is bound.
pub fn ready(status: &str) {
    tell(&[Notice::Ready, Notice::Status(status)]);
}

/// The configuration is being read; `ready` follows.
pub fn reloading() {
    match Notice::monotonic_usec_now() {
        Ok(now) => tell(&[Notice::Reloading, now]),
        Err(_) => tell(&[Notice::Reloading]),
    }
}

/// The process is on its way out.
pub fn stopping(status: &str) {
    tell(&[Notice::Stopping, Notice::Status(status)]);
}

/// One line for `systemctl status`.
pub fn status(status: &str) {
    tell(&[Notice::Status(status)]);
}

/// Still alive.
pub fn alive() {
    tell(&[Notice::Watchdog]);
}

/// How often it wants to hear that we are alive: half of what it waits for, as its manual advises.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|patience| patience / 2)
}

fn tell(notices: &[Notice<'_>]) {
    let _ = sd_notify::notify(notices);
}
