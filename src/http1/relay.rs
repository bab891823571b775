//! An answer's body on its way into the client's framing.
//!
//! Engine chunked, client HTTP/1.1: the read itself goes out, once all of it is checked. Every other case is written into
//! a scratch buffer. No unfinished line is ever sent: a size line that a read cuts is held as state and written by us when
//! it is complete, and the last chunk leaves only when the trailer section has ended, so that a body that breaks off
//! inside it cannot look whole.

use super::chunk::{ChunkPart, Chunks};
use super::request::Version;
use super::response::BodyKind;
use crate::vocabulary::bad_answer::BadAnswer;

/// The framing machine of one body.
#[derive(Clone, Debug)]
pub struct Relay {
    inbound: Inbound,
    out: OutFraming,
}

#[derive(Clone, Debug)]
enum Inbound {
    Length(u64),
    Chunked(Chunks),
    UntilClose,
    Ended,
    /// A rule was broken: nothing leaves any more.
    Broken(BadAnswer),
}

/// How the body is framed for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutFraming {
    /// There is no body.
    None,
    /// `Content-Length`; for the answer to a HEAD the length of what is not sent.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// Everything until the connection closes: for HTTP/1.0 clients.
    Close,
}

/// What one read amounts to.
#[derive(Debug, PartialEq, Eq)]
pub struct Fed<'a> {
    /// Bytes for the client.
    pub out: &'a [u8],
    /// Bytes of the read that belonged to the body; what is beyond is surplus.
    pub used: usize,
}

/// The body's end was not reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfinished;

impl Relay {
    /// A machine for a body of `kind` towards a client of `version`.
    pub fn new(kind: BodyKind, version: Version) -> Self {
        let (inbound, out) = match (kind, version) {
            (BodyKind::None { declared }, _) => (Inbound::Ended, declared.map_or(OutFraming::None, OutFraming::Length)),
            (BodyKind::Length(0), _) => (Inbound::Ended, OutFraming::Length(0)),
            (BodyKind::Length(n), _) => (Inbound::Length(n), OutFraming::Length(n)),
            (BodyKind::Chunked, Version::V11) => (Inbound::Chunked(Chunks::new()), OutFraming::Chunked),
            (BodyKind::Chunked, Version::V10) => (Inbound::Chunked(Chunks::new()), OutFraming::Close),
            (BodyKind::UntilClose, Version::V11) => (Inbound::UntilClose, OutFraming::Chunked),
            (BodyKind::UntilClose, Version::V10) => (Inbound::UntilClose, OutFraming::Close),
        };
        Self { inbound, out }
    }

    /// Takes one read and passes each payload byte to `on_payload` once, in place.
    ///
    /// # Errors
    /// Which rule the framing breaks; nothing of the read may leave.
    pub fn feed<'a>(
        &mut self,
        read: &'a [u8],
        scratch: &'a mut Vec<u8>,
        mut on_payload: impl FnMut(&[u8]),
    ) -> Result<Fed<'a>, BadAnswer> {
        match &mut self.inbound {
            Inbound::Chunked(chunks) => {
                let verbatim = self.out == OutFraming::Chunked;
                let fed = match dechunk(chunks, verbatim, read, scratch, on_payload) {
                    Ok(fed) => fed,
                    Err(cause) => {
                        self.inbound = Inbound::Broken(cause);
                        return Err(cause);
                    }
                };
                if chunks.ended() {
                    self.inbound = Inbound::Ended;
                }
                Ok(fed)
            }
            Inbound::Length(left) => {
                let n = usize::try_from(*left).unwrap_or(usize::MAX).min(read.len());
                on_payload(&read[..n]);
                *left -= n as u64;
                if *left == 0 {
                    self.inbound = Inbound::Ended;
                }
                Ok(Fed { out: &read[..n], used: n })
            }
            Inbound::UntilClose => {
                on_payload(read);
                if self.out == OutFraming::Close || read.is_empty() {
                    return Ok(Fed { out: read, used: read.len() });
                }
                scratch.clear();
                push_size(scratch, read.len());
                scratch.extend_from_slice(read);
                scratch.extend_from_slice(b"\r\n");
                Ok(Fed { out: scratch, used: read.len() })
            }
            Inbound::Ended => Ok(Fed { out: &[], used: 0 }),
            Inbound::Broken(cause) => Err(*cause),
        }
    }

    /// The backend closed: the proper end of a close-delimited body, and of no other.
    ///
    /// # Errors
    /// The body is not complete.
    pub fn closed<'a>(&mut self, scratch: &'a mut Vec<u8>) -> Result<&'a [u8], Unfinished> {
        scratch.clear();
        match self.inbound {
            Inbound::UntilClose => {
                if self.out == OutFraming::Chunked {
                    scratch.extend_from_slice(LAST_CHUNK);
                }
                self.inbound = Inbound::Ended;
                Ok(scratch)
            }
            Inbound::Ended => Ok(scratch),
            Inbound::Length(_) | Inbound::Chunked(_) | Inbound::Broken(_) => Err(Unfinished),
        }
    }

    /// The body's end was reached.
    pub fn ended(&self) -> bool {
        matches!(self.inbound, Inbound::Ended)
    }

    /// An event of weir's own may be put here: what was sent ends at a chunk boundary, or has no framing.
    pub fn at_chunk_boundary(&self) -> bool {
        match &self.inbound {
            Inbound::Chunked(chunks) => chunks.at_boundary(),
            Inbound::UntilClose => true,
            Inbound::Length(_) | Inbound::Ended | Inbound::Broken(_) => false,
        }
    }

    /// How the end of the body is marked for the client.
    pub fn out_framing(&self) -> OutFraming {
        self.out
    }
}

fn dechunk<'a>(
    chunks: &mut Chunks,
    verbatim: bool,
    read: &'a [u8],
    scratch: &'a mut Vec<u8>,
    mut on_payload: impl FnMut(&[u8]),
) -> Result<Fed<'a>, BadAnswer> {
    let mut out = Output::new(read, scratch);
    let mut at = 0;
    while let Some(part) = chunks.next(read, &mut at)? {
        match part {
            ChunkPart::Payload(range) => {
                on_payload(&read[range.clone()]);
                out.keep(range.start, range.end);
            }
            ChunkPart::Separator(range) if verbatim => out.keep(range.start, range.end),
            ChunkPart::Size { line, whole: true, .. } | ChunkPart::End { line, whole: true } if verbatim => {
                out.keep(line.start, line.end);
            }
            ChunkPart::Size { size, .. } if verbatim => out.make(|scratch| push_size(scratch, size as usize)),
            ChunkPart::End { .. } if verbatim => out.make(|scratch| scratch.extend_from_slice(LAST_CHUNK)),
            ChunkPart::Separator(_) | ChunkPart::Size { .. } | ChunkPart::End { .. } => {}
        }
    }
    Ok(Fed { out: out.finish(), used: at })
}

/// What goes out of one read: one run of it as long as that is possible, a copy from then on.
struct Output<'a> {
    read: &'a [u8],
    run: std::ops::Range<usize>,
    scratch: &'a mut Vec<u8>,
}

impl<'a> Output<'a> {
    fn new(read: &'a [u8], scratch: &'a mut Vec<u8>) -> Self {
        scratch.clear();
        Self { read, run: 0..0, scratch }
    }

    fn keep(&mut self, from: usize, to: usize) {
        if self.run.is_empty() {
            self.run = from..to;
        } else if self.run.end == from {
            self.run.end = to;
        } else {
            self.copy();
            self.run = from..to;
        }
    }

    fn make(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.copy();
        write(self.scratch);
    }

    fn copy(&mut self) {
        self.scratch.extend_from_slice(&self.read[self.run.clone()]);
        self.run = 0..0;
    }

    fn finish(mut self) -> &'a [u8] {
        if self.scratch.is_empty() {
            return &self.read[self.run];
        }
        self.copy();
        self.scratch
    }
}

fn push_size(out: &mut Vec<u8>, n: usize) {
    let mut digits = [0; 16];
    let (mut at, mut n) = (digits.len(), n);
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[n & 15];
        n >>= 4;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct RelayRun {
        out: Vec<u8>,
        payload: Vec<u8>,
        ended: bool,
    }

    fn run(kind: BodyKind, version: Version, pieces: &[&[u8]]) -> Result<RelayRun, BadAnswer> {
        let (mut relay, mut scratch) = (Relay::new(kind, version), Vec::new());
        let mut run = RelayRun { out: Vec::new(), payload: Vec::new(), ended: false };
        for piece in pieces {
            let payload = &mut run.payload;
            let fed = relay.feed(piece, &mut scratch, |bytes| payload.extend_from_slice(bytes))?;
            run.out.extend_from_slice(fed.out);
        }
        run.ended = relay.ended();
        Ok(run)
    }

    /// A second reading of the chunked coding, by the letter: payload, and whether it is whole.
    fn strict(mut coded: &[u8]) -> (Vec<u8>, bool) {
        let mut payload = Vec::new();
        loop {
            let Some(line) = coded.windows(2).position(|w| w == b"\r\n") else { return (payload, false) };
            let size = usize::from_str_radix(std::str::from_utf8(&coded[..line]).unwrap(), 16).unwrap();
            coded = &coded[line + 2..];
            if size == 0 {
                assert_eq!(coded, b"\r\n", "nothing follows the last chunk");
                return (payload, true);
            }
            if coded.len() < size + 2 {
                payload.extend_from_slice(&coded[..coded.len().min(size)]);
                return (payload, false);
            }
            payload.extend_from_slice(&coded[..size]);
            assert_eq!(&coded[size..size + 2], b"\r\n");
            coded = &coded[size + 2..];
        }
    }

    #[test]
    fn a_whole_read_of_whole_chunks_goes_out_as_it_is() {
        let (mut relay, mut scratch) = (Relay::new(BodyKind::Chunked, Version::V11), Vec::new());
        let read = b"5\r\nhello\r\n6\r\n world\r\n";
        let fed = relay.feed(read, &mut scratch, |_| {}).unwrap();
        assert!(std::ptr::eq(fed.out, &raw const read[..]), "not copied");
    }

    #[test]
    fn a_size_line_cut_by_a_read_is_never_forwarded_unfinished() {
        let (mut relay, mut scratch) = (Relay::new(BodyKind::Chunked, Version::V11), Vec::new());
        assert_eq!(relay.feed(b"5", &mut scratch, |_| {}).unwrap().out, b"");
        assert_eq!(relay.feed(b";x=y\r", &mut scratch, |_| {}).unwrap().out, b"");
        assert_eq!(relay.feed(b"\nhello\r\n0", &mut scratch, |_| {}).unwrap().out, b"5\r\nhello\r\n");
    }

    #[test]
    fn the_last_chunk_waits_for_the_end_of_the_trailer_section() {
        let (mut relay, mut scratch) = (Relay::new(BodyKind::Chunked, Version::V11), Vec::new());
        assert_eq!(relay.feed(b"1\r\na\r\n0\r\n", &mut scratch, |_| {}).unwrap().out, b"1\r\na\r\n");
        assert_eq!(relay.feed(b"x-t: 1\r\n", &mut scratch, |_| {}).unwrap().out, b"");
        assert!(!relay.ended());
        assert_eq!(relay.feed(b"\r\n", &mut scratch, |_| {}).unwrap().out, LAST_CHUNK);
        assert!(relay.ended());
    }

    #[test]
    fn a_violated_framing_forwards_nothing_of_its_read() {
        let (mut relay, mut scratch) = (Relay::new(BodyKind::Chunked, Version::V11), Vec::new());
        assert_eq!(relay.feed(b"5\r\nhello\r\nzz", &mut scratch, |_| {}), Err(BadAnswer::ChunkSyntax));
    }

    #[test]
    fn an_http_1_0_client_gets_payload_and_no_framing() {
        let got = run(BodyKind::Chunked, Version::V10, &[b"5\r\nhel", b"lo\r\n0\r\n\r\n"]).unwrap();
        assert_eq!((got.out, got.ended), (b"hello".to_vec(), true));
        assert_eq!(Relay::new(BodyKind::Chunked, Version::V10).out_framing(), OutFraming::Close);
    }

    #[test]
    fn a_close_delimited_body_is_chunked_and_ended_by_the_close() {
        let (mut relay, mut scratch) = (Relay::new(BodyKind::UntilClose, Version::V11), Vec::new());
        assert_eq!(relay.feed(b"0123456789abcdefg", &mut scratch, |_| {}).unwrap().out, b"11\r\n0123456789abcdefg\r\n");
        assert_eq!(relay.closed(&mut scratch).unwrap(), LAST_CHUNK);
    }

    #[test]
    fn a_close_in_the_middle_of_a_framed_body_is_not_its_end() {
        let mut scratch = Vec::new();
        for kind in [BodyKind::Length(5), BodyKind::Chunked] {
            assert_eq!(Relay::new(kind, Version::V11).closed(&mut scratch), Err(Unfinished));
        }
    }

    #[test]
    fn nothing_follows_a_violation_and_a_valid_read_is_followed() {
        let (mut relay, mut scratch) = (Relay::new(BodyKind::Chunked, Version::V11), Vec::new());
        assert!(relay.feed(b"1\r\na\r\n", &mut scratch, |_| {}).is_ok());
        assert_eq!(relay.feed(b"x", &mut scratch, |_| {}), Err(BadAnswer::ChunkSyntax));
        assert_eq!(relay.feed(b"1\r\na\r\n", &mut scratch, |_| panic!("payload")), Err(BadAnswer::ChunkSyntax));
        assert!(!relay.ended() && !relay.at_chunk_boundary());
    }

    #[test]
    fn bytes_beyond_the_length_are_surplus() {
        let (mut relay, mut scratch) = (Relay::new(BodyKind::Length(3), Version::V11), Vec::new());
        assert_eq!(relay.feed(b"abcdef", &mut scratch, |_| {}).unwrap(), Fed { out: b"abc", used: 3 });
        assert!(relay.ended());
    }

    fn coded() -> impl Strategy<Value = Vec<u8>> {
        let chunk = (prop::collection::vec(any::<u8>(), 1..40), prop::option::of("[a-z=]{0,9}"), any::<bool>());
        (prop::collection::vec(chunk, 0..8), prop::option::of("[a-z]{1,5}: [a-z]{0,5}\r\n"), any::<bool>()).prop_map(
            |(chunks, trailer, finish)| {
                let mut bytes = Vec::new();
                for (data, extension, padded) in chunks {
                    let size = if padded { format!("{:04X}", data.len()) } else { format!("{:x}", data.len()) };
                    bytes.extend_from_slice(size.as_bytes());
                    if let Some(extension) = extension {
                        bytes.extend_from_slice(format!(";{extension}").as_bytes());
                    }
                    bytes.extend_from_slice(b"\r\n");
                    bytes.extend_from_slice(&data);
                    bytes.extend_from_slice(b"\r\n");
                }
                if finish {
                    bytes.extend_from_slice(format!("0\r\n{}\r\n", trailer.unwrap_or_default()).as_bytes());
                }
                bytes
            },
        )
    }

    fn cut<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        ends.sort_unstable();
        ends.push(bytes.len());
        let mut from = 0;
        ends.into_iter().map(|end| &bytes[std::mem::replace(&mut from, end)..end]).collect()
    }

    proptest! {
        #[test]
        fn what_goes_out_is_the_same_body_for_every_cut(bytes in coded(), cuts in prop::collection::vec(any::<usize>(), 0..12)) {
            let pieces = cut(&bytes, &cuts);
            let whole = run(BodyKind::Chunked, Version::V11, &[&bytes]).unwrap();
            let got = run(BodyKind::Chunked, Version::V11, &pieces).unwrap();
            prop_assert_eq!(&got.payload, &whole.payload);
            prop_assert_eq!(got.ended, whole.ended);
            prop_assert_eq!(strict(&got.out), (got.payload, got.ended));
            let plain = run(BodyKind::Chunked, Version::V10, &pieces).unwrap();
            prop_assert_eq!(plain.out, whole.payload);
        }

        #[test]
        fn any_bytes_give_the_same_verdict_for_every_cut(bytes in prop::collection::vec(prop::sample::select(b"05aA;:\r\n x\0".to_vec()), 0..60), cuts in prop::collection::vec(any::<usize>(), 0..6)) {
            let whole = run(BodyKind::Chunked, Version::V11, &[&bytes]);
            let got = run(BodyKind::Chunked, Version::V11, &cut(&bytes, &cuts));
            prop_assert_eq!(whole.is_ok(), got.is_ok());
            if let (Ok(whole), Ok(got)) = (whole, got) {
                prop_assert_eq!(whole.payload, got.payload);
                prop_assert_eq!(whole.ended, got.ended);
            }
        }
    }
}
