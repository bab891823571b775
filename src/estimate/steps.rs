//! The engine's steps, seen from outside.
//!
//! A new step of the batch shows where a stream that already emitted in the current step emits again, or after a pause. That
//! holds under jitter, coalescing and speculative decoding, and costs two comparisons: each stream keeps the number of its
//! last step. Steps add up to rows of at least a second: their time, steps, decodes and prompt tokens. The cost of a step is
//! in `costs`.
//!
//! Limitation: several replicas behind one backend blur the steps into each other; `decodes` and `prefill` stay right.

/// A row: work of the engine over some seconds of busy time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct WorkInterval {
    /// Busy seconds, `T`.
    pub time: f64,
    /// Steps, `n_s`.
    pub steps: f64,
    /// Emissions that were not a first token, `n_d`.
    pub decodes: f64,
    /// Tokens of the prompts whose first token arrived, and recomputed ones, `n_p`.
    pub prefill: f64,
}

/// Recognises steps and collects them into rows.
#[derive(Clone, Debug)]
pub(super) struct Steps {
    /// Number of the current step; 0 before the first.
    id: u32,
    /// When the current step ended: its first emission.
    ended: f64,
    /// How long it took.
    duration: f64,
    /// The dispatch that ended the last idle time.
    busy_since: f64,
    last_emission: f64,
    /// Streams that emitted in the current step.
    streams: u32,
    decodes: u32,
    /// First tokens in the current step, and in the row before it.
    starts: u32,
    row_starts: u32,
    prefill: f64,
    /// No request waited for a first token after the current step's last emission.
    settled: bool,
    /// Tracks the 10th percentile of the step durations.
    shortest: f64,
    /// Silence after which a step has begun; infinite while `shortest` is unknown.
    pause: f64,
    /// The current step began with a stream that emitted again, not with a pause.
    certain: bool,
    row: WorkInterval,
    full_row: Option<WorkInterval>,
    /// Steps that a loss of emissions still affects: the current one, and the one whose duration spans the gap.
    steps_with_loss: u8,
}

/// What the steps need of an emission.
#[derive(Clone, Copy, Debug)]
pub(super) struct EmissionSeen {
    pub at: f64,
    /// The stream's last step, 0 before its first token.
    pub last_step: u32,
    /// When the stream last emitted.
    pub last: f64,
    /// Prompt tokens, if this is the first token.
    pub prompt: Option<f64>,
    /// No request waits for a first token after this emission.
    pub settled: bool,
    /// The client delayed the stream: its stamp is no evidence of a step.
    pub limited: bool,
}

/// A step that is over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct FinishedStep {
    /// Seconds.
    pub duration: f64,
    /// Streams that emitted in it.
    pub streams: u32,
    /// Emissions that were not a first token.
    pub decodes: u32,
}

impl Steps {
    pub fn new() -> Self {
        Self {
            id: 0,
            ended: 0.0,
            duration: 0.0,
            busy_since: 0.0,
            last_emission: 0.0,
            streams: 0,
            decodes: 0,
            starts: 0,
            row_starts: 0,
            prefill: 0.0,
            settled: false,
            shortest: 0.0,
            pause: f64::INFINITY,
            certain: false,
            row: WorkInterval::default(),
            full_row: None,
            steps_with_loss: 0,
        }
    }

    /// The engine was idle until now.
    pub fn on_busy(&mut self, now: f64) {
        self.busy_since = now;
    }

    /// Takes an emission in. Returns the step that it ends, if any. The stream's last step is [`Steps::id`] afterwards.
    pub fn on_emission(&mut self, seen: &EmissionSeen) -> Option<FinishedStep> {
        let begins = self.beginning(seen);
        let over = begins.and_then(|certain| self.begin(seen.at, certain));
        match seen.prompt {
            Some(prompt) => {
                self.starts += 1;
                self.prefill += prompt;
            }
            None => self.decodes += 1,
        }
        self.streams += u32::from(seen.last_step != self.id || begins.is_some());
        self.settled = seen.settled;
        self.last_emission = seen.at;
        over
    }

    /// The row that was filled by the last step, once.
    pub fn take_row(&mut self) -> Option<WorkInterval> {
        self.full_row.take()
    }

    /// Tokens that were computed again: they count as prompt tokens of the current step.
    pub fn on_recomputed(&mut self, tokens: f64) {
        self.prefill += tokens;
    }

    /// Emissions were lost: the current row would hold their time and not their work.
    pub fn on_loss(&mut self) {
        self.steps_with_loss = 2;
    }

    /// Number of the current step.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Whether the emission begins a step, and whether that is certain.
    fn beginning(&self, seen: &EmissionSeen) -> Option<bool> {
        if self.id == 0 {
            return Some(false);
        }
        if seen.limited {
            return None;
        }
        // Against the stream's own last event: one that is read late has two events in one read long after the step ended. But
        // no read is late by half a step, and steps that became much shorter must not stay one read.
        let apart = seen.at - seen.last > SAME_READ * self.shortest || seen.at - self.ended > LATEST * self.shortest;
        let emits_again = seen.last_step == self.id && apart;
        // A first token may arrive before the streams that emit again, and when all streams of a step have ended none will: then
        // only the pause shows it, or idle time in between.
        let after_a_pause = seen.at - self.last_emission > self.pause;
        let was_idle = self.busy_since > self.last_emission;
        (emits_again || after_a_pause || was_idle).then_some(emits_again)
    }

    /// Closes the current step and begins the one that ended at `now`.
    fn begin(&mut self, now: f64, certain: bool) -> Option<FinishedStep> {
        let over = FinishedStep { duration: self.duration, streams: self.streams, decodes: self.decodes };
        let first = self.id == 0;
        if !first {
            self.add_to_row();
        }
        self.duration = (now - self.ended.max(self.busy_since)).max(0.0);
        if certain && self.certain {
            self.track_shortest();
        }
        self.certain = certain;
        self.id = self.id.wrapping_add(1).max(1);
        self.ended = now;
        (self.decodes, self.starts, self.prefill, self.streams) = (0, 0, 0.0, 0);
        (!first).then_some(over)
    }

    /// Adds the current step. A row ends where no prompt is half computed: its tokens are counted at the first token,
    /// and a row that holds the time but not the tokens would dilute what a token costs (by 20-40 % for long prompts).
    fn add_to_row(&mut self) {
        if self.steps_with_loss > 0 {
            self.steps_with_loss -= 1;
            (self.row, self.row_starts) = (WorkInterval::default(), 0);
            return;
        }
        self.row.time += self.duration;
        self.row.steps += 1.0;
        self.row.decodes += f64::from(self.decodes);
        self.row.prefill += self.prefill;
        self.row_starts += self.starts;
        let full = match self.row.time {
            time if time >= LONGEST_ROW => true,
            time if time >= LONG_ROW => self.starts > 0,
            time if time >= SHORT_ROW => self.settled || (self.starts > 0 && self.row_starts >= ENOUGH_STARTS),
            time if time >= SHORTEST_ROW => self.settled,
            _ => false,
        };
        if full {
            self.full_row = Some(std::mem::take(&mut self.row));
            self.row_starts = 0;
        }
    }

    fn track_shortest(&mut self) {
        if self.duration <= 0.0 {
            return;
        }
        if self.shortest == 0.0 {
            self.shortest = self.duration;
        } else if self.duration < self.shortest {
            self.shortest = (self.shortest * (1.0 - 0.9 * GAIN)).max(self.duration);
        } else {
            self.shortest = (self.shortest * (1.0 + 0.1 * GAIN)).min(self.duration);
        }
        self.pause = PAUSE * self.shortest;
    }
}

/// Two events of one stream closer than this share of the shortest step came in one read, not in two steps.
const SAME_READ: f64 = 0.2;
/// A reader is later than this share of the shortest step only if that is no longer the shortest.
const LATEST: f64 = 0.5;
/// A silence of this share of the shortest step lies between two steps: jitter within a step is shorter.
const PAUSE: f64 = 0.6;
/// Seconds from which on a row is long enough for the regression, if no request waits for a first token ...
const SHORTEST_ROW: f64 = 1.0;
/// ... otherwise from here on, if it ends with a prompt and holds enough of them that the part done of the next one is small ...
const SHORT_ROW: f64 = 2.0;
const ENOUGH_STARTS: u32 = 6;
/// ... ends with the next prompt from here on ...
const LONG_ROW: f64 = 5.0;
/// ... and is taken as it is from here on.
const LONGEST_ROW: f64 = 8.0;
/// Step of the tracker of [`Steps::shortest`], a 10th percentile.
const GAIN: f64 = 0.05;

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream of the test: its last step, and when that was.
    #[derive(Clone, Copy, Default)]
    struct TestStream(u32, f64);

    struct StepsRig {
        steps: Steps,
        rows: Vec<WorkInterval>,
        durations: Vec<f64>,
    }

    impl StepsRig {
        fn new() -> Self {
            let mut steps = Steps::new();
            steps.on_busy(0.0);
            Self { steps, rows: Vec::new(), durations: Vec::new() }
        }

        fn emit(&mut self, at: f64, stream: &mut TestStream, prompt: Option<f64>) {
            let seen = EmissionSeen { at, last_step: stream.0, last: stream.1, prompt, settled: true, limited: false };
            let over = self.steps.on_emission(&seen);
            *stream = TestStream(self.steps.id(), at);
            self.rows.extend(self.steps.take_row());
            self.durations.extend(over.map(|step| step.duration));
        }
    }

    #[test]
    fn a_step_begins_where_a_stream_emits_again() {
        let mut rig = StepsRig::new();
        let mut streams = [TestStream::default(); 3];
        for step in 1..=101_u32 {
            for (index, stream) in streams.iter_mut().enumerate() {
                let jitter = 0.0002 * index as f64;
                rig.emit(0.02 * f64::from(step) + jitter, stream, (step == 1).then_some(10.0));
            }
        }
        assert_eq!(rig.durations.len(), 100);
        assert!(rig.durations.iter().all(|duration| (duration - 0.02).abs() < 1e-6));
        let row = rig.rows[0];
        assert_eq!((row.steps, row.prefill, row.decodes), (50.0, 30.0, 147.0), "{row:?}");
    }

    #[test]
    fn two_events_in_one_read_are_one_step() {
        let mut rig = StepsRig::new();
        let (mut held, mut even) = (TestStream::default(), TestStream::default());
        rig.emit(0.02, &mut held, Some(1.0));
        rig.emit(0.02, &mut even, Some(1.0));
        for step in 2..=100_u32 {
            let at = 0.02 * f64::from(step);
            rig.emit(at, &mut even, None);
            if step % 2 == 0 {
                rig.emit(at, &mut held, None);
                rig.emit(at, &mut held, None);
            }
        }
        assert_eq!(rig.steps.id(), 100);
    }

    #[test]
    fn two_events_in_a_late_read_are_no_step() {
        let mut rig = StepsRig::new();
        let (mut even, mut late) = (TestStream::default(), TestStream::default());
        rig.emit(0.02, &mut even, Some(1.0));
        rig.emit(0.02, &mut late, Some(1.0));
        for step in 2..=100_u32 {
            let at = 0.02 * f64::from(step);
            rig.emit(at, &mut even, None);
            if step % 2 == 1 {
                rig.emit(at + 0.008, &mut late, None);
                rig.emit(at + 0.008, &mut late, None);
            }
        }
        assert_eq!(rig.steps.id(), 100);
        assert!(rig.durations.iter().all(|duration| (duration - 0.02).abs() < 1e-9), "{:?}", rig.durations);
    }

    /// Steps with long prompts, then only decodes: the short steps must not be taken for one read.
    #[test]
    fn steps_that_become_much_shorter_are_found_again() {
        let mut rig = StepsRig::new();
        let mut stream = TestStream::default();
        (1..=50_u32).for_each(|step| rig.emit(0.2 * f64::from(step), &mut stream, (step == 1).then_some(1.0)));
        (1..=500_u32).for_each(|step| rig.emit(10.0 + 0.012 * f64::from(step), &mut stream, None));
        let found = rig.durations.iter().rev().take(300).filter(|duration| (**duration - 0.012).abs() < 1e-6).count();
        assert!(found >= 299, "{found} of the last 300");
    }

    #[test]
    fn idle_time_is_no_step_time() {
        let mut rig = StepsRig::new();
        let mut stream = TestStream::default();
        rig.emit(0.02, &mut stream, Some(10.0));
        rig.emit(0.04, &mut stream, None);
        rig.steps.on_busy(9.0);
        let mut late = TestStream::default();
        rig.emit(9.05, &mut late, Some(10.0));
        rig.emit(9.07, &mut late, None);
        let expected = [0.02, 0.02, 0.05];
        assert!(rig.durations.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9), "{:?}", rig.durations);
    }

    #[test]
    fn a_first_token_beside_a_last_one_is_the_same_step() {
        let mut rig = StepsRig::new();
        let (mut old, mut new) = (TestStream::default(), TestStream::default());
        rig.emit(0.02, &mut old, Some(10.0));
        rig.emit(0.04, &mut old, None);
        rig.emit(0.0401, &mut new, Some(10.0));
        assert_eq!(rig.steps.id(), 2);
        rig.emit(0.06, &mut new, None);
        assert_eq!(rig.steps.id(), 3);
    }

    #[test]
    fn a_first_token_that_comes_before_the_others_is_of_its_step() {
        let mut rig = StepsRig::new();
        let mut old = [TestStream::default(); 3];
        for step in 1..=20_u32 {
            old.iter_mut().for_each(|stream| rig.emit(0.02 * f64::from(step), stream, (step == 1).then_some(10.0)));
        }
        let mut new = TestStream::default();
        rig.emit(0.42, &mut new, Some(10.0));
        assert_eq!(rig.steps.id(), 21);
        old.iter_mut().for_each(|stream| rig.emit(0.4203, stream, None));
        assert_eq!(rig.steps.id(), 21);
    }

    #[test]
    fn a_row_waits_for_a_half_computed_prompt() {
        let mut steps = Steps::new();
        steps.on_busy(0.0);
        let (mut last_step, mut last) = (0, 0.0);
        let mut full_at = None;
        for n in 1..=300_u32 {
            let at = 0.02 * f64::from(n);
            let seen = EmissionSeen { at, last_step, last, prompt: None, settled: at > 2.0, limited: false };
            steps.on_emission(&seen);
            (last_step, last) = (steps.id(), at);
            if steps.take_row().is_some() && full_at.is_none() {
                full_at = Some(at);
            }
        }
        assert!((full_at.unwrap() - 2.06).abs() < 0.03, "{full_at:?}");
    }

    #[test]
    fn a_row_in_which_emissions_were_lost_is_thrown_away() {
        let (mut rig, mut whole) = (StepsRig::new(), StepsRig::new());
        let mut streams = [TestStream::default(); 2];
        for step in (1..=40_u32).chain(140..=260) {
            if step == 140 {
                rig.steps.on_loss();
            }
            let at = 0.02 * f64::from(step);
            rig.emit(at, &mut streams[0], (step == 1).then_some(10.0));
            whole.emit(at, &mut streams[1], (step == 1).then_some(10.0));
        }
        let longest = |rig: &StepsRig| rig.rows.iter().map(|row| row.time / row.steps).fold(0.0, f64::max);
        assert!(longest(&rig) < 0.021, "{:?}", rig.rows);
        assert!(longest(&whole) > 0.03, "unreported, two seconds of silence look like work: {:?}", whole.rows);
        assert!(!rig.rows.is_empty());
    }

    #[test]
    fn an_emission_that_its_client_delayed_makes_no_step() {
        let mut steps = Steps::new();
        let first =
            EmissionSeen { at: 0.02, last_step: 0, last: 0.0, prompt: Some(1.0), settled: true, limited: false };
        steps.on_emission(&first);
        let late = EmissionSeen { at: 5.0, last_step: 1, last: 0.02, prompt: None, limited: true, ..first };
        assert_eq!(steps.on_emission(&late), None);
        assert_eq!(steps.id(), 1);
    }
}
