//! weir's stamps beside the engine's own, on one clock, stream by stream and token by token.

use std::collections::HashMap;
use std::net::TcpListener;
use std::time::Duration;

use weir::measure::journal::JournalRecord;

use super::client::{CHAT, Client, chat, post};
use super::weir::scratch;
use super::{Engine, Weir, time};

/// Streams side by side.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Clients that read at once.
    pub readers: u32,
    /// Streams of each of them, one after the other.
    pub streams: u32,
    /// Streams whose clients take nothing until the others are done.
    pub stalled: u32,
    /// Tokens of the shortest stream; each further one has one more, which tells them apart.
    pub tokens: u32,
    /// How many times faster than the profile the engine runs.
    pub speed: f64,
}

/// One stream, as weir and as the engine saw it. Times in seconds.
#[derive(Clone, Debug)]
pub struct Pair {
    pub stalled: bool,
    /// weir's stamp minus the engine's, of every token.
    pub lags: Vec<f64>,
    /// weir's gap minus the engine's.
    pub gaps: Vec<f64>,
    /// weir's time from dispatch to first token minus the engine's from arrival to first token.
    pub ttft: f64,
    /// Gaps that weir ascribes to the client.
    pub limited: usize,
}

/// Plays the streams and pairs them.
///
/// # Panics
/// A stream or a token is missing on either side.
pub fn compare(plan: Plan) -> Vec<Pair> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let journal = scratch("stamps");
    let settings = format!("journal: {{path: {}}}\nlimits: {{write_stall: 10m}}", journal.display());
    let weir = Weir::with(&[listener.local_addr().unwrap()], &settings, |_| {});
    let engine = Engine::on(listener, weir.proxy().clock, |settings| settings.speed = plan.speed);
    let send = |number: u32, client: &mut Client| {
        let extra = format!("x-request-id: s{number}\r\nconnection: close\r\n");
        client.send(&post(CHAT, &extra, chat(plan.tokens + number).as_bytes()));
    };
    let read = plan.readers * plan.streams;
    let mut silent: Vec<_> = (read..read + plan.stalled)
        .map(|number| {
            let mut client = Client::with_receive_buffer(weir.address, 4096);
            send(number, &mut client);
            client
        })
        .collect();
    std::thread::scope(|scope| {
        for reader in 0..plan.readers {
            let (weir, send) = (&weir, &send);
            scope.spawn(move || {
                for stream in 0..plan.streams {
                    let mut client = Client::connect(weir.address);
                    send(reader * plan.streams + stream, &mut client);
                    assert!(client.answer().complete);
                }
            });
        }
    });
    let all = (read + plan.stalled) as usize;
    time::until("the engine has told everything", || engine.recorder.records().len() == all);
    if plan.stalled > 0 {
        // What a client has not taken is in weir, and was stamped when it came.
        time::until("weir holds what is not taken", || weir.proxy().memory.used() > 0);
        time::pause(Duration::from_millis(50));
    }
    for client in &mut silent {
        assert!(client.answer().complete);
    }
    weir.settled();
    let records: HashMap<u64, JournalRecord> =
        weir.stop().into_iter().map(|record| (record.max_output.unwrap(), record)).collect();
    (0..read + plan.stalled)
        .map(|number| {
            let ours = &records[&u64::from(plan.tokens + number)];
            let theirs = engine.recorder.record(&format!("s{number}")).unwrap();
            assert_eq!(theirs.emissions.len() as u64, u64::from(plan.tokens + number));
            pair(number >= read, ours, &theirs)
        })
        .collect()
}

fn pair(stalled: bool, ours: &JournalRecord, theirs: &weir::engine::server::EngineRecord) -> Pair {
    assert_eq!(ours.emissions.len(), theirs.emissions.len(), "every token has a stamp on both sides");
    let seconds = |nanos: i128| nanos as f64 / 1e9;
    let first = ours.timeline.first_token.unwrap();
    let mut stamp = first.as_nanos();
    let stamps: Vec<u64> = ours
        .emissions
        .iter()
        .map(|emission| {
            stamp += emission.gap;
            stamp
        })
        .collect();
    let told: Vec<u64> = theirs.emissions.iter().map(|stamp| stamp.as_nanos()).collect();
    let lags = stamps.iter().zip(&told).map(|(ours, theirs)| seconds(i128::from(*ours) - i128::from(*theirs)));
    let gap = |stamps: &[u64], i: usize| i128::from(stamps[i]) - i128::from(stamps[i - 1]);
    let gaps = (1..stamps.len()).map(|i| seconds(gap(&stamps, i) - gap(&told, i)));
    let upstream = first.since(ours.timeline.admitted.unwrap()).as_secs_f64();
    Pair {
        stalled,
        lags: lags.collect(),
        gaps: gaps.collect(),
        ttft: upstream - theirs.emissions[0].since(theirs.arrival).as_secs_f64(),
        limited: ours.emissions.iter().filter(|emission| emission.limited).count(),
    }
}
