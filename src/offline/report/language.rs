//! Puts a sentence into a language.

use super::format::Lang;
use super::{english, korean};
use crate::offline::say::Say;

/// A sentence; loads are requests in flight when `closed`.
pub fn sentence(said: &Say, closed: bool, lang: Lang) -> String {
    match lang {
        Lang::En => english::sentence(said, closed),
        Lang::Ko => korean::sentence(said, closed),
    }
}
