//! The command line as typed. Values are validated later, together with those of the environment
//! and the file, so that an error can name the source of a value.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use super::policy::args::PolicyCommand;
use super::socket::SocketArgs;
use super::work::args::WorkArgs;
use crate::cli::process::exit::EXIT_STATUS;
use crate::cli::setup::settings::{duration, peer_timeout_of};
use crate::id::NodeId;
use crate::transport::Authority;
use crate::work::Directive;

/// Join programs into one mesh over mutually authenticated QUIC.
///
/// Nodes reach each other by name over any number of hops, with end-to-end encryption.
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
    /// Create a certificate authority and issue node certificates
    Cert {
        #[command(subcommand)]
        command: CertCommand,
    },
    /// Run a node until SIGTERM or Ctrl-C
    #[command(after_long_help = NODE_EXAMPLES)]
    Node(Box<NodeArgs>),
    /// Show a node's links, routes, peers and counters
    Status(StatusArgs),
    /// Have a node read its certificates and configuration again
    ///
    /// Changes of certs, peer, relays, crl, deny, allow, pin, policy, command and grace take effect at once; links, streams and
    /// calls that they do not concern go on. Other settings that have changed are named and take
    /// effect when the node is started again. If anything is not valid, nothing changes. SIGHUP does
    /// the same, and logs what this command prints.
    Reload(SocketArgs),
    /// Measure the round-trip time to a node
    #[command(after_long_help = PING_EXAMPLES)]
    Ping(PingArgs),
    /// Show the path to a node, hop by hop
    Trace(TraceArgs),
    /// Explain why a node is or is not reachable, and why traffic to it is direct or relayed
    #[command(after_long_help = EXPLAIN_EXAMPLES)]
    Explain(ExplainArgs),
    /// Send work to a node and stream the responses
    #[command(after_long_help = SEND_EXAMPLES)]
    Send(SendArgs),
    /// Submit, follow and manage units of work, which outlive nodes and connections
    Work(WorkArgs),
    /// Diagnose a node: certificate, peers, NAT, clock, files
    #[command(after_long_help = DOCTOR_EXAMPLES)]
    Doctor(Box<DoctorArgs>),
    /// Check or show the settings of a node without running it
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Check, test, explain or show who may do what on a node
    Policy {
        #[command(subcommand)]
        command: PolicyCommand,
    },
    /// Run a demonstration mesh on this machine and kill a relay during a transfer
    Demo,
    /// Print a shell completion script
    #[command(after_long_help = COMPLETIONS_EXAMPLES)]
    Completions {
        /// The shell to complete for
        #[arg(value_name = "SHELL")]
        shell: clap_complete::Shell,
    },
    /// Write the manual pages, one for each command
    Man {
        /// Directory for the pages; created if missing
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
}

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  receptor completions bash > /etc/bash_completion.d/receptor
  receptor completions zsh > ~/.zfunc/_receptor
  receptor completions fish > ~/.config/fish/completions/receptor.fish";

#[derive(Debug, Subcommand)]
pub(super) enum CertCommand {
    /// Create a certificate authority: DIR/ca.crt and DIR/ca.key
    ///
    /// Every node of the mesh trusts ca.crt. The holder of ca.key can admit nodes: keep it on the
    /// issuing machine, not on the nodes. Existing files are never overwritten.
    Init {
        /// Directory for the files; created if missing
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Human-readable name of the authority
        #[arg(long, value_name = "NAME", default_value = "receptor mesh")]
        name: String,
        /// Validity in days
        #[arg(long, value_name = "DAYS", allow_negative_numbers = true, default_value_t = Authority::DEFAULT_DAYS, value_parser = days())]
        days: u32,
    },
    /// Issue a node's certificate and key: DIR/NODE.crt and DIR/NODE.key
    ///
    /// The node needs these two files and DIR/ca.crt. Existing files are never overwritten: to
    /// renew, move the old ones away first. A running node loads the new ones with `receptor
    /// reload`.
    Issue {
        /// Node id: 1 to 128 letters, digits and `._-:@`
        #[arg(value_name = "NODE")]
        node: NodeId,
        /// Directory with ca.crt and ca.key, where the new files are written
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Validity in days
        #[arg(long, value_name = "DAYS", allow_negative_numbers = true, default_value_t = Authority::DEFAULT_IDENTITY_DAYS, value_parser = days())]
        days: u32,
        /// Role of the node, for example `relay`: nodes with `--relays role:relay` accept transit
        /// through this one. Repeatable
        #[arg(long, value_name = "NAME")]
        role: Vec<String>,
    },
    /// Request a certificate for this node: DIR/NODE.csr, for the key DIR/NODE.key
    ///
    /// Run it on the node: the key never leaves it. If there is no key, a new one is generated; an
    /// existing one is used again, to renew its certificate. Bring the request, which is not
    /// confidential, to the issuing machine and sign it there with `receptor cert sign`, or with
    /// another CA.
    Request {
        /// Node id: 1 to 128 letters, digits and `._-:@`
        #[arg(value_name = "NODE")]
        node: NodeId,
        /// Directory for the files; created if missing
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
    /// Sign a node's certificate request: DIR/NODE.crt
    ///
    /// Only the key is taken from the request: roles and validity are those given here, and a
    /// request that names another node is refused. An existing certificate is never overwritten:
    /// to renew, move the old one away first.
    Sign {
        /// Node id, which the request must name, if it names any
        #[arg(value_name = "NODE")]
        node: NodeId,
        /// Directory with ca.crt and ca.key, where the certificate is written
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// The request [default: DIR/NODE.csr]
        #[arg(long, value_name = "FILE.csr")]
        request: Option<PathBuf>,
        /// Validity in days
        #[arg(long, value_name = "DAYS", allow_negative_numbers = true, default_value_t = Authority::DEFAULT_IDENTITY_DAYS, value_parser = days())]
        days: u32,
        /// Role of the node, as with `receptor cert issue`. Repeatable
        #[arg(long, value_name = "NAME")]
        role: Vec<String>,
    },
}

fn days() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(Authority::MAX_DAYS))
}

/// Settings of a node. Precedence: flag, environment, file, default.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct NodeArgs {
    /// Node id; must be a name in the certificate [env: RECEPTOR_ID]
    #[arg(long, value_name = "ID")]
    pub(super) id: Option<String>,
    /// Directory with ca.crt, ID.crt and ID.key, as written by `receptor cert` [env:
    /// RECEPTOR_CERTS]
    #[arg(long, value_name = "DIR")]
    pub(super) certs: Option<PathBuf>,
    /// UDP address to accept links on: `0.0.0.0:4433`, `[::]:4433`, or `:4433` for all addresses of
    /// the machine; port 0 selects a free port. Repeatable [env: RECEPTOR_LISTEN, comma-separated]
    /// [default: none, the node only dials out]
    #[arg(long, value_name = "ADDR")]
    pub(super) listen: Vec<String>,
    /// TCP address to accept links by TLS on, for nodes whose networks drop UDP: `0.0.0.0:443`,
    /// `[::]:443`, or `:443` for all addresses of the machine. Repeatable [env:
    /// RECEPTOR_LISTEN_TCP, comma-separated] [default: none]
    #[arg(long, value_name = "ADDR")]
    pub(super) listen_tcp: Vec<String>,
    /// Node to link to and stay linked to: relay.example:4433, or relay-1@relay.example:4433 to
    /// accept only that id; tls://relay.example to link by TLS over TCP, port 443 by default.
    /// Repeatable [env: RECEPTOR_PEER, comma-separated]
    #[arg(long, value_name = "[ID@]HOST:PORT")]
    pub(super) peer: Vec<String>,
    /// Forward traffic for other nodes [env: RECEPTOR_TRANSIT, true or false] [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) transit: Option<String>,
    /// Per-neighbour transit rate limit in bytes/s, with suffixes k, M and G (10M) [env:
    /// RECEPTOR_TRANSIT_RATE] [default: no limit]
    #[arg(long, value_name = "BYTES/S", allow_negative_numbers = true)]
    pub(super) transit_rate: Option<String>,
    /// Nodes that this node accepts as relays: id patterns like `relay-*`, or `role:NAME` for
    /// certificates with that role. Transit claims of all other nodes are ignored. Repeatable
    /// [env: RECEPTOR_RELAYS, comma-separated] [default: every member]
    #[arg(long, value_name = "RULE")]
    pub(super) relays: Vec<String>,
    /// File with revocation lists (PEM): certificates that they list are refused, and live
    /// connections that use them closed. Repeatable [env: RECEPTOR_CRL, comma-separated] [default:
    /// none]
    #[arg(long, value_name = "FILE")]
    pub(super) crl: Vec<String>,
    /// Node to refuse, whatever signed its certificate. Repeatable [env: RECEPTOR_DENY,
    /// comma-separated] [default: none]
    #[arg(long, value_name = "ID")]
    pub(super) deny: Vec<String>,
    /// Node to accept; if any is given, all others are refused. Repeatable [env: RECEPTOR_ALLOW,
    /// comma-separated] [default: every member]
    #[arg(long, value_name = "ID")]
    pub(super) allow: Vec<String>,
    /// SHA-256 of a public key to accept, in hexadecimal digits; if any is given, all other keys are
    /// refused. Repeatable [env: RECEPTOR_PIN, comma-separated] [default: every key]
    #[arg(long, value_name = "SHA256")]
    pub(super) pin: Vec<String>,
    /// Policy (TOML): who may do what on this node [env: RECEPTOR_POLICY] [default: everybody may do
    /// everything]
    #[arg(long, value_name = "FILE")]
    pub(super) policy: Option<PathBuf>,
    /// Disable direct paths: reach nodes that are not neighbours only through relays [env:
    /// RECEPTOR_NO_DIRECT, true or false] [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) no_direct: Option<String>,
    /// External address of this node's UDP port, if a NAT forwards one to it: `203.0.113.7:4433`.
    /// Repeatable [env: RECEPTOR_EXTERNAL, comma-separated] [default: none, neighbours report the
    /// address they observe]
    #[arg(long, value_name = "ADDR")]
    pub(super) external: Vec<String>,
    /// Discover nodes on the local network by multicast DNS and link to them; a node that listens
    /// also announces itself [env: RECEPTOR_LAN, true or false] [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) lan: Option<String>,
    /// Request a UDP port mapping from the router by PCP, NAT-PMP or UPnP; `receptor status` shows
    /// the result [env: RECEPTOR_MAP_PORT, true or false] [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) map_port: Option<String>,
    /// Serve an external command: the payload is its standard input, its standard output the
    /// response. The command line is split like a shell does, but not run by a shell. Repeatable
    /// [env: RECEPTOR_COMMAND, one per line]
    #[arg(long, value_name = "NS:ACTION=CMDLINE")]
    pub(super) command: Vec<String>,
    /// Directory for state that survives a restart; created if missing [env: RECEPTOR_DATA_DIR]
    /// [default: none, state is not kept]
    #[arg(long, value_name = "DIR")]
    pub(super) data_dir: Option<PathBuf>,
    /// Keep units of work: those submitted here with `receptor work`, and those that others submit
    /// to this node. Needs a data directory; the limits are in the configuration file [env:
    /// RECEPTOR_UNITS, true or false] [default: false, or true if the file has a table of units]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) units: Option<String>,
    /// Control socket for `receptor status` and other commands on this machine [env:
    /// RECEPTOR_CONTROL] [default: $XDG_RUNTIME_DIR/receptor/ID.sock; otherwise
    /// /run/receptor/ID.sock for root, /tmp/receptor-UID/ID.sock for other users]
    #[arg(long, value_name = "PATH")]
    pub(super) control: Option<PathBuf>,
    /// Cost of this node's links, 1 to 65535, or `round-trip` to derive it from the round-trip
    /// time. Traffic takes the path of lowest cost; of the costs that the two ends of a link
    /// announce, the larger applies [env: RECEPTOR_COST] [default: 1]
    #[arg(long, value_name = "N|round-trip", allow_negative_numbers = true)]
    pub(super) cost: Option<String>,
    /// Cost of the link to one neighbour, regardless of which end dialled. Repeatable [env:
    /// RECEPTOR_COST_TO, comma-separated]
    #[arg(long, value_name = "ID=N")]
    pub(super) cost_to: Vec<String>,
    /// Liveness profile of the links that this node dials: `default` detects the loss of a
    /// neighbour within 5 s, `fast` within 1.5 s with more keepalives, `metered` within 65 s with
    /// fewer [env: RECEPTOR_LIVENESS] [default: default]
    #[arg(long, value_name = "PROFILE")]
    pub(super) liveness: Option<String>,
    /// Congestion control of what this node sends: `cubic` (RFC 9438), or `westwood`, which keeps its
    /// rate on paths with random loss and keeps queues short [env: RECEPTOR_CONGESTION] [default:
    /// cubic]
    #[arg(long, value_name = "ALGORITHM")]
    pub(super) congestion: Option<String>,
    /// Grace period for running calls and open streams after the first SIGTERM or Ctrl-C: 500ms,
    /// 30s, 2m [env: RECEPTOR_GRACE] [default: 5s]
    #[arg(long, value_name = "DURATION")]
    pub(super) grace: Option<String>,
    /// Time after its last packet at which streams and calls to a node without a route end, if it
    /// is not a neighbour: 500ms to 10m [env: RECEPTOR_PEER_TIMEOUT] [default: 5s]
    #[arg(long, value_name = "DURATION")]
    pub(super) peer_timeout: Option<String>,
    /// Log format: text or json. Logs go to standard error and are filtered by RUST_LOG (default:
    /// info) [env: RECEPTOR_LOG_FORMAT] [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub(super) log_format: Option<String>,
    /// Configuration file with these settings [env: RECEPTOR_CONFIG] [default: none]
    #[arg(long, value_name = "FILE.toml")]
    pub(super) config: Option<PathBuf>,
    /// Shut down at the end of standard input, so that a node does not outlive its parent.
    #[arg(long, hide = true)]
    pub(super) until_stdin_ends: bool,
}

const NODE_EXAMPLES: &str = r#"
Precedence of settings: flag, environment, file, default. A list replaces the
list of a source with lower precedence. Keys in the file have the names of the
flags; relative paths start at the directory of the file:

  id = "edge-1"
  certs = "certs"
  peer = ["relay-1@one.example:4433", "relay-2@two.example:4433"]
  data-dir = "/var/lib/receptor"

  [command]
  "text:upper" = "tr a-z A-Z"
  "files:list" = ["ls", "-l", "/srv/with spaces"]

Signals: SIGTERM and Ctrl-C withdraw the node's routes, drain, and exit with 0; a
second one exits at once. SIGHUP reloads the certificates and the file, as `receptor
reload` does, without dropping links that this does not concern.

Examples:
  receptor node --id relay-1 --certs certs --listen 0.0.0.0:4433 --transit
  receptor node --id edge-1 --certs certs --peer relay-1@relay.example:4433 \
                --command 'text:upper=tr a-z A-Z'"#;

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Check that `receptor node` could run with these settings
    ///
    /// Reads the file, the environment and the flags as `receptor node` does, and exits with 2 if a
    /// value is not valid, naming its file and line. Certificates and peers are not looked at:
    /// `receptor doctor` checks those.
    Check(Box<ConfigArgs>),
    /// Print the effective settings, each with where it was set
    ///
    /// The output is a configuration file with the same settings.
    Show(Box<ConfigArgs>),
}

#[derive(Debug, clap::Args)]
pub(super) struct ConfigArgs {
    /// Configuration file, as with --config
    #[arg(value_name = "FILE.toml", conflicts_with = "config")]
    pub(super) file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) node: NodeArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct DoctorArgs {
    /// Print JSON, one object per finding: check, verdict (ok, warn or fail), text, advice
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) node: NodeArgs,
}

const DOCTOR_EXAMPLES: &str = "\
Accepts the settings of `receptor node`. Queries a node that runs with them through
its control socket; otherwise joins the mesh with them temporarily.
Prints one line per check: `ok`, `warn` (works, but could be improved) or `FAIL`,
with advice. The exit status is 1 if a check fails.

Examples:
  receptor doctor --config /etc/receptor/edge.toml
  receptor doctor --id edge-1 --certs certs --peer relay-1@relay.example:4433";

/// Where a command runs: on a node of this machine through its control socket, or on an ephemeral
/// node that joins the mesh for it.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Where it runs")]
pub(super) struct PlaceArgs {
    /// Control socket of a node on this machine [env: RECEPTOR_CONTROL] [default: the only socket
    /// in the default directory]
    #[arg(long, value_name = "PATH", conflicts_with_all = ["id", "certs", "peer"])]
    pub(super) control: Option<PathBuf>,
    /// Join the mesh as an ephemeral node with this id instead; requires --certs and --peer [env:
    /// RECEPTOR_ID]
    #[arg(long, value_name = "ID")]
    pub(super) id: Option<String>,
    /// Directory with the ephemeral node's ca.crt, ID.crt and ID.key [env: RECEPTOR_CERTS]
    #[arg(long, value_name = "DIR")]
    pub(super) certs: Option<PathBuf>,
    /// Node that the ephemeral node links to; repeatable, the first to answer is used [env:
    /// RECEPTOR_PEER]
    #[arg(long, value_name = "[ID@]HOST:PORT")]
    pub(super) peer: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct StatusArgs {
    /// Print JSON, with every detail
    #[arg(long)]
    pub(super) json: bool,
    /// Maximum number of stubs (ephemeral nodes) in each list, or `all`; more are counted [default:
    /// 16; with --json: all]
    #[arg(long, value_name = "N", value_parser = max_stubs)]
    pub(super) stubs: Option<MaxStubs>,
    /// First wait until all reachable nodes have the route to this one. On timeout, print the
    /// status and exit with 3
    #[arg(long)]
    pub(super) wait_converged: bool,
    /// Timeout of --wait-converged in seconds
    #[arg(long, short = 't', value_name = "SECONDS", allow_negative_numbers = true, default_value = "10", value_parser = seconds, requires = "wait_converged")]
    pub(super) timeout: Duration,
    #[command(flatten)]
    pub(super) place: PlaceArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct PingArgs {
    /// Node to ping
    #[arg(value_name = "NODE")]
    pub(super) node: NodeId,
    /// Number of pings
    #[arg(long, short = 'c', value_name = "N", allow_negative_numbers = true, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) count: u64,
    /// Interval between pings in seconds
    #[arg(long, short = 'i', value_name = "SECONDS", allow_negative_numbers = true, default_value = "1", value_parser = seconds)]
    pub(super) interval: Duration,
    /// Time to wait for a reply in seconds
    #[arg(long, short = 't', value_name = "SECONDS", allow_negative_numbers = true, default_value = "5", value_parser = seconds)]
    pub(super) timeout: Duration,
    /// Print JSON, one object per reply
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
    /// Node to trace
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
    /// Node to explain
    #[arg(value_name = "NODE")]
    pub(super) node: NodeId,
    /// Print JSON, with every detail
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) place: PlaceArgs,
}

const EXPLAIN_EXAMPLES: &str = "\
The exit status is 3 if the node is unreachable.

Examples:
  receptor explain edge-1
  receptor explain edge-1 --json";

#[derive(Debug, clap::Args)]
pub(super) struct SendArgs {
    /// Node that executes the work
    #[arg(value_name = "NODE")]
    pub(super) node: NodeId,
    /// Directive to execute
    #[arg(value_name = "NS:ACTION")]
    pub(super) directive: Directive,
    /// Payload: a text, `-` for standard input, or `@FILE` for a file. Streamed, any size [default:
    /// empty]
    #[arg(value_name = "PAYLOAD", allow_hyphen_values = true)]
    pub(super) payload: Option<std::ffi::OsString>,
    /// Cancel the work after this time, including the wait for a busy node: `30`, `1.5` (seconds),
    /// `500ms`, `15m`, `12h` [default: no limit]
    #[arg(long, short = 't', value_name = "DURATION", allow_negative_numbers = true, value_parser = time_limit)]
    pub(super) timeout: Option<Duration>,
    /// Wait this long for the node while it is unreachable, at both ends: 500ms to 10m [default: as
    /// each node is set]
    #[arg(long, value_name = "DURATION", value_parser = peer_timeout_of)]
    pub(super) peer_timeout: Option<Duration>,
    /// Do not show progress on standard error
    #[arg(long, short = 'q')]
    pub(super) quiet: bool,
    /// Write responses to a terminal unmodified, including control sequences
    #[arg(long)]
    pub(super) raw: bool,
    #[command(flatten)]
    pub(super) place: PlaceArgs,
}

const SEND_EXAMPLES: &str = "\
Responses are written to standard output as they arrive. On a terminal, control
characters except line ends and tabs are escaped unless --raw is given. If
standard error is a terminal, it shows the progress of calls that take longer
than a second.

The exit status is 0 if the work succeeded, with or without output. On failure
the reason is printed to standard error and the exit status is 1 (`receptor
--help` lists the others). Ctrl-C and --timeout also cancel the work on the
executing node: the command's process group receives SIGTERM, and SIGKILL after
its grace period (default 2 s, set by the node). When a command has exited, its
remaining child processes have the same period to close its output; then the call
ends.

Examples:
  receptor send edge-1 text:upper 'hello'
  tail -f app.log | receptor send edge-1 text:upper -
  receptor send edge-1 sum:sha256 @image.iso --timeout 10m";

/// Parses a time limit, which is a duration greater than zero.
fn time_limit(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("a time limit must be greater than 0".to_owned()),
        limit => Ok(limit),
    }
}

/// Maximum number of stubs in each list of a status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum MaxStubs {
    All,
    AtMost(usize),
}

fn max_stubs(text: &str) -> Result<MaxStubs, String> {
    match text {
        "all" => Ok(MaxStubs::All),
        number => number
            .parse()
            .map(MaxStubs::AtMost)
            .map_err(|_| "expected a number or `all`".to_owned()),
    }
}

/// Parses seconds with a fraction, from a millisecond to a day.
fn seconds(text: &str) -> Result<Duration, String> {
    let allowed = 0.001..=86_400.0;
    match text.parse::<f64>() {
        Ok(seconds) if allowed.contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("expected seconds from 0.001 to 86400, with an optional fraction".to_owned()),
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
        let cost = match Args::try_parse_from("receptor node --cost -1".split(' ')).unwrap().command
        {
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
