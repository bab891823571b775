//! The engines behind the one address that weir sees.

use std::collections::VecDeque;
use std::time::Duration;

use super::machine::{Lengths, Machine, submit};
use crate::engine::model::{Engine, StepYield};
use crate::vocabulary::time::Timestamp;

/// The replicas behind the one address, and the requests in transit to them.
pub(super) struct Replicas {
    replicas: Vec<Replica>,
    /// Replicas that receive requests, round robin: the first ones. The others finish what they have.
    receiving: usize,
    latest: usize,
    delay: Duration,
    in_transit: VecDeque<(Timestamp, usize, Lengths)>,
}

struct Replica {
    engine: Engine,
    /// When the step it is in ends.
    due: Option<Timestamp>,
}

impl Replicas {
    pub fn new(machine: &Machine, replicas: u32, delay: Duration, seed: u64) -> Self {
        let replica = |number| Replica { engine: machine.engine(seed ^ u64::from(number) << 32), due: None };
        Self {
            replicas: (0..replicas).map(replica).collect(),
            receiving: replicas as usize,
            latest: 0,
            delay,
            in_transit: VecDeque::new(),
        }
    }

    pub fn set(&mut self, slowdown: f64, receiving: u32) {
        self.replicas.iter_mut().for_each(|replica| replica.engine.set_slowdown(slowdown));
        self.receiving = receiving as usize;
    }

    /// Sends a request. The whole round-trip delay is spent before the engine: weir sees the same times, because the model has no
    /// clock of its own.
    pub fn dispatch(&mut self, number: usize, lengths: Lengths, now: Timestamp) {
        self.in_transit.push_back((now + self.delay, number, lengths));
        if self.delay.is_zero() {
            self.deliver(now);
        }
    }

    /// Takes a request out, wherever it is. It leaves the engine at once.
    pub fn cancel(&mut self, number: usize) {
        self.in_transit.retain(|(_, other, _)| *other != number);
        for replica in &mut self.replicas {
            replica.engine.cancel(number as u64);
        }
    }

    pub fn deliver(&mut self, now: Timestamp) {
        let Some((_, number, lengths)) = self.in_transit.pop_front() else { return };
        self.latest = (self.latest + 1) % self.receiving;
        let replica = self.latest;
        submit(&mut self.replicas[replica].engine, number as u64, lengths);
        if self.replicas[replica].due.is_none() {
            self.begin_step(replica, now);
        }
    }

    pub fn begin_step(&mut self, replica: usize, now: Timestamp) {
        let replica = &mut self.replicas[replica];
        replica.due = replica.engine.begin_step().map(|step| now + step.duration);
    }

    pub fn finish_step(&mut self, replica: usize) -> &[StepYield] {
        self.replicas[replica].engine.finish_step()
    }

    /// When the next step ends, and of which replica.
    pub fn next_step(&self) -> Option<(Timestamp, usize)> {
        let due = |(replica, state): (usize, &Replica)| Some((state.due?, replica));
        self.replicas.iter().enumerate().filter_map(due).min()
    }

    /// When the next request reaches its replica.
    pub fn next_delivery(&self) -> Option<Timestamp> {
        self.in_transit.front().map(|delivery| delivery.0)
    }
}
