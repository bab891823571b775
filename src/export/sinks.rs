//! Where reports of ended requests go: the access log and the exporter of spans.

use super::access::AccessLog;
use super::otlp::Spans;
use crate::measure;

/// Each report goes to every sink that is configured.
#[derive(Default)]
pub struct ReportSinks {
    pub access: Option<AccessLog>,
    pub spans: Option<Spans>,
}

impl measure::ReportSink for ReportSinks {
    fn closed(&self, report: Box<measure::RequestReport>) {
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

    fn unmeasured(&self, report: measure::UnmeasuredRequest) {
        if let Some(access) = &self.access {
            access.unmeasured(report);
        }
    }
}
