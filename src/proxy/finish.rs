//! The end of an exchange: the connection goes back to the pool, the statistics are closed, and the client gets its last bytes.

use super::attempt::Attempt;
use super::client_io::write_all;
use super::connection::{AfterRequest, Connection, WRITE_PATIENCE};
use super::end::End;
use super::exchange::Exchange;
use super::io::Io;
use super::local_reply::{LocalReply, error_event};
use super::request::received::Request;
use super::timer::Timer;
use super::upstream::health;
use crate::http1::{BadAnswer, Version};
use crate::measure::{Outcome, UnmeasuredRequest};
use crate::vocabulary::backend_id::BackendId;

/// What is left to be done for the client.
pub(super) enum Conclusion {
    Next(AfterRequest),
    /// An event of weir's own, framed.
    Event(String),
    /// Show that the answer is not whole.
    Broken,
}

impl Connection<'_> {
    /// Pools the connection, closes the statistics, and decides what the client is still sent. `Err`: nothing of an answer was sent,
    /// and the client gets this reply.
    pub(super) fn conclude(
        &mut self,
        request: &Request,
        attempt: Attempt,
        exchange: Exchange,
        end: End,
    ) -> Result<Conclusion, LocalReply> {
        let proxy = &*self.worker.proxy;
        let now = proxy.clock.now();
        self.now = now;
        let Attempt { link, backend, tap, _permit, .. } = attempt;
        health::on_exchange_ended(proxy, backend, end, exchange.received(), now);
        if end == End::Whole && exchange.is_reusable() && request.upstream_request.is_written() {
            self.worker.idle.put(backend, link.target, link.stream, now);
        } else {
            drop(link);
        }
        let status = exchange.status();
        if let (Some(reply), None) = (end.local_reply(), status) {
            let outcome = tap.close(end, Some(reply.status()), now);
            self.trace_end(request, backend, end, outcome, Some(reply.status()));
            return Err(reply);
        }
        let event = tap
            .event_boundary()
            .filter(|_| end.local_reply().is_some() && !tap.has_terminated() && exchange.takes_event());
        let keeps = end == End::Whole && exchange.keeps_client() && !self.read_ahead.overflowed;
        drop(exchange);
        let outcome = tap.close(end, status, now);
        self.trace_end(request, backend, end, outcome, status);
        self.report_passed(request, backend, status, end);
        let broken = end.local_reply().is_some() && outcome != Some(Outcome::Completed);
        Ok(match event {
            Some(dialect) => {
                let event = match end {
                    End::Late => LocalReply::Late.event(dialect.family()),
                    _ => error_event(
                        dialect.family(),
                        "api_error",
                        "the backend broke off in the middle of the answer",
                        "backend_failed",
                    ),
                };
                Conclusion::Event(match request.version {
                    Version::V11 => format!("{:x}\r\n{event}\r\n", event.len()),
                    Version::V10 => event,
                })
            }
            None if keeps => Conclusion::Next(AfterRequest::Request),
            None if end == End::Whole => Conclusion::Next(AfterRequest::LingeringClose),
            // Without chunks or a length, only a reset distinguishes this from a whole answer.
            None if broken && request.version == Version::V10 => Conclusion::Broken,
            None => Conclusion::Next(AfterRequest::Close),
        })
    }

    /// The event that ends a stream which the backend broke off.
    pub(super) async fn send_event<D: Io>(
        &mut self,
        client: &mut D,
        timer: &mut Timer<'_>,
        event: &str,
    ) -> Result<AfterRequest, LocalReply> {
        timer.set(self.now + WRITE_PATIENCE);
        let _ = write_all(client, timer, event.as_bytes()).await;
        Ok(AfterRequest::Close)
    }

    /// A request that was relayed without being measured has ended.
    fn report_passed(&self, request: &Request, backend: BackendId, status: Option<u16>, end: End) {
        if request.shape.is_none() {
            let took = self.now.since(request.arrived);
            self.report_unmeasured(
                UnmeasuredRequest {
                    request_id: None,
                    backend: Some(backend),
                    status: status.unwrap_or(0),
                    outcome: PASSED,
                    took: Some(took),
                    bad_answer: end.bad_answer(),
                },
                Some(request),
            );
        }
    }

    fn trace_end(
        &self,
        request: &Request,
        backend: BackendId,
        end: End,
        outcome: Option<Outcome>,
        status: Option<u16>,
    ) {
        tracing::debug!(
            request_id = %request.id,
            backend = &*self.proxy().targets.name(backend),
            outcome = outcome.map_or(PASSED, Outcome::as_str),
            status,
            bad_answer = end.bad_answer().map(BadAnswer::as_str),
            "request ended"
        );
    }
}

/// How a request that is not measured ends.
const PASSED: &str = "passed";
