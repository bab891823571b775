//! A million requests against a limit, counted at the backend.

use crate::support::census;
use crate::{Verdict, verdict};

const REQUESTS: u64 = 1_000_000;
const LIMIT: u32 = 5;

pub fn run() -> Vec<Verdict> {
    let seen = census::run(LIMIT, REQUESTS, 64, 5);
    println!("   {seen:?}");
    let fired = seen.kinds.values().min().copied().unwrap_or(0).min(seen.resets);
    let done: u64 = seen.kinds.values().sum();
    vec![
        verdict(
            format!("{done} requests, the rarest deed {fired} times, {} panics", seen.panics),
            done >= REQUESTS && fired > 1000,
        ),
        verdict(format!("most at the backend {} (limit: {LIMIT})", seen.most), seen.most == LIMIT as usize),
        verdict(format!("places and requests left over: {}", seen.left_over), seen.left_over == 0),
    ]
}
