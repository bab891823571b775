//! Every 100 ms: samples out of the ledger, through the estimate, to what is published.
//!
//! One place turns the wheel and everybody else reads what it left: readings are immutable and swapped whole. The estimate sees
//! the same samples and the same ticks that a rehearsal would give it, a little after they happened. A change of state is
//! one log line and one call to whoever keeps the journal. It publishes no limits yet: control is not there to make them.

mod order;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;

use self::order::Order;
use crate::backend::BackendId;
use crate::clock::Clock;
use crate::estimate::{Estimator, Reading, Settings, State, Transition};
use crate::measure::{Ledger, Tray};
use crate::time::Timestamp;

/// What was last published of one backend.
#[derive(Clone, Debug)]
pub struct Published {
    /// When.
    pub at: Timestamp,
    pub reading: Reading,
    /// Samples that found no room in a tray, ever.
    pub lost: u64,
    /// Samples that were told at a wrong time because they came too late, ever.
    pub late: u64,
    /// How long samples are held back to be put into order.
    pub held_back: Duration,
}

/// Where readings lie, in the configuration's order. Reading one never waits.
#[derive(Debug)]
pub struct Board(Box<[ArcSwapOption<Published>]>);

/// Whoever is told of a change of state, beside the log.
pub type OnTransition = Box<dyn FnMut(BackendId, &Transition) + Send>;

/// The wheel.
pub struct Steer {
    ledger: Arc<Ledger>,
    helms: Vec<Helm>,
    /// One list of trays a shard; swapped for the filled ones at every turn.
    trays: Vec<Vec<Tray>>,
    board: Arc<Board>,
    on_transition: OnTransition,
}

/// One backend.
struct Helm {
    name: Arc<str>,
    estimator: Estimator,
    order: Order,
    next_tick: Timestamp,
    published: Timestamp,
    lost: u64,
}

impl Board {
    /// A board for `backends` backends.
    pub fn new(backends: usize) -> Arc<Self> {
        Arc::new(Self((0..backends).map(|_| ArcSwapOption::empty()).collect()))
    }

    /// What is known of a backend at `now`; `None` before the first publication, and when the wheel no longer turns.
    pub fn read(&self, backend: BackendId, now: Timestamp) -> Option<Arc<Published>> {
        let published = self.0.get(usize::from(backend.0))?.load_full()?;
        (now.since(published.at) <= STOPPED).then_some(published)
    }

    /// Every backend's, in order.
    pub fn read_all(&self, now: Timestamp) -> Vec<Option<Arc<Published>>> {
        (0..self.0.len()).map(|i| self.read(BackendId(u16::try_from(i).unwrap_or(u16::MAX)), now)).collect()
    }
}

impl Steer {
    /// A wheel over `ledger`, one estimator for each of `settings`, in the configuration's order.
    pub fn new(
        ledger: Arc<Ledger>,
        settings: Vec<Settings>,
        board: Arc<Board>,
        on_transition: OnTransition,
        now: Timestamp,
    ) -> Self {
        let names = ledger.backends().iter().map(|backend| backend.name.clone());
        let helms = names.zip(settings).map(|(name, settings)| Helm::new(name, settings, now)).collect::<Vec<_>>();
        let trays = ledger.shards().iter().map(|_| vec![Tray::default(); helms.len()]).collect();
        Self { ledger, helms, trays, board, on_transition }
    }

    /// Turns every 100 ms for as long as the task lives.
    pub async fn run(mut self, clock: Clock) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            self.turn(clock.now());
        }
    }

    /// One turn at `now`.
    pub fn turn(&mut self, now: Timestamp) {
        for (shard, trays) in self.ledger.shards().iter().zip(&mut self.trays) {
            shard.swap(trays);
        }
        for (i, helm) in self.helms.iter_mut().enumerate() {
            let told = self.trays.iter().filter_map(|trays| trays.get(i));
            helm.take_in(told, now);
            helm.advance(now);
            let backend = BackendId(u16::try_from(i).unwrap_or(u16::MAX));
            let mut changed = false;
            for transition in helm.estimator.transitions() {
                changed = true;
                say(&helm.name, &transition);
                (self.on_transition)(backend, &transition);
            }
            if changed || now.since(helm.published) >= PUBLISH || helm.published == Timestamp::ZERO {
                helm.published = now;
                self.board.0[i].store(Some(Arc::new(helm.publish(now))));
            }
        }
    }
}

impl Helm {
    fn new(name: Arc<str>, settings: Settings, now: Timestamp) -> Self {
        let estimator = Estimator::new(settings, now);
        Self { name, estimator, order: Order::new(now), next_tick: now + TICK, published: Timestamp::ZERO, lost: 0 }
    }

    fn take_in<'a>(&mut self, told: impl Iterator<Item = &'a Tray> + Clone, now: Timestamp) {
        let lost: u64 = told.clone().map(|tray| tray.lost).sum();
        if lost > 0 {
            tracing::warn!(
                backend = &*self.name,
                lost,
                "samples found no room: the estimate has seen less than happened"
            );
        }
        self.lost += lost;
        self.order.take_in(told.flat_map(|tray| &tray.samples), now);
    }

    /// Tells the estimator what has settled, with a tick every 100 ms of the samples' time.
    fn advance(&mut self, now: Timestamp) {
        let settled = self.order.settled(now);
        if settled.since(self.next_tick) > CATCH_UP {
            self.next_tick = settled - CATCH_UP;
        }
        while self.next_tick <= settled {
            for sample in self.order.release(self.next_tick) {
                self.estimator.on_sample(&sample);
            }
            self.estimator.on_tick(self.next_tick);
            self.next_tick = self.next_tick + TICK;
        }
    }

    fn publish(&self, now: Timestamp) -> Published {
        Published {
            at: now,
            reading: self.estimator.reading(),
            lost: self.lost,
            late: self.order.late(),
            held_back: self.order.span(),
        }
    }
}

fn say(backend: &str, transition: &Transition) {
    let Transition { from, to, reason, .. } = transition;
    let (from, to) = (from.word(), to.word());
    match transition.to {
        State::Saturated => tracing::warn!(backend, from, to, reason, "saturation changed"),
        _ => tracing::info!(backend, from, to, reason, "saturation changed"),
    }
}

/// The estimate's own tick.
const TICK: Duration = Duration::from_millis(100);
/// A reading costs some microseconds and is looked at once a second at most.
const PUBLISH: Duration = Duration::from_secs(1);
/// Ticks that were missed (a suspended machine) are made up for this long; what is older would be told of a world that is gone.
const CATCH_UP: Duration = Duration::from_secs(10);
/// A reading this old was left by a wheel that no longer turns.
const STOPPED: Duration = Duration::from_secs(10);
