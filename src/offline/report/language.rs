//! Which language a sentence is said in.

use super::{english, korean};
use crate::offline::Lang;
use crate::offline::say::Say;

/// A sentence; loads are requests in flight when `closed`.
pub fn sentence(said: &Say, closed: bool, lang: Lang) -> String {
    match lang {
        Lang::En => english::sentence(said, closed),
        Lang::Ko => korean::sentence(said, closed),
    }
}
