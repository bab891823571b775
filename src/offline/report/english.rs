//! The English of every sentence.

use super::super::say::Say;
use super::number::{factor, list, percent, plain, time, whole};

/// One sentence, with its full stop.
// Long: an arm for each sentence.
pub fn sentence(said: &Say, closed: bool) -> String {
    let at =
        |load: &f64| if closed { format!("{} in flight", plain(*load)) } else { format!("{} req/s", plain(*load)) };
    let loads =
        |loads: &[f64]| if closed { format!("{} in flight", list(loads)) } else { format!("{} req/s", list(loads)) };
    match said {
        Say::KeepsUp { load, served, ttft: Some(ttft) } => {
            format!(
                "At {} the system keeps up: {} req/s served, first token after {}.",
                at(load),
                plain(*served),
                time(*ttft)
            )
        }
        Say::KeepsUp { load, served, ttft: None } => {
            format!("At {} the system keeps up: {} req/s served.", at(load), plain(*served))
        }
        Say::Drain { load, served, requests, assumed, tail, .. } => drain(*load, *served, *requests, *assumed, *tail),
        Say::Flat { from, to, low, high } => format!(
            "Raising the load from {} to {} req/s leaves the throughput between {} and {} req/s: this is the plateau.",
            plain(*from),
            plain(*to),
            plain(*low),
            plain(*high)
        ),
        Say::Short { load, served, best } => format!(
            "At {} only {} req/s are served ({} of what was offered); a system that keeps up would have shown at least {} in a run of this length.",
            at(load),
            plain(*served),
            percent(served / load),
            plain(*best)
        ),
        Say::Over { load, most } => format!(
            "{} is more than the system completed at any load, even when the whole drain of the run is given back to it ({} req/s).",
            at(load),
            plain(*most)
        ),
        Say::Jump { from, to, good, bad, ratio } => format!(
            "From {} to {} the time to first token goes from {} to {}, {} times as long.",
            at(from),
            at(to),
            time(*good),
            time(*bad),
            factor(*ratio)
        ),
        Say::Queue { load, excess } => format!(
            "At {} the wait grew over the run as a queue does when the load is {} above capacity.",
            at(load),
            percent(*excess)
        ),
        Say::AtCapacity { load, ratio, share } => format!(
            "At {} the first token takes {} times its base while {} of the load is served: at capacity, not past it.",
            at(load),
            factor(*ratio),
            percent(*share)
        ),
        Say::Held { from, to, less, more } => format!(
            "Requests in flight go from {} at {} to {} at {}: faster than the load, as when a backlog builds up.",
            plain(less.round()),
            at(from),
            plain(more.round()),
            at(to)
        ),
        Say::Tokens { total, output } => match (total, output) {
            (Some(total), _) => {
                format!("In tokens the plateau is about {} a second, prompts and answers together.", whole(*total))
            }
            (None, Some(output)) => {
                format!("In tokens the plateau is about {} output tokens a second.", whole(*output))
            }
            (None, None) => "Tokens were not counted.".to_owned(),
        },
        Say::ClosedFlat { from, to, gain } => format!(
            "From {} to {} in flight throughput changes by no more than {}: more requests in flight bring nothing.",
            plain(*from),
            plain(*to),
            percent(gain.max(0.0))
        ),
        Say::StillRising { from, to, gain } if *gain >= 0.0 => {
            format!("From {} to {} in flight throughput still grows by {}.", plain(*from), plain(*to), percent(*gain))
        }
        Say::StillRising { from, to, gain } => {
            format!(
                "From {} to {} in flight throughput falls by {}, once, at the last level.",
                plain(*from),
                plain(*to),
                percent(-gain)
            )
        }
        Say::LatencyPays { from, to, less, more } => format!(
            "What grows instead is the time a request takes: from {} at {} to {} at {} in flight.",
            time(*less),
            plain(*from),
            time(*more),
            plain(*to)
        ),
        Say::TwoKnees { throughput, before, latency } => format!(
            "Two knees: throughput is flat from {} on, while the time to first token rises steeply only between {} and {}. The verdict is about throughput.",
            at(throughput),
            plain(*before),
            at(latency)
        ),
        Say::Retrograde { peak, most, last, least } => format!(
            "Past the knee throughput falls: from {} req/s at {} to {} at {}.",
            plain(*most),
            at(peak),
            plain(*least),
            at(last)
        ),
        Say::NeverSaturated { highest } => {
            format!(
                "No level up to {} is saturated: the largest throughput is a lower bound of what the system can do.",
                at(highest)
            )
        }
        Say::AlwaysSaturated { lowest } => {
            format!("Even the lowest level, {}, is saturated: the limit lies below it.", at(lowest))
        }
        other => limits(other, &at).unwrap_or_else(|| next(other, &loads)),
    }
}

fn drain(load: f64, served: f64, requests: f64, assumed: bool, tail: f64) -> String {
    let known = if assumed {
        format!(
            "the file does not say how many requests were sent; with {} of them a tail of {} is enough",
            whole(requests),
            time(tail)
        )
    } else {
        format!("with {} requests a tail of {} explains it", whole(requests), time(tail))
    };
    format!(
        "{} of {} req/s is the drain, not saturation: a run of N requests at rate R reads N / (N/R + tail), because the last answers \
         still have to finish after the last request was sent; {known}.",
        plain(served),
        plain(load)
    )
}

fn limits(said: &Say, at: &dyn Fn(&f64) -> String) -> Option<String> {
    Some(match said {
        Say::Omission { load, sent, delay, ttft } => format!(
            "At {} requests left the client {} late on average{}: coordinated omission. The time to first token of {} is a lower bound; from the \
             schedule it is {}.",
            at(load), time(*delay), sent.map(|sent| format!(" (it sent {} req/s)", plain(sent))).unwrap_or_default(), time(*ttft), time(delay + ttft)
        ),
        Say::ClientLimited { load, sent } => format!(
            "At {} the client could not offer the load{} while the server answered at once: the level shows nothing about the server and is left out.",
            at(load), sent.map(|sent| format!(" (it sent {} req/s)", plain(sent))).unwrap_or_default()
        ),
        Say::Cold { load, first, second } => format!(
            "The first level ({}) was cold: its time to first token, {}, is above the {} of the next one. It is used as a bound only.",
            at(load), time(*first), time(*second)
        ),
        Say::Failures { load, share } => {
            format!("At {} {} of the requests failed; latencies are those of the others.", at(load), percent(*share))
        }
        Say::Few { load, requests, noise } => format!(
            "At {} only {} requests were completed: chance alone moves a rate by {}.",
            at(load), whole(*requests), percent(*noise)
        ),
        Say::MediansOnly => "The source gives medians, not means; ratios of times to first token are ratios of medians.".to_owned(),
        Say::NoTtft => "The source gives no time to first token; end-to-end times stand in for it.".to_owned(),
        Say::NoCounts => "The source gives neither the number of requests nor the length of a run, so the drain of each run can only be inferred from the others.".to_owned(),
        Say::OneRun => "Every level was run once: repeats would separate chance from the system.".to_owned(),
        Say::UnderRead { share } => format!("Fill and drain are part of each run: the plateau may be read up to {} too low.", percent(*share)),
        Say::Lengths { factor: by } => format!("The mean length of a request differs by a factor of {} between levels.", plain(*by)),
        Say::Burst { requests, served } => format!(
            "A burst{}{} was left out: it bounds the throughput, but it is no load level.",
            requests.map(|requests| format!(" of {} requests", whole(requests))).unwrap_or_default(),
            served.map(|served| format!(" ({} req/s)", plain(served))).unwrap_or_default()
        ),
        Say::NoThroughput { load } => format!("At {} no throughput is given; the level is left out.", at(load)),
        Say::Repeats { load, times, low, high } => {
            format!("At {} there are {times} runs, from {} to {} req/s; their middle is used.", at(load), plain(*low), plain(*high))
        }
        Say::ClosedLoop => "Closed loop: the client waits for the server, so times to first token hide what an open stream of callers would wait.".to_owned(),
        Say::Contradiction { good, bad } => {
            format!("Refused: {} looks saturated, yet the higher load {} is served as it comes. The order of the levels contradicts itself.", at(bad), at(good))
        }
        Say::DipThenRise { from, to, last, gain } => format!(
            "Refused: throughput stood still from {} to {} in flight and then grew again by {} up to {}: neither a plateau nor a rise.",
            plain(*from), plain(*to), percent(*gain), plain(*last)
        ),
        Say::PeakThenFall { peak, next, fall } => format!(
            "Refused: throughput peaks at {} and falls by {} from {} on; with one run a level this is the system or chance, and nothing shows which.",
            at(peak), percent(*fall), at(next)
        ),
        Say::OneLevel { saturated: true } => "Refused: there is one level, and it looks saturated; without a lower one there is nothing to compare it with.".to_owned(),
        Say::OneLevel { saturated: false } => "Refused: there is one level only.".to_owned(),
        Say::NothingUsable => "Refused: no level can be used.".to_owned(),
        Say::MixedLengths { factor: by } => {
            format!("Refused: requests differ in length by a factor of {} between levels; these are different experiments.", plain(*by))
        }
        _ => return None,
    })
}

fn next(said: &Say, loads: &dyn Fn(&[f64]) -> String) -> String {
    match said {
        Say::Bisect { loads: inside } => format!("Run {} to narrow the interval.", loads(inside)),
        Say::Higher { loads: higher } => format!("Go higher: {}.", loads(higher)),
        Say::Lower { loads: lower } => format!("Go lower: {}.", loads(lower)),
        Say::Repeat { loads: again, times } => format!("Repeat {} {times} times each.", loads(again)),
        Say::MoreRequests { requests, load, share } => format!(
            "Send at least {} requests at {} req/s, and in proportion at other rates: then the drain is below {} of the run.",
            whole(*requests),
            plain(*load),
            percent(*share)
        ),
        Say::LiftCap => {
            "Raise the client's cap on requests in flight, or add clients: an open loop must not wait for the server."
                .to_owned()
        }
        Say::Advice(advice) => format!("{} {} {}: {}", advice.engine, advice.setting, advice.value, advice.why()),
        Say::WarmUp => "Warm the server up before the first level.".to_owned(),
        Say::Scale { gpus, loads: rates } => format!(
            "Then the same on {} GPUs at {}: `weir plan --gpus {}` says with how many requests.",
            plain(*gpus),
            loads(rates),
            plain(*gpus)
        ),
        Say::Goodput { load, goodput, slo, estimated } => format!(
            "Within an SLO of {} to the first token the most is {} req/s, at {}{}.",
            time(*slo),
            plain(*goodput),
            loads(&[*load]),
            if *estimated { " (estimated from quantiles)" } else { "" }
        ),
        Say::NoGoodput { slo } => {
            format!("Goodput within {} is unknown: the source has neither a count nor quantiles.", time(*slo))
        }
        _ => String::new(),
    }
}
