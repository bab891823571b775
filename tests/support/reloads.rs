//! A weir that is reloaded again and again under load, well and badly, while backends come and go.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use super::client::{CHAT, Client, chat, post};
use super::dice::Dice;
use super::exposition::Text;
use super::origin::{Origin, SSE, closing, event};
use super::{Process, time};

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    pub accepted: u64,
    pub refused: u64,
    /// Reloads that answered otherwise than their file deserved.
    pub surprises: Vec<String>,
    /// Streams that came whole.
    pub whole: u64,
    /// Streams that did not, each with what came.
    pub broken: Vec<String>,
    /// Requests that the backends saw.
    pub served: u64,
    /// Times that the books were looked at, and what was wrong with them.
    pub looks: u64,
    pub books: Vec<String>,
    /// Names of backends that have families at the end, beside what the last file names.
    pub left: (Vec<String>, Vec<String>),
}

/// A file in a folder of its own, gone with it.
pub struct File(PathBuf);

impl File {
    pub fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("weir-reload-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    pub fn path(&self) -> PathBuf {
        self.0.join("weir.yaml")
    }

    /// In one step, as careful people do.
    pub fn write(&self, text: &str) {
        let next = self.0.join("next");
        std::fs::write(&next, text).unwrap();
        std::fs::rename(next, self.path()).unwrap();
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Streams of some events, a few milliseconds apart.
pub fn streaming(events: usize, apart: Duration) -> Origin {
    Origin::start(move |talk| {
        while talk.request().is_some() {
            if !talk.write(&[SSE, &event("a")].concat()) {
                return;
            }
            for _ in 1..events {
                time::pause(apart);
                if !talk.write(&event("b")) {
                    return;
                }
            }
            if !talk.write(&closing()) {
                return;
            }
        }
    })
}

/// A file that names these of the origins.
pub fn naming(origins: &[Origin], chosen: &[usize], rest: &str) -> String {
    let lines =
        chosen.iter().map(|i| format!("  - {{name: b{i}, url: 'http://{}', engine: none}}\n", origins[*i].address));
    format!("workers: 2\nbackends:\n{}{rest}", lines.collect::<String>())
}

/// Reloads `times`, every one after a short pause; a third of the files are bad. `clients` stream all the while.
pub fn storm(program: &Path, name: &str, times: usize, clients: usize, seed: u64) -> Seen {
    let origins: Vec<Origin> = (0..4).map(|_| streaming(6, Duration::from_millis(8))).collect();
    let file = File::new(name);
    file.write(&naming(&origins, &[0, 1], "slo: { ttft: 60s }\n"));
    let weir = Process::of_file(program, &file.path());
    let (stop, whole) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let load: Vec<_> = (0..clients)
        .map(|_| {
            let (stop, whole, address) = (stop.clone(), whole.clone(), weir.address);
            std::thread::spawn(move || stream_on(address, &stop, &whole))
        })
        .collect();
    let mut seen = Seen::default();
    let mut dice = Dice::new(seed);
    let mut chosen = vec![0, 1];
    for turn in 0..times {
        let mode = ["observe", "enforce"][dice.below(2)];
        // Objectives that a busy machine keeps too: nobody is to be given up here.
        let (ttft, stall) = (60 + dice.below(60), 30 + dice.below(30));
        let limits = format!("mode: {mode}\nslo: {{ ttft: {ttft}s }}\nlimits: {{ stream_stall: {stall}s }}\n");
        match dice.below(3) {
            0 => bad(&weir, &file, &naming(&origins, &chosen, &limits), &mut dice, &mut seen),
            _ => {
                chosen = (0..origins.len()).filter(|_| dice.below(2) == 0).collect();
                if chosen.is_empty() {
                    chosen.push(dice.below(origins.len()));
                }
                file.write(&naming(&origins, &chosen, &limits));
                good(&weir, turn, &mut seen);
            }
        }
        look(&weir, &mut seen);
        time::pause(Duration::from_millis(10 + dice.below(40) as u64));
    }
    file.write(&naming(&origins, &chosen, "slo: { ttft: 60s }\n"));
    good(&weir, 0, &mut seen);
    stop.store(true, SeqCst);
    seen.broken = load.into_iter().flat_map(|client| client.join().unwrap()).collect();
    seen.whole = whole.load(SeqCst);
    seen.served = origins.iter().map(|origin| origin.seen().len() as u64).sum();
    let named: Vec<String> = chosen.iter().map(|i| format!("b{i}")).collect();
    time::comes_true(Duration::from_secs(10), || names(&weir) == named);
    seen.left = (names(&weir), named);
    look(&weir, &mut seen);
    seen
}

fn good(weir: &Process, turn: usize, seen: &mut Seen) {
    // Every third one by signal, which has no answer but the count of those accepted.
    if turn % 3 == 2 {
        let before = tally(weir, "accepted");
        weir.signal("HUP");
        if time::comes_true(Duration::from_secs(10), || tally(weir, "accepted") > before) {
            seen.accepted += 1;
        } else {
            seen.surprises.push("SIGHUP changed nothing".to_owned());
        }
        return;
    }
    let answer = weir.post("/-/reload");
    if answer.status == 200 {
        seen.accepted += 1;
    } else {
        seen.surprises.push(format!("a good file: {} {}", answer.status, answer.text()));
    }
}

fn bad(weir: &Process, file: &File, good: &str, dice: &mut Dice, seen: &mut Seen) {
    let text = match dice.below(4) {
        0 => format!("{good}colour: red\n"),
        1 => good.replace("http://", "https://"),
        2 => "backends: []\n".to_owned(),
        _ => format!("{good}  - not yaml: ["),
    };
    file.write(&text);
    let answer = weir.post("/-/reload");
    if answer.status == 400 && answer.text().contains("weir.yaml:") {
        seen.refused += 1;
    } else {
        seen.surprises.push(format!("a bad file: {} {}", answer.status, answer.text()));
    }
    file.write(good);
}

fn look(weir: &Process, seen: &mut Seen) {
    seen.looks += 1;
    let page = weir.page("/metrics");
    match Text::parse(&page).and_then(|page| page.identities()) {
        Ok(_) => {}
        Err(why) => seen.books.push(why),
    }
}

pub fn tally(weir: &Process, result: &str) -> u64 {
    let page = Text::parse(&weir.page("/metrics")).unwrap();
    page.sum("weir_config_reloads_total", |sample| sample.has("result", result)) as u64
}

/// The backends that have families.
pub fn names(weir: &Process) -> Vec<String> {
    let page = weir.page("/metrics");
    let named = page.lines().filter_map(|line| line.strip_prefix("weir_backend_up{backend=\"")?.split('"').next());
    named.map(str::to_owned).collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}

/// One stream after the other; what did not come whole.
fn stream_on(address: std::net::SocketAddr, stop: &AtomicBool, whole: &AtomicU64) -> Vec<String> {
    let mut broken = Vec::new();
    let mut client = Client::connect(address);
    while !stop.load(SeqCst) {
        let answer = client.send(&post(CHAT, "", chat(6).as_bytes())).answer();
        if answer.status == 200 && answer.complete && answer.text().ends_with("data: [DONE]\n\n") {
            whole.fetch_add(1, SeqCst);
        } else {
            broken.push(format!("{} complete {} {}", answer.status, answer.complete, answer.text()));
            client = Client::connect(address);
        }
    }
    broken
}
