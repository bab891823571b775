//! A closed list: an enum whose values are label values.
//!
//! Every list has `ALL`, `as_str` (the label value) and `index` (the position in a counter array), so that a counter family is an
//! array and a label is never looked up.

macro_rules! closed {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $label:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name { $($(#[$variant_doc])* #[serde(rename = $label)] $variant),+ }

        impl $name {
            /// Every value, in the order of `index`.
            pub const ALL: [Self; [$($label),+].len()] = [$(Self::$variant),+];
            /// How many values there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The label value.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $label),+ }
            }

            /// Position in `ALL` and in every array kept per value.
            pub const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

pub(crate) use closed;
