//! What is kept of a token that a read cuts or that holds escapes: a fixed number of bytes, and how long it was.

/// Room for `N` bytes of one token.
#[derive(Debug)]
pub(super) struct TokenBuffer<const N: usize> {
    bytes: [u8; N],
    used: usize,
    /// How many of the bytes are wanted, at most `N`.
    limit: usize,
    /// Bytes that came, kept or not.
    length: u64,
}

impl<const N: usize> Default for TokenBuffer<N> {
    fn default() -> Self {
        Self { bytes: [0; N], used: 0, limit: 0, length: 0 }
    }
}

impl<const N: usize> TokenBuffer<N> {
    /// Another token, of which this many bytes are wanted.
    pub fn begin(&mut self, limit: usize) {
        self.used = 0;
        self.limit = limit.min(N);
        self.length = 0;
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.length = self.length.saturating_add(bytes.len() as u64);
        let kept = bytes.len().min(self.limit - self.used);
        self.bytes[self.used..self.used + kept].copy_from_slice(&bytes[..kept]);
        self.used += kept;
    }

    pub fn push_char(&mut self, c: char) {
        self.push(c.encode_utf8(&mut [0; 4]).as_bytes());
    }

    /// The wanted bytes from the start.
    pub fn start(&self) -> &[u8] {
        &self.bytes[..self.used]
    }

    /// The whole token, unless it is longer than what was wanted.
    pub fn whole(&self) -> Option<&[u8]> {
        (self.used as u64 == self.length).then(|| self.start())
    }

    /// How long the token is so far.
    pub fn length(&self) -> u64 {
        self.length
    }
}
