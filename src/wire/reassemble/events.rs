//! The data of events, whole: the other reader of a stream (`wire::sse`) never holds one.

/// Splits a stream into the data of its events.
#[derive(Debug)]
pub(super) struct Events {
    sse: bool,
    /// The line so far.
    line: Vec<u8>,
    /// The data lines of the event so far.
    data: Vec<u8>,
    has_data: bool,
    /// The last byte was a CR: an LF that follows belongs to it.
    after_cr: bool,
}

impl Events {
    pub fn sse() -> Self {
        Self { sse: true, line: Vec::new(), data: Vec::new(), has_data: false, after_cr: false }
    }

    pub fn ndjson() -> Self {
        Self { sse: false, ..Self::sse() }
    }

    pub fn feed(&mut self, bytes: &[u8], mut on_data: impl FnMut(&[u8])) {
        let mut rest = bytes;
        while !rest.is_empty() {
            if std::mem::take(&mut self.after_cr) && rest[0] == b'\n' {
                rest = &rest[1..];
                continue;
            }
            let Some(end) = memchr::memchr2(b'\n', b'\r', rest) else {
                self.line.extend_from_slice(rest);
                return;
            };
            self.line.extend_from_slice(&rest[..end]);
            self.after_cr = rest[end] == b'\r';
            rest = &rest[end + 1..];
            self.on_line(&mut on_data);
        }
    }

    /// What was not ended all the same counts: it may hold the finish.
    pub fn finish(&mut self, mut on_data: impl FnMut(&[u8])) {
        if !self.line.is_empty() {
            self.on_line(&mut on_data);
        }
        if self.sse {
            self.on_line(&mut on_data);
        }
    }

    fn on_line(&mut self, on_data: &mut impl FnMut(&[u8])) {
        let line = std::mem::take(&mut self.line);
        if !self.sse {
            if !line.trim_ascii().is_empty() {
                on_data(&line);
            }
        } else if line.is_empty() {
            if std::mem::take(&mut self.has_data) {
                on_data(&std::mem::take(&mut self.data));
            }
        } else if let Some(data) = line.strip_prefix(b"data:") {
            if std::mem::replace(&mut self.has_data, true) {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
        }
        self.line = line;
        self.line.clear();
    }
}
