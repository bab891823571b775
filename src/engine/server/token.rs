//! A token that the engine has emitted.

/// A token of one of a request's choices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Which choice, from 0.
    pub choice: u32,
    /// Which token of it, from 0.
    pub index: u32,
    /// On the choice's last token: why it is the last.
    pub finish: Option<Finish>,
}

/// Why a choice ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// It reached its own end.
    Stop,
    /// It reached `max_tokens`, or the end of KV memory.
    Length,
}
