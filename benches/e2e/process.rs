//! Processes under measurement: started on a core of their own, read through /proc, ended by their own ids. Linux only.
//!
//! On-CPU time is the kernel's nanosecond account of each thread (`/proc/PID/task/TID/schedstat`, first number), summed over
//! the process and all its descendants; memory is their proportional set size (`Pss` of smaps_rollup).

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// A started program with its descendants, ended when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// What it prints; `None` when it is not read.
    said: Option<BufReader<ChildStdout>>,
}

/// What the kernel charged to a process tree since it began.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu {
    /// Nanoseconds on a CPU.
    pub nanos: u64,
    /// Clock ticks in user mode and in the kernel: coarse, good for their share only.
    pub user_ticks: u64,
    pub system_ticks: u64,
}

impl Process {
    /// Starts `command` on `core`, or anywhere without one, to read what it prints.
    ///
    /// # Errors
    /// It, or `taskset`, could not be started.
    pub fn start(core: Option<usize>, command: &Command) -> io::Result<Self> {
        Self::start_with(core, command, Stdio::piped())
    }

    /// The same for a program whose output is not read: a full pipe would stop it.
    ///
    /// # Errors
    /// It, or `taskset`, could not be started.
    pub fn start_unheard(core: Option<usize>, command: &Command) -> io::Result<Self> {
        Self::start_with(core, command, Stdio::null())
    }

    fn start_with(core: Option<usize>, command: &Command, output: Stdio) -> io::Result<Self> {
        let mut pinned = match core {
            Some(core) => {
                let mut pinned = Command::new("taskset");
                pinned.arg("-c").arg(core.to_string()).arg(command.get_program());
                pinned
            }
            None => Command::new(command.get_program()),
        };
        pinned.args(command.get_args()).stdin(Stdio::piped()).stdout(output).stderr(Stdio::inherit());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => pinned.env(name, value),
                None => pinned.env_remove(name),
            };
        }
        let mut child = pinned.spawn()?;
        let said = child.stdout.take().map(BufReader::new);
        Ok(Process { child, said })
    }

    /// The next line the program prints.
    ///
    /// # Errors
    /// It ended without one.
    pub fn next_line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        let read = self.said.as_mut().map_or(Ok(0), |said| said.read_line(&mut line))?;
        match read {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a process ended without a word")),
            _ => Ok(line.trim_end().to_owned()),
        }
    }

    /// Closes the program's input.
    pub fn close_input(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// The account of the whole tree.
    pub fn cpu(&self) -> Cpu {
        self.tree().into_iter().flat_map(threads).fold(Cpu::default(), |sum, thread| {
            let (nanos, ticks) = (first_number(&thread.join("schedstat")), ticks(&thread.join("stat")));
            Cpu {
                nanos: sum.nanos + nanos,
                user_ticks: sum.user_ticks + ticks.0,
                system_ticks: sum.system_ticks + ticks.1,
            }
        })
    }

    /// Proportional set size of the whole tree, bytes.
    pub fn pss(&self) -> u64 {
        self.tree().into_iter().map(|pid| pss_of(Path::new("/proc").join(pid.to_string()).as_path())).sum()
    }

    /// The process and all its descendants.
    fn tree(&self) -> Vec<u32> {
        let parents = parents();
        let mut tree = vec![self.child.id()];
        let mut next = 0;
        while let Some(&pid) = tree.get(next) {
            tree.extend(parents.iter().filter(|(_, parent)| *parent == pid).map(|(child, _)| *child));
            next += 1;
        }
        tree
    }

    /// Asks the tree to end, and ends what has not done so after a second.
    fn stop(&mut self) {
        self.close_input();
        let tree = self.tree();
        signal("TERM", &tree[..1]);
        let deadline = Instant::now() + Duration::from_secs(1);
        while !self.has_ended() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        if !self.has_ended() {
            signal("KILL", &tree);
            // It was killed: the wait is short, and its status means nothing.
            let _ = self.child.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Cpu {
    /// What was used since `before`.
    pub fn since(self, before: Cpu) -> Cpu {
        Cpu {
            nanos: self.nanos.saturating_sub(before.nanos),
            user_ticks: self.user_ticks.saturating_sub(before.user_ticks),
            system_ticks: self.system_ticks.saturating_sub(before.system_ticks),
        }
    }

    /// Share of kernel time, 0 to 1; zero when nothing was used.
    pub fn system_share(self) -> f64 {
        self.system_ticks as f64 / ((self.user_ticks + self.system_ticks).max(1)) as f64
    }
}

/// The one-minute load average of the machine.
pub fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0.0)
}

/// Cores that other processes keep busy: the machine's busy time over `window`, in which the caller does nothing.
pub fn neighbours(window: Duration) -> f64 {
    let (before, began) = (busy_ticks(), Instant::now());
    std::thread::sleep(window);
    busy_ticks().saturating_sub(before) as f64 / TICKS_PER_SECOND / began.elapsed().as_secs_f64()
}

/// Ticks all cores together have spent on work: user, nice, system, irq, softirq, steal of `/proc/stat`.
fn busy_ticks() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = text.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<u64> = fields.filter_map(|field| field.parse().ok()).collect();
    [0, 1, 2, 5, 6, 7].iter().filter_map(|&field| ticks.get(field)).sum()
}

fn signal(name: &str, pids: &[u32]) {
    // A process that has just ended needs no signal.
    let _ = Command::new("kill")
        .arg(format!("-{name}"))
        .args(pids.iter().map(u32::to_string))
        .stderr(Stdio::null())
        .status();
}

/// Every process with its parent.
fn parents() -> Vec<(u32, u32)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let parent = |pid: u32| stat_fields(&Path::new("/proc").join(pid.to_string()).join("stat")).get(1)?.parse().ok();
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, parent(pid)?)))
        .collect()
}

fn threads(pid: u32) -> Vec<std::path::PathBuf> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    tasks.map(|tasks| tasks.flatten().map(|task| task.path()).collect()).unwrap_or_default()
}

fn first_number(file: &Path) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// User and kernel ticks of one thread: fields 14 and 15 of its stat file.
fn ticks(file: &Path) -> (u64, u64) {
    let fields = stat_fields(file);
    let at = |field: usize| fields.get(field).and_then(|n| n.parse().ok()).unwrap_or(0);
    (at(14 - FIRST_FIELD), at(15 - FIRST_FIELD))
}

/// The fields of a stat file from the state on: the name before it may hold spaces and brackets.
fn stat_fields(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let behind_name = text.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    behind_name.split_whitespace().map(str::to_owned).collect()
}

fn pss_of(process: &Path) -> u64 {
    let text = fs::read_to_string(process.join("smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|rest| rest.trim().split(' ').next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Number, as proc(5) counts them, of the first field `stat_fields` returns.
const FIRST_FIELD: usize = 3;

/// USER_HZ, the same on every Linux that matters here.
const TICKS_PER_SECOND: f64 = 100.0;
