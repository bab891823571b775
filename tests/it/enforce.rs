//! Mode enforce over real sockets: who waits, who is refused and how, who is given up; counted where the requests arrive.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::Value;
use weir::measure::{AbandonPhase, Class, Direction, Outcome, ShedReason};
use weir::vocabulary::backend_id::BackendId;

use crate::support::census;
use crate::support::client::{Answer, CHAT, Client, chat, post};
use crate::support::origin::{Origin, SSE, closing, event};
use crate::support::time;
use crate::support::weir::{Weir, finished, total};

/// Backends that answer when the test says so, and count who is there.
#[derive(Default)]
struct Gate {
    open: Mutex<usize>,
    changed: Condvar,
    here: AtomicUsize,
    most: AtomicUsize,
}

impl Gate {
    /// A backend behind the gate: it streams one token at once, and ends when it is let through.
    fn backend(self: &Arc<Self>) -> Origin {
        let gate = self.clone();
        Origin::start(move |talk| {
            while talk.request().is_some() {
                gate.enter();
                talk.write(SSE);
                talk.write(&event("a"));
                gate.pass();
                gate.here.fetch_sub(1, SeqCst);
                if !talk.write(&closing()) {
                    return;
                }
            }
        })
    }

    fn enter(&self) {
        let here = self.here.fetch_add(1, SeqCst) + 1;
        self.most.fetch_max(here, SeqCst);
    }

    fn pass(&self) {
        let mut open = self.open.lock().unwrap();
        while *open == 0 {
            open = self.changed.wait(open).unwrap();
        }
        *open -= 1;
    }

    fn let_through(&self, n: usize) {
        *self.open.lock().unwrap() += n;
        self.changed.notify_all();
    }
}

fn enforcing(limit: u32, more: &str) -> String {
    format!("mode: enforce\ncontrol: {{policy: static, limit: {limit}}}\n{more}")
}

fn queued(weir: &Weir) -> u64 {
    total(&weir.snapshot(), |books| books.queued.iter().sum())
}

fn send(weir: &Weir, extra: &str) -> Client {
    let mut client = Client::connect(weir.address);
    client.send(&post(CHAT, extra, chat(1).as_bytes()));
    client
}

fn wait_for_queue(weir: &Weir, depth: u64) {
    let pool = &weir.proxy().pool;
    let in_line = || (0..pool.len()).map(|b| pool.gauges(BackendId(b as u16)).queued as u64).sum::<u64>();
    // In the books a request is queued until its connection is in hand.
    time::until("the queue has its length", || queued(weir) == depth && in_line() == depth);
}

fn reason(answer: &Answer) -> (u16, &str) {
    (answer.status, answer.field("x-weir-shed-reason").unwrap_or(""))
}

#[test]
fn a_request_waits_for_the_last_byte_of_the_one_before() {
    let gate = Arc::new(Gate::default());
    let origin = gate.backend();
    let weir = Weir::with(&[origin.address], &enforcing(1, "slo: {ttft: 20s}"), |_| {});
    let mut first = send(&weir, "");
    first.until("\"a\"");
    let (mut second, mut third) = (send(&weir, ""), send(&weir, ""));
    wait_for_queue(&weir, 2);
    time::pause(Duration::from_millis(60));
    assert_eq!(origin.seen().len(), 1, "a head and a token do not free the place");
    let status = weir.status();
    assert_eq!(status["backends"][0]["queue"]["depth"], 2);
    assert!(status["backends"][0]["queue"]["oldest_s"].as_f64().unwrap() >= 0.05);
    assert_eq!(status["backends"][0]["limits"]["concurrency"], 1);
    gate.let_through(3);
    let first = first.answer();
    assert_eq!((first.field("x-weir-queue-ms"), first.field("x-weir-backend")), (Some("0"), Some("backend-0")));
    for client in [&mut second, &mut third] {
        let answer = client.answer();
        assert!(answer.status == 200 && answer.complete);
        assert!(answer.field("x-weir-queue-ms").unwrap().parse::<u64>().unwrap() >= 50, "{}", answer.head);
    }
    assert_eq!(gate.most.load(SeqCst), 1);
    let books = weir.settled();
    assert_eq!((finished(&books, Outcome::Completed), books.dropped), (3, 0));
    assert_eq!(weir.proxy().pool.load(BackendId(0)), 0);
}

#[test]
fn while_observing_nobody_waits_and_nobody_is_refused() {
    let gate = Arc::new(Gate::default());
    let origin = gate.backend();
    let settings = "control: {policy: static, limit: 1}\nslo: {ttft: 1ms}\nadmission: {queue: {max_requests: 0}}";
    let weir = Weir::with(&[origin.address], settings, |_| {});
    let mut clients: Vec<_> = (0..8).map(|_| send(&weir, "")).collect();
    time::until("all are there", || gate.here.load(SeqCst) == 8);
    gate.let_through(8);
    assert!(clients.iter_mut().all(|client| client.answer().status == 200));
}

#[test]
fn a_client_that_hangs_up_in_the_queue_is_never_dispatched() {
    let gate = Arc::new(Gate::default());
    let origin = gate.backend();
    let weir = Weir::with(&[origin.address], &enforcing(1, "slo: {ttft: 20s}"), |_| {});
    let mut first = send(&weir, "");
    first.until("\"a\"");
    let (leaves, resets, stays) = (send(&weir, ""), send(&weir, ""), send(&weir, ""));
    wait_for_queue(&weir, 3);
    let left = time::now();
    leaves.leave();
    resets.reset();
    wait_for_queue(&weir, 1);
    let took = left.elapsed();
    assert!(took < Duration::from_secs(2), "long before its objective of 20 s: {took:?}");
    gate.let_through(2);
    let mut stays = stays;
    assert!(first.answer().complete && stays.answer().complete);
    let books = weir.settled();
    assert_eq!(origin.seen().len(), 2);
    assert_eq!(total(&books, |books| books.abandoned[AbandonPhase::Queue.index()]), 2);
}

#[test]
fn a_full_queue_refuses_in_every_dialect() {
    let gate = Arc::new(Gate::default());
    let origin = gate.backend();
    let weir =
        Weir::with(&[origin.address], &enforcing(1, "slo: {ttft: 20s}\nadmission: {queue: {max_requests: 1}}"), |_| {});
    let mut first = send(&weir, "");
    first.until("\"a\"");
    let mut waits = send(&weir, "");
    wait_for_queue(&weir, 1);
    let mut client = Client::connect(weir.address);
    let paths = [
        (CHAT, "/error/type"),
        ("/v1/messages", "/error/type"),
        ("/api/chat", "/error"),
        ("/generate_stream", "/error_type"),
    ];
    let mut after = Vec::new();
    for (path, place) in paths {
        let answer = client.send(&post(path, "", br#"{"model":"m","stream":true,"inputs":"x"}"#)).answer();
        assert_eq!(reason(&answer), (429, "queue_full"), "{path}");
        assert_eq!(answer.field("x-weir-queue-ms"), Some("0"));
        after.push(answer.field("retry-after").unwrap().parse::<u64>().unwrap());
        let json: Value = serde_json::from_slice(&answer.body).unwrap();
        assert!(json.pointer(place).is_some(), "{path}: {json}");
    }
    assert!(after.iter().all(|seconds| (1..=60).contains(seconds)), "{after:?}");
    assert!(after.is_sorted() && after[0] < after[3], "one promised slot for each refusal: {after:?}");
    gate.let_through(2);
    assert!(first.answer().complete && waits.answer().complete);
    let books = weir.settled();
    assert_eq!(total(&books, |books| books.shed.iter().map(|r| r[ShedReason::QueueFull.index()]).sum()), 4);
    let metrics = weir.page("/metrics");
    let row =
        "weir_requests_shed_total{backend=\"backend-0\",model_name=\"m\",priority=\"default\",reason=\"queue_full\"} 4";
    assert!(metrics.contains(row), "{metrics}");
}

#[test]
fn waiting_bytes_are_bounded_and_the_status_is_a_setting() {
    let gate = Arc::new(Gate::default());
    let origin = gate.backend();
    let settings = "slo: {ttft: 20s}\nadmission: {queue: {max_bytes: 64KiB}, shed_status: 529}";
    let weir = Weir::with(&[origin.address], &enforcing(1, settings), |_| {});
    let mut first = send(&weir, "");
    first.until("\"a\"");
    let long = format!(r#"{{"messages":[{{"content":"{}"}}],"stream":true}}"#, "x".repeat(40 << 10));
    let mut waits = Client::connect(weir.address);
    waits.send(&post(CHAT, "", long.as_bytes()));
    wait_for_queue(&weir, 1);
    assert!(
        weir.page("/metrics")
            .lines()
            .any(|line| line
                == format!("weir_queue_bytes{{backend=\"backend-0\",model_name=\"unknown\"}} {}", long.len()))
    );
    let answer = Client::connect(weir.address).send(&post(CHAT, "", long.as_bytes())).answer();
    assert_eq!(reason(&answer), (529, "queue_bytes"));
    gate.let_through(2);
    assert!(first.answer().complete && waits.answer().complete);
}

#[test]
fn who_waits_past_his_objective_is_refused_then_and_not_later() {
    let gate = Arc::new(Gate::default());
    let origin = gate.backend();
    let weir = Weir::with(&[origin.address], &enforcing(1, "slo: {ttft: 300ms}"), |_| {});
    let mut first = send(&weir, "");
    first.until("\"a\"");
    let began = time::now();
    let answer = send(&weir, "").answer();
    let took = began.elapsed();
    assert_eq!(reason(&answer).0, 429, "{}", answer.head);
    assert!(took < Duration::from_secs(2), "the backend stays full: {took:?}");
    assert!(answer.field("x-weir-queue-ms").unwrap().parse::<u128>().unwrap() <= took.as_millis());
    gate.let_through(1);
    assert!(first.answer().complete);
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn a_request_without_an_objective_waits_as_the_queue_lets_it() {
    let gate = Arc::new(Gate::default());
    let origin = gate.backend();
    let settings = format!("slo: {{ttft: 50ms, routes: [{{path: {CHAT}, ttft: null}}]}}");
    let weir = Weir::with(&[origin.address], &enforcing(1, &settings), |_| {});
    let mut first = send(&weir, "");
    first.until("\"a\"");
    let mut second = send(&weir, "");
    wait_for_queue(&weir, 1);
    time::pause(Duration::from_millis(200));
    gate.let_through(2);
    assert!(first.answer().complete && second.answer().status == 200);
}

#[test]
fn a_stream_without_a_first_token_is_given_up_at_its_objective() {
    let saw_end = Arc::new(AtomicBool::new(false));
    let end = saw_end.clone();
    let hangs = Origin::start(move |talk| {
        if talk.request().is_some() {
            talk.ended();
            end.store(true, SeqCst);
        }
    });
    let weir = Weir::with(&[hangs.address], &enforcing(8, "slo: {ttft: 200ms}"), |_| {});
    let began = time::now();
    let answer = send(&weir, "").answer();
    let took = began.elapsed();
    assert_eq!(reason(&answer), (504, "deadline"));
    assert!(took >= Duration::from_millis(199) && took < Duration::from_secs(2), "{took:?}");
    assert!(answer.field("retry-after").is_some());
    time::until("the backend is left", || saw_end.load(SeqCst));
    let books = weir.settled();
    assert_eq!(finished(&books, Outcome::Deadline), 1);
    assert_eq!(weir.proxy().pool.load(BackendId(0)), 0);
}

#[test]
fn a_late_stream_with_its_head_sent_ends_in_an_error() {
    let slow = Origin::start(|talk| {
        while talk.request().is_some() {
            talk.write(SSE);
            talk.ended();
        }
    });
    let weir = Weir::with(&[slow.address], &enforcing(8, "slo: {ttft: 200ms}"), |_| {});
    let answer = send(&weir, "").answer();
    assert!(answer.status == 200 && !answer.complete);
    assert!(answer.text().contains("\"code\":\"deadline\"") && !answer.text().contains("[DONE]"), "{}", answer.text());
    assert_eq!(finished(&weir.settled(), Outcome::Deadline), 1);
}

#[test]
fn only_what_has_not_begun_is_given_up_and_only_if_enforced() {
    let slow = || {
        Origin::start(|talk| {
            while talk.request().is_some() {
                time::pause(Duration::from_millis(250));
                talk.write(&[SSE, &event("a")[..], &closing()[..]].concat());
            }
        })
    };
    let begun = Origin::start(|talk| {
        while talk.request().is_some() {
            talk.write(&[SSE, &event("a")[..]].concat());
            time::pause(Duration::from_millis(250));
            talk.write(&closing());
        }
    });
    let objective = "slo: {ttft: 100ms}";
    for (origin, settings) in [
        (begun, enforcing(8, objective)),
        (slow(), objective.to_owned()),
        (slow(), enforcing(8, &format!("{objective}\nadmission: {{late_abort: false}}"))),
    ] {
        let weir = Weir::with(&[origin.address], &settings, |_| {});
        let answer = send(&weir, "").answer();
        assert!(answer.status == 200 && answer.complete, "{settings}: {}", answer.head);
    }
}

#[test]
fn classes_go_in_their_order_and_only_trusted_callers_have_one() {
    for (trust, expected) in
        [("[127.0.0.1/32]", ["interactive", "default", "bulk"]), ("[]", ["bulk", "default", "interactive"])]
    {
        let gate = Arc::new(Gate::default());
        let origin = gate.backend();
        let settings = enforcing(1, &format!("slo: {{ttft: 20s}}\nadmission: {{trust: {trust}}}"));
        let weir = Weir::with(&[origin.address], &settings, |_| {});
        let mut clients = vec![send(&weir, "")];
        clients[0].until("\"a\"");
        for (i, class) in ["bulk", "default", "interactive"].into_iter().enumerate() {
            clients.push(send(&weir, &format!("x-weir-priority: {class}\r\nx-said: {class}\r\n")));
            wait_for_queue(&weir, i as u64 + 1);
        }
        for i in 1..4 {
            gate.let_through(1);
            time::until("the next one is there", || origin.seen().len() == i + 1);
        }
        gate.let_through(1);
        assert!(clients.iter_mut().all(|client| client.answer().complete));
        let order: Vec<String> = origin.seen()[1..].iter().map(|seen| said(&seen.head)).collect();
        assert_eq!(order, expected, "trust {trust}");
        let interactive = total(&weir.settled(), |books| books.offered[Class::Interactive.index()]);
        assert_eq!(interactive, u64::from(trust != "[]"));
    }
}

fn said(head: &str) -> String {
    head.lines().find_map(|line| line.strip_prefix("x-said: ")).unwrap_or_default().to_owned()
}

#[test]
fn a_trusted_caller_may_tighten_the_objective_and_nobody_else() {
    let gate = Arc::new(Gate::default());
    let origin = gate.backend();
    let settings = enforcing(1, "slo: {ttft: 20s}\nadmission: {trust: [127.0.0.1/32]}");
    let weir = Weir::with(&[origin.address], &settings, |_| {});
    let mut first = send(&weir, "");
    first.until("\"a\"");
    let answer = send(&weir, "x-llm-d-slo-ttft-ms: 150\r\n").answer();
    assert_eq!(answer.status, 429);
    let mut waits = send(&weir, "x-weir-slo-ttft-ms: nonsense\r\n");
    wait_for_queue(&weir, 1);
    gate.let_through(2);
    assert!(first.answer().complete && waits.answer().complete);
}

#[test]
fn the_mode_is_switched_while_requests_wait() {
    let gate = Arc::new(Gate::default());
    let origin = gate.backend();
    let weir = Weir::with(&[origin.address], &enforcing(1, "slo: {ttft: 20s}"), |_| {});
    let mut clients: Vec<_> = (0..5).map(|_| send(&weir, "")).collect();
    wait_for_queue(&weir, 4);
    let switch =
        b"POST /mode?set=observe HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let answer = crate::support::client::ask(weir.admin, switch);
    assert_eq!((answer.status, answer.text().trim()), (200, r#"{"mode":"observe"}"#));
    time::until("all are there", || gate.here.load(SeqCst) == 5);
    assert!(weir.page("/metrics").contains("weir_mode{mode=\"observe\"} 1"));
    gate.let_through(5);
    assert!(clients.iter_mut().all(|client| client.answer().complete));
}

#[test]
fn an_engines_own_refusal_is_passed_on_and_not_repeated() {
    for status in [429, 503] {
        let refuses = Arc::new(AtomicBool::new(true));
        let refusing = refuses.clone();
        let full = Origin::start(move |talk| {
            while talk.request().is_some() {
                if refusing.load(SeqCst) {
                    talk.write(format!("HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n").as_bytes());
                } else {
                    talk.write(&[SSE, &event("a")[..], &closing()[..]].concat());
                }
            }
        });
        let weir = Weir::with(&[full.address], &enforcing(8, ""), |_| {});
        assert_eq!(send(&weir, "").answer().status, status);
        assert_eq!(full.seen().len(), 1);
        refuses.store(false, SeqCst);
        assert_eq!(send(&weir, "").answer().status, 200, "one at a time is still asked for");
        assert_eq!(finished(&weir.settled(), Outcome::UpstreamError), 1);
    }
}

#[test]
fn a_backend_that_leaves_gives_its_queue_to_the_other() {
    let gate = Arc::new(Gate::default());
    let (a, b) = (gate.backend(), gate.backend());
    let weir = Weir::with(&[a.address, b.address], &enforcing(1, "slo: {ttft: 20s}"), |_| {});
    let mut clients: Vec<_> = (0..6).map(|_| send(&weir, "")).collect();
    wait_for_queue(&weir, 4);
    let pool = &weir.proxy().pool;
    let queues = || [0, 1].map(|b| pool.gauges(BackendId(b)).queued);
    assert_eq!(queues(), [2, 2]);
    // Not `set_up`: the first health check may come just after it, and take it back.
    pool.drain(BackendId(0), weir.proxy().clock.now());
    assert_eq!(queues(), [0, 4]);
    gate.let_through(6);
    assert!(clients.iter_mut().all(|client| client.answer().complete));
    let books = weir.settled();
    assert_eq!((a.seen().len(), b.seen().len()), (1, 5));
    let moved = |direction: Direction| total(&books, |books| books.moved[direction.index()]);
    assert_eq!((moved(Direction::Out), moved(Direction::In)), (2, 2));
    assert_eq!(total(&books, |books| books.offered()), 6);
}

#[test]
fn refusals_are_quick() {
    let gate = Arc::new(Gate::default());
    let origin = gate.backend();
    let weir =
        Weir::with(&[origin.address], &enforcing(1, "slo: {ttft: 20s}\nadmission: {queue: {max_requests: 0}}"), |_| {});
    let mut first = send(&weir, "");
    first.until("\"a\"");
    let mut client = Client::connect(weir.address);
    let mut times: Vec<f64> = (0..400)
        .map(|_| {
            let began = time::now();
            assert_eq!(client.send(&post(CHAT, "", chat(1).as_bytes())).answer().status, 429);
            began.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("p50 {:.2} ms, p99 {:.2} ms", times[200] * 1e3, times[396] * 1e3);
    assert!(times[396] <= 0.010, "{}", times[396]);
    gate.let_through(1);
    assert!(first.answer().complete);
}

#[test]
fn the_limit_is_kept_whatever_clients_and_backends_do() {
    let seen = census::run(5, 3_000, 24, 11);
    println!("{seen:?}");
    assert!(seen.kinds.values().all(|times| *times > 300), "{seen:?}");
    assert!(seen.panics > 5 && seen.resets > 50, "{seen:?}");
    assert_eq!(seen.most, 5, "never above the limit, and sometimes at it");
    assert_eq!(seen.left_over, 0);
}
