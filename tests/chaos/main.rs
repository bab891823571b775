//! The long forms of what `tests/it` holds in the small: figures, read off runs of minutes. `make chaos` runs all of them;
//! names choose some: `cancels drain identities overload places reload slow stamps`. Bounded in count and time, 127.0.0.1 only.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a run that cannot go on should say so and stop"
)]

#[path = "../support/mod.rs"]
mod support;

mod cancels;
mod drain;
mod identities;
mod overload;
mod places;
mod reload;
mod slow;
mod stamps;

use std::process::ExitCode;

use support::time;

/// What a run says of one promise.
pub struct Verdict {
    what: String,
    holds: bool,
    /// A time, which says nothing bad of weir when others used the machine.
    is_time: bool,
}

/// A count or a size, and whether it keeps its bound.
pub fn verdict(what: impl Into<String>, holds: bool) -> Verdict {
    Verdict { what: what.into(), holds, is_time: false }
}

/// A time. Over its bound it is judged only if nobody else was at work when the run began.
pub fn timed(what: impl Into<String>, holds: bool) -> Verdict {
    Verdict { what: what.into(), holds, is_time: true }
}

/// A run, and what it found of each promise.
type Scenario = fn() -> Vec<Verdict>;

fn main() -> ExitCode {
    // Panics are injected by the hundred, and each is counted where it is injected.
    std::panic::set_hook(Box::new(|info| {
        if info.payload().downcast_ref::<&str>().is_none_or(|payload| *payload != "injected") {
            eprintln!("{info}");
        }
    }));
    let chosen: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let scenarios: [(&str, Scenario); 8] = [
        ("cancels", cancels::run),
        ("drain", drain::run),
        ("identities", identities::run),
        ("overload", overload::run),
        ("places", places::run),
        ("reload", reload::run),
        ("slow", slow::run),
        ("stamps", stamps::run),
    ];
    let mut all_hold = true;
    for (name, run) in scenarios {
        if !chosen.is_empty() && !chosen.iter().any(|word| word == name) {
            continue;
        }
        let (before, start) = (time::load_average(), time::now());
        println!("== {name}");
        let busy = before.split(' ').next().and_then(|load| load.parse().ok()).is_none_or(|load: f64| load > QUIET);
        for Verdict { what, holds, is_time } in run() {
            let unjudged = !holds && is_time && busy;
            println!(
                "{} {what}",
                if holds {
                    "holds     "
                } else if unjudged {
                    "not judged"
                } else {
                    "BROKEN    "
                }
            );
            all_hold &= holds || unjudged;
        }
        println!(
            "   {:.0} s, load average {before} before, {} after",
            start.elapsed().as_secs_f64(),
            time::load_average()
        );
    }
    if all_hold { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A load average above it means that somebody else is at work.
const QUIET: f64 = 0.5;
