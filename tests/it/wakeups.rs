//! No wake-up of a waiting request is lost, in any order in which its task, the task that makes room and those that leave can run.
//!
//! These tests compile the pool's own files with the locks of a model checker, which tries every interleaving up to a bound on
//! preemptions. After a lost wake-up a task sleeps for ever, and the checker reports that as a deadlock.

#![allow(dead_code, unused_imports, reason = "each file is compiled whole and used in part")]

use std::future::poll_fn;
use std::time::Duration;

use acquire::Acquire;
use backends::Pool;
use loom::future::block_on;
use loom::thread;
use parts::{AdmissionRequest, Arc, BackendId, BalancePolicy, Limits, Mode, Settings, Timestamp};
use permit::Permit;
use queue_wait::QueueWait;
use refused::Refused;

#[path = "../../src/admission/pool/acquire.rs"]
mod acquire;
#[path = "../../src/admission/pool/backend_state.rs"]
mod backend_state;
#[path = "../../src/admission/pool/backends.rs"]
mod backends;
#[path = "../../src/admission/pool/candidates.rs"]
mod candidates;
#[path = "../../src/admission/pool/permit.rs"]
mod permit;
#[path = "../../src/admission/pool/pool_state.rs"]
mod pool_state;
#[path = "../../src/admission/pool/queue_wait.rs"]
mod queue_wait;
#[path = "../../src/admission/pool/refused.rs"]
mod refused;
#[path = "../../src/admission/pool/slow_start.rs"]
mod slow_start;
#[path = "../../src/admission/pool/waiter.rs"]
mod waiter;

mod parts {
    pub use std::sync::Arc;

    pub use loom::sync::Mutex;
    pub use weir::admission::pool::BalancePolicy;
    pub use weir::admission::{
        AdmissionRequest, BackendQueue, Dequeued, GateStats, Limits, Mode, Offered, Settings, Shed, Slot, Ticket,
    };
    pub use weir::vocabulary::backend_id::BackendId;
    pub use weir::vocabulary::time::Timestamp;
}

const A: BackendId = BackendId(0);
const B: BackendId = BackendId(1);
const NOW: Timestamp = Timestamp::from_nanos(1_000_000_000);

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

fn pool(backends: usize, concurrency: u32) -> Arc<Pool> {
    let pool = Pool::new(BalancePolicy::MostRoom, backends, Settings::default());
    (0..backends).for_each(|i| publish(&pool, BackendId(i as u16), concurrency));
    pool
}

fn publish(pool: &Arc<Pool>, backend: BackendId, concurrency: u32) {
    let limits = Limits { window: 1e9, concurrency: Some(concurrency), ..Limits::new(Mode::Enforce) };
    pool.publish(backend, limits, NOW);
}

fn arrive(pool: &Arc<Pool>) -> Acquire {
    pool.arrive(AdmissionRequest::new(NOW, 10.0), None, NOW)
}

fn granted(pool: &Arc<Pool>) -> Permit {
    match arrive(pool) {
        Acquire::Granted(permit) => permit,
        _ => unreachable!("there is room"),
    }
}

fn wait(pool: &Arc<Pool>) -> QueueWait {
    match arrive(pool) {
        Acquire::Queued(waiting) => waiting,
        _ => unreachable!("there is no room"),
    }
}

/// As an exchange does it: sleeps until there is a verdict.
fn verdict(mut waiting: QueueWait) -> Result<Permit, Refused> {
    block_on(poll_fn(move |cx| waiting.poll(cx)))
}

#[test]
fn two_waiting_requests_are_both_dispatched_by_one_slot() {
    check(|| {
        let pool = pool(1, 1);
        let held = granted(&pool);
        let waiters = [wait(&pool), wait(&pool)].map(|waiting| thread::spawn(move || drop(verdict(waiting).unwrap())));
        drop(held);
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
        assert_eq!((pool.load(A), pool.gauges(A).queued), (0, 0));
    });
}

#[test]
fn a_request_that_leaves_while_dispatched_passes_the_slot_on() {
    check(|| {
        let pool = pool(1, 1);
        let held = granted(&pool);
        let (leaves, stays) = (wait(&pool), wait(&pool));
        let leaver = thread::spawn(move || drop(leaves));
        let waiter = thread::spawn(move || drop(verdict(stays).unwrap()));
        drop(held);
        leaver.join().unwrap();
        waiter.join().unwrap();
        assert_eq!((pool.load(A), pool.gauges(A).queued), (0, 0));
    });
}

#[test]
fn a_timeout_at_the_moment_of_a_grant_has_one_verdict() {
    check(|| {
        let pool = pool(1, 1);
        let held = granted(&pool);
        let (expires, stays) = (wait(&pool), wait(&pool));
        let expiring = thread::spawn(move || drop(expires.expire(NOW)));
        let waiter = thread::spawn(move || drop(verdict(stays).unwrap()));
        drop(held);
        expiring.join().unwrap();
        waiter.join().unwrap();
        assert_eq!((pool.load(A), pool.gauges(A).queued), (0, 0));
    });
}

#[test]
fn more_room_dispatches_a_request_that_arrives_just_then() {
    check(|| {
        let pool = pool(1, 1);
        let held = granted(&pool);
        let shared = pool.clone();
        let arriving = thread::spawn(move || match arrive(&shared) {
            Acquire::Granted(permit) => drop(permit),
            Acquire::Queued(waiting) => drop(verdict(waiting).unwrap()),
            Acquire::Refused(..) => unreachable!("it may wait for 30 s"),
        });
        publish(&pool, A, 2);
        arriving.join().unwrap();
        drop(held);
        assert_eq!((pool.load(A), pool.gauges(A).queued), (0, 0));
    });
}

#[test]
fn a_request_whose_backend_dies_is_dispatched_by_the_other() {
    check(|| {
        let pool = pool(2, 1);
        let held = [granted(&pool), granted(&pool)];
        let waiting = wait(&pool);
        let waiter = thread::spawn(move || drop(verdict(waiting).unwrap()));
        let shared = pool.clone();
        let death = thread::spawn(move || shared.set_up(A, false, NOW));
        drop(held);
        death.join().unwrap();
        waiter.join().unwrap();
        assert_eq!((pool.load(A), pool.load(B)), (0, 0));
    });
}
