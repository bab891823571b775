//! Two hundred good and bad reloads under load, backends coming and going among them.

use std::path::Path;

use crate::support::reloads::storm;
use crate::{Verdict, verdict};

pub fn run() -> Vec<Verdict> {
    let seen = storm(Path::new(env!("CARGO_BIN_EXE_weir")), "long", 200, 16, 11);
    vec![
        verdict(
            format!(
                "{} reloads accepted, {} refused, otherwise than deserved: {:?}",
                seen.accepted, seen.refused, seen.surprises
            ),
            seen.surprises.is_empty() && seen.accepted + seen.refused >= 200,
        ),
        verdict(
            format!(
                "{} streams whole, {} broken {:?}; backends saw {}",
                seen.whole,
                seen.broken.len(),
                seen.broken,
                seen.served
            ),
            seen.broken.is_empty() && seen.whole == seen.served && seen.whole > 0,
        ),
        verdict(
            format!("books looked at {} times, out of balance {:?}", seen.looks, seen.books),
            seen.books.is_empty(),
        ),
        verdict(
            format!("at the end there are families of {:?}, and the file names {:?}", seen.left.0, seen.left.1),
            seen.left.0 == seen.left.1,
        ),
    ]
}
