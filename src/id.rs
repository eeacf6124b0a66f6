//! Names and numbers that everything else speaks of: parsed once, valid ever after.

use std::borrow::Borrow;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::Arc;

mod directive;
mod text_argument;

pub use directive::{Directive, InvalidDirective};
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
pub(crate) use text_argument::{excerpt, text_argument};

/// The name of a node: 1–128 bytes of ASCII letters, digits and `._-:@`; of an ephemeral node also
/// `NAME~SUFFIX`.
///
/// A node proves its id with a certificate that carries it. An ephemeral may add a suffix of 1–16
/// lower-case ASCII letters and digits to the [base](Self::base) that its certificate carries, so
/// that any number of them run at a time under one certificate. Whatever decides by id
/// (certificates, deny and allow lists, permissions) decides by the base. Ids are compared byte by
/// byte; there is no case folding. Cloning is cheap (a reference count).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// The longest id, in bytes.
    pub const MAX_LEN: usize = 128;

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The longest suffix, in bytes.
    pub const MAX_SUFFIX: usize = 16;

    /// The id without its suffix: what the node's certificate carries.
    #[must_use]
    pub fn base(&self) -> Self {
        match self.0.split_once(SUFFIX_MARK) {
            Some((base, _)) => Self(base.into()),
            None => self.clone(),
        }
    }

    /// The suffix of an ephemeral's id. `None` if the id has none, as that of every other node.
    #[must_use]
    pub fn suffix(&self) -> Option<&str> {
        self.0.split_once(SUFFIX_MARK).map(|(_, suffix)| suffix)
    }

    /// The id of an ephemeral with the base of this id and another suffix.
    ///
    /// # Errors
    /// The suffix is not 1–16 lower-case ASCII letters and digits, or the id would be longer than
    /// [`MAX_LEN`](Self::MAX_LEN).
    pub fn with_suffix(&self, suffix: &str) -> Result<Self, InvalidName> {
        Self::try_from(format!("{}{SUFFIX_MARK}{suffix}", self.base()))
    }

    /// The address that switched packets carry for this node.
    #[must_use]
    pub fn addr(&self) -> NodeAddr {
        NodeAddr::from(self)
    }
}

/// The name of a service that a node offers: 1–64 bytes of ASCII letters, digits and `._-:@`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(Arc<str>);

impl ServiceName {
    /// The longest name, in bytes.
    pub const MAX_LEN: usize = 64;

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is not a [`NodeId`] or a [`ServiceName`]. The caller's fault; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidName {
    /// The text is empty.
    #[error("a {kind} must not be empty")]
    Empty {
        /// What the text was to name: `node id` or `service name`.
        kind: &'static str,
    },
    /// The text is too long.
    #[error("{text:?} is not a {kind}: {len} bytes exceed the maximum of {max}")]
    TooLong {
        /// What the text was to name.
        kind: &'static str,
        /// Start of the text.
        text: String,
        /// Maximum length in bytes.
        max: usize,
        /// Length of the text in bytes.
        len: usize,
    },
    /// The text has a character that is not allowed.
    #[error(
        "{text:?} is not a {kind}: {found:?} at byte {at} is not allowed; use ASCII letters, digits and `._-:@`"
    )]
    BadCharacter {
        /// What the text was to name.
        kind: &'static str,
        /// The text, or its start if it is long.
        text: String,
        /// The character.
        found: char,
        /// Offset of the character in bytes.
        at: usize,
    },
    /// What follows the `~` in an ephemeral's id is not a suffix.
    #[error(
        "{text:?} is not a node id: the suffix after `~` must have 1 to {max} lower-case ASCII letters and digits",
        max = NodeId::MAX_SUFFIX
    )]
    BadSuffix {
        /// The text, or its start if it is long.
        text: String,
    },
}

/// What stands between the base and the suffix of an ephemeral's id.
const SUFFIX_MARK: char = '~';

fn check_node_id(text: &str, kind: &'static str, max: usize) -> Result<(), InvalidName> {
    let Some((base, suffix)) = text.split_once(SUFFIX_MARK) else {
        return check_name(text, text, kind, max);
    };
    check_name(text, base, kind, max)?;
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if suffix.is_empty() || suffix.len() > NodeId::MAX_SUFFIX || !suffix.bytes().all(allowed) {
        return Err(InvalidName::BadSuffix { text: excerpt(text) });
    }
    if text.len() > max {
        return Err(InvalidName::TooLong { kind, text: excerpt(text), max, len: text.len() });
    }
    Ok(())
}

fn check_service_name(text: &str, kind: &'static str, max: usize) -> Result<(), InvalidName> {
    check_name(text, text, kind, max)
}

/// Checks a name, which is `text` up to a suffix.
fn check_name(text: &str, name: &str, kind: &'static str, max: usize) -> Result<(), InvalidName> {
    if name.is_empty() {
        return Err(InvalidName::Empty { kind });
    }
    if name.len() > max {
        return Err(InvalidName::TooLong { kind, text: excerpt(text), max, len: text.len() });
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:@".contains(&byte);
    if name.bytes().all(allowed) {
        return Ok(());
    }
    match name.char_indices().find(|(_, c)| !c.is_ascii() || !allowed(*c as u8)) {
        Some((at, found)) => {
            Err(InvalidName::BadCharacter { kind, text: excerpt(text), found, at })
        }
        None => Ok(()),
    }
}

macro_rules! name_impls {
    ($name:ident, $kind:literal, $check:ident) => {
        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                $check(text, $kind, Self::MAX_LEN)?;
                Ok(Self(text.into()))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        /// From the text where it lies: a record has many names.
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;

                impl Visitor<'_> for Text {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($kind)
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        $name::try_from(text).map_err(E::custom)
                    }
                }

                deserializer.deserialize_str(Text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

name_impls!(NodeId, "node id", check_node_id);
name_impls!(ServiceName, "service name", check_service_name);
text_argument!(InvalidName: NodeId, ServiceName);

/// The address of a node in switched packets: the first 8 bytes of SHA-256 of its id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeAddr(pub [u8; 8]);

impl From<&NodeId> for NodeAddr {
    fn from(id: &NodeId) -> Self {
        let digest = Sha256::digest(id.as_str().as_bytes());
        let mut addr = [0; 8];
        addr.copy_from_slice(&digest[..8]);
        Self(addr)
    }
}

impl fmt::Display for NodeAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for NodeAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What it costs to send over a link: 1 to 65,535, smaller is better. The default is 1.
///
/// The bound keeps the sum over any path far from overflow, and a hostile record from outweighing
/// honest ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Cost(NonZeroU32);

impl Cost {
    /// The largest cost of one link.
    pub const MAX: u32 = 65_535;
    /// The default cost of a link.
    pub const DEFAULT: Self = Self(NonZeroU32::MIN);

    /// The cost as a number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

impl Default for Cost {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A number that is not a [`Cost`]. The caller's fault; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a cost is a whole number from 1 to {max}; {0} is not", max = Cost::MAX)]
pub struct InvalidCost(pub u32);

impl TryFrom<u32> for Cost {
    type Error = InvalidCost;

    fn try_from(cost: u32) -> Result<Self, InvalidCost> {
        match NonZeroU32::new(cost) {
            Some(cost) if cost.get() <= Self::MAX => Ok(Self(cost)),
            _ => Err(InvalidCost(cost)),
        }
    }
}

impl From<Cost> for u32 {
    fn from(cost: Cost) -> Self {
        cost.get()
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The version of a record, compared epoch first, then sequence, then instance.
///
/// The instance is drawn at random at each process start, so that the versions of two processes are
/// never equal.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct Version {
    /// Greater than that of any earlier start of the node, as far as the node knows.
    pub epoch: u64,
    /// Counts the node's originations within an epoch.
    pub sequence: u64,
    /// Random per process start.
    pub instance: u64,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}/{:016x}", self.epoch, self.sequence, self.instance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ephemerals_id_is_a_base_and_a_suffix() {
        let id = NodeId::try_from("me@site~0a9z").unwrap();
        assert_eq!((id.base(), id.suffix()), (NodeId::try_from("me@site").unwrap(), Some("0a9z")));
        assert_eq!(id.with_suffix("b").unwrap().as_str(), "me@site~b");
        let plain = id.base();
        assert_eq!((plain.base(), plain.suffix()), (plain.clone(), None));
        assert_ne!(plain.addr(), id.addr());
        for bad in ["a~", "a~A", "a~b~c", "a~b-c", "a~0123456789abcdefg", "a~\u{e9}"] {
            assert!(matches!(NodeId::try_from(bad), Err(InvalidName::BadSuffix { .. })), "{bad}");
        }
        assert!(matches!(NodeId::try_from("~a"), Err(InvalidName::Empty { .. })));
        let long = "x".repeat(NodeId::MAX_LEN - 1);
        assert!(matches!(NodeId::try_from(format!("{long}~a")), Err(InvalidName::TooLong { .. })));
        assert!(ServiceName::try_from("a~b").is_err());
    }

    #[test]
    fn a_node_id_takes_what_is_allowed_and_names_what_is_not() {
        assert_eq!(NodeId::try_from("edge-1.site:7@x_y").unwrap().as_str(), "edge-1.site:7@x_y");
        assert_eq!(NodeId::try_from(""), Err(InvalidName::Empty { kind: "node id" }));
        assert_eq!(
            NodeId::try_from("a/b"),
            Err(InvalidName::BadCharacter {
                kind: "node id",
                text: "a/b".to_owned(),
                found: '/',
                at: 1
            })
        );
        assert!(NodeId::try_from("x".repeat(128)).is_ok());
        assert!(NodeId::try_from("x".repeat(129)).is_err());
        assert!(ServiceName::try_from("x".repeat(65)).is_err());
    }

    #[test]
    fn an_error_quotes_the_start_of_the_text_escaped() {
        let node = |text: &str| NodeId::try_from(text).unwrap_err().to_string();
        assert_eq!(
            node("a\u{1b}\"~x"),
            r#""a\u{1b}\"~x" is not a node id: '\u{1b}' at byte 1 is not allowed; use ASCII letters, digits and `._-:@`"#
        );
        assert_eq!(
            node("a~X"),
            r#""a~X" is not a node id: the suffix after `~` must have 1 to 16 lower-case ASCII letters and digits"#
        );
        let quoted = "x".repeat(64) + "…";
        assert_eq!(
            ServiceName::try_from("x".repeat(1 << 20)).unwrap_err().to_string(),
            format!("{quoted:?} is not a service name: 1048576 bytes exceed the maximum of 64")
        );
        assert_eq!(node(""), "a node id must not be empty");
    }

    #[test]
    fn an_address_is_the_head_of_the_hash_of_the_id() {
        // printf controller | sha256sum
        assert_eq!(NodeId::try_from("controller").unwrap().addr().to_string(), "c1472135b14c77c8");
        assert!(
            include_str!("../docs/protocol.md").contains("| `controller` | `c1472135b14c77c8` |")
        );
    }

    #[test]
    fn costs_have_bounds() {
        assert_eq!(Cost::try_from(0), Err(InvalidCost(0)));
        assert_eq!(Cost::try_from(65_536), Err(InvalidCost(65_536)));
        assert_eq!(Cost::try_from(65_535).unwrap().get(), 65_535);
    }

    #[test]
    fn versions_compare_epoch_then_sequence_then_instance() {
        let v = |epoch, sequence, instance| Version { epoch, sequence, instance };
        assert!(v(2, 0, 0) > v(1, 9, 9));
        assert!(v(1, 2, 0) > v(1, 1, 9));
        assert!(v(1, 1, 2) > v(1, 1, 1));
    }

    #[test]
    fn bad_names_are_refused_when_decoded() {
        let bytes = rmp_serde::to_vec("a b").unwrap();
        assert!(rmp_serde::from_slice::<NodeId>(&bytes).is_err());
    }
}
