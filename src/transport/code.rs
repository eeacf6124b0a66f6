//! The named codes with which links and streams are closed. They go over the wire: never renumber.

use std::fmt;

macro_rules! codes {
    (
        $(#[$doc:meta])* $name:ident {
            $($(#[$vdoc:meta])* $variant:ident = $value:literal => $text:literal,)*
        }
        $($(#[$adoc:meta])* $application:ident from $base:literal)?
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "kebab-case")]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$vdoc])* $variant,)*
            $($(#[$adoc])* $application(u32),)?
            /// A code that this version does not know.
            #[serde(untagged)]
            Unknown(u64),
        }

        impl $name {
            /// The number on the wire.
            #[must_use]
            pub const fn number(self) -> u64 {
                match self {
                    $(Self::$variant => $value,)*
                    $(Self::$application(code) => $base + code as u64,)?
                    Self::Unknown(number) => number,
                }
            }

            /// The code of a number from the wire.
            #[must_use]
            pub const fn from_number(number: u64) -> Self {
                match number {
                    $($value => Self::$variant,)*
                    $(
                        $base.. if number - $base <= u32::MAX as u64 => {
                            Self::$application((number - $base) as u32)
                        }
                    )?
                    other => Self::Unknown(other),
                }
            }

            /// The code in QUIC's type.
            pub(crate) fn to_quic(self) -> quinn::VarInt {
                quinn::VarInt::from_u64(self.number()).unwrap_or(quinn::VarInt::MAX)
            }
        }

        impl From<quinn::VarInt> for $name {
            fn from(number: quinn::VarInt) -> Self {
                Self::from_number(number.into_inner())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$variant => f.write_str($text),)*
                    $(Self::$application(code) => write!(f, "application code {code}"),)?
                    Self::Unknown(number) => write!(f, "unknown code {number}"),
                }
            }
        }
    };
}

codes! {
    /// Why a link or a peer connection was closed.
    CloseCode {
        /// The other side leaves, in order.
        Leaving = 0x00 => "the node is leaving",
        /// Another link to the same neighbour was kept.
        DuplicateLink = 0x01 => "another link to this neighbour is kept",
        /// The neighbour restarted, and its new link replaced this one.
        Replaced = 0x02 => "replaced by the neighbour's new link",
        /// The id that was claimed is not in the certificate.
        WrongName = 0x03 => "the claimed id is not in the certificate",
        /// The id is on the deny list, or not on the allow list.
        Denied = 0x04 => "denied",
        /// A frame was longer than its type allows.
        FrameTooLong = 0x05 => "a frame was too long",
        /// A frame could not be read.
        BadFrame = 0x06 => "a frame could not be read",
        /// No protocol version in common.
        Version = 0x07 => "no protocol version in common",
        /// Another process that is alive uses the same id.
        DuplicateId = 0x08 => "another live node has this id",
        /// The handshake was not finished in time.
        HandshakeTimeout = 0x09 => "the handshake was not finished in time",
        /// Too many links or peers.
        Overloaded = 0x0a => "too many connections",
        /// A message broke a rule of the routing protocol.
        RoutingViolation = 0x0b => "a routing message broke the protocol",
        /// A peer connection was not used for the idle limit.
        Idle = 0x0c => "idle",
        /// The id has the same address as another known one.
        AddressCollision = 0x0d => "the id's address collides with another node's",
        /// A node linked to itself.
        SelfLink = 0x0e => "a node cannot link to itself",
        /// The certificate is revoked. Development versions before 0.1.0 use this code for every
        /// certificate that they no longer accept.
        Revoked = 0x0f => "the certificate is revoked",
        /// An ephemeral node does not accept links.
        NotListening = 0x10 => "the node takes no links",
        /// A message about direct paths broke a rule.
        PathViolation = 0x11 => "a message about direct paths broke the protocol",
        /// The certificate has expired.
        Expired = 0x12 => "the certificate has expired",
        /// The certificate is not valid yet.
        NotYetValid = 0x13 => "the certificate is not valid yet",
        /// The certificate is signed by no trusted CA.
        UnknownCa = 0x14 => "the certificate is signed by no trusted CA",
        /// The certificate's public key is not pinned.
        NotPinned = 0x15 => "the public key is not pinned",
        /// The certificate, or a proof of its key, cannot be used.
        BadCertificate = 0x16 => "the certificate cannot be used",
        /// The node's last handle was dropped, or its runtime ended, without a shutdown.
        Dropped = 0x18 => "the node was dropped without a shutdown",
        /// The network reports that packets do not arrive, and a ping was not answered.
        Unreachable = 0x20 => "silent: reported as unreachable, or, on a peer connection, for too long",
        /// A node that is not ephemeral has a suffix in its id.
        SuffixedId = 0x21 => "only an ephemeral node may have a suffix in its id",
        /// The mesh had no route to the node for too long.
        NoRoute = 0x28 => "there was no route for too long",
        /// The node that dialled no longer has the other in its configuration.
        NotConfigured = 0x40 => "the node no longer keeps this link",
        /// An ephemeral node has not proven that it is attached.
        Unproven = 0x3c => "the attachment is not proven",
    }
}

codes! {
    /// Why one direction of a stream was reset or stopped.
    StreamCode {
        /// The half was dropped without finishing.
        Dropped = 0x00 => "dropped by the other side",
        /// The operation was cancelled.
        Cancelled = 0x01 => "cancelled",
        /// The OPEN or another header could not be read.
        BadHeader = 0x02 => "a header could not be read",
        /// The deadline passed.
        Deadline = 0x03 => "the deadline passed",
        /// The node that served the stream is leaving.
        Leaving = 0x04 => "the node is leaving",
        /// The stream was refused; the preceding answer has the reason.
        Refused = 0x05 => "refused",
        /// The node no longer allows it: its policy or the peer's certificate has changed.
        NotAllowed = 0x48 => "no longer allowed",
    }
    /// A code of the application, which both ends have agreed on: this crate gives it no meaning.
    /// Nodes that do not know these codes report `Unknown` with 0x10000 added.
    Application from 0x1_0000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_on_the_protocol_page_are_whole() {
        let page = include_str!("../../docs/protocol.md");
        let (_, page) = page.split_once("\nClose codes:").unwrap();
        let (closes, streams) = page.split_once("\nStream codes:").unwrap();
        assert_same(
            &rows_of(closes),
            &coded(CloseCode::from_number, |code| matches!(code, CloseCode::Unknown(_))),
        );
        assert_same(
            &rows_of(streams),
            &coded(StreamCode::from_number, |code| matches!(code, StreamCode::Unknown(_))),
        );
    }

    /// The page may say more of a code than its text does.
    fn assert_same(page: &[String], known: &[String]) {
        for (at, row) in page.iter().enumerate() {
            assert!(
                known.get(at).is_some_and(|known| row.starts_with(known)),
                "not in the code: {row}"
            );
        }
        assert_eq!(known.get(page.len()), None, "not on the page");
    }

    /// The codes below 0x10000 that this version knows, as rows of a table.
    fn coded<C: serde::Serialize + fmt::Display>(
        code: impl Fn(u64) -> C,
        is_unknown: impl Fn(&C) -> bool,
    ) -> Vec<String> {
        let known = (0..0x1_0000)
            .map(|number| (number, code(number)))
            .filter(|(_, code)| !is_unknown(code));
        let row = |(number, code): (u64, C)| {
            let name = serde_json::to_value(&code).unwrap();
            format!("| `{number:#04x}` | {} | {code}", name.as_str().unwrap())
        };
        known.map(row).collect()
    }

    /// The rows of the first table whose first cell is one number; ranges have other rules.
    fn rows_of(section: &str) -> Vec<String> {
        let table = section
            .lines()
            .skip_while(|line| !line.starts_with('|'))
            .take_while(|line| line.starts_with('|'));
        table
            .filter(|line| line.starts_with("| `0x") && !line.contains('–'))
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn codes_of_the_application_are_read_as_they_were_written() {
        for code in [0, 7, u32::MAX] {
            let code = StreamCode::Application(code);
            assert_eq!(StreamCode::from_number(code.number()), code);
        }
        assert_eq!(StreamCode::Application(7).number(), 0x1_0007);
        let beyond = 0x1_0000 + u64::from(u32::MAX) + 1;
        assert_eq!(StreamCode::from_number(beyond), StreamCode::Unknown(beyond));
        assert_eq!(StreamCode::from_number(0xffff), StreamCode::Unknown(0xffff));
    }
}
