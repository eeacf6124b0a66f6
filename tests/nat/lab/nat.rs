//! The kinds of NAT, made of the kernel's own.

use std::net::Ipv4Addr;

/// How a gateway maps what goes out, and what it lets in. `kinds` tries each of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Nat {
    /// One port for all destinations; lets everybody in.
    FullCone,
    /// One port for all destinations; lets in whoever was sent something, from any port.
    AddressRestricted,
    /// One port for all destinations; lets in only who answers. Most homes.
    PortRestricted,
    /// The same, and the port outside is not the one inside.
    PortRemapped,
    /// Another random port for each destination; lets in only who answers. Companies, clouds,
    /// mobile networks.
    Symmetric,
    /// Plain masquerade: as [`Nat::PortRestricted`], but its input is not filtered. What comes in
    /// unasked is remembered, and the answer to it gets another port. Docker hosts, NAT instances,
    /// home-made routers.
    Bare,
    /// As [`Nat::PortRestricted`], for other gateways: addresses of 100.64.0.0/10.
    Carrier,
    /// No IPv4 at all; IPv6 as it is, behind a firewall that lets in only who answers.
    FirewalledV6,
}

impl Nat {
    /// The kinds of the matrix.
    pub(crate) const MATRIX: [Self; 4] =
        [Self::FullCone, Self::AddressRestricted, Self::PortRestricted, Self::Symmetric];

    /// The rules of a gateway at `public`. What comes in unasked goes to `host`, where the kind
    /// lets it in.
    pub(super) fn rules(self, public: Ipv4Addr, host: Ipv4Addr) -> String {
        let (learn, inbound, outbound) = match self {
            Self::FullCone => {
                ("", format!("meta l4proto udp dnat to {host}"), "masquerade".to_owned())
            }
            Self::AddressRestricted => (
                "oifname wan update @spoken { ip daddr }",
                format!("meta l4proto udp ip saddr @spoken dnat to {host}"),
                "masquerade".to_owned(),
            ),
            Self::PortRestricted | Self::Carrier | Self::Bare => {
                ("", String::new(), "masquerade".to_owned())
            }
            // One socket behind it, one port outside.
            Self::PortRemapped => {
                ("", String::new(), format!("meta l4proto udp snat to {public}:40000-40000"))
            }
            Self::Symmetric => ("", String::new(), "masquerade random,fully-random".to_owned()),
            Self::FirewalledV6 => ("ip protocol udp drop", String::new(), String::new()),
        };
        // What is dropped on its way in leaves no trace. A gateway that refused it instead would
        // remember the flow, and give the answer another port.
        let input =
            if self == Self::Bare { "" } else { "iifname wan meta l4proto udp ct state new drop" };
        format!(
            "table inet filter {{
               chain forward {{
                 type filter hook forward priority filter; policy drop
                 ct state established,related accept
                 ct status dnat accept
                 iifname lan accept
               }}
               chain input {{
                 type filter hook input priority filter; policy accept
                 {input}
               }}
             }}
             table ip nat {{
               set spoken {{
                 type ipv4_addr; flags dynamic,timeout; timeout 60s; size 1024
               }}
               chain learn {{
                 type filter hook forward priority mangle
                 {learn}
               }}
               chain prerouting {{
                 type nat hook prerouting priority dstnat
                 iifname wan {inbound}
               }}
               chain postrouting {{
                 type nat hook postrouting priority srcnat
                 oifname wan {outbound}
               }}
             }}"
        )
    }
}
