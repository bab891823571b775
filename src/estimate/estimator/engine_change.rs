//! A change of the engine itself, found in its steps or in its throughput, and what it makes worthless.

use std::time::Duration;

use super::state::Estimator;
use crate::estimate::blocks::SaturatedBlock;
use crate::estimate::reading::{Shift, ShiftKind};
use crate::estimate::speed::SpeedChange;
use crate::estimate::steps::WorkInterval;
use crate::vocabulary::time::Timestamp;

impl Estimator {
    /// A row of steps: tested against the costs known before it, then added to them.
    pub(super) fn on_row(&mut self, at: Timestamp, row: &WorkInterval) {
        let known = self.costs.solution().filter(|_| self.costs.rows() > ROWS_TO_TEST);
        let change = known.and_then(|known| self.speed.on_row(row, known));
        let Some(change) = change else {
            self.costs.add(row);
            return;
        };
        let kind = match change {
            SpeedChange::Slower => {
                self.counts.speed.slower += 1;
                ShiftKind::Slower
            }
            SpeedChange::Faster => {
                self.counts.speed.faster += 1;
                ShiftKind::Faster
            }
        };
        self.counts.shift = Some(Shift { at, kind });
        self.costs.discount();
        self.costs.add(row);
        self.clear_capacity(at, SINCE_SPEED_CHANGE);
        self.drift.reset();
    }

    /// A block of saturated time: added to the capacity, then tested for drift.
    pub(super) fn on_block(&mut self, at: Timestamp, block: &SaturatedBlock) {
        let Some(costs) = self.costs.solution() else { return };
        self.capacity.on_block(at, block, costs);
        if self.drift.on_block(block.tokens / block.time) {
            self.counts.drifts += 1;
            self.counts.shift = Some(Shift { at, kind: ShiftKind::Drift });
            self.clear_capacity(at, SINCE_DRIFT);
        }
    }

    /// Forgets the saturated time, except the last blocks not older than `fresh`.
    fn clear_capacity(&mut self, at: Timestamp, fresh: Duration) {
        if let Some(costs) = self.costs.solution() {
            self.capacity.clear(at, costs, fresh);
        }
    }
}

/// Saturated blocks of this age have seen the engine's new speed; the change is found after five seconds at the earliest.
const SINCE_SPEED_CHANGE: Duration = Duration::from_secs(5);
/// A drift is found from the last three blocks, of five seconds at most.
const SINCE_DRIFT: Duration = Duration::from_secs(15);
/// Rows before the engine's speed is tested.
const ROWS_TO_TEST: f64 = 15.0;
