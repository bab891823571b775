//! What the estimator reports: a [`Reading`] for people and metrics, [`Signals`] for admission, and what evidence is missing.

use super::state::{Estimator, EstimatorCounts};
use crate::estimate::capacity::FEWEST_BLOCKS;
use crate::estimate::costs::FEWEST_ROWS;
use crate::estimate::mix::FEWEST_REQUESTS;
use crate::estimate::prediction::{EngineBounds, predict, upper_bound};
use crate::estimate::reading::{Missing, NotEnoughEvidence, Prediction, Reading};
use crate::vocabulary::signals::Signals;

impl Estimator {
    /// What is known now. Costs a few microseconds: meant for once a second, not for every tick.
    pub fn reading(&self) -> Reading {
        let EstimatorCounts { queued, in_flight, pending, drifts, speed, shift, .. } = self.counts;
        let figures = self.mix.figures();
        let solution = self.costs.solution();
        let knee = self.knee.ok_or_else(|| self.missing_for_knee());
        let in_system = (in_flight + queued) as f64;
        Reading {
            state: self.saturation.state(),
            since: self.saturation.since(),
            reason: self.saturation.reason().to_owned(),
            ratio: self.knee.map(|knee| in_system / knee.in_flight.value.max(1.0)),
            demand_ratio: self.knee.map(|knee| self.offered.at(self.now) / knee.requests_per_second.value),
            knee,
            prediction: self.prediction(),
            upper_bound: figures.as_ref().zip(solution).and_then(|(mix, costs)| upper_bound(mix, costs)),
            lower_bound: self.best_start_rate.best(),
            costs: self.costs.step_costs().filter(|_| !self.visibility.is_blurred()),
            several_engines: self.visibility.is_blurred(),
            speed_changes: speed,
            mix_changes: self.mix.changes(),
            drifts,
            shift,
            stalls: self.preemptions.count(),
            blocks: self.blocks.counts(),
            in_flight,
            pending,
            queued,
        }
    }

    /// What admission reads at every tick.
    pub fn signals(&self) -> Signals {
        let (first_tokens, now) = (&self.first_tokens, self.now);
        let (excess_ttft, excess_ttft_deviation) = first_tokens.excess();
        let mix = self.mix.figures();
        let decoding = self.counts.in_flight.saturating_sub(self.counts.pending) as f64;
        let per_prompt_token = mix.as_ref().zip(self.costs.solution()).filter(|_| self.mix.prompts_are_known());
        Signals {
            unloaded_ttft: first_tokens.baselines(),
            excess_ttft,
            excess_ttft_deviation,
            busy_start_rate: first_tokens.busy_start_rate(now),
            start_rate: first_tokens.start_rate(now),
            recent_ttft: first_tokens.recent(),
            typical_ttft: first_tokens.typical(),
            step_time: first_tokens.step_time(),
            ttft_target: first_tokens.ttft_target(),
            mean_answer: mix.as_ref().map_or(0.0, |mix| mix.output * mix.tokens_per_emission),
            knee_in_flight: self.knee.map(|knee| knee.in_flight.value),
            per_prompt_token: per_prompt_token
                .and_then(|(mix, costs)| self.capacity.per_prompt_token(mix, costs, decoding)),
            kv_tokens: self.engine.kv_tokens.map(f64::from),
            wasted: self.preemptions.wasted(now),
            wasted_lately: self.preemptions.wasted_lately(now),
        }
    }

    fn prediction(&self) -> Result<Prediction, NotEnoughEvidence> {
        let mut why = Vec::new();
        if self.costs.solution().is_none() || self.costs.rows() < ROWS_TO_PREDICT {
            why.push(Missing::StepCosts { rows: self.costs.rows() as u64, need: ROWS_TO_PREDICT as u64 });
        }
        let figures = self.mix.figures();
        let completions = figures.map_or(0.0, |mix| mix.completions);
        if completions < COMPLETIONS_TO_PREDICT {
            why.push(Missing::Completions { have: completions as u64, need: COMPLETIONS_TO_PREDICT as u64 });
        }
        if !self.mix.prompts_are_known() {
            why.push(Missing::PromptLengths);
        }
        if self.visibility.is_blurred() {
            why.push(Missing::SingleEngine);
        }
        let bounds = self.bounds();
        let predicted = figures.zip(self.costs.solution());
        let predicted = predicted.and_then(|(mix, costs)| predict(&bounds, &mix, self.mix.served(), costs));
        if bounds.slots.is_none() && bounds.kv.is_none() {
            why.push(Missing::EngineLimits);
        }
        predicted.filter(|_| why.is_empty()).ok_or(NotEnoughEvidence { why })
    }

    /// The engine's configured limits, completed by those that saturation has shown.
    fn bounds(&self) -> EngineBounds {
        let configured = |limit: Option<u32>| limit.map(f64::from).filter(|limit| *limit > 0.0);
        let shown = self.capacity.shown_limits();
        EngineBounds {
            slots: configured(self.engine.max_num_seqs).or(shown.and_then(|shown| shown.slots)),
            kv: configured(self.engine.kv_tokens).or(shown.and_then(|shown| shown.kv)),
            batched: configured(self.engine.max_num_batched_tokens),
            bound_is_known: shown.is_some(),
        }
    }

    fn missing_for_knee(&self) -> NotEnoughEvidence {
        let mut why = Vec::new();
        if self.costs.solution().is_none() {
            why.push(Missing::StepCosts { rows: self.costs.rows() as u64, need: FEWEST_ROWS as u64 });
        }
        if self.mix.figures().is_none() {
            why.push(Missing::Completions { have: self.mix.completions() as u64, need: FEWEST_REQUESTS as u64 });
        }
        if self.capacity.blocks() < FEWEST_BLOCKS || why.is_empty() {
            why.push(Missing::SaturatedBlocks { have: self.capacity.blocks(), need: FEWEST_BLOCKS });
        }
        NotEnoughEvidence { why }
    }
}

/// Rows of steps and completed requests before a capacity is predicted.
const ROWS_TO_PREDICT: f64 = 15.0;
const COMPLETIONS_TO_PREDICT: f64 = 10.0;
