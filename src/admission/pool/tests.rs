//! The pool's promises: which backend receives a request, which waiting request is dispatched, and that slots are released.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use proptest::prelude::*;

use super::parts::*;
use super::{Acquire, Permit, Pool, QueueWait, Refused};
use crate::admission::{ShedReason, Signals};

const A: BackendId = BackendId(0);
const B: BackendId = BackendId(1);

fn at(ms: u64) -> Timestamp {
    Timestamp::ZERO + Duration::from_millis(ms)
}

/// `concurrency` requests in flight, at an engine that starts 1,000 per second.
fn limits(concurrency: u32) -> Limits {
    let signals = Signals { busy_start_rate: 1000.0, recent_ttft: 0.01, ..Signals::UNKNOWN };
    Limits { window: 1e9, concurrency: Some(concurrency), signals, ..Limits::new(Mode::Enforce) }
}

fn pool(policy: BalancePolicy, concurrency: &[u32]) -> Arc<Pool> {
    let pool = Pool::new(policy, concurrency.len(), Settings::default());
    for (i, limit) in concurrency.iter().enumerate() {
        pool.publish(BackendId(i as u16), limits(*limit), at(0));
    }
    pool
}

fn observing(policy: BalancePolicy, backends: usize) -> Arc<Pool> {
    Pool::new(policy, backends, Settings::default())
}

fn request(now: Timestamp) -> AdmissionRequest {
    AdmissionRequest { slo: Some(Duration::from_secs(1)), ..AdmissionRequest::new(now, 10.0) }
}

fn arrive(pool: &Arc<Pool>, ms: u64) -> Acquire {
    pool.arrive(request(at(ms)), None, at(ms))
}

fn acquire(pool: &Arc<Pool>, ms: u64) -> Permit {
    match arrive(pool, ms) {
        Acquire::Granted(permit) => permit,
        other => panic!("{other:?}"),
    }
}

fn wait(pool: &Arc<Pool>, ms: u64) -> QueueWait {
    match arrive(pool, ms) {
        Acquire::Queued(waiting) => waiting,
        other => panic!("{other:?}"),
    }
}

/// Counts how often it was woken.
#[derive(Default)]
struct WakeCount(AtomicUsize);

impl Wake for WakeCount {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

fn poll(waiting: &mut QueueWait) -> Poll<Result<Permit, Refused>> {
    waiting.poll(&mut Context::from_waker(Waker::noop()))
}

fn dispatched(waiting: &mut QueueWait) -> Permit {
    match poll(waiting) {
        Poll::Ready(Ok(permit)) => permit,
        other => panic!("{other:?}"),
    }
}

fn ids(permits: &[Permit]) -> Vec<u16> {
    permits.iter().map(|p| p.backend().0).collect()
}

#[test]
fn round_robin_alternates_whatever_is_in_flight() {
    let pool = observing(BalancePolicy::RoundRobin, 3);
    let permits: Vec<_> = (0..6).map(|_| acquire(&pool, 0)).collect();
    assert_eq!(ids(&permits), [0, 1, 2, 0, 1, 2]);
}

#[test]
fn least_in_flight_fills_the_emptiest() {
    let pool = observing(BalancePolicy::LeastInFlight, 2);
    let mut permits: Vec<_> = (0..4).map(|_| acquire(&pool, 0)).collect();
    permits.retain(|p| p.backend() == A);
    assert_eq!(acquire(&pool, 0).backend(), B);
}

#[test]
fn in_mode_observe_fewer_pending_requests_are_most_room() {
    let pool = observing(BalancePolicy::MostRoom, 2);
    let (mut a, _b) = (acquire(&pool, 0), acquire(&pool, 0));
    let _more = acquire(&pool, 0);
    assert_eq!((pool.gauges(A).in_flight, pool.gauges(A).pending), (2, 2));
    a.on_first_token(at(1));
    let _tie = acquire(&pool, 1);
    assert_eq!(pool.gauges(B).in_flight, 2, "one pending each: the one with fewer in flight takes it");
}

#[test]
fn a_full_backend_takes_none_while_another_has_room() {
    let pool = pool(BalancePolicy::MostRoom, &[1, 3]);
    let permits: Vec<_> = (0..4).map(|_| acquire(&pool, 0)).collect();
    assert_eq!(permits.iter().filter(|p| p.backend() == A).count(), 1);
    assert!(matches!(arrive(&pool, 0), Acquire::Queued(_)));
}

#[test]
fn round_robin_skips_full_backends() {
    let pool = pool(BalancePolicy::RoundRobin, &[1, 3]);
    let permits: Vec<_> = (0..4).map(|_| acquire(&pool, 0)).collect();
    assert_eq!(ids(&permits), [0, 1, 1, 1]);
}

#[test]
fn a_down_backend_is_never_picked_an_ejected_one_only_last() {
    let pool = observing(BalancePolicy::MostRoom, 2);
    pool.set_ejected(A, true, at(0));
    assert!((0..5).all(|_| acquire(&pool, 0).backend() == B));
    pool.set_up(B, false, at(0));
    assert_eq!(acquire(&pool, 0).backend(), A);
    pool.set_up(A, false, at(0));
    assert!(matches!(arrive(&pool, 0), Acquire::Refused(_, Refused::NoBackend)));
    assert!(pool.pass(None).is_none());
}

#[test]
fn the_backend_to_avoid_is_avoided_even_when_it_is_the_last() {
    let pool = observing(BalancePolicy::MostRoom, 1);
    assert!(matches!(pool.arrive(request(at(0)), Some(A), at(0)), Acquire::Refused(_, Refused::NoBackend)));
    assert!(matches!(arrive(&pool, 0), Acquire::Granted(_)));
}

#[test]
fn only_streams_that_emit_and_are_read_are_listening() {
    let pool = observing(BalancePolicy::MostRoom, 1);
    let (mut a, mut b, c) = (acquire(&pool, 0), acquire(&pool, 0), acquire(&pool, 0));
    assert_eq!(pool.listening(A), 0, "all of them wait for their first token");
    a.on_first_token(at(1));
    b.on_suspended();
    b.on_first_token(at(1));
    assert_eq!(pool.listening(A), 1);
    (0..2).for_each(|_| a.on_suspended());
    assert_eq!(pool.listening(A), 0);
    (0..2).for_each(|_| a.on_resumed());
    assert_eq!(pool.listening(A), 1);
    b.on_resumed();
    b.on_suspended();
    drop((a, b, c));
    assert_eq!((pool.listening(A), pool.load(A)), (0, 0));
}

#[test]
fn dropping_a_permit_releases_the_slot_on_every_path() {
    let pool = pool(BalancePolicy::MostRoom, &[1]);
    let permit = acquire(&pool, 0);
    let held = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _permit = permit;
        panic!("injected");
    }));
    assert!(held.is_err());
    assert_eq!((pool.load(A), pool.gauges(A).pending), (0, 0));
    drop(pool.pass(None));
    assert_eq!(pool.load(A), 0);
}

#[test]
fn a_waiting_request_is_dispatched_and_woken_once() {
    let pool = pool(BalancePolicy::MostRoom, &[1]);
    let first = acquire(&pool, 0);
    let mut waiting = wait(&pool, 1);
    let wakes = Arc::new(WakeCount::default());
    let waker = Waker::from(wakes.clone());
    assert!(waiting.poll(&mut Context::from_waker(&waker)).is_pending());
    drop(first);
    assert_eq!(wakes.0.load(Relaxed), 1);
    let permit = dispatched(&mut waiting);
    assert_eq!((pool.load(A), pool.gauges(A).queued), (1, 0));
    drop((waiting, permit));
    assert_eq!(pool.load(A), 0);
}

#[test]
fn a_first_token_makes_room_in_the_window() {
    let pool = observing(BalancePolicy::MostRoom, 1);
    let window = Limits { window: 1.0, concurrency: None, ..limits(1) };
    pool.publish(A, window, at(0));
    let mut first = acquire(&pool, 0);
    let mut waiting = wait(&pool, 1);
    assert!(poll(&mut waiting).is_pending());
    first.on_first_token(at(2));
    assert_eq!(dispatched(&mut waiting).backend(), A);
}

#[test]
fn a_request_that_left_is_never_dispatched_nor_blocks() {
    let pool = pool(BalancePolicy::MostRoom, &[1]);
    let first = acquire(&pool, 0);
    let (gone, mut next) = (wait(&pool, 1), wait(&pool, 2));
    drop(gone);
    assert_eq!(pool.gauges(A).queued, 1);
    drop(first);
    assert_eq!(dispatched(&mut next).backend(), A);
}

#[test]
fn a_slot_given_to_a_request_that_left_goes_to_the_next() {
    let pool = pool(BalancePolicy::MostRoom, &[1]);
    let first = acquire(&pool, 0);
    let (gone, mut next) = (wait(&pool, 1), wait(&pool, 2));
    drop(first);
    assert!(poll(&mut next).is_pending(), "the slot went to the other");
    drop(gone);
    assert_eq!(dispatched(&mut next).backend(), A);
}

#[test]
fn a_request_that_waits_too_long_is_refused_without_a_tick() {
    let pool = pool(BalancePolicy::MostRoom, &[1]);
    let _first = acquire(&pool, 0);
    let waiting = wait(&pool, 1);
    let Err(Refused::Shed(shed)) = waiting.expire(at(1001)) else { panic!("there is no room") };
    assert_eq!(shed.reason, ShedReason::Deadline);
    assert_eq!(pool.gauges(A).queued, 0);
}

#[test]
fn a_dispatch_before_the_timer_is_kept() {
    let pool = pool(BalancePolicy::MostRoom, &[1]);
    let first = acquire(&pool, 0);
    let waiting = wait(&pool, 1);
    drop(first);
    assert!(waiting.expire(at(1001)).is_ok());
    assert_eq!(pool.load(A), 0);
}

#[test]
fn a_backend_with_room_steals_from_the_other_queues() {
    let pool = pool(BalancePolicy::MostRoom, &[1, 1]);
    let held = [acquire(&pool, 0), acquire(&pool, 0)];
    let mut waiting: Vec<_> = (1..5).map(|ms| wait(&pool, ms)).collect();
    let homes: Vec<_> = waiting.iter().map(|waiting| waiting.home()).collect();
    assert!(homes.contains(&A) && homes.contains(&B), "the shorter queue each time: {homes:?}");
    let [a, b] = held;
    let (stays, released) = (a, b);
    drop(released);
    let mut permits = Vec::new();
    for _ in 0..4 {
        let index = waiting.iter_mut().position(|waiting| match poll(waiting) {
            Poll::Ready(Ok(permit)) => {
                permits.push(permit);
                true
            }
            _ => false,
        });
        drop(waiting.remove(index.expect("one is dispatched for each free slot")));
        permits.clear();
    }
    drop(stays);
    assert_eq!((pool.load(A), pool.load(B)), (0, 0));
}

#[test]
fn the_queue_of_a_down_backend_moves_or_is_refused() {
    let pool = pool(BalancePolicy::MostRoom, &[1, 1]);
    let held = [acquire(&pool, 0), acquire(&pool, 0)];
    let mut waiting: Vec<_> = (1..5).map(|ms| wait(&pool, ms)).collect();
    pool.set_up(A, false, at(10));
    assert_eq!((pool.gauges(A).queued, pool.gauges(B).queued), (0, 4));
    assert!(waiting.iter_mut().all(|waiting| poll(waiting).is_pending()));
    pool.set_up(B, false, at(20));
    for waiting in &mut waiting {
        assert!(matches!(poll(waiting), Poll::Ready(Err(Refused::NoBackend))));
    }
    drop(held);
}

#[test]
fn a_backend_that_comes_back_starts_slowly() {
    let pool = pool(BalancePolicy::MostRoom, &[64]);
    pool.set_up(A, false, at(0));
    pool.set_up(A, true, at(100));
    let mut held = vec![acquire(&pool, 200)];
    let _waits = wait(&pool, 300);
    assert_eq!(pool.load(A), 1);
    pool.publish(A, limits(64), at(1200));
    assert_eq!(pool.load(A), 2, "doubled after a second");
    pool.publish(A, limits(64), at(7200));
    while let Acquire::Granted(permit) = arrive(&pool, 7200) {
        held.push(permit);
    }
    assert_eq!(pool.load(A), 64, "and without a limit in the end");
}

#[test]
fn a_new_backend_starts_as_slowly_as_one_that_comes_back() {
    let pool = Pool::with_capacity(BalancePolicy::MostRoom, 1, 2, Settings::default());
    pool.publish(A, limits(1), at(0));
    let _held = acquire(&pool, 0);
    let _waiting: Vec<QueueWait> = (0..50).map(|_| wait(&pool, 0)).collect();
    assert_eq!(pool.add_backend(Mode::Enforce), Some(B));
    pool.reinstate(B, at(10));
    assert_eq!((pool.gauges(B).in_flight, pool.gauges(A).queued), (1, 49));
    pool.publish(B, limits(64), at(2000));
    assert!((2..10).contains(&pool.gauges(B).in_flight), "{:?}", pool.gauges(B));
}

#[test]
fn a_draining_backend_is_idle_once_it_has_no_requests() {
    let pool = Pool::with_capacity(BalancePolicy::MostRoom, 1, 2, Settings::default());
    let unmeasured = pool.pass(None).unwrap();
    assert!(!pool.is_idle(A), "it is not draining");
    pool.drain(A, at(0));
    assert!(!pool.is_idle(A) && !pool.remove_backend(A), "an unmeasured request is in flight");
    drop(unmeasured);
    assert!(pool.is_idle(A) && pool.remove_backend(A));
}

#[test]
fn an_engine_that_refuses_gets_fewer_requests() {
    let pool = pool(BalancePolicy::MostRoom, &[64]);
    let mut held: Vec<_> = (0..20).map(|_| acquire(&pool, 0)).collect();
    held[0].on_refused(at(10));
    assert!(matches!(arrive(&pool, 20), Acquire::Queued(_)), "19 others were in flight, 17 are allowed now");
    held.truncate(10);
    assert!(matches!(arrive(&pool, 30), Acquire::Granted(_)));
}

#[test]
fn a_switch_to_observe_dispatches_all_that_wait() {
    let pool = pool(BalancePolicy::MostRoom, &[1]);
    let _held = acquire(&pool, 0);
    let mut waiting: Vec<_> = (1..9).map(|ms| wait(&pool, ms)).collect();
    pool.publish(A, Limits::new(Mode::Observe), at(10));
    let permits: Vec<_> = waiting.iter_mut().map(dispatched).collect();
    assert_eq!(permits.len(), 8);
}

#[derive(Clone, Debug)]
enum Op {
    Arrive,
    Leave(usize),
    End(usize),
    First(usize),
    Up(u16, bool),
    Eject(u16, bool),
    Limit(u16, u32),
    Expire(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => Just(Op::Arrive),
        1 => (0..99_usize).prop_map(Op::Leave),
        4 => (0..99_usize).prop_map(Op::End),
        2 => (0..99_usize).prop_map(Op::First),
        1 => (0..3_u16, any::<bool>()).prop_map(|(b, up)| Op::Up(b, up)),
        1 => (0..3_u16, any::<bool>()).prop_map(|(b, e)| Op::Eject(b, e)),
        1 => (0..3_u16, 1..6_u32).prop_map(|(b, n)| Op::Limit(b, n)),
        1 => (0..99_usize).prop_map(Op::Expire),
    ]
}

proptest! {
    /// For any sequence of events: no request is dispatched beyond the limit of the moment, none is forgotten while there is room,
    /// and in the end every slot is released.
    #[test]
    fn limits_hold_no_waiter_is_lost_and_all_slots_come_back(ops in prop::collection::vec(op(), 1..200)) {
        let pool = pool(BalancePolicy::MostRoom, &[2, 3, 4]);
        let mut limit = [2_u32, 3, 4];
        let mut up = [true; 3];
        let (mut held, mut waiting): (Vec<Permit>, Vec<QueueWait>) = Default::default();
        for (i, op) in ops.into_iter().enumerate() {
            let now = at(10 * i as u64);
            let before = [0, 1, 2].map(|b| pool.load(BackendId(b)));
            match op {
                Op::Arrive => match pool.arrive(AdmissionRequest { slo: None, ..request(now) }, None, now) {
                    Acquire::Granted(permit) => held.push(permit),
                    Acquire::Queued(w) => waiting.push(w),
                    Acquire::Refused(..) => {}
                },
                Op::Leave(k) if !waiting.is_empty() => drop(waiting.swap_remove(k % waiting.len())),
                Op::End(k) if !held.is_empty() => held.swap_remove(k % held.len()).end(now),
                Op::First(k) if !held.is_empty() => { let k = k % held.len(); held[k].on_first_token(now) }
                Op::Up(b, is) => { up[usize::from(b)] = is; pool.set_up(BackendId(b), is, now) }
                Op::Eject(b, is) => pool.set_ejected(BackendId(b), is, now),
                Op::Limit(b, n) => { limit[usize::from(b)] = n; pool.publish(BackendId(b), limits(n), now) }
                Op::Expire(k) if !waiting.is_empty() => held.extend(waiting.swap_remove(k % waiting.len()).expire(now).ok()),
                _ => {}
            }
            let mut still = Vec::new();
            for mut waiting in waiting {
                match poll(&mut waiting) {
                    Poll::Pending => still.push(waiting),
                    Poll::Ready(result) => held.extend(result.ok()),
                }
            }
            waiting = still;
            for b in 0..3_u16 {
                let load = pool.load(BackendId(b));
                prop_assert!(load <= limit[usize::from(b)].max(before[usize::from(b)]), "limit of {b}");
                prop_assert_eq!(held.iter().filter(|p| p.backend().0 == b).count() as u32, load);
            }
            let queued: usize = (0..3).map(|b| pool.gauges(BackendId(b)).queued).sum();
            prop_assert_eq!(queued, waiting.len());
            if queued > 0 {
                prop_assert!((0..3_usize).any(|b| up[b] && pool.load(BackendId(b as u16)) > 0), "idle with a queue");
            }
        }
        drop((held, waiting));
        for b in 0..3 {
            prop_assert_eq!(pool.load(BackendId(b)), 0);
            prop_assert_eq!(pool.gauges(BackendId(b)).queued, 0);
        }
    }
}
