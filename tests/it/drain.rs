//! How the process leaves: with SIGTERM from outside, and watched from outside.

use std::path::Path;
use std::time::Duration;

use crate::support::client::CHAT;
use crate::support::origin::held_open;
use crate::support::{Client, Origin, Process, chat, post, time};

/// Past the end of what is awaited, an exit may take this long on a busy machine.
const SLACK: Duration = Duration::from_secs(4);
/// What must not wait for anything.
const SOON: Duration = Duration::from_millis(900);

fn serve(origin: &Origin, drain: &str) -> Process {
    let settings = format!("{{workers: 2, drain: {drain}}}");
    Process::serve(Path::new(env!("CARGO_BIN_EXE_weir")), &[origin.address], &settings)
}

fn short(weir: &Process) -> crate::support::Answer {
    Client::connect(weir.address).send(&post(CHAT, "x-short: yes\r\n", b"{}")).answer()
}

#[test]
fn a_drain_refuses_new_requests_and_ends_with_the_last_one() {
    let (origin, finish) = held_open();
    let mut weir = serve(&origin, "{min_delay: 300ms, timeout: 60s}");
    let mut streams: Vec<_> = (0..3)
        .map(|_| {
            let mut client = Client::connect(weir.address);
            client.send(&post(CHAT, "", chat(2).as_bytes())).until("one");
            client
        })
        .collect();
    let mut kept_alive = Client::connect(weir.address);
    assert_eq!(kept_alive.send(&post(CHAT, "x-short: yes\r\n", b"{}")).answer().status, 200);
    weir.terminate();
    time::until("readiness goes at once", || weir.page("/readyz?verbose").contains("[-] not draining"));
    time::until("new requests are refused after the delay", || short(&weir).status == 503);
    let refused = short(&weir);
    assert_eq!((refused.field("connection"), refused.field("x-weir-shed-reason")), (Some("close"), Some("draining")));
    assert!(refused.field("retry-after").is_some() && refused.text().contains("\"error\""));
    let late = kept_alive.send(&post(CHAT, "x-short: yes\r\n", b"{}")).answer();
    assert_eq!((late.status, kept_alive.is_ended()), (503, true), "a connection that was open is no way in either");
    drop(kept_alive);
    assert!(weir.is_running() && weir.page("/metrics").contains("\nweir_draining 1\n"));
    // Which stream a word of these finishes is for the backend's threads to settle.
    streams.iter().for_each(|_| finish.send(()).unwrap());
    for mut stream in streams.drain(..) {
        let answer = stream.answer();
        assert!(answer.complete && answer.text().ends_with("data: [DONE]\n\n"), "{}", answer.text());
    }
    let last = time::now();
    let (ended, status) = weir.ended(SLACK).expect("it did not end");
    assert!(status.success());
    assert!(ended - last < SOON, "it left {:?} after the last stream", ended - last);
}

#[test]
fn before_the_delay_is_over_requests_are_still_served() {
    let (origin, _finish) = held_open();
    let weir = serve(&origin, "{min_delay: 60s, timeout: 90s}");
    weir.terminate();
    time::until("readiness goes at once", || weir.page("/readyz?verbose").contains("[-] not draining"));
    for _ in 0..3 {
        assert_eq!(short(&weir).status, 200);
    }
}

#[test]
fn an_idle_process_leaves_as_soon_as_its_delay_is_over() {
    let (origin, _finish) = held_open();
    let mut weir = serve(&origin, "{min_delay: 300ms, timeout: 60s}");
    let mut kept_alive = Client::connect(weir.address);
    assert_eq!(kept_alive.send(&post(CHAT, "x-short: yes\r\n", b"{}")).answer().status, 200);
    let silent = Client::connect(weir.address);
    weir.terminate();
    let start = time::now();
    let (ended, status) = weir.ended(SLACK).expect("idle connections must not hold it");
    assert!(status.success());
    assert!(ended - start >= Duration::from_millis(250), "it must not leave before load balancers can know");
    assert!(ended - start < Duration::from_millis(300) + SOON, "it left after {:?}", ended - start);
    drop((silent, kept_alive));
}

#[test]
fn a_stream_cut_by_the_timeout_does_not_look_complete() {
    let (origin, _finish) = held_open();
    let mut weir = serve(&origin, "{min_delay: 100ms, timeout: 700ms}");
    let mut client = Client::connect(weir.address);
    client.send(&post(CHAT, "", chat(2).as_bytes())).until("one");
    weir.terminate();
    let start = time::now();
    let (ended, _) = weir.ended(SLACK).expect("the timeout did not end it");
    assert!(ended - start >= Duration::from_millis(600), "cut after {:?}", ended - start);
    let rest = client.everything();
    assert!(!rest.ends_with(b"0\r\n\r\n") && !rest.windows(6).any(|w| w == b"[DONE]"));
}

#[test]
fn a_signal_right_after_the_start_is_a_drain_and_not_a_kill() {
    let (origin, _finish) = held_open();
    for _ in 0..5 {
        let mut weir = serve(&origin, "{min_delay: 10ms, timeout: 60s}");
        weir.terminate();
        let (_, status) = weir.ended(SLACK).expect("it did not end");
        assert!(status.success() && weir.log().contains("drained"), "{status}: {}", weir.log());
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let (origin, _finish) = held_open();
    let mut weir = serve(&origin, "{min_delay: 30s, timeout: 60s}");
    let mut client = Client::connect(weir.address);
    client.send(&post(CHAT, "", chat(2).as_bytes())).until("one");
    weir.terminate();
    time::until("the first was heard", || weir.log().contains("draining"));
    weir.terminate();
    assert!(weir.ended(SLACK).is_some());
}

#[test]
fn drains_under_load_break_no_stream_and_end_with_the_last_one() {
    for _ in 0..3 {
        let seen = crate::support::drains::under_load(Path::new(env!("CARGO_BIN_EXE_weir")), 12);
        assert!(seen.broken.is_empty() && !seen.failed_exit && seen.whole > 0, "{seen:?}");
        assert!(seen.lag < SLACK, "it left {:?} after the last stream", seen.lag);
    }
}

#[test]
fn an_interrupt_ends_it_at_once() {
    let (origin, _finish) = held_open();
    let mut weir = serve(&origin, "{min_delay: 30s, timeout: 60s}");
    let mut client = Client::connect(weir.address);
    client.send(&post(CHAT, "", chat(2).as_bytes())).until("one");
    weir.signal("INT");
    let (_, status) = weir.ended(SLACK).expect("it drained instead");
    assert!(status.success() && !client.everything().ends_with(b"0\r\n\r\n"));
}
