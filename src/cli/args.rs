//! The command line, as typed. Values are checked later, together with those of the environment and of the file, so that
//! an error can name where the value came from.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use super::exit::EXIT_STATUS;
use super::settings::duration;
use crate::id::NodeId;
use crate::transport::Authority;
use crate::work::Directive;

/// Join programs into one mesh over mutually authenticated QUIC.
///
/// Nodes find each other by name, over as many hops as it takes, and stream to each other sealed end to end.
#[derive(Debug, Parser)]
#[command(name = "receptor", version, after_long_help = format!("{EXIT_STATUS}\n\n{FIRST_STEPS}"), max_term_width = 110)]
pub struct Args {
    #[command(subcommand)]
    pub(super) command: Command,
}

const FIRST_STEPS: &str = "\
First steps:
  receptor demo                              see a mesh at work, on this machine
  receptor cert init --dir certs             make a certificate authority
  receptor cert issue relay-1 --dir certs    make a node's certificate
  receptor node --id relay-1 --certs certs --listen 0.0.0.0:4433 --transit";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a certificate authority, and certificates for nodes
    Cert {
        #[command(subcommand)]
        command: CertCommand,
    },
    /// Run a node until SIGTERM or Ctrl-C
    #[command(after_long_help = NODE_EXAMPLES)]
    Node(Box<NodeArgs>),
    /// Show what a node knows and does: links, routes, peers, counters
    Status(StatusArgs),
    /// Measure the round trip to a node
    #[command(after_long_help = PING_EXAMPLES)]
    Ping(PingArgs),
    /// Show the way to a node, hop by hop
    Trace(TraceArgs),
    /// Tell why a node is, or is not, reachable, and why its packets go directly or through others
    #[command(after_long_help = EXPLAIN_EXAMPLES)]
    Explain(ExplainArgs),
    /// Hand a node work, and get the responses as they come
    #[command(after_long_help = SEND_EXAMPLES)]
    Send(SendArgs),
    /// Look for what could keep a node from working: certificate, peers, NAT, clock, files
    #[command(after_long_help = DOCTOR_EXAMPLES)]
    Doctor(Box<DoctorArgs>),
    /// Show a mesh at work: five nodes on this machine, real work, and a relay that is killed in the middle of a transfer
    Demo,
}

#[derive(Debug, Subcommand)]
pub(super) enum CertCommand {
    /// Make a certificate authority: DIR/ca.crt and DIR/ca.key
    ///
    /// Every node of the mesh trusts ca.crt. Whoever has ca.key can admit nodes: keep it where you issue, not on the nodes. Files that are
    /// there already are never overwritten.
    Init {
        /// Where the files go; made if it is not there
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// The name of the authority, for people to read
        #[arg(long, value_name = "NAME", default_value = "receptor mesh")]
        name: String,
        /// How long it is valid, in days
        #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = Authority::DEFAULT_DAYS, value_parser = days())]
        days: u32,
    },
    /// Make a node's certificate and key: DIR/NODE.crt and DIR/NODE.key
    ///
    /// The node needs these two and DIR/ca.crt. Files that are there already are never overwritten: to renew, move the old ones away
    /// first; a running node takes the new ones on SIGHUP.
    Issue {
        /// The id of the node: 1 to 128 letters, digits and `._-:@`
        #[arg(value_name = "NODE")]
        node: NodeId,
        /// Where ca.crt and ca.key are, and where the files go
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// How long it is valid, in days
        #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = Authority::DEFAULT_IDENTITY_DAYS, value_parser = days())]
        days: u32,
        /// A role of the node, such as `relay`: nodes with `--relays role:relay` accept transit
        /// from this one. Repeatable
        #[arg(long, value_name = "NAME")]
        role: Vec<String>,
    },
}

fn days() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(Authority::MAX_DAYS))
}

/// Settings of a node. Each may come from the flag, else from the environment, else from the file, else there is a default.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct NodeArgs {
    /// Who this node is; a name in its certificate [env: RECEPTOR_ID]
    #[arg(long, value_name = "ID")]
    pub(super) id: Option<String>,
    /// The directory with ca.crt, ID.crt and ID.key, as `receptor cert` makes them [env: RECEPTOR_CERTS]
    #[arg(long, value_name = "DIR")]
    pub(super) certs: Option<PathBuf>,
    /// An address to take links at, with its UDP port: `0.0.0.0:4433`, `[::]:4433`, or `:4433` for every address of the machine; port 0 takes a
    /// free one. Repeatable [env: RECEPTOR_LISTEN, separated by commas] [default: none; the node only dials out]
    #[arg(long, value_name = "ADDR")]
    pub(super) listen: Vec<String>,
    /// A node to link to, and to keep linked to: relay.example:4433, or relay-1@relay.example:4433 to accept nobody else there.
    /// Repeatable [env: RECEPTOR_PEER, separated by commas]
    #[arg(long, value_name = "[ID@]HOST:PORT")]
    pub(super) peer: Vec<String>,
    /// Carry other nodes' packets [env: RECEPTOR_TRANSIT, true or false] [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) transit: Option<String>,
    /// What each neighbour may have sent on to others, in bytes a second; k, M and G stand for thousands, millions and thousands of millions: 10M
    /// [env: RECEPTOR_TRANSIT_RATE] [default: no limit]
    #[arg(long, value_name = "BYTES/S", allow_negative_numbers = true)]
    pub(super) transit_rate: Option<String>,
    /// Nodes that may forward traffic for others, as this node sees it: patterns of ids such as
    /// `relay-*`, or `role:NAME` for certificates with that role. Transit claims of other nodes are
    /// ignored. Repeatable [env: RECEPTOR_RELAYS, separated by commas] [default: every member may]
    #[arg(long, value_name = "RULE")]
    pub(super) relays: Vec<String>,
    /// Send packets for nodes that are no neighbours through other nodes only: look for no direct paths, and take none [env:
    /// RECEPTOR_NO_DIRECT, true or false] [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) no_direct: Option<String>,
    /// An address at which others reach this node's UDP port, if a NAT in front was told to forward one: `203.0.113.7:4433`.
    /// Repeatable [env: RECEPTOR_EXTERNAL, separated by commas] [default: none; neighbours tell what they see]
    #[arg(long, value_name = "ADDR")]
    pub(super) external: Vec<String>,
    /// Find nodes on the local network by multicast DNS and link to them, and announce this one there if it listens [env: RECEPTOR_LAN,
    /// true or false] [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) lan: Option<String>,
    /// Have the router map a UDP port to this node, by PCP, NAT-PMP or UPnP; `receptor status` tells how it goes [env: RECEPTOR_MAP_PORT,
    /// true or false] [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) map_port: Option<String>,
    /// Offer an external command: payload on its standard input, its standard output sent back. The command line is split as a shell
    /// does it, but no shell runs it. Repeatable [env: RECEPTOR_COMMAND, one a line]
    #[arg(long, value_name = "NS:ACTION=CMDLINE")]
    pub(super) command: Vec<String>,
    /// Where the node keeps what it should know after a restart; made if it is not there [env: RECEPTOR_DATA_DIR] [default: none;
    /// nothing is kept]
    #[arg(long, value_name = "DIR")]
    pub(super) data_dir: Option<PathBuf>,
    /// The control socket, for `receptor status` and the like on this machine [env: RECEPTOR_CONTROL] [default:
    /// $XDG_RUNTIME_DIR/receptor/ID.sock; else /run/receptor/ID.sock for root, /tmp/receptor-UID/ID.sock for others]
    #[arg(long, value_name = "PATH")]
    pub(super) control: Option<PathBuf>,
    /// What this node's links cost, 1 to 65535, or `round-trip` to measure it; traffic takes the cheapest way, and of what the two
    /// ends of a link say, the larger counts [env: RECEPTOR_COST] [default: 1]
    #[arg(long, value_name = "N|round-trip", allow_negative_numbers = true)]
    pub(super) cost: Option<String>,
    /// What this node's link to one neighbour costs, whoever dials it. Repeatable [env: RECEPTOR_COST_TO, separated by commas]
    #[arg(long, value_name = "ID=N")]
    pub(super) cost_to: Vec<String>,
    /// How soon the loss of a neighbour is noticed, on the links that this node dials: `default`, within 5 s; or `metered`, within 65 s, for
    /// lines that are paid by the byte [env: RECEPTOR_LIVENESS] [default: default]
    #[arg(long, value_name = "PROFILE")]
    pub(super) liveness: Option<String>,
    /// How long running calls and open streams may go on after the first SIGTERM or Ctrl-C: 500ms, 30s, 2m
    /// [env: RECEPTOR_GRACE] [default: 5s]
    #[arg(long, value_name = "DURATION")]
    pub(super) grace: Option<String>,
    /// End streams and calls to a node that is not a neighbour this long after its last packet if
    /// there is no route to it: 500ms to 10m [env: RECEPTOR_PEER_TIMEOUT] [default: 5s]
    #[arg(long, value_name = "DURATION")]
    pub(super) peer_timeout: Option<String>,
    /// How log lines look: text or json. They go to standard error; RUST_LOG says which (default info) [env: RECEPTOR_LOG_FORMAT]
    /// [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub(super) log_format: Option<String>,
    /// A file with these settings [env: RECEPTOR_CONFIG] [default: none]
    #[arg(long, value_name = "FILE.toml")]
    pub(super) config: Option<PathBuf>,
    /// Leave when standard input ends: for a parent that must not leave nodes behind.
    #[arg(long, hide = true)]
    pub(super) until_stdin_ends: bool,
}

const NODE_EXAMPLES: &str = r#"
Settings come from the flag, else from the environment, else from the file, else
there is a default. A list from one of them replaces that of the next. In the
file, keys are named as the flags are; relative paths start at its directory:

  id = "edge-1"
  certs = "certs"
  peer = ["relay-1@one.example:4433", "relay-2@two.example:4433"]
  data-dir = "/var/lib/receptor"

  [command]
  "text:upper" = "tr a-z A-Z"
  "files:list" = ["ls", "-l", "/srv/with spaces"]

Signals: SIGTERM and Ctrl-C withdraw and drain, then exit with 0; a second one
exits at once. SIGHUP reloads the certificates without dropping links, and logs
which other settings have changed in the file and need a restart.

Examples:
  receptor node --id relay-1 --certs certs --listen 0.0.0.0:4433 --transit
  receptor node --id edge-1 --certs certs --peer relay-1@relay.example:4433 \
                --command 'text:upper=tr a-z A-Z'"#;

#[derive(Debug, clap::Args)]
pub(super) struct DoctorArgs {
    /// Print JSON, one object a finding: check, verdict (ok, warn or fail), text, advice
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) node: NodeArgs,
}

const DOCTOR_EXAMPLES: &str = "\
It takes the settings of `receptor node`. A node that runs with them is asked
through its control socket; else the doctor joins with them for a moment.
One line for each thing it looks at: `ok`, `warn` (it works, and could do better),
or `FAIL`, with what to do. Exit status 1 if something keeps the node from working.

Examples:
  receptor doctor --config /etc/receptor/edge.toml
  receptor doctor --id edge-1 --certs certs --peer relay-1@relay.example:4433";

/// Where a command runs: on a node of this machine, through its control socket; or on an ephemeral node that joins for it.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Where it runs")]
pub(super) struct PlaceArgs {
    /// The control socket of a node on this machine [env: RECEPTOR_CONTROL] [default: the one in the default directory]
    #[arg(long, value_name = "PATH", conflicts_with_all = ["id", "certs", "peer"])]
    pub(super) control: Option<PathBuf>,
    /// Join as an ephemeral node of this id instead, and leave when done; needs --certs and --peer [env: RECEPTOR_ID]
    #[arg(long, value_name = "ID")]
    pub(super) id: Option<String>,
    /// Where the ephemeral node's ca.crt, ID.crt and ID.key are [env: RECEPTOR_CERTS]
    #[arg(long, value_name = "DIR")]
    pub(super) certs: Option<PathBuf>,
    /// Who the ephemeral node links to; repeatable, the first that answers will do [env: RECEPTOR_PEER]
    #[arg(long, value_name = "[ID@]HOST:PORT")]
    pub(super) peer: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct StatusArgs {
    /// Print JSON, with every detail
    #[arg(long)]
    pub(super) json: bool,
    /// Wait first until all nodes in reach have the route to this one; if the time is over before, print the status all the
    /// same, and exit with 3
    #[arg(long)]
    pub(super) wait_converged: bool,
    /// How long to wait for that, in seconds
    #[arg(long, short = 't', value_name = "SECONDS", allow_negative_numbers = true, default_value = "10", value_parser = seconds, requires = "wait_converged")]
    pub(super) timeout: Duration,
    #[command(flatten)]
    pub(super) place: PlaceArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct PingArgs {
    /// The node to ping
    #[arg(value_name = "NODE")]
    pub(super) node: NodeId,
    /// How many pings
    #[arg(long, short = 'c', value_name = "N", allow_negative_numbers = true, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) count: u64,
    /// From one ping to the next, in seconds
    #[arg(long, short = 'i', value_name = "SECONDS", allow_negative_numbers = true, default_value = "1", value_parser = seconds)]
    pub(super) interval: Duration,
    /// How long to wait for a reply, in seconds
    #[arg(long, short = 't', value_name = "SECONDS", allow_negative_numbers = true, default_value = "5", value_parser = seconds)]
    pub(super) timeout: Duration,
    /// Print JSON, one object a reply
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) place: PlaceArgs,
}

const PING_EXAMPLES: &str = "\
Examples:
  receptor ping edge-1
  receptor ping edge-1 --count 10 --interval 0.2 --json
  receptor ping edge-1 --id laptop --certs certs --peer relay-1@relay.example:4433";

#[derive(Debug, clap::Args)]
pub(super) struct TraceArgs {
    /// The node to trace
    #[arg(value_name = "NODE")]
    pub(super) node: NodeId,
    /// Print JSON, a list of hops
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) place: PlaceArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct ExplainArgs {
    /// The node to explain
    #[arg(value_name = "NODE")]
    pub(super) node: NodeId,
    /// Print JSON, with every detail
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) place: PlaceArgs,
}

const EXPLAIN_EXAMPLES: &str = "\
The exit status is 3 if there is no way to the node.

Examples:
  receptor explain edge-1
  receptor explain edge-1 --json";

#[derive(Debug, clap::Args)]
pub(super) struct SendArgs {
    /// The node that does the work
    #[arg(value_name = "NODE")]
    pub(super) node: NodeId,
    /// What is to be done
    #[arg(value_name = "NS:ACTION")]
    pub(super) directive: Directive,
    /// What to do it with: a text; `-` for standard input; `@FILE` for a file. Streamed, of any size [default: nothing]
    #[arg(value_name = "PAYLOAD", allow_hyphen_values = true)]
    pub(super) payload: Option<std::ffi::OsString>,
    /// Cancel the work after this time, waiting for a busy node included: `30`, `1.5` (seconds), `500ms`, `15m`, `12h`
    /// [default: no limit]
    #[arg(long, short = 't', value_name = "DURATION", allow_negative_numbers = true, value_parser = time_limit)]
    pub(super) timeout: Option<Duration>,
    /// Show no progress on standard error
    #[arg(long, short = 'q')]
    pub(super) quiet: bool,
    /// Write responses to a terminal as they are, control sequences included
    #[arg(long)]
    pub(super) raw: bool,
    #[command(flatten)]
    pub(super) place: PlaceArgs,
}

const SEND_EXAMPLES: &str = "\
Responses go to standard output as they arrive: as they are, but if it is a
terminal, control characters other than line ends and tabs are shown as escapes,
unless --raw is given. If standard error is a terminal, it shows the progress of
a call that takes longer than a second.

The exit status is 0 if the work succeeded, with or without output. If it fails,
the reason goes to standard error, and the exit status is 1 (`receptor --help`
lists the others). Ctrl-C, and the end of --timeout, cancel the work on the other
side as well: a command's process group gets SIGTERM, and SIGKILL after its grace
(2 s unless the node sets another). When a command has exited, what it left
behind has the same grace to close its output; then the call ends.

Examples:
  receptor send edge-1 text:upper 'hello'
  tail -f app.log | receptor send edge-1 text:upper -
  receptor send edge-1 sum:sha256 @image.iso --timeout 10m";

/// A time limit: a duration that is not zero.
fn time_limit(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("a time limit is longer than 0".to_owned()),
        limit => Ok(limit),
    }
}

/// Seconds with a fraction: from a millisecond to a day.
fn seconds(text: &str) -> Result<Duration, String> {
    let allowed = 0.001..=86_400.0;
    match text.parse::<f64>() {
        Ok(seconds) if allowed.contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("seconds from 0.001 to 86400, a fraction is allowed".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_socket_and_an_ephemeral_node_exclude_each_other() {
        let parse = |line: &str| Args::try_parse_from(line.split(' '));
        assert!(parse("receptor ping a --control x").is_ok());
        assert!(parse("receptor ping a --id b --certs c --peer d:1").is_ok());
        assert!(parse("receptor ping a --control x --id b").is_err());
    }

    #[test]
    fn transit_takes_a_value_only_with_an_equals_sign() {
        let transit = |line: &str| match Args::try_parse_from(line.split(' ')).unwrap().command {
            Command::Node(args) => args.transit,
            other => panic!("{other:?}"),
        };
        assert_eq!(transit("receptor node --transit --id a").as_deref(), Some("true"));
        assert_eq!(transit("receptor node --transit=false").as_deref(), Some("false"));
        assert_eq!(transit("receptor node"), None);
    }

    #[test]
    fn a_negative_number_is_a_bad_value_and_not_an_unknown_flag() {
        let cost = match Args::try_parse_from("receptor node --cost -1".split(' ')).unwrap().command {
            Command::Node(args) => args.cost,
            other => panic!("{other:?}"),
        };
        assert_eq!(cost.as_deref(), Some("-1"));
        for line in [
            "ping a --count -1",
            "ping a --timeout -1",
            "send a b:c --timeout -1",
            "cert init --dir d --days -1",
        ] {
            let line = format!("receptor {line}");
            let error = Args::try_parse_from(line.split(' ')).unwrap_err().to_string();
            assert!(error.contains("invalid value '-1'"), "{line}: {error}");
        }
    }

    #[test]
    fn seconds_have_bounds_and_fractions() {
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        for bad in ["0", "-1", "NaN", "inf", "1e9", "1s"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
