//! What systemd hears: from a socket of our own in its place.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::reloads::{File, naming, streaming};
use crate::support::{Process, time};

struct Supervisor {
    socket: UnixDatagram,
    path: PathBuf,
    heard: Vec<String>,
}

impl Supervisor {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("weir-notify-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        Self { socket, path, heard: Vec::new() }
    }

    /// Everything that was said so far, one message an entry.
    fn heard(&mut self) -> &[String] {
        let mut buffer = [0; 4096];
        while let Ok(n) = self.socket.recv(&mut buffer) {
            self.heard.push(String::from_utf8(buffer[..n].to_vec()).unwrap());
        }
        &self.heard
    }

    fn hears(&mut self, text: &str) -> bool {
        self.heard().iter().any(|message| message.lines().any(|line| line.starts_with(text)))
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn serve(file: &Path, supervisor: &Supervisor, watchdog: Option<&str>) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.arg("serve").args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--config"]).arg(file);
    command.env("NOTIFY_SOCKET", &supervisor.path).env_remove("WATCHDOG_PID").env_remove("WATCHDOG_USEC");
    if let Some(patience) = watchdog {
        command.env("WATCHDOG_USEC", patience);
    }
    Process::run(command)
}

#[test]
fn ready_reloading_alive_and_stopping_are_told_in_their_order() {
    let origins = [streaming(2, Duration::from_millis(1))];
    let file = File::new("notify");
    file.write(&naming(&origins, &[0], "drain: { min_delay: 50ms }\n"));
    let mut supervisor = Supervisor::new("all");
    let mut weir = serve(&file.path(), &supervisor, Some("400000"));
    time::until("READY after the port is bound", || supervisor.hears("READY=1"));
    assert!(supervisor.hears("STATUS=observe, unknown, 0 in flight"), "{:?}", supervisor.heard);
    time::until("it says that it lives", || supervisor.hears("WATCHDOG=1"));
    assert!(!supervisor.hears("RELOADING=1"));
    file.write(&naming(&origins, &[0], "drain: { min_delay: 50ms }\nmode: enforce\n"));
    weir.signal("HUP");
    time::until("the reload was told", || supervisor.hears("STATUS=enforce"));
    let reloading = supervisor.heard.iter().position(|message| message.starts_with("RELOADING=1")).unwrap();
    assert!(supervisor.heard[reloading].contains("MONOTONIC_USEC="), "{:?}", supervisor.heard[reloading]);
    assert!(supervisor.heard[reloading + 1..].iter().any(|message| message.contains("READY=1")));
    assert!(!supervisor.hears("STOPPING=1"));
    weir.terminate();
    assert!(weir.ended(Duration::from_secs(10)).is_some());
    assert!(supervisor.hears("STOPPING=1"));
}

#[test]
fn without_a_watchdog_nobody_is_told_that_it_lives() {
    let origins = [streaming(2, Duration::from_millis(1))];
    let file = File::new("quiet");
    file.write(&naming(&origins, &[0], ""));
    let mut supervisor = Supervisor::new("quiet");
    let _weir = serve(&file.path(), &supervisor, None);
    time::until("READY", || supervisor.hears("READY=1"));
    time::pause(Duration::from_secs(1));
    assert!(!supervisor.hears("WATCHDOG=1"), "{:?}", supervisor.heard);
}
