//! The Korean of every sentence.
use super::super::say::Say;
/// One sentence.
pub fn sentence(said: &Say, closed: bool) -> String {
    super::english::sentence(said, closed)
}
