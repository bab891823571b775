//! The class of a request: in which order and share requests wait.

use super::closed::closed;

closed! {
    /// The configured classes, in the order in which they are served.
    #[derive(Default)]
    Class {
        /// Health and operator traffic.
        System = "system",
        /// A person waits for the answer.
        Interactive = "interactive",
        #[default]
        /// No class given, or one that is not configured.
        Default = "default",
        /// May wait until there is capacity.
        Bulk = "bulk",
    }
}
