//! Who is told of the ends of requests: the access log, and whoever sends spans.

use super::access::AccessLog;
use super::otlp::Spans;
use crate::measure;

/// Hands each report to whoever wants it.
#[derive(Default)]
pub struct Reports {
    pub access: Option<AccessLog>,
    pub spans: Option<Spans>,
}

impl measure::Reports for Reports {
    fn closed(&self, report: Box<measure::Report>) {
        match (&self.access, self.spans.as_ref().filter(|_| report.span.is_some())) {
            (Some(access), Some(spans)) => {
                spans.offer(report.clone());
                access.closed(report);
            }
            (Some(access), None) => access.closed(report),
            (None, Some(spans)) => spans.offer(report),
            (None, None) => {}
        }
    }

    fn unbooked(&self, report: measure::Unbooked) {
        if let Some(access) = &self.access {
            access.unbooked(report);
        }
    }
}
