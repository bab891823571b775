//! The command line: which subcommand, with what. A hand-written reader, because it is short and a bench should not depend
//! on weir's own. Runs nothing.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::peer::Peer;
use crate::scenario::Scenario;
use crate::{backend, load};

/// What was asked for.
#[derive(Debug)]
pub enum Command {
    Compare(Comparison),
    Selftest,
    Backend(backend::Settings),
    Load(load::Settings),
    Pipe {
        front: u16,
        back: u16,
        spin: Duration,
    },
    /// Called by `cargo test` over all targets: there is nothing to do.
    Nothing,
    Help,
}

/// One comparison of peers.
#[derive(Debug, Clone)]
pub struct Comparison {
    pub peers: Vec<Peer>,
    pub scenarios: Vec<Scenario>,
    pub rounds: u32,
    /// Short windows, two rounds, no `hold5000`: to see that everything runs. Nothing is judged.
    pub quick: bool,
    /// Where `e2e.json` and `e2e.md` go.
    pub out: PathBuf,
}

impl Command {
    /// Reads the arguments behind the program's name.
    ///
    /// # Errors
    /// A sentence for the user: an unknown word, a missing or unreadable value.
    pub fn read(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut words: Vec<String> = arguments.collect();
        // What cargo adds by itself.
        let by_cargo_bench = words.iter().any(|word| word == "--bench");
        words.retain(|word| word != "--bench");
        match words.first().map(String::as_str) {
            Some("backend") => Flags::new(&words[1..]).backend(),
            Some("load") => Flags::new(&words[1..]).load(),
            Some("pipe") => Flags::new(&words[1..]).pipe(),
            None if cfg!(debug_assertions) && !by_cargo_bench => Ok(Command::Nothing),
            _ => Flags::new(&words).compare(),
        }
    }
}

/// The words not yet read.
struct Flags<'a> {
    words: std::slice::Iter<'a, String>,
}

impl<'a> Flags<'a> {
    fn new(words: &'a [String]) -> Self {
        Flags { words: words.iter() }
    }

    fn compare(mut self) -> Result<Command, String> {
        let (mut rounds, mut quick, mut out) = (None, false, PathBuf::from("target/bench"));
        let (mut peers, mut scenarios) = (Peer::COMPARED.to_vec(), None);
        while let Some(flag) = self.words.next() {
            match flag.as_str() {
                "--help" | "-h" => return Ok(Command::Help),
                "--selftest" => return Ok(Command::Selftest),
                "--quick" => quick = true,
                "--rounds" => rounds = Some(self.number(flag)?),
                "--out" => out = PathBuf::from(self.value(flag)?),
                "--peers" => peers = with_ends(self.value(flag)?)?,
                "--scenarios" => scenarios = Some(list(self.value(flag)?, &Scenario::ALL, |s| s.as_str())?),
                _ => return Err(format!("unknown option {flag}")),
            }
        }
        let usual = if quick { Scenario::ALL[..3].to_vec() } else { Scenario::ALL.to_vec() };
        let rounds = rounds.unwrap_or(if quick { 2 } else { 5 });
        Ok(Command::Compare(Comparison { peers, scenarios: scenarios.unwrap_or(usual), rounds, quick, out }))
    }

    fn backend(mut self) -> Result<Command, String> {
        let mut settings = backend::Settings { pace: Duration::ZERO, drop_every: None };
        while let Some(flag) = self.words.next() {
            match flag.as_str() {
                "--pace-ms" => settings.pace = self.millis(flag)?,
                "--drop-every" => settings.drop_every = Some(self.number(flag)?),
                _ => return Err(format!("unknown option {flag}")),
            }
        }
        Ok(Command::Backend(settings))
    }

    fn load(mut self) -> Result<Command, String> {
        let mut settings = load::Settings {
            target: SocketAddr::from(([127, 0, 0, 1], 0)),
            mode: load::Mode::Unary,
            connections: 8,
            window: Duration::from_secs(3),
            chunks: 64,
            spread: Duration::ZERO,
        };
        while let Some(flag) = self.words.next() {
            match flag.as_str() {
                "--target" => settings.target = self.number(flag)?,
                "--connections" => settings.connections = self.number(flag)?,
                "--chunks" => settings.chunks = self.number(flag)?,
                "--window-ms" => settings.window = self.millis(flag)?,
                "--spread-ms" => settings.spread = self.millis(flag)?,
                "--mode" => {
                    settings.mode = match self.value(flag)? {
                        "unary" => load::Mode::Unary,
                        "stream" => load::Mode::Stream,
                        "hold" => load::Mode::Hold,
                        other => return Err(format!("unknown mode {other}")),
                    }
                }
                _ => return Err(format!("unknown option {flag}")),
            }
        }
        Ok(Command::Load(settings))
    }

    fn pipe(mut self) -> Result<Command, String> {
        let (front, back) = (self.number("pipe FRONT BACK")?, self.number("pipe FRONT BACK")?);
        let mut spin = Duration::ZERO;
        while let Some(flag) = self.words.next() {
            match flag.as_str() {
                "--spin-us" => spin = Duration::from_micros(self.number(flag)?),
                _ => return Err(format!("unknown option {flag}")),
            }
        }
        Ok(Command::Pipe { front, back, spin })
    }

    fn value(&mut self, flag: &str) -> Result<&'a str, String> {
        self.words.next().map(String::as_str).ok_or_else(|| format!("{flag} wants a value"))
    }

    fn number<T: std::str::FromStr>(&mut self, flag: &str) -> Result<T, String> {
        let text = self.value(flag)?;
        text.parse().map_err(|_| format!("{flag}: cannot read {text:?}"))
    }

    fn millis(&mut self, flag: &str) -> Result<Duration, String> {
        self.number(flag).map(Duration::from_millis)
    }
}

/// The peers named, with direct and weir, which belong to every comparison.
fn with_ends(names: &str) -> Result<Vec<Peer>, String> {
    let named = list(names, &Peer::COMPARED, |peer| peer.as_str())?;
    Ok(Peer::COMPARED
        .into_iter()
        .filter(|peer| matches!(peer, Peer::Direct | Peer::Weir) || named.contains(peer))
        .collect())
}

fn list<T: Copy>(names: &str, known: &[T], as_str: impl Fn(T) -> &'static str) -> Result<Vec<T>, String> {
    let find = |name: &str| known.iter().copied().find(|&one| as_str(one) == name);
    names.split(',').map(|name| find(name).ok_or_else(|| format!("nothing here is called {name:?}"))).collect()
}

/// What `--help` prints.
pub const HELP: &str = "\
cargo bench --bench e2e -- [OPTIONS]     compare weir with the proxies installed here

  --quick               short windows, two rounds, nothing judged
  --rounds N            rounds of every CPU scenario (5)
  --peers a,b           of nginx, haproxy; direct and weir always run
  --scenarios a,b       of unary8, stream200x20ms, hold1000, hold5000
  --out DIR             where e2e.json and e2e.md go (target/bench)
  --selftest            let the bench prove that it notices what it claims to

  NGINX, HAPROXY, WEIR  programs to use instead of those found
";
