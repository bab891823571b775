//! Runs the model in real time: one thread owns it, waits for each step's end, and sends the tokens out.
//!
//! The end of a step is computed from the end of the one before, never from when the thread woke up, so lateness does
//! not add up. It is a thread of its own and not a task because the runtime's timer rounds up to a millisecond, which
//! is a tenth of a step; a parked thread wakes some 60 microseconds late. It holds no HTTP and no text.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::engine_request::EngineRequest;
use super::meter::Meter;
use super::settings::Settings;
use super::token::{Finish, Token};
use crate::clock::Clock;
use crate::engine::model::{Engine, SequenceId};
use crate::vocabulary::time::Timestamp;

/// A handle of the thread. The thread ends when the last `Pacer` and [`PacerTicket`] are dropped.
#[derive(Clone, Debug)]
pub struct Pacer {
    commands: Sender<PacerCommand>,
    next: Arc<AtomicU64>,
    meter: Arc<Mutex<Meter>>,
}

impl Pacer {
    /// Submits a request's choices, each with its length and why it will end there. Tokens come out of the receiver;
    /// it closes early only if the thread has died or a choice could never fit. Dropping the ticket cancels.
    pub fn submit(
        &self,
        request: &EngineRequest,
        outputs: &[(u32, Finish)],
        arrival: Timestamp,
    ) -> (PacerTicket, UnboundedReceiver<Token>) {
        let (tokens, receiver) = unbounded_channel();
        let count = outputs.len() as u64;
        let first = self.next.fetch_add(count, Ordering::Relaxed);
        let choices = (0..).zip(outputs).map(|(choice, &(output, finish))| {
            let stream = TokenSink { tokens: tokens.clone(), choice, finish, arrival, latest: arrival };
            PacedChoice { prompt: request.prompt_of(choice), output, stream }
        });
        // A thread that has died closes the channel, which is how the request notices.
        let _ = self.commands.send(PacerCommand::Submit { first, choices: choices.collect() });
        (PacerTicket { commands: self.commands.clone(), first, count, live: true }, receiver)
    }

    /// What has been counted so far.
    pub fn meter(&self) -> MutexGuard<'_, Meter> {
        lock(&self.meter)
    }
}

/// A request in the engine; dropping it cancels its choices, unless they have all finished.
#[derive(Debug)]
pub struct PacerTicket {
    commands: Sender<PacerCommand>,
    first: SequenceId,
    count: u64,
    live: bool,
}

impl PacerTicket {
    /// Every choice has finished: there is nothing left to cancel.
    pub fn on_finish(&mut self) {
        self.live = false;
    }
}

impl Drop for PacerTicket {
    fn drop(&mut self) {
        if self.live {
            let _ = self.commands.send(PacerCommand::Cancel { first: self.first, count: self.count });
        }
    }
}

/// Starts the thread.
///
/// # Errors
/// When the system has no thread left.
pub fn start(settings: &Settings) -> io::Result<(Pacer, JoinHandle<()>)> {
    let (commands, receiver) = mpsc::channel();
    let meter = Arc::new(Mutex::new(Meter::default()));
    let worker = PacerThread {
        clock: settings.clock,
        speed: settings.speed,
        engine: Engine::new(settings.setup.params),
        streams: HashMap::new(),
        commands: receiver,
        meter: Arc::clone(&meter),
        due: None,
    };
    let thread = thread::Builder::new().name("engine-pacer".to_owned()).spawn(move || worker.run())?;
    Ok((Pacer { commands, next: Arc::new(AtomicU64::new(0)), meter }, thread))
}

#[derive(Debug)]
enum PacerCommand {
    /// One command for all choices: they enter the queue together, never with a step's beginning in between.
    Submit {
        first: SequenceId,
        choices: Vec<PacedChoice>,
    },
    Cancel {
        first: SequenceId,
        count: u64,
    },
}

#[derive(Debug)]
struct PacedChoice {
    prompt: u32,
    output: u32,
    stream: TokenSink,
}

/// Receives a sequence's tokens.
#[derive(Debug)]
struct TokenSink {
    tokens: UnboundedSender<Token>,
    choice: u32,
    finish: Finish,
    arrival: Timestamp,
    latest: Timestamp,
}

struct PacerThread {
    clock: Clock,
    speed: f64,
    engine: Engine,
    streams: HashMap<SequenceId, TokenSink>,
    commands: Receiver<PacerCommand>,
    meter: Arc<Mutex<Meter>>,
    /// When the step under way ends; `None` while the engine idles.
    due: Option<Timestamp>,
}

impl PacerThread {
    fn run(mut self) {
        while let Some(command) = self.wait() {
            match command {
                Some(command) => self.apply(command),
                None => self.finish_step(),
            }
            if self.due.is_none() {
                self.begin_idle_step();
            }
        }
    }

    /// Begins a step now, if there is anything to do: what follows an idle time.
    fn begin_idle_step(&mut self) {
        self.apply_pending();
        let meter = Arc::clone(&self.meter);
        self.begin_step(self.clock.now(), &mut lock(&meter));
    }

    /// The next command, `Some(None)` when the step is due first, `None` when every sender of commands is dropped.
    fn wait(&self) -> Option<Option<PacerCommand>> {
        let Some(due) = self.due else { return self.commands.recv().ok().map(Some) };
        let left = due.since(self.clock.now());
        if left.is_zero() {
            return Some(None);
        }
        match self.commands.recv_timeout(left) {
            Ok(command) => Some(Some(command)),
            Err(RecvTimeoutError::Timeout) => Some(None),
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    fn apply_pending(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            self.apply(command);
        }
    }

    fn apply(&mut self, command: PacerCommand) {
        match command {
            PacerCommand::Submit { first, choices } => {
                for (id, PacedChoice { prompt, output, stream }) in (first..).zip(choices) {
                    // A sequence that can never fit loses its sender here, and its request sees the channel close.
                    if self.engine.submit(id, prompt, output).is_ok() {
                        self.streams.insert(id, stream);
                        lock(&self.meter).on_submit(prompt);
                    }
                }
            }
            PacerCommand::Cancel { first, count } => {
                let (engine, streams) = (&mut self.engine, &mut self.streams);
                let cancelled = (first..first + count).filter(|&id| streams.remove(&id).is_some() && engine.cancel(id));
                let cancelled = cancelled.count() as u64;
                lock(&self.meter).on_abort(cancelled);
            }
        }
        lock(&self.meter).on_state(&self.engine);
    }

    /// Ends the step that is due and begins the next one at the same ideal instant.
    ///
    /// The meter stays locked from the first token to the next step's beginning, so a client that has read a token and then
    /// reads the metrics finds the state after it.
    fn finish_step(&mut self) {
        let Some(due) = self.due.take() else { return };
        self.apply_pending();
        let now = self.clock.now();
        let lateness = now.since(due);
        let meter = Arc::clone(&self.meter);
        let mut meter = lock(&meter);
        meter.on_step(lateness);
        for emission in self.engine.finish_step() {
            let Some(stream) = self.streams.get_mut(&emission.id) else { continue };
            let gap = now.since(std::mem::replace(&mut stream.latest, now));
            let finish = emission.finished.then_some(stream.finish);
            meter.on_token(emission.index, gap, now.since(stream.arrival), finish);
            // A receiver that is dropped has a ticket whose drop cancels the rest.
            let _ = stream.tokens.send(Token { choice: stream.choice, index: emission.index, finish });
            if emission.finished {
                self.streams.remove(&emission.id);
            }
        }
        // After a pause of the whole process, no engine would make a burst of steps: time restarts.
        self.begin_step(if lateness > WORST_LATENESS { now } else { due }, &mut meter);
    }

    fn begin_step(&mut self, at: Timestamp, meter: &mut Meter) {
        self.due = self.engine.begin_step().map(|step| at + step.duration.div_f64(self.speed));
        meter.on_state(&self.engine);
    }
}

fn lock(meter: &Mutex<Meter>) -> MutexGuard<'_, Meter> {
    meter.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Longer than any scheduling hiccup of a machine that keeps up, short against a suspended one.
const WORST_LATENESS: Duration = Duration::from_secs(1);
