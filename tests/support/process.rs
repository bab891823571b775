//! weir as a process of its own: what it writes, what it holds, and how it leaves.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::time;

/// A child that is killed, if it still runs, when it is dropped.
pub struct Process {
    child: Child,
    log: Arc<Mutex<String>>,
    pub address: SocketAddr,
    pub admin: SocketAddr,
}

impl Process {
    /// `weir serve` with these settings in front of `backends`; returns when it serves.
    pub fn serve(program: &Path, backends: &[SocketAddr], settings: &str) -> Self {
        let file = super::weir::scratch(&format!("settings-{}", fresh()));
        std::fs::write(&file, settings).unwrap();
        let mut command = Command::new(program);
        command.arg("serve").args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--config"]).arg(&file);
        for backend in backends {
            command.args(["--backend", &format!("http://{backend}")]);
        }
        Self::run(command)
    }

    /// `weir serve` with a whole file, on free ports.
    pub fn of_file(program: &Path, file: &Path) -> Self {
        let mut command = Command::new(program);
        command.arg("serve").args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--config"]).arg(file);
        Self::run(command)
    }

    /// A `weir serve` as it is given; returns when it serves.
    pub fn run(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let kept = log.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut log = kept.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let mut ports = None;
        time::until("weir says where it serves", || {
            ports = log.lock().unwrap().lines().find_map(serving);
            ports.is_some()
        });
        let (address, admin) = ports.unwrap();
        Self { child, log, address, admin }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything written to standard error so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// SIGTERM, as an orchestrator sends it.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    pub fn signal(&self, name: &str) {
        let name = format!("-{name}");
        assert!(Command::new("kill").args([&name, &self.id().to_string()]).status().unwrap().success());
    }

    /// A change on its admin port.
    pub fn post(&self, path: &str) -> super::Answer {
        let request =
            format!("POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        super::client::ask(self.admin, request.as_bytes())
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end: when, and how.
    pub fn ended(&mut self, limit: Duration) -> Option<(Instant, ExitStatus)> {
        let mut status = None;
        time::comes_true(limit, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.map(|status| (time::now(), status))
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.id())).unwrap().count()
    }

    /// Open descriptors once their number has not moved for a while: threads open theirs when they come to it.
    pub fn settled_descriptors(&self) -> usize {
        let (mut seen, mut since) = (self.descriptors(), time::now());
        while since.elapsed() < Duration::from_millis(500) {
            time::pause(Duration::from_millis(10));
            let now = self.descriptors();
            if now > seen {
                (seen, since) = (now, time::now());
            }
        }
        seen
    }

    /// Resident memory in KiB.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// A page of its admin port.
    pub fn page(&self, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n");
        super::client::ask(self.admin, request.as_bytes()).text()
    }

    /// The sum over one key of every backend's totals in `/status`.
    pub fn status(&self) -> serde_json::Value {
        serde_json::from_str(&self.page("/status")).unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The two addresses out of the line that says so, as JSON (`"listen":"…"`) or as text (`listen=…`).
fn serving(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let address = |key: &str| {
        let after = &line[line.find(key)? + key.len()..];
        let value = after.trim_start_matches(['"', ':', '=']);
        value.split(['"', ' ', ',']).next()?.parse().ok()
    };
    line.contains("weir is serving").then(|| Some((address("listen")?, address("admin")?)))?
}

fn fresh() -> usize {
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}
