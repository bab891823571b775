//! The simulated engine on a thread of its own.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use weir::clock::Clock;
use weir::engine::server::{Recorder, Settings, serve};

/// A running engine; it lives as long as the process.
pub struct Engine {
    pub address: SocketAddr,
    pub recorder: Arc<Recorder>,
}

impl Engine {
    /// Fifty times as fast as the profile says, faults allowed.
    pub fn quick() -> Self {
        Self::with(Clock::start(), |settings| settings.speed = 50.0)
    }

    /// The profile `seed` on `clock`, changed by `change`; it obeys `x-engine-fault` and records stamps, not bodies.
    pub fn with(clock: Clock, change: impl FnOnce(&mut Settings)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self::on(listener, clock, change)
    }

    /// The same on a port that is bound already, for whoever had to know its address first.
    pub fn on(listener: TcpListener, clock: Clock, change: impl FnOnce(&mut Settings)) -> Self {
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let recorder = Arc::new(Recorder::new());
        let mut settings = Settings::profile("seed", clock).unwrap();
        (settings.faults, settings.recorder) = (true, Some(recorder.clone()));
        change(&mut settings);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                serve(listener, settings, std::future::pending()).await
            })
        });
        Self { address, recorder }
    }

    /// A value off the engine's own `/metrics`: the first series whose name begins so.
    pub fn metric(&self, name: &str) -> f64 {
        let page =
            super::client::ask(self.address, b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").text();
        let line = page.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {page}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Requests that it runs or that wait in it now.
    pub fn busy(&self) -> f64 {
        self.metric("vllm:num_requests_running") + self.metric("vllm:num_requests_waiting{")
    }
}
