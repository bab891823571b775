//! The proxies compared, where each is found, and how it is started between the client and a fresh backend.
//!
//! Configurations are the templates under `peers/`, filled in with ports. A peer that is not installed is no error.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::event::request;
use crate::process::Process;

/// What may stand between client and backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Peer {
    /// Nothing: the client asks the backend itself.
    Direct,
    Nginx,
    Haproxy,
    Weir,
    /// The bench's own byte pipe (`pipe.rs`), for the selftest.
    Pipe,
    /// The same, with a known amount of work added per read.
    SpinningPipe,
}

/// A peer that can run here.
#[derive(Debug, Clone)]
pub struct Found {
    pub peer: Peer,
    program: PathBuf,
    /// Its version, by its own output.
    pub version: String,
}

/// Where processes run: proxies on one core, client and backend on another.
#[derive(Debug, Clone, Copy)]
pub struct Cores {
    pub proxy: Option<usize>,
    pub ends: Option<usize>,
}

/// A backend and, before it, one peer, ready to answer.
#[derive(Debug)]
pub struct Standing {
    /// The peer's processes; `None` for direct.
    pub proxy: Option<Process>,
    /// Where to send requests.
    pub target: SocketAddr,
    _backend: Process,
    _directory: Directory,
}

impl Peer {
    /// Those of a comparison, in the order of the first round.
    pub const COMPARED: [Peer; 4] = [Peer::Direct, Peer::Nginx, Peer::Haproxy, Peer::Weir];

    /// The name in tables and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Peer::Direct => "direct",
            Peer::Nginx => "nginx",
            Peer::Haproxy => "haproxy",
            Peer::Weir => "weir",
            Peer::Pipe => "pipe",
            Peer::SpinningPipe => "spinning-pipe",
        }
    }

    /// Looks for the program: in the variable named after it (`NGINX`, `HAPROXY`, `WEIR`), then on the path.
    pub fn find(self) -> Option<Found> {
        let program = match self {
            Peer::Direct | Peer::Pipe | Peer::SpinningPipe => std::env::current_exe().ok()?,
            Peer::Weir => named("WEIR").or_else(|| option_env!("CARGO_BIN_EXE_weir").map(PathBuf::from))?,
            Peer::Nginx => named("NGINX").or_else(|| on_path("nginx"))?,
            Peer::Haproxy => named("HAPROXY").or_else(|| on_path("haproxy"))?,
        };
        program.is_file().then(|| Found { peer: self, version: self.version(&program), program })
    }

    fn version(self, program: &Path) -> String {
        let flag = match self {
            Peer::Nginx | Peer::Haproxy => "-v",
            Peer::Weir => "--version",
            Peer::Direct | Peer::Pipe | Peer::SpinningPipe => return String::new(),
        };
        let Ok(output) = Command::new(program).arg(flag).output() else { return "unknown".to_owned() };
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).lines().next().unwrap_or("unknown").trim().to_owned()
    }

    /// The command that runs it between `port` and the two backend ports.
    fn command(self, program: &Path, directory: &Path, ports: Ports) -> io::Result<Command> {
        let configured = |template: &str, file: &str| {
            let path = directory.join(file);
            fs::write(&path, ports.fill(template, directory)).map(|()| path)
        };
        let mut command = Command::new(program);
        match self {
            Peer::Nginx => {
                let config = configured(include_str!("peers/nginx.conf"), "nginx.conf")?;
                // nginx takes a variable of its own name for sockets it inherits.
                command
                    .env_remove("NGINX")
                    .arg("-p")
                    .arg(directory)
                    .arg("-e")
                    .arg(directory.join("nginx.err"))
                    .arg("-c")
                    .arg(config)
            }
            Peer::Haproxy => {
                let config = configured(include_str!("peers/haproxy.cfg"), "haproxy.cfg")?;
                command.arg("-db").arg("-q").arg("-f").arg(config)
            }
            Peer::Weir => {
                let config = configured(include_str!("peers/weir.yaml"), "weir.yaml")?;
                command.env_remove("RUST_LOG").arg("serve").arg("--config").arg(config)
            }
            Peer::Direct | Peer::Pipe => {
                command.args(["pipe", &ports.front.to_string(), &ports.backends.0.to_string()])
            }
            Peer::SpinningPipe => {
                let spin = SPIN.as_micros().to_string();
                command.args(["pipe", &ports.front.to_string(), &ports.backends.0.to_string(), "--spin-us", &spin])
            }
        };
        Ok(command)
    }
}

impl Found {
    /// Whether the program is a build whose speed means nothing; only weir's shows it.
    pub fn is_debug_build(&self) -> bool {
        let compiled_beside = cfg!(debug_assertions) && std::env::var_os("WEIR").is_none();
        let from_debug_folder = self.program.components().any(|part| part.as_os_str() == "debug");
        self.peer == Peer::Weir && (compiled_beside || from_debug_folder || self.version.contains("debug"))
    }

    /// Starts a fresh backend of `pace` and a fresh process of the peer, and waits until it answers.
    ///
    /// # Errors
    /// One of them did not start, or did not answer within ten seconds.
    pub fn stand_up(&self, cores: Cores, pace: Duration, drop_every: Option<u64>) -> io::Result<Standing> {
        let (backend, backends) = start_backend(cores.ends, pace, drop_every)?;
        let directory = Directory::make()?;
        if self.peer == Peer::Direct {
            let target = SocketAddr::from(([127, 0, 0, 1], backends.0));
            return Ok(Standing { proxy: None, target, _backend: backend, _directory: directory });
        }
        let ports = Ports { front: free_port()?, admin: free_port()?, backends };
        let command = self.peer.command(&self.program, &directory.0, ports)?;
        let mut proxy = Process::start_unheard(cores.proxy, &command)?;
        let target = SocketAddr::from(([127, 0, 0, 1], ports.front));
        await_answer(target, &mut proxy).map_err(|why| io::Error::other(format!("{}: {why}", self.peer.as_str())))?;
        Ok(Standing { proxy: Some(proxy), target, _backend: backend, _directory: directory })
    }
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    front: u16,
    admin: u16,
    backends: (u16, u16),
}

impl Ports {
    fn fill(self, template: &str, directory: &Path) -> String {
        template
            .replace("@PORT@", &self.front.to_string())
            .replace("@ADMIN@", &self.admin.to_string())
            .replace("@BACKEND_A@", &self.backends.0.to_string())
            .replace("@BACKEND_B@", &self.backends.1.to_string())
            .replace("@DIR@", &directory.display().to_string())
    }
}

/// A temporary folder, removed when it is dropped.
#[derive(Debug)]
struct Directory(PathBuf);

impl Directory {
    fn make() -> io::Result<Self> {
        let name = format!("weir-bench-{}-{}", std::process::id(), free_port()?);
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path)?;
        Ok(Directory(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // A leftover folder under the temporary one does no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn start_backend(core: Option<usize>, pace: Duration, drop_every: Option<u64>) -> io::Result<(Process, (u16, u16))> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["backend", "--pace-ms", &pace.as_millis().to_string()]);
    if let Some(every) = drop_every {
        command.args(["--drop-every", &every.to_string()]);
    }
    let mut backend = Process::start(core, &command)?;
    let line = backend.next_line()?;
    let ports = line.split_once(' ').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    ports.map(|ports| (backend, ports)).ok_or_else(|| io::Error::other(format!("the backend said {line:?}")))
}

/// Asks until the answer is a 200.
fn await_answer(target: SocketAddr, proxy: &mut Process) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        if proxy.has_ended() {
            return Err(io::Error::other("ended before it answered"));
        }
        if answers(target).unwrap_or(false) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(io::Error::other("no answer within ten seconds"))
}

fn answers(target: SocketAddr) -> io::Result<bool> {
    let mut socket = TcpStream::connect_timeout(&target, Duration::from_secs(1))?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    socket.write_all(&request(false, 1, "Are you there?"))?;
    let mut status = [0; 12];
    socket.read_exact(&mut status)?;
    Ok(status.ends_with(b" 200"))
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn named(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from)
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// What the spinning pipe adds to each read of the backend.
pub const SPIN: Duration = Duration::from_micros(5);
