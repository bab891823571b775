//! How much synthetic load to hold next, and when the knee has been seen. Pure.
//!
//! The load is a closed loop: N synthetic requests in flight beside those of clients. Each step holds more, until clients and
//! run together get no more tokens a second: by then the engine's batch is full, or its time. Two steps must agree. It holds no
//! rates and no clock.

/// What was seen while a step was held: of clients and run together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeldStep {
    /// Synthetic requests in flight that were asked for.
    pub held: u32,
    /// Streams past their first token, mean.
    pub batch: f64,
    /// Output tokens a second.
    pub tokens: f64,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NextStep {
    /// Hold this many in flight.
    Hold(u32),
    /// Throughput stopped growing.
    Found(ProbedKnee),
    /// The largest allowed load did not get there.
    NotReached,
}

/// The load beyond which throughput stops growing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProbedKnee {
    /// Output tokens a second, over the steps of the plateau.
    pub tokens: f64,
    /// The lowest and the highest of them.
    pub spread: (f64, f64),
    /// Streams past their first token.
    pub batch: f64,
}

/// The steps so far.
#[derive(Clone, Debug)]
pub struct Ladder {
    steps: Vec<HeldStep>,
    most: u32,
}

impl Ladder {
    /// A ladder that holds `most` synthetic requests at most.
    pub fn new(most: u32) -> Self {
        Self { steps: Vec::new(), most: most.max(1) }
    }

    /// Adds a step that was held.
    pub fn on_step(&mut self, step: HeldStep) {
        self.steps.push(step);
    }

    /// What to do next; `batch` is what clients alone have in the engine, for the first step.
    pub fn next(&self, batch: f64) -> NextStep {
        let Some(last) = self.steps.last() else { return NextStep::Hold(self.more(0, batch)) };
        if let [.., base, one, other] = self.steps[..]
            && is_flat(&base, &one)
            && is_flat(&base, &other)
        {
            return NextStep::Found(ProbedKnee::of(&[base, one, other]));
        }
        if last.held >= self.most { NextStep::NotReached } else { NextStep::Hold(self.more(last.held, last.batch)) }
    }

    /// The most output tokens a second that a step has seen: whatever ends the run, the engine can do that much.
    pub fn best(&self) -> Option<f64> {
        self.steps.iter().map(|step| step.tokens).max_by(f64::total_cmp)
    }

    /// A third more than all that is in flight: less could not be distinguished from the arrivals and ends of clients.
    fn more(&self, held: u32, batch: f64) -> u32 {
        let step = (GROWTH * batch.max(f64::from(held))).round() as u32;
        (held + step.max(LEAST_STEP)).min(self.most)
    }
}

impl ProbedKnee {
    /// The step before the plateau has most of it, and the plateau has the most: all that lie close to the best belong to it.
    fn of(steps: &[HeldStep]) -> Self {
        let best = steps.iter().map(|step| step.tokens).fold(0.0, f64::max);
        let on_it: Vec<&HeldStep> = steps.iter().filter(|step| step.tokens >= CLOSE * best).collect();
        let mean = |of: fn(&HeldStep) -> f64| on_it.iter().map(|step| of(step)).sum::<f64>() / on_it.len() as f64;
        let least = on_it.iter().map(|step| step.tokens).fold(best, f64::min);
        Self { tokens: mean(|step| step.tokens), spread: (least, best), batch: mean(|step| step.batch) }
    }
}

/// More was held and hardly more tokens were made: less than an eighth of what a batch that grew in proportion would make.
fn is_flat(before: &HeldStep, after: &HeldStep) -> bool {
    let more = f64::from(after.held.saturating_sub(before.held)) / before.batch.max(1.0);
    more > 0.0 && after.tokens < before.tokens * (1.0 + (FLAT * more).min(MOST_FLAT))
}

const GROWTH: f64 = 0.33;
const LEAST_STEP: u32 = 2;
const FLAT: f64 = 0.125;
/// However much more was held, this much more is growth.
const MOST_FLAT: f64 = 0.08;
/// Steps repeat to about this.
const CLOSE: f64 = 0.97;

#[cfg(test)]
mod tests {
    use super::*;

    /// An engine of `slots` whose step takes 13.5 ms and 0.35 ms a sequence, with 40 requests of clients in flight.
    fn step(held: u32, slots: f64) -> HeldStep {
        let batch = (40.0 + f64::from(held)).min(slots);
        HeldStep { held, batch, tokens: batch / (0.0135 + 0.00035 * batch) }
    }

    fn climb(most: u32, slots: f64) -> (Ladder, NextStep) {
        let mut ladder = Ladder::new(most);
        loop {
            match ladder.next(40.0) {
                NextStep::Hold(held) => ladder.on_step(step(held, slots)),
                end => return (ladder, end),
            }
        }
    }

    #[test]
    fn stops_where_the_batch_is_full() {
        let (ladder, end) = climb(1000, 91.0);
        let NextStep::Found(knee) = end else { panic!("{end:?}") };
        let full = step(1000, 91.0);
        assert!((knee.tokens / full.tokens - 1.0).abs() < 0.01 && (knee.batch / 91.0 - 1.0).abs() < 0.03, "{knee:?}");
        assert!(ladder.steps.len() <= 8, "{}", ladder.steps.len());
    }

    #[test]
    fn one_flat_step_is_not_believed() {
        let mut ladder = Ladder::new(1000);
        ladder.on_step(step(20, 500.0));
        ladder.on_step(HeldStep { tokens: step(20, 500.0).tokens, ..step(50, 500.0) });
        assert!(matches!(ladder.next(40.0), NextStep::Hold(_)));
        ladder.on_step(step(90, 500.0));
        assert!(matches!(ladder.next(40.0), NextStep::Hold(_)), "the third step grew");
    }

    #[test]
    fn a_limit_below_the_knee_is_said() {
        let (ladder, end) = climb(30, 91.0);
        assert_eq!((end, ladder.steps.last().map(|step| step.held)), (NextStep::NotReached, Some(30)));
    }
}
