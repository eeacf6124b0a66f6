//! The cases: what is compared, and what should come out.

mod calls;
mod datagrams;
mod fan_in;
mod links;
mod messages;
mod streams;
mod stress;

use std::cell::RefCell;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

pub(crate) use self::messages::SIZES;
use crate::options::Options;
use crate::process::Process;
use crate::row::Row;
use crate::side::Side;
use crate::{Result, certificates};

/// One measurement, and the rows that it gives.
pub(crate) struct Case {
    pub(crate) rows: &'static [&'static str],
    pub(crate) run: fn(&Bench) -> Result<Vec<Row>>,
}

pub(crate) const CASES: &[Case] = &[
    Case { rows: &["link-stream"], run: streams::link },
    Case { rows: &["link-stream-default"], run: streams::link_default },
    Case { rows: &["link-stream-1452"], run: streams::link_1452 },
    Case { rows: &["link-streams-8"], run: streams::link_8 },
    Case {
        rows: &["call-seq", "call-64", "call-1000", "call-1024", "call-seq-work", "call-64-work"],
        run: calls::link,
    },
    Case { rows: &["relay-stream", "relay-cpu"], run: streams::relay },
    Case { rows: &["relay-stream-jumbo", "relay-cpu-jumbo"], run: streams::relay_jumbo },
    Case { rows: &["relay-call-seq", "relay-call-64"], run: calls::relay },
    Case { rows: &["relay2-stream"], run: streams::relay_2 },
    Case { rows: &["relay3-stream"], run: streams::relay_3 },
    Case { rows: &["datagram", "datagram-64B"], run: datagrams::link },
    Case { rows: &["datagram-relay"], run: datagrams::relay },
    Case { rows: &["fan-in", "fan-in-slowest"], run: fan_in::run },
    Case { rows: &["handshake"], run: links::handshake },
    Case { rows: &["first-call"], run: links::first_call },
    Case { rows: &["idle-link"], run: links::idle },
    Case { rows: &["relay-busy-ping"], run: stress::busy_ping },
    Case { rows: &["relay-1000-peers"], run: stress::thousand_peers },
    Case { rows: &["relay-flows"], run: stress::flows },
    Case { rows: &messages::LINK, run: messages::link },
    Case { rows: &messages::RELAY, run: messages::relay },
];

/// UDP payloads as the Internet carries them, in bytes; raw quinn goes no higher by itself.
const INTERNET: u16 = 1_452;

/// What all cases share.
pub(crate) struct Bench {
    certificates: TempDir,
    pub(crate) runs: usize,
    /// How long calls took, for the plot.
    pub(crate) distributions: RefCell<Vec<Distribution>>,
    scale: Scale,
}

/// How long the calls of one side took.
pub(crate) struct Distribution {
    pub(crate) name: String,
    /// From 0 to 100, in microseconds.
    pub(crate) percentiles: Vec<f64>,
}

#[derive(Clone, Copy, PartialEq)]
enum Scale {
    /// Under `cargo test`.
    Once,
    Quick,
    Full,
}

impl Bench {
    pub(crate) fn new(options: &Options) -> Result<Self> {
        let certificates = tempfile::tempdir()?;
        certificates::write(certificates.path())?;
        let scale = match (options.measured, options.quick) {
            (false, _) => Scale::Once,
            (true, true) => Scale::Quick,
            (true, false) => Scale::Full,
        };
        Ok(Self { certificates, runs: options.runs, distributions: RefCell::default(), scale })
    }

    /// How many bytes a stream carries instead of `full`.
    fn bytes(&self, full: u64) -> u64 {
        match self.scale {
            Scale::Once => full / 256,
            Scale::Quick => full / 8,
            Scale::Full => full,
        }
    }

    /// How long calls are made instead of `full`, in milliseconds.
    fn millis(&self, full: u64) -> u64 {
        match self.scale {
            Scale::Once => 20,
            Scale::Quick => full / 4,
            Scale::Full => full,
        }
    }

    /// How many there are instead of `full`; `once` under `cargo test`.
    fn at_most(&self, full: usize, once: usize) -> usize {
        match self.scale {
            Scale::Once => once,
            Scale::Quick => (full / 8).max(once),
            Scale::Full => full,
        }
    }

    /// Lets what was done come to an end.
    fn settle(&self) {
        if self.scale != Scale::Once {
            std::thread::sleep(Duration::from_secs(3));
        }
    }

    /// The settings that every process has.
    fn common(&self, max_datagram: Option<u16>) -> Vec<(&'static str, String)> {
        let mut settings = vec![("dir", dir(self.certificates.path()))];
        settings.extend(max_datagram.map(|bytes| ("max_datagram", bytes.to_string())));
        settings
    }

    /// Nodes of this crate: a client and a server, with so many relays between them.
    fn ours(&self, relays: usize, max_datagram: Option<u16>) -> Result<Side> {
        let node = |id: String, peers: String, transit: bool| {
            let mut settings = self.common(max_datagram);
            settings.extend([("id", id), ("peers", peers)]);
            settings.extend(transit.then(|| ("transit", "1".to_owned())));
            Process::start("ours", &settings)
        };
        let server = node("server".into(), String::new(), false)?;
        let mut next = server.addr.clone();
        let mut between = Vec::new();
        for nth in 0..relays {
            let relay = node(format!("relay-{nth}"), next, true)?;
            next = relay.addr.clone();
            between.push(relay);
        }
        let client = node("client".into(), next, false)?;
        ready(Side { client, relays: between, server, target: "server".into() })
    }

    /// Raw quinn: a client and a server that has `service`, with so many splicing relays between
    /// them.
    fn raw(&self, service: &str, relays: usize, max_datagram: Option<u16>) -> Result<Side> {
        self.raw_with(service, relays, self.common(max_datagram))
    }

    fn raw_with(
        &self,
        service: &str,
        relays: usize,
        common: Vec<(&'static str, String)>,
    ) -> Result<Side> {
        let with = |setting: Option<(&'static str, String)>| -> Vec<_> {
            common.iter().cloned().chain(setting).collect()
        };
        let server = Process::start("raw", &with(Some(("serve", service.to_owned()))))?;
        let mut next = server.addr.clone();
        let mut between = Vec::new();
        for _ in 0..relays {
            let relay = Process::start("splice", &with(Some(("target", next))))?;
            next = relay.addr.clone();
            between.push(relay);
        }
        let client = Process::start("raw", &with(None))?;
        ready(Side { client, relays: between, server, target: next })
    }
}

/// Waits until the client reaches the server.
fn ready(mut side: Side) -> Result<Side> {
    side.run("ready {}")?;
    Ok(side)
}

fn dir(path: &Path) -> String {
    path.display().to_string()
}
