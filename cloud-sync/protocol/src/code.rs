//! Words of the wire: closed lists when writing, open when reading.
//!
//! A code from a later release, or from AWS, is kept as `Unknown` with its text and is written as it was read: a reader that
//! does not know a word can still show it. Codes are never removed and never change their meaning.

use crate::limits::MAX_UNKNOWN_CODE;

/// An enum of codes. Each variant has one text.
macro_rules! codes {
    ($(#[$doc:meta])* $type:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $type {
            $($(#[$variant_doc])* $variant,)+
            /// A word that this release does not know, as it was read, at most
            /// [`MAX_UNKNOWN_CODE`](crate::limits::MAX_UNKNOWN_CODE) characters of it. Never written first by us.
            Unknown(Box<str>),
        }

        impl $type {
            /// All that this release knows.
            pub const KNOWN: &'static [Self] = &[$(Self::$variant,)+];

            /// The word on the wire.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)+
                    Self::Unknown(text) => text,
                }
            }

            /// From the word on the wire. Never fails: see [`Self::Unknown`].
            pub fn parse(text: &str) -> Self {
                match text {
                    $($text => Self::$variant,)+
                    other => Self::Unknown($crate::code::unknown(other)),
                }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                Ok(Self::parse(&text))
            }
        }
    };
}
pub(crate) use codes;

pub(crate) fn unknown(text: &str) -> Box<str> {
    let kept: String = text.chars().take(MAX_UNKNOWN_CODE).map(|c| if c.is_control() { ' ' } else { c }).collect();
    kept.into()
}
