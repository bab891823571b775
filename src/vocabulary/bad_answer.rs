//! The rules that a backend's answer can break, so that weir does not relay it.
//!
//! One value a rule, each with a label that metrics, logs and `/status` share. An answer that is valid and says "error" is none
//! of these, and neither is a connection that closes early.

use super::closed::closed;

closed! {
    /// Which rule an answer broke.
    BadAnswer {
        /// The status line is not `HTTP/1.x NNN`, or something stands before it.
        StatusLine = "status_line",
        /// A field line is malformed, or the head has a bare CR or LF or a NUL byte.
        HeadSyntax = "head_syntax",
        /// The head is longer than 64 KiB, or its status line longer than 8 KiB.
        HeadTooLong = "head_too_long",
        /// More than 100 header fields.
        TooManyFields = "too_many_fields",
        /// `Content-Length` or `Transfer-Encoding` is malformed, repeated, or both are there.
        Framing = "framing",
        /// `Connection` is malformed, or nominates a field that must not be removed.
        Nomination = "nomination",
        /// 101 without an upgrade that was asked for.
        Upgrade = "upgrade",
        /// More than eight 1xx heads before the final one.
        TooManyInformational = "too_many_informational",
        /// A chunk's size line or its end is malformed.
        ChunkSyntax = "chunk_syntax",
        /// Chunk extensions over 256 bytes in a chunk or 4 KiB in the body.
        ChunkExtension = "chunk_extension",
        /// The trailer section is malformed or longer than 64 KiB.
        Trailer = "trailer",
        /// A stream that was to become one document does not follow its dialect.
        Stream = "stream",
    }
}

/// A count for each rule.
pub type BadAnswerCounts = [u64; BadAnswer::COUNT];
