//! Clients that want their answer whole, in mode enforce: the engine is asked for a stream and the client gets one document.

use sha2::{Digest, Sha256};
use weir::measure::Outcome;

use crate::support::client::{Answer, CHAT, Client, post};
use crate::support::engine::Engine;
use crate::support::origin::{Origin, SSE, chunk, closing, event, whole};
use crate::support::weir::{Weir, finished, total};

const ASKED: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":4}"#;
const TURNED: &str = r#"{"stream_options":{"include_usage":true},"stream":true,"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":4}"#;

fn streaming() -> Origin {
    Origin::start(|talk| {
        while talk.request().is_some() && talk.write(&[SSE, &event("a")[..], &event("b")[..], &closing()[..]].concat())
        {
        }
    })
}

fn ask(weir: &Weir, path: &str, body: &str) -> Answer {
    Client::connect(weir.address).send(&post(path, "", body.as_bytes())).answer()
}

fn enforcing(origin: &Origin) -> Weir {
    Weir::with(&[origin.address], "mode: enforce", |_| {})
}

#[test]
fn the_engine_streams_and_the_client_gets_one_document() {
    let origin = streaming();
    let weir = enforcing(&origin);
    let mut client = Client::connect(weir.address);
    for _ in 0..2 {
        let answer = client.send(&post(CHAT, "", ASKED.as_bytes())).answer();
        assert_eq!((answer.status, answer.chunked), (200, false), "{}", answer.head);
        assert_eq!(answer.field("content-type"), Some("application/json"));
        assert_eq!(answer.head.matches("content-type").count(), 1);
        assert!(answer.field("x-weir-backend").is_some() && answer.field("x-request-id").is_some());
        let expected = r#"{"choices":[{"index":0,"message":{"content":"ab"},"finish_reason":"stop"}]}"#;
        assert_eq!(answer.text(), expected);
    }
    let seen = origin.seen();
    assert_eq!((seen[0].length, seen[0].sha256), (TURNED.len(), Sha256::digest(TURNED).into()));
    let books = weir.settled();
    assert_eq!(finished(&books, Outcome::Completed), 2);
    assert_eq!(
        (total(&books, |b| b.ttft[0].count()), total(&books, |b| b.ttft[1].count())),
        (2, 0),
        "under streaming=false"
    );
    assert_eq!(weir.proxy().memory.used(), 0);
}

#[test]
fn observing_or_in_doubt_the_request_goes_as_it_came() {
    let origin = Origin::always(whole("{}"));
    let off =
        format!("backends: [{{url: 'http://{}', engine: none, reassemble: false}}]\nmode: enforce", origin.address);
    let off = Weir::of(&off);
    for (weir, body) in [
        (Weir::before(&[origin.address]), ASKED.to_owned()),
        (off, ASKED.to_owned()),
        (enforcing(&origin), ASKED.replace("max_tokens", "prompt_logprobs")),
        (enforcing(&origin), ASKED.replace("{\"model\"", "{\"stream_options\":null,\"model\"")),
    ] {
        assert_eq!(ask(&weir, CHAT, &body).text(), "{}");
        let last = origin.seen().pop().unwrap();
        assert_eq!((last.length, last.sha256), (body.len(), Sha256::digest(&body).into()), "{body}");
    }
}

#[test]
fn an_engine_that_answers_whole_all_the_same_is_passed_on() {
    let origin = Origin::always(
        b"HTTP/1.1 400 Bad\r\ncontent-type: application/json\r\ncontent-length: 14\r\n\r\n{\"error\":\"no\"}".to_vec(),
    );
    let weir = enforcing(&origin);
    let answer = ask(&weir, CHAT, ASKED);
    assert_eq!((answer.status, answer.text().as_str()), (400, r#"{"error":"no"}"#));
}

#[test]
fn an_error_or_an_end_in_mid_stream_is_no_answer() {
    let said = Origin::start(|talk| {
        while talk.request().is_some() {
            let error = chunk(b"data: {\"error\":{\"message\":\"out of memory\",\"code\":503}}\n\ndata: [DONE]\n\n");
            talk.write(&[SSE, &event("a")[..], &error[..], b"0\r\n\r\n"].concat());
        }
    });
    let weir = enforcing(&said);
    let answer = ask(&weir, CHAT, ASKED);
    assert_eq!((answer.status, answer.text().as_str()), (503, r#"{"error":{"message":"out of memory","code":503}}"#));
    assert_eq!(finished(&weir.settled(), Outcome::UpstreamError), 1);

    let breaks: [fn(&mut crate::support::Conversation); 3] =
        [|talk| talk.reset(), |_| {}, |talk| _ = talk.write(b"0\r\n\r\n")];
    for end in breaks {
        let origin = Origin::start(move |talk| {
            if talk.request().is_some() {
                talk.write(&[SSE, &event("a")[..]].concat());
                end(talk);
            }
        });
        let weir = enforcing(&origin);
        let answer = ask(&weir, CHAT, ASKED);
        assert!(answer.status == 502 && answer.complete, "{}", answer.head);
        assert_eq!(finished(&weir.settled(), Outcome::Completed), 0);
        assert_eq!(weir.proxy().memory.used(), 0);
    }
}

#[test]
fn what_cannot_be_held_is_refused_and_given_back() {
    let endless = Origin::start(|talk| {
        if talk.request().is_some() {
            let text = event(&"x".repeat(1000));
            talk.write(SSE);
            while talk.write(&text) {}
        }
    });
    let weir = Weir::with(&[endless.address], "mode: enforce\nlimits: {max_body: 1MiB, body_memory: 1MiB}", |_| {});
    let answer = ask(&weir, CHAT, ASKED);
    assert_eq!((answer.status, answer.field("x-weir-shed-reason")), (503, Some("body_memory")));
    weir.settled();
    assert_eq!(weir.proxy().memory.used(), 0);
}

/// The answer byte for byte, without what the clock says.
fn steady(answer: &Answer) -> String {
    let digits = |text: &str| text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect::<String>();
    let text = answer.text();
    let stamped = ["created_at", "_duration"];
    let fields = text.split_inclusive(',').map(|field| {
        if stamped.iter().any(|name| field.contains(name)) { digits(field).replace('0', "") } else { field.to_owned() }
    });
    fields.collect()
}

#[test]
fn the_simulated_engines_answers_are_the_same_in_every_dialect() {
    use weir::engine::server::ServedFamily;
    let cases = [
        (
            ServedFamily::OpenAi,
            CHAT,
            r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":5,"ignore_eos":true}"#,
        ),
        (ServedFamily::OpenAi, "/v1/completions", r#"{"model":"m","prompt":"a b c","max_tokens":5,"ignore_eos":true}"#),
        (
            ServedFamily::Anthropic,
            "/v1/messages",
            r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":5}"#,
        ),
        (
            ServedFamily::Ollama,
            "/api/chat",
            r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":false,"options":{"num_predict":5}}"#,
        ),
        (
            ServedFamily::Ollama,
            "/api/generate",
            r#"{"model":"m","prompt":"a","stream":false,"options":{"num_predict":5}}"#,
        ),
    ];
    for (family, path, body) in cases {
        // Two of a kind: what an engine says depends on how much it has said before.
        let engine = || {
            let clock = weir::clock::Clock::start();
            Engine::with(clock, |settings| (settings.speed, settings.dialect) = (50.0, family))
        };
        let direct = Client::connect(engine().address).send(&post(path, "", body.as_bytes())).answer();
        let weir = Weir::with(&[engine().address], "mode: enforce", |_| {});
        let through = ask(&weir, path, body);
        assert_eq!((direct.status, through.status), (200, 200), "{path}: {}", through.text());
        println!("{path}\n  {}\n  {}", direct.text(), through.text());
        assert_eq!(steady(&through), steady(&direct), "{path}");
        assert_eq!(total(&weir.settled(), |b| b.ttft[0].count()), 1, "{path} was not streamed");
    }
}
