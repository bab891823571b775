//! The Korean of every sentence.

use super::super::say::Say;
use super::number::{factor, list, percent, plain, time, whole};
use crate::estimate::{Advice, CountedBy};

/// One sentence, with its full stop.
// Long: an arm for each sentence.
pub fn sentence(said: &Say, closed: bool) -> String {
    let at = |load: &f64| {
        if closed { format!("동시 요청 {}개", plain(*load)) } else { format!("{} req/s", plain(*load)) }
    };
    let loads = |loads: &[f64]| {
        if closed { format!("동시 요청 {}개", list(loads)) } else { format!("{} req/s", list(loads)) }
    };
    match said {
        Say::KeepsUp { load, served, ttft: Some(ttft) } => {
            format!(
                "부하 {}에서는 안정적입니다. {} req/s를 처리하고 첫 토큰은 {} 만에 나옵니다.",
                at(load),
                plain(*served),
                time(*ttft)
            )
        }
        Say::KeepsUp { load, served, ttft: None } => {
            format!("부하 {}에서는 안정적입니다. {} req/s를 처리합니다.", at(load), plain(*served))
        }
        Say::Drain { load, served, requests, assumed, tail, .. } => drain(*load, *served, *requests, *assumed, *tail),
        Say::Flat { from, to, low, high } => format!(
            "부하를 {}에서 {} req/s로 늘려도 처리량은 {}~{} req/s에서 정체됩니다.",
            plain(*from),
            plain(*to),
            plain(*low),
            plain(*high)
        ),
        Say::Short { load, served, best } => format!(
            "부하 {}에서 {} req/s만 처리합니다(들어온 양의 {}). 감당하는 시스템이라면 이 길이의 실행에서 적어도 {} req/s가 나와야 합니다.",
            at(load),
            plain(*served),
            percent(served / load),
            plain(*best)
        ),
        Say::Over { load, most } => format!(
            "{}은(는) 드레인 시간을 모두 돌려주어도 이 시스템이 어떤 부하에서든 처리한 최대량({} req/s)보다 많습니다.",
            at(load),
            plain(*most)
        ),
        Say::Jump { from, to, good, bad, ratio } => format!(
            "부하가 {}에서 {}(으)로 늘면 첫 토큰까지의 시간이 {}에서 {}(으)로 {}배 폭증합니다.",
            at(from),
            at(to),
            time(*good),
            time(*bad),
            factor(*ratio)
        ),
        Say::Queue { load, excess } => format!(
            "부하 {}에서는 대기 시간이 실행 내내 늘었습니다. 부하가 처리 능력보다 {} 많을 때의 대기열과 같습니다.",
            at(load),
            percent(*excess)
        ),
        Say::AtCapacity { load, ratio, share } => format!(
            "부하 {}에서 첫 토큰 시간이 기준의 {}배이지만 부하의 {}를 처리합니다. 한계에 닿았으나 넘지는 않았습니다.",
            at(load),
            factor(*ratio),
            percent(*share)
        ),
        Say::Held { from, to, less, more } => format!(
            "동시에 처리 중인 요청이 부하 {}의 {}개에서 {}의 {}개로, 부하보다 빠르게 늘어 밀린 요청이 쌓입니다.",
            at(from),
            plain(less.round()),
            at(to),
            plain(more.round())
        ),
        Say::Tokens { total, output } => match (total, output) {
            (Some(total), _) => {
                format!("토큰으로는 초당 약 {}개(프롬프트와 출력 합계)에서 한계에 도달합니다.", whole(*total))
            }
            (None, Some(output)) => format!("토큰으로는 초당 출력 약 {}개에서 한계에 도달합니다.", whole(*output)),
            (None, None) => "토큰 수는 측정되지 않았습니다.".to_owned(),
        },
        Say::ClosedFlat { from, to, gain } => format!(
            "동시 요청을 {}개에서 {}개로 늘려도 처리량은 최대 {}만 달라집니다.",
            plain(*from),
            plain(*to),
            percent(gain.max(0.0))
        ),
        Say::StillRising { from, to, gain } if *gain >= 0.0 => {
            format!(
                "동시 요청이 {}개에서 {}개로 늘 때 처리량이 아직 {} 증가합니다.",
                plain(*from),
                plain(*to),
                percent(*gain)
            )
        }
        Say::StillRising { from, to, gain } => {
            format!(
                "동시 요청이 {}개에서 {}개로 늘 때 마지막 수준에서 처리량이 한 번 {} 감소합니다.",
                plain(*from),
                plain(*to),
                percent(-gain)
            )
        }
        Say::LatencyPays { from, to, less, more } => format!(
            "대신 요청 하나에 걸리는 시간이 늘어납니다. 동시 요청 {}개에서 {}, {}개에서 {}입니다.",
            plain(*from),
            time(*less),
            plain(*to),
            time(*more)
        ),
        Say::TwoKnees { throughput, before, latency } => format!(
            "꺾이는 점이 둘입니다. 처리량은 {}부터 정체되지만 첫 토큰 시간은 {}와 {} 사이에서야 폭증합니다. 판정은 처리량 기준입니다.",
            at(throughput),
            plain(*before),
            at(latency)
        ),
        Say::Retrograde { peak, most, last, least } => format!(
            "포화점을 지나면 처리량이 오히려 줄어듭니다. {}에서 {} req/s, {}에서 {} req/s입니다.",
            at(peak),
            plain(*most),
            at(last),
            plain(*least)
        ),
        Say::NeverSaturated { highest } => {
            format!("{}까지 포화된 수준이 없습니다. 관측된 최대 처리량은 하한값입니다.", at(highest))
        }
        Say::AlwaysSaturated { lowest } => {
            format!("가장 낮은 {}에서도 이미 포화 상태입니다. 한계는 그 아래에 있습니다.", at(lowest))
        }
        other => limits(other, &at).unwrap_or_else(|| next(other, &loads)),
    }
}

fn drain(load: f64, served: f64, requests: f64, assumed: bool, tail: f64) -> String {
    let known = if assumed {
        format!("파일에 요청 수가 없지만 {}건이라면 꼬리 {}이면 충분합니다", whole(requests), time(tail))
    } else {
        format!("요청 {}건에 꼬리 {}이면 설명됩니다", whole(requests), time(tail))
    };
    format!(
        "{} req/s 중 {} req/s로 읽힌 것은 포화가 아니라 드레인 때문입니다. 요청 N건을 초당 R건으로 보내면 마지막 요청 뒤에도 남은 응답이 끝나야 하므로 N / (N/R + 꼬리)로 \
         읽힙니다. {known}.",
        plain(load),
        plain(served)
    )
}

fn limits(said: &Say, at: &dyn Fn(&f64) -> String) -> Option<String> {
    Some(match said {
        Say::Omission { load, sent, delay, ttft } => format!(
            "부하 {}에서 요청이 예정보다 평균 {} 늦게 나갔습니다{}. 조정된 누락(coordinated omission)이므로 첫 토큰 시간 {}은(는) 하한값이며 예정 시각 기준으로는 {}입니다.",
            at(load), time(*delay), sent.map(|sent| format!("(실제 송신 {} req/s)", plain(sent))).unwrap_or_default(), time(*ttft), time(delay + ttft)
        ),
        Say::ClientLimited { load, sent } => format!(
            "부하 {}에서는 서버가 바로 응답했는데도 부하 생성기가 부하를 만들지 못했습니다{}. 서버에 대해 알려 주는 것이 없어 제외했습니다.",
            at(load), sent.map(|sent| format!("(실제 송신 {} req/s)", plain(sent))).unwrap_or_default()
        ),
        Say::Cold { load, first, second } => format!(
            "첫 수준({})은 예열되지 않았습니다. 첫 토큰 시간 {}이(가) 다음 수준의 {}보다 깁니다. 한쪽 경계로만 사용했습니다.",
            at(load), time(*first), time(*second)
        ),
        Say::Failures { load, share } => format!("부하 {}에서 요청의 {}가 실패했습니다. 응답 시간은 나머지 요청의 값입니다.", at(load), percent(*share)),
        Say::Few { load, requests, noise } => {
            format!("부하 {}에서 완료된 요청이 {}건뿐이어서 우연만으로도 처리율이 {} 달라집니다.", at(load), whole(*requests), percent(*noise))
        }
        Say::MediansOnly => "원본에 평균이 없고 중앙값만 있어 첫 토큰 시간의 비율은 중앙값의 비율입니다.".to_owned(),
        Say::NoTtft => "원본에 첫 토큰 시간이 없어 전체 응답 시간을 대신 사용했습니다.".to_owned(),
        Say::NoCounts => "원본에 요청 수와 실행 시간이 없어 각 실행의 드레인은 다른 수준에서 추정한 것입니다.".to_owned(),
        Say::OneRun => "각 수준을 한 번씩만 측정했습니다. 반복하면 우연과 시스템의 특성을 구분할 수 있습니다.".to_owned(),
        Say::UnderRead { share } => format!("채움과 드레인이 실행에 포함되어 정체 구간이 최대 {} 낮게 읽혔을 수 있습니다.", percent(*share)),
        Say::Lengths { factor: by } => format!("요청의 평균 길이가 수준에 따라 {}배까지 다릅니다.", plain(*by)),
        Say::Burst { requests, served } => format!(
            "일괄 요청{}{}은(는) 부하 수준이 아니므로 제외했습니다. 처리량의 참고값일 뿐입니다.",
            requests.map(|requests| format!(" {}건", whole(requests))).unwrap_or_default(),
            served.map(|served| format!("({} req/s)", plain(served))).unwrap_or_default()
        ),
        Say::NoThroughput { load } => format!("부하 {}에는 처리량이 없어 제외했습니다.", at(load)),
        Say::Repeats { load, times, low, high } => {
            format!("부하 {}에서 {times}회 측정했고 {}~{} req/s입니다. 가운데 값을 사용했습니다.", at(load), plain(*low), plain(*high))
        }
        Say::ClosedLoop => "폐루프 측정입니다. 부하 생성기가 서버를 기다리므로 실제 사용자가 겪을 대기 시간이 첫 토큰 시간에 나타나지 않습니다.".to_owned(),
        Say::Contradiction { good, bad } => {
            format!("판정 보류: {}은(는) 포화로 보이는데 더 높은 {}은(는) 그대로 처리됩니다. 수준의 순서가 서로 모순됩니다.", at(bad), at(good))
        }
        Say::DipThenRise { from, to, last, gain } => format!(
            "판정 보류: 처리량이 동시 요청 {}개에서 {}개까지 멈추었다가 {}개까지 다시 {} 늘었습니다. 정체도 증가도 아닙니다.",
            plain(*from), plain(*to), plain(*last), percent(*gain)
        ),
        Say::PeakThenFall { peak, next, fall } => format!(
            "판정 보류: 처리량이 {}에서 최고였다가 {}부터 {} 떨어집니다. 수준마다 한 번만 측정해서 시스템의 특성인지 우연인지 구분할 수 없습니다.",
            at(peak), at(next), percent(*fall)
        ),
        Say::OneLevel { saturated: true } => "판정 보류: 수준이 하나뿐이고 포화로 보이지만 비교할 더 낮은 수준이 없습니다.".to_owned(),
        Say::OneLevel { saturated: false } => "판정 보류: 수준이 하나뿐입니다.".to_owned(),
        Say::NothingUsable => "판정 보류: 사용할 수 있는 수준이 없습니다.".to_owned(),
        Say::MixedLengths { factor: by } => format!("판정 보류: 요청 길이가 수준에 따라 {}배 달라 서로 다른 실험입니다.", plain(*by)),
        _ => return None,
    })
}

fn next(said: &Say, loads: &dyn Fn(&[f64]) -> String) -> String {
    match said {
        Say::Bisect { loads: inside } => format!("구간을 좁히려면 {}을(를) 실행하십시오.", loads(inside)),
        Say::Higher { loads: higher } => format!("더 높은 부하를 실행하십시오: {}.", loads(higher)),
        Say::Lower { loads: lower } => format!("더 낮은 부하를 실행하십시오: {}.", loads(lower)),
        Say::Repeat { loads: again, times } => format!("{}을(를) {times}회씩 반복하십시오.", loads(again)),
        Say::MoreRequests { requests, load, share } => format!(
            "{} req/s에서 요청을 적어도 {}건, 다른 부하에서는 비례하여 보내십시오. 그러면 드레인이 실행의 {} 아래가 됩니다.",
            plain(*load),
            whole(*requests),
            percent(*share)
        ),
        Say::LiftCap => {
            "부하 생성기의 동시 요청 상한을 올리거나 생성기를 늘리십시오. 개루프는 서버를 기다리면 안 됩니다."
                .to_owned()
        }
        Say::Advice(Advice { engine, setting, value, low, high, counts, .. }) => {
            let why = match counts {
                CountedBy::Running => format!(
                    "포화점의 동시 요청이 약 {value}건({low}~{high})이며, 배치에 더 넣어도 처리량은 늘지 않습니다."
                ),
                CountedBy::Waiting => format!(
                    "{value}건({low}~{high})은 포화점 처리율로 2초 분량입니다. 그 뒤에서 기다리면 늦으므로 바로 거절하는 편이 낫습니다."
                ),
                CountedBy::Both => {
                    format!("실행 중인 요청과 2초 분량의 대기를 함께 세는 한도이므로 {value}건({low}~{high})입니다.")
                }
            };
            format!("{engine} {setting} {value}: {why}")
        }
        Say::WarmUp => "첫 수준 전에 서버를 예열하십시오.".to_owned(),
        Say::Scale { gpus, loads: rates } => format!(
            "이어서 같은 실험을 GPU {}개에서 {}(으)로 실행하십시오. 요청 수는 `weir plan --gpus {}`이 알려 줍니다.",
            plain(*gpus),
            loads(rates),
            plain(*gpus)
        ),
        Say::Goodput { load, goodput, slo, estimated } => format!(
            "첫 토큰 {} 기준으로 제때 처리한 최대량은 부하 {}에서 {} req/s입니다{}.",
            time(*slo),
            loads(&[*load]),
            plain(*goodput),
            if *estimated { "(분위수에서 추정)" } else { "" }
        ),
        Say::NoGoodput { slo } => {
            format!("첫 토큰 {} 기준의 goodput은 알 수 없습니다. 원본에 개수도 분위수도 없습니다.", time(*slo))
        }
        _ => String::new(),
    }
}
