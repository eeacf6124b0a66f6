//! The settings of a node as they were given, and where: flag over environment over file. Their
//! values are not checked yet.

use std::path::PathBuf;

use crate::cli::args::NodeArgs;
use crate::cli::process::exit::Failure;
use crate::cli::setup::env::Env;
use crate::cli::setup::file::units::UnitsSetting;
use crate::cli::setup::file::{CommandLine, CommandSetting, File};
use crate::cli::setup::settings::{
    ALLOW, CERTS, COMMAND, CONFIG, CONGESTION, CONTROL, COST, COST_TO, CRL, DATA_DIR, DENY,
    EXTERNAL, GRACE, ID, LAN, LISTEN, LISTEN_TCP, LIVENESS, LOG_FORMAT, MAP_PORT, NO_DIRECT, PEER,
    PEER_TIMEOUT, PIN, POLICY, RELAYS, Sourced, TRANSIT, TRANSIT_RATE, UNITS,
};

/// The settings of a node as they were given. `None` and empty lists were not given.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) id: Option<Sourced<String>>,
    pub(super) certs: Option<Sourced<PathBuf>>,
    pub(super) listen: Vec<Sourced<String>>,
    pub(super) listen_tcp: Vec<Sourced<String>>,
    pub(super) peer: Vec<Sourced<String>>,
    pub(super) transit: Option<Sourced<String>>,
    pub(super) transit_rate: Option<Sourced<String>>,
    pub(super) relays: Vec<Sourced<String>>,
    pub(super) crl: Vec<Sourced<String>>,
    pub(super) deny: Vec<Sourced<String>>,
    pub(super) allow: Vec<Sourced<String>>,
    pub(super) pin: Vec<Sourced<String>>,
    pub(super) policy: Option<Sourced<PathBuf>>,
    pub(super) no_direct: Option<Sourced<String>>,
    pub(super) external: Vec<Sourced<String>>,
    pub(super) lan: Option<Sourced<String>>,
    pub(super) map_port: Option<Sourced<String>>,
    pub(super) command: Vec<Sourced<CommandSetting>>,
    pub(super) data_dir: Option<Sourced<PathBuf>>,
    /// The switch. The file has none: its table turns units on.
    pub(super) units: Option<Sourced<String>>,
    pub(super) units_table: Option<UnitsSetting>,
    pub(super) control: Option<Sourced<PathBuf>>,
    pub(super) cost: Option<Sourced<String>>,
    pub(super) cost_to: Vec<Sourced<String>>,
    pub(super) liveness: Option<Sourced<String>>,
    pub(super) congestion: Option<Sourced<String>>,
    pub(super) grace: Option<Sourced<String>>,
    pub(super) peer_timeout: Option<Sourced<String>>,
    pub(super) log_format: Option<Sourced<String>>,
    pub(super) until_stdin_ends: bool,
}

impl Given {
    /// Brings flags, environment and file together. A list replaces that of a source with lower
    /// precedence.
    pub(super) fn collect(args: NodeArgs, env: &Env) -> Result<Self, Failure> {
        let file = match CONFIG.path(args.config, env) {
            Some(path) => File::read(&path.value)?,
            None => File::default(),
        };
        Ok(Self {
            id: ID.text(args.id, env)?.or(file.id),
            certs: CERTS.path(args.certs, env).or(file.certs),
            listen: over(LISTEN.list(args.listen, env, ',')?, file.listen),
            listen_tcp: over(LISTEN_TCP.list(args.listen_tcp, env, ',')?, file.listen_tcp),
            peer: over(PEER.list(args.peer, env, ',')?, file.peer),
            transit: TRANSIT.text(args.transit, env)?.or(file.transit),
            transit_rate: TRANSIT_RATE.text(args.transit_rate, env)?.or(file.transit_rate),
            relays: over(RELAYS.restriction(args.relays, env)?, file.relays),
            crl: over(CRL.list(args.crl, env, ',')?, file.crl),
            deny: over(DENY.list(args.deny, env, ',')?, file.deny),
            allow: over(ALLOW.restriction(args.allow, env)?, file.allow),
            pin: over(PIN.restriction(args.pin, env)?, file.pin),
            policy: POLICY.path(args.policy, env).or(file.policy),
            no_direct: NO_DIRECT.text(args.no_direct, env)?.or(file.no_direct),
            external: over(EXTERNAL.list(args.external, env, ',')?, file.external),
            lan: LAN.text(args.lan, env)?.or(file.lan),
            map_port: MAP_PORT.text(args.map_port, env)?.or(file.map_port),
            command: over(command_flags(COMMAND.list(args.command, env, '\n')?)?, file.command),
            data_dir: DATA_DIR.path(args.data_dir, env).or(file.data_dir),
            units: UNITS.text(args.units, env)?,
            units_table: file.units,
            control: CONTROL.path(args.control, env).or(file.control),
            cost: COST.text(args.cost, env)?.or(file.cost),
            cost_to: over(COST_TO.list(args.cost_to, env, ',')?, file.cost_to),
            liveness: LIVENESS.text(args.liveness, env)?.or(file.liveness),
            congestion: CONGESTION.text(args.congestion, env)?.or(file.congestion),
            grace: GRACE.text(args.grace, env)?.or(file.grace),
            peer_timeout: PEER_TIMEOUT.text(args.peer_timeout, env)?.or(file.peer_timeout),
            log_format: LOG_FORMAT.text(args.log_format, env)?.or(file.log_format),
            until_stdin_ends: args.until_stdin_ends,
        })
    }
}

/// Splits `NS:ACTION=CMDLINE`.
fn command_flags(flags: Vec<Sourced<String>>) -> Result<Vec<Sourced<CommandSetting>>, Failure> {
    let split = |text: String| match text.split_once('=') {
        Some((directive, line)) => {
            Ok(CommandSetting::new(directive.to_owned(), CommandLine::Text(line.to_owned())))
        }
        None => Err(format!("{text:?}: NS:ACTION=CMDLINE")),
    };
    flags
        .into_iter()
        .map(|flag| {
            let source = flag.source.clone();
            Ok(Sourced::new(flag.and_then(split)?, source))
        })
        .collect()
}

/// The first list, unless it is empty.
fn over<T>(first: Vec<T>, second: Vec<T>) -> Vec<T> {
    if first.is_empty() { second } else { first }
}
