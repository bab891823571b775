//! The simulated engine as its clients see it: every dialect, cancellation, faults, stamps.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use weir::clock::Clock;
use weir::engine::model::Params;
use weir::engine::profile::{PROFILES, Setup};
use weir::engine::server::{EngineEnd, Recorder, Settings, serve};

const CHAT: &str = "/v1/chat/completions";

/// A running engine of one millisecond a step.
struct Engine {
    address: SocketAddr,
    recorder: Arc<Recorder>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<std::io::Result<()>>,
}

impl Engine {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let params = Params { base: 0.001, per_decode: 0.0, per_prefill_token: 0.0, ..PROFILES[0].setup.params };
        let mut settings = Settings::setup("quick", Setup { params, ..PROFILES[0].setup }, Clock::start());
        let recorder = Arc::new(Recorder::with_bodies());
        (settings.recorder, settings.faults) = (Some(Arc::clone(&recorder)), true);
        change(&mut settings);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(serve(listener, settings, async {
            let _ = stopped.await;
        }));
        Self { address, recorder, stop, served }
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.served.await.unwrap().unwrap();
    }

    async fn send(&self, path: &str, headers: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    async fn post(&self, path: &str, headers: &str, body: Value) -> Answer {
        Answer::read(self.send(path, headers, &body.to_string()).await).await
    }

    async fn get(&self, path: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        Answer::read(stream).await
    }

    async fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").await.body;
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Asks until the engine says so: the one thing a client cannot be told.
    async fn until(&self, name: &str, value: f64) {
        while (self.metric(name).await - value).abs() > 1e-9 {
            tokio::task::yield_now().await;
        }
    }
}

/// An answer read to the connection's end.
struct Answer {
    status: u16,
    headers: HashMap<String, String>,
    body: String,
    /// Whether the body ended as its framing says.
    complete: bool,
    reset: bool,
}

impl Answer {
    async fn read(mut stream: TcpStream) -> Self {
        let mut bytes = Vec::new();
        let reset = stream.read_to_end(&mut bytes).await.is_err();
        let text = String::from_utf8(bytes).unwrap();
        let (head, rest) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).map_or(0, |status| status.parse().unwrap());
        let headers: HashMap<_, _> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let (body, complete) = match headers.get("transfer-encoding") {
            Some(_) => unchunked(rest),
            None => {
                (rest.to_owned(), headers.get("content-length").is_some_and(|length| length.parse() == Ok(rest.len())))
            }
        };
        Self { status, headers, body, complete, reset }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The JSON of every `data:` line; `[DONE]` left out.
    fn events(&self) -> Vec<Value> {
        let data = self.body.lines().filter_map(|line| line.strip_prefix("data: "));
        data.filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).unwrap()).collect()
    }

    fn lines(&self) -> Vec<Value> {
        self.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn unchunked(mut rest: &str) -> (String, bool) {
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return (body, true);
        }
        let Some(data) = after.get(..size) else { return (body + after, false) };
        body += data;
        rest = after.get(size + 2..).unwrap_or_default();
    }
    (body, false)
}

fn chat(max_tokens: u32) -> Value {
    let messages = json!([{"role": "user", "content": "twelve bytes"}]);
    json!({"messages": messages, "stream": true, "max_tokens": max_tokens, "ignore_eos": true})
}

fn and(mut body: Value, more: Value) -> Value {
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn content(event: &Value) -> &str {
    event["choices"][0]["delta"]["content"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_chat_stream_has_role_tokens_finish_usage_and_done() {
    let engine = Engine::start().await;
    let answer = engine
        .post(CHAT, "x-request-id: r1\r\n", and(chat(5), json!({"stream_options": {"include_usage": true}})))
        .await;
    assert_eq!((answer.status, answer.complete), (200, true));
    assert_eq!(answer.headers["content-type"], "text/event-stream; charset=utf-8");
    assert_eq!(answer.headers["x-request-id"], "r1");
    assert!(answer.body.ends_with("data: [DONE]\n\n"));
    let events = answer.events();
    assert_eq!(events.len(), 7, "role, five tokens, usage");
    assert_eq!(events[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    assert!(events[1..6].iter().all(|event| !content(event).is_empty() && event["model"] == "weir-sim"));
    assert_eq!(events[4]["choices"][0]["finish_reason"], Value::Null);
    assert_eq!(events[5]["choices"][0]["finish_reason"], "length");
    assert_eq!(events[6]["choices"], json!([]));
    assert_eq!(events[6]["usage"], json!({"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}));
    engine.stop().await;
}

#[tokio::test]
async fn usage_comes_only_when_asked_for_and_may_run_along() {
    let engine = Engine::start().await;
    assert!(!engine.post(CHAT, "", chat(3)).await.body.contains("usage"));
    let options = json!({"stream_options": {"include_usage": true, "continuous_usage_stats": true}});
    let running: Vec<_> = engine.post(CHAT, "", and(chat(3), options)).await.events();
    let counts: Vec<_> = running.iter().map(|event| event["usage"]["completion_tokens"].as_u64().unwrap()).collect();
    assert_eq!(counts, [0, 1, 2, 3, 3]);
    engine.stop().await;
}

#[tokio::test]
async fn choices_interleave_and_each_finishes() {
    let engine = Engine::start().await;
    let answer = engine.post(CHAT, "", and(chat(4), json!({"n": 3}))).await;
    let tokens: Vec<_> = answer.events().iter().filter(|event| !content(event).is_empty()).cloned().collect();
    let order: Vec<_> = tokens.iter().map(|event| event["choices"][0]["index"].as_u64().unwrap()).collect();
    assert_eq!(order, [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2]);
    let finished = tokens.iter().filter(|event| event["choices"][0]["finish_reason"] == "length").count();
    assert_eq!(finished, 3);
    engine.stop().await;
}

#[tokio::test]
async fn completions_take_several_prompts() {
    let engine = Engine::start().await;
    let body = json!({"prompt": ["12345678", [1, 2, 3]], "n": 2, "max_tokens": 2, "ignore_eos": true});
    let body = and(body, json!({"stream": true, "stream_options": {"include_usage": true}}));
    let refused = engine.post("/v1/completions", "", body.clone()).await;
    assert_eq!(refused.status, 200, "{}", refused.body);
    let events = refused.events();
    assert_eq!(events.len(), 9, "2 prompts x 2 choices x 2 tokens, usage");
    assert!(events[..8].iter().all(|event| event["object"] == "text_completion" && event["choices"][0]["text"] != ""));
    assert_eq!(events[8]["usage"], json!({"prompt_tokens": 5, "completion_tokens": 8, "total_tokens": 13}));
    engine.stop().await;
}

#[tokio::test]
async fn answers_in_one_piece_in_every_dialect() {
    let engine = Engine::start().await;
    let whole = |body: Value| and(body, json!({"stream": false, "ignore_eos": true}));

    let answer = engine.post(CHAT, "", whole(chat(3))).await;
    assert_eq!((answer.status, answer.complete), (200, true));
    let document = answer.json();
    assert_eq!(document["choices"][0]["message"]["content"].as_str().unwrap().split(' ').count(), 3);
    assert_eq!(document["usage"]["completion_tokens"], 3);

    let document =
        engine.post("/v1/completions", "", whole(json!({"prompt": "x", "max_tokens": 2, "n": 2}))).await.json();
    assert_eq!(document["choices"].as_array().unwrap().len(), 2);
    assert_eq!(document["usage"]["completion_tokens"], 4);

    let messages = json!({"messages": [{"role": "user", "content": "12345678"}], "max_tokens": 3});
    let document = engine.post("/v1/messages", "", whole(messages)).await.json();
    assert_eq!(document["usage"], json!({"input_tokens": 2, "output_tokens": 3}));
    assert_eq!(document["stop_reason"], "max_tokens");

    let options = json!({"messages": [{"role": "user", "content": "x"}], "options": {"num_predict": 3}});
    let document = engine.post("/api/chat", "", whole(options)).await.json();
    assert_eq!((&document["done"], &document["eval_count"]), (&json!(true), &json!(3)));
    assert_eq!(document["message"]["content"].as_str().unwrap().split(' ').count(), 3);

    let document =
        engine.post("/api/generate", "", whole(json!({"prompt": "x", "options": {"num_predict": 2}}))).await.json();
    assert_eq!(document["response"].as_str().unwrap().split(' ').count(), 2);
    engine.stop().await;
}

#[tokio::test]
async fn anthropic_streams_named_events_without_done() {
    let engine = Engine::start().await;
    let body = json!({"messages": [{"role": "user", "content": "12345678"}], "system": "1234", "max_tokens": 2});
    let answer = engine.post("/v1/messages", "", and(body, json!({"stream": true, "ignore_eos": true}))).await;
    let names: Vec<_> = answer.body.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    let expected = ["message_start", "content_block_start", "content_block_delta", "content_block_delta"];
    assert_eq!(names[..4], expected);
    assert_eq!(names[4..], ["content_block_stop", "message_delta", "message_stop"]);
    let events = answer.events();
    assert!(events.iter().zip(&names).all(|(event, name)| event["type"] == *name));
    assert_eq!(events[0]["message"]["usage"]["input_tokens"], 3);
    assert_eq!(events[5]["usage"]["output_tokens"], 2);
    engine.stop().await;
}

#[tokio::test]
async fn ollama_streams_lines_by_default() {
    let engine = Engine::start().await;
    let options = json!({"options": {"num_predict": 3}, "ignore_eos": true});
    for (path, body) in [
        ("/api/chat", json!({"messages": [{"role": "user", "content": "12345678"}]})),
        ("/api/generate", json!({"prompt": "12345678"})),
    ] {
        let answer = engine.post(path, "", and(body, options.clone())).await;
        assert_eq!(answer.headers["content-type"], "application/x-ndjson");
        let lines = answer.lines();
        assert_eq!(lines.len(), 4, "{path}");
        assert!(lines[..3].iter().all(|line| line["done"] == false));
        let last = &lines[3];
        assert_eq!((&last["done"], &last["done_reason"]), (&json!(true), &json!("length")));
        assert_eq!((&last["prompt_eval_count"], &last["eval_count"]), (&json!(2), &json!(3)));
    }
    engine.stop().await;
}

#[tokio::test]
async fn lengths_and_words_repeat_with_the_seed() {
    let body = || json!({"messages": [{"role": "user", "content": "x"}], "stream": false});
    let play = async |seed| {
        let engine = Engine::with(|settings| (settings.seed, settings.speed) = (seed, 20.0)).await;
        let document = engine.post(CHAT, "", body()).await.json();
        engine.stop().await;
        document["choices"].clone()
    };
    let (first, second, other) = (play(5).await, play(5).await, play(6).await);
    assert_eq!(first, second);
    assert_ne!(first, other);
    assert_eq!(first[0]["finish_reason"], "stop");
}

#[tokio::test]
async fn events_carry_the_stamps_that_were_recorded() {
    let engine = Engine::start().await;
    let answer = engine.post(CHAT, "x-request-id: r1\r\nx-engine-stamps: 1\r\n", chat(6)).await;
    let record = engine.recorder.ended("r1").await;
    assert_eq!((record.end, record.emissions.len()), (EngineEnd::Finished, 6));
    let stamps: Vec<_> = answer.events()[1..].iter().map(|event| event["t_ns"].as_u64().unwrap()).collect();
    assert_eq!(stamps, record.emissions.iter().map(|stamp| stamp.as_nanos()).collect::<Vec<_>>());
    assert!(record.arrival < record.emissions[0]);
    assert!(record.emissions.is_sorted() && record.emissions[5] <= record.ended);
    assert_eq!(record.response_body, answer.body.as_bytes());
    assert_eq!(serde_json::from_slice::<Value>(&record.request_body).unwrap(), chat(6));
    assert!(!engine.post(CHAT, "", chat(2)).await.body.contains("t_ns"), "only when asked for");
    engine.stop().await;
}

#[tokio::test]
async fn tokens_are_never_early_and_speed_divides_the_time() {
    let step = |speed| async move {
        let engine = Engine::with(|settings| {
            settings.setup.params.base = 0.010;
            settings.speed = speed;
        })
        .await;
        engine.post(CHAT, "x-request-id: r\r\n", chat(21)).await;
        let record = engine.recorder.ended("r").await;
        engine.stop().await;
        (record.emissions[20].since(record.arrival), record.emissions[20].since(record.emissions[0]))
    };
    let (whole, _) = step(1.0).await;
    assert!(whole >= Duration::from_millis(210), "{whole:?}");
    let (fast, _) = step(4.0).await;
    assert!(fast >= Duration::from_micros(52_500) && fast < Duration::from_millis(210), "{fast:?}");
}

fn one_slot(settings: &mut Settings) {
    settings.setup.params.max_num_seqs = NonZeroU32::MIN;
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_slot_at_once() {
    let engine = Engine::with(one_slot).await;
    let leaver = engine.send(CHAT, "x-request-id: gone\r\n", &chat(100_000).to_string()).await;
    engine.recorder.arrived(1).await;
    engine.until("vllm:num_requests_running", 1.0).await;
    let body = chat(2).to_string();
    let next = engine.send(CHAT, "", &body).await;
    engine.until("vllm:num_requests_waiting{", 1.0).await;
    drop(leaver);
    assert_eq!(Answer::read(next).await.events().len(), 3);
    assert_eq!(engine.recorder.ended("gone").await.end, EngineEnd::Cancelled);
    assert_eq!(engine.metric("vllm:num_requests_running").await, 0.0);
    assert_eq!(engine.metric("vllm:kv_cache_usage_perc").await, 0.0);
    let aborted = "vllm:request_success_total{engine=\"0\",model_name=\"weir-sim\",finished_reason=\"abort\"}";
    assert_eq!(engine.metric(aborted).await, 1.0);
    engine.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_early_frees_its_slot_too() {
    let engine = Engine::with(one_slot).await;
    let body = and(chat(100_000), json!({"stream": false})).to_string();
    let leaver = engine.send(CHAT, "x-request-id: gone\r\n", &body).await;
    engine.until("vllm:num_requests_running", 1.0).await;
    drop(leaver);
    assert_eq!(engine.recorder.ended("gone").await.end, EngineEnd::Cancelled);
    assert_eq!(engine.post(CHAT, "", chat(2)).await.events().len(), 3);
    engine.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_the_queue_holds_nobody_up() {
    let engine = Engine::with(one_slot).await;
    let first = engine.send(CHAT, "", &chat(100_000).to_string()).await;
    engine.until("vllm:num_requests_running", 1.0).await;
    let waiter = engine.send(CHAT, "x-request-id: gone\r\n", &chat(5).to_string()).await;
    engine.until("vllm:num_requests_waiting{", 1.0).await;
    drop(waiter);
    assert!(engine.recorder.ended("gone").await.emissions.is_empty());
    engine.until("vllm:num_requests_waiting{", 0.0).await;
    drop(first);
    engine.stop().await;
}

#[tokio::test]
async fn a_finished_request_is_not_counted_as_aborted() {
    let engine = Engine::start().await;
    engine.post(CHAT, "", chat(3)).await;
    engine.post(CHAT, "", and(chat(3), json!({"stream": false}))).await;
    let success = |reason| {
        format!("vllm:request_success_total{{engine=\"0\",model_name=\"weir-sim\",finished_reason=\"{reason}\"}}")
    };
    assert_eq!(engine.metric(&success("abort")).await, 0.0);
    assert_eq!(engine.metric(&success("length")).await, 2.0);
    assert_eq!(engine.metric("vllm:generation_tokens_total").await, 6.0);
    assert_eq!(engine.metric("vllm:prompt_tokens_total").await, 6.0);
    assert_eq!(engine.metric("vllm:time_to_first_token_seconds_count").await, 2.0);
    engine.stop().await;
}

#[tokio::test]
async fn bad_requests_are_refused_in_the_callers_dialect() {
    let engine = Engine::start().await;
    let refuse = async |path: &str, body: &str| {
        let answer = Answer::read(engine.send(path, "", body).await).await;
        assert_eq!(answer.status, 400, "{path} {body}: {}", answer.body);
        answer.json()
    };
    for body in ["{", "[]", "{}", "{\"messages\":[],\"max_tokens\":3}", "{\"messages\":[{}],\"max_tokens\":-1}"] {
        assert_eq!(refuse(CHAT, body).await["error"]["code"], 400);
        assert_eq!(refuse("/v1/messages", body).await["error"]["type"], "invalid_request_error");
    }
    assert!(refuse("/api/chat", "{").await["error"].is_string());
    assert!(refuse("/api/generate", "{\"prompt\":3}").await["error"].is_string());
    let long = json!({"messages": [{"content": "x".repeat(1_700_000)}]}).to_string();
    assert!(refuse(CHAT, &long).await["error"]["message"].as_str().unwrap().contains("425000 tokens"));
    engine.stop().await;
}

#[tokio::test]
async fn reads_are_answered_and_the_rest_is_not_found() {
    let engine = Engine::start().await;
    assert_eq!(engine.get("/health").await.status, 200);
    assert_eq!(engine.get("/v1/models").await.json()["data"][0]["id"], "weir-sim");
    assert_eq!(engine.get("/v1/nothing").await.status, 404);
    assert_eq!(engine.get(CHAT).await.status, 405);
    assert_eq!(engine.metric("vllm:num_requests_running").await, 0.0);
    engine.stop().await;
}

#[tokio::test]
async fn breaks_come_after_the_tokens_asked_for() {
    let engine = Engine::start().await;
    let fault = async |fault: &str| {
        let answer = engine.post(CHAT, &format!("x-request-id: f\r\nx-engine-fault: {fault}\r\n"), chat(50)).await;
        let tokens = answer.events().iter().filter(|event| !content(event).is_empty()).count();
        (tokens, answer)
    };
    let (tokens, answer) = fault("truncate-after=4").await;
    assert_eq!((tokens, answer.complete, answer.body.contains("[DONE]")), (4, true, false));
    let (tokens, answer) = fault("cut-after=4").await;
    assert_eq!((tokens, answer.complete, answer.reset), (4, false, false));
    let (tokens, answer) = fault("reset-after=4").await;
    assert_eq!((tokens, answer.complete, answer.reset), (4, false, true));
    let (tokens, answer) = fault("error-event-after=4").await;
    assert_eq!((tokens, answer.complete), (4, true));
    assert!(answer.events().last().unwrap()["error"]["message"].is_string());
    assert!(answer.body.ends_with("[DONE]\n\n"));
    let (tokens, answer) = fault("cut-after=0").await;
    assert_eq!((tokens, answer.complete), (0, false));
    let (tokens, answer) = fault("cut-after=51").await;
    assert_eq!((tokens, answer.complete), (50, true), "the stream is over before");
    let ends: Vec<_> = engine.recorder.records().iter().map(|record| record.end).collect();
    assert_eq!(ends[..5], [EngineEnd::Broken; 5]);
    engine.until("vllm:num_requests_running", 0.0).await;
    engine.stop().await;
}

#[tokio::test]
async fn error_events_keep_to_the_dialect() {
    let engine = Engine::start().await;
    let header = "x-engine-fault: error-event-after=1\r\n";
    let body = and(chat(9), json!({"options": {"num_predict": 9}}));
    let answer = engine.post("/v1/messages", header, body.clone()).await;
    assert!(answer.body.contains("event: error\ndata: {\"error\":{"), "{}", answer.body);
    let answer = engine.post("/api/chat", header, body).await;
    assert!(answer.lines().last().unwrap()["error"].is_string());
    engine.stop().await;
}

#[tokio::test]
async fn refusals_hangs_and_late_heads_are_played() {
    let engine = Engine::start().await;
    let answer = engine.post(CHAT, "x-engine-fault: status=503\r\n", chat(3)).await;
    assert_eq!((answer.status, answer.json()["error"]["code"].as_u64()), (503, Some(503)));
    for head in ["slow-head", "slow-head=5"] {
        let answer = engine.post(CHAT, &format!("x-engine-fault: {head}\r\n"), chat(3)).await;
        assert_eq!(answer.events().len(), 4, "{head}");
    }
    assert_eq!(engine.post(CHAT, "x-engine-fault: nonsense\r\n", chat(3)).await.status, 400);

    let hung = engine.send(CHAT, "x-request-id: h\r\nx-engine-fault: hang\r\n", &chat(3).to_string()).await;
    engine.recorder.arrived(5).await;
    assert!(hung.try_read(&mut [0; 1]).is_err(), "nothing to read");
    drop(hung);
    assert!(engine.recorder.ended("h").await.emissions.is_empty());

    let mut stalled =
        engine.send(CHAT, "x-request-id: s\r\nx-engine-fault: stall-after=1\r\n", &chat(3).to_string()).await;
    assert!(stalled.read(&mut [0; 4096]).await.unwrap() > 0);
    drop(stalled);
    assert!(engine.recorder.ended("s").await.emissions.len() <= 1);
    engine.stop().await;
}

#[tokio::test]
async fn faults_are_ignored_unless_allowed() {
    let engine = Engine::with(|settings| settings.faults = false).await;
    assert_eq!(engine.post(CHAT, "x-engine-fault: status=503\r\n", chat(3)).await.events().len(), 4);
    engine.stop().await;
}

#[tokio::test]
async fn stopping_breaks_open_streams_off() {
    let engine = Engine::start().await;
    let open = engine.send(CHAT, "", &chat(100_000).to_string()).await;
    engine.until("vllm:num_requests_running", 1.0).await;
    engine.stop().await;
    assert!(!Answer::read(open).await.complete);
}
