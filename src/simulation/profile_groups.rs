//! Names of engine profiles in scenario files: a profile, or a group of them.

use super::scenario_fault::ScenarioFault;
use crate::engine::profile::{PROFILES, Profile};

/// The profiles that `names` stand for; a group stands for several.
pub(super) fn named(names: &[String]) -> Result<Vec<&'static Profile>, ScenarioFault> {
    let mut profiles = Vec::new();
    for name in names {
        match name.as_str() {
            "seven" => profiles.extend(&PROFILES[..SEVEN]),
            "holdout" => profiles.extend(&PROFILES[SEVEN..ELEVEN]),
            "untuned" => profiles.extend(&PROFILES[ELEVEN..]),
            name => {
                profiles
                    .push(Profile::named(name).map_err(|unknown| ScenarioFault::new("engines", unknown.to_string()))?);
            }
        }
    }
    Ok(profiles)
}

/// How many profiles the algorithm was worked out on, and how many there were with the hold-outs.
const SEVEN: usize = 7;
const ELEVEN: usize = 11;
