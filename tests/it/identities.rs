//! The books balance at every scrape, whatever clients, backends and weir's own panics do meanwhile.

use weir::measure::Outcome;

use crate::support::chaos;
use crate::support::storm::{ALL, Deed};
use crate::support::weir::{finished, total};

#[test]
fn the_identities_are_exact_at_every_scrape_of_chaos() {
    let report = chaos::run(3_000, 1_000, 10, 6, 1);
    println!("{} scrapes, panics {:?}, {:?}", report.scrapes, report.panics, report.faults);
    assert!(report.scrapes >= 1_000, "{} scrapes", report.scrapes);
    // A fault that did not fire proves nothing.
    for deed in ALL {
        assert!(report.clients.times(*deed) >= 20, "{deed:?}: {:?}", report.clients.done);
    }
    assert!(report.faults.iter().all(|(_, times)| *times >= 10), "{:?}", report.faults);
    assert!(report.panics.iter().all(|times| *times >= 5), "{:?}", report.panics);
    assert!(report.dead >= 3, "the dead backend was dialled {} times", report.dead);
    // What the books say agrees with what was done.
    let books = &report.books;
    let [_, _, dispatched, ended] = report.panics;
    assert_eq!(books.dropped, dispatched + ended, "a panic with an open entry drops it, and nothing else does");
    assert_eq!(report.clients.forged, 0, "a stream without its end looked complete");
    for outcome in [
        Outcome::Completed,
        Outcome::ClientCancelled,
        Outcome::UpstreamError,
        Outcome::UpstreamTimeout,
        Outcome::UpstreamReset,
        Outcome::UpstreamTruncated,
    ] {
        assert!(finished(books, outcome) > 0, "{outcome:?}");
    }
    // A panic after the last byte leaves a client that has everything and books that know of a panic.
    assert!(finished(books, Outcome::Completed) + ended >= report.clients.complete, "{:?}", report.clients);
    assert!(books.malformed[0] >= report.clients.times(Deed::Malformed) / 2, "400s are counted outside the identities");
    assert!(total(books, |books| books.offered()) >= 1_500);
}
