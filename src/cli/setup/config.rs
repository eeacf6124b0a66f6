//! The checked configuration of a node: whatever is in it can be run.

pub(in crate::cli) mod command;
mod given;
mod show;

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use given::Given;

use super::env::Env;
use super::file::{CommandLine, CommandSetting, InheritSetting};
use super::identity::TrustRules;
use super::settings::{
    ALLOW, CERTS, COMMAND, CONGESTION, CONTROL, COST, COST_TO, CRL, DATA_DIR, DENY, EXTERNAL,
    GRACE, ID, LAN, LISTEN, LISTEN_TCP, LIVENESS, LOG_FORMAT, MAP_PORT, NO_DIRECT, PEER,
    PEER_TIMEOUT, PIN, POLICY, RELAYS, Source, Sourced, TRANSIT, TRANSIT_RATE, UNITS, bytes,
    duration, peer_timeout_of, switch,
};
use super::units::UnitSettings;
use crate::cli::args::NodeArgs;
use crate::cli::control::path::ControlPath;
use crate::cli::policy::file::PolicyFile;
use crate::cli::process::exit::Failure;
use crate::cli::process::log::LogFormat;
use crate::cli::process::users::User;
use crate::id::{Cost, NodeId};
use crate::mesh::{InvalidLinkCost, LinkCost, PeerAddr};
use crate::node::Node;
use crate::transport::{Congestion, ListenAddr, Liveness};
use crate::work::{self, CommandStderr, Directive, InheritEnv};

/// The checked configuration of a node.
#[derive(Debug)]
pub(in crate::cli) struct NodeConfig {
    pub(in crate::cli) id: NodeId,
    pub(in crate::cli) certs: PathBuf,
    pub(in crate::cli) listen: Vec<ListenAddr>,
    pub(in crate::cli) listen_tcp: Vec<ListenAddr>,
    pub(in crate::cli) peers: Vec<PeerAddr>,
    pub(in crate::cli) transit: bool,
    pub(in crate::cli) transit_rate: Option<NonZeroU64>,
    pub(in crate::cli) direct: bool,
    pub(in crate::cli) trust: TrustRules,
    /// `None` if everybody may do everything.
    pub(in crate::cli) policy: Option<PolicyFile>,
    pub(in crate::cli) external: Vec<SocketAddr>,
    pub(in crate::cli) lan: bool,
    pub(in crate::cli) map_port: bool,
    pub(in crate::cli) commands: Vec<CommandSpec>,
    pub(in crate::cli) data_dir: Option<PathBuf>,
    pub(in crate::cli) units: Option<UnitSettings>,
    pub(in crate::cli) control: ControlPath,
    pub(in crate::cli) cost: LinkCost,
    pub(in crate::cli) cost_to: Vec<(NodeId, Cost)>,
    pub(in crate::cli) liveness: Liveness,
    pub(in crate::cli) congestion: Congestion,
    pub(in crate::cli) grace: Duration,
    pub(in crate::cli) peer_timeout: Option<Duration>,
    pub(in crate::cli) log_format: LogFormat,
    pub(in crate::cli) until_stdin_ends: bool,
}

impl NodeConfig {
    /// The settings that are different in `other`, by their names in the file.
    pub(in crate::cli) fn differences(&self, other: &Self) -> Vec<&'static str> {
        let differs = [
            (ID, self.id != other.id),
            (CERTS, self.certs != other.certs),
            (LISTEN, self.listen != other.listen),
            (LISTEN_TCP, self.listen_tcp != other.listen_tcp),
            (PEER, self.peers != other.peers),
            (TRANSIT, self.transit != other.transit),
            (TRANSIT_RATE, self.transit_rate != other.transit_rate),
            (NO_DIRECT, self.direct != other.direct),
            (RELAYS, self.trust.relays != other.trust.relays),
            (CRL, self.trust.crls != other.trust.crls),
            (DENY, self.trust.denied != other.trust.denied),
            (ALLOW, self.trust.allowed != other.trust.allowed),
            (PIN, self.trust.pins != other.trust.pins),
            (POLICY, self.policy != other.policy),
            (EXTERNAL, self.external != other.external),
            (LAN, self.lan != other.lan),
            (MAP_PORT, self.map_port != other.map_port),
            (COMMAND, self.commands != other.commands),
            (DATA_DIR, self.data_dir != other.data_dir),
            (UNITS, self.units != other.units),
            (CONTROL, self.control != other.control),
            (COST, self.cost != other.cost),
            (COST_TO, self.cost_to != other.cost_to),
            (LIVENESS, self.liveness != other.liveness),
            (CONGESTION, self.congestion != other.congestion),
            (GRACE, self.grace != other.grace),
            (PEER_TIMEOUT, self.peer_timeout != other.peer_timeout),
            (LOG_FORMAT, self.log_format != other.log_format),
        ];
        differs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name.flag).collect()
    }
}

/// A directive that an external command handles.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::cli) struct CommandSpec {
    pub(in crate::cli) directive: Directive,
    pub(in crate::cli) command: work::Command,
}

impl NodeConfig {
    /// Brings flags, environment and file together, and checks every value.
    pub(in crate::cli) fn resolve(args: NodeArgs, env: &Env) -> Result<Self, Failure> {
        Self::check(Given::collect(args, env)?, env)
    }

    /// Checks every value.
    fn check(given: Given, env: &Env) -> Result<Self, Failure> {
        let id: NodeId = given.id.ok_or_else(|| ID.missing("the node's id"))?.parse()?;
        let certs =
            given.certs.ok_or_else(|| CERTS.missing("the directory of the certificates"))?;
        let listen: Vec<ListenAddr> = all(given.listen, Sourced::parse)?;
        let listen_tcp: Vec<ListenAddr> = all(given.listen_tcp, Sourced::parse)?;
        let peers: Vec<PeerAddr> = all(given.peer, Sourced::parse)?;
        let lan = with_feature(given.lan, "mdns", cfg!(feature = "mdns"))?;
        if listen.is_empty() && listen_tcp.is_empty() && peers.is_empty() && !lan {
            return Err(Failure::usage(
                "a node without a neighbour is of no use: give an address to take links at (--listen) or a node to link to (--peer)",
            ));
        }
        let data_dir = given.data_dir.map(|path| path.value);
        let units = optional(given.units, switch)?;
        Ok(Self {
            certs: certs.value,
            listen,
            listen_tcp,
            peers,
            transit: optional(given.transit, switch)?.unwrap_or_default(),
            transit_rate: optional(given.transit_rate, bytes_per_second)?,
            direct: !optional(given.no_direct, switch)?.unwrap_or_default(),
            trust: TrustRules {
                relays: all(given.relays, Sourced::parse)?,
                crls: given.crl.into_iter().map(|path| path.value.into()).collect(),
                denied: all(given.deny, Sourced::parse)?,
                allowed: all(given.allow, Sourced::parse)?,
                pins: all(given.pin, Sourced::parse)?,
            },
            policy: given.policy.map(|path| PolicyFile::load(&path.value)).transpose()?,
            external: all(given.external, |addr| addr.and_then(external_addr))?,
            lan,
            map_port: with_feature(given.map_port, "portmap", cfg!(feature = "portmap"))?,
            commands: commands(given.command)?,
            units: UnitSettings::resolve(units, given.units_table, data_dir.is_some())?,
            data_dir,
            control: match given.control {
                Some(path) => ControlPath::Given(path.value),
                None => ControlPath::default_of(&id, env),
            },
            cost: optional(given.cost, link_cost)?.unwrap_or_default(),
            cost_to: all(given.cost_to, |cost| cost.and_then(cost_of_one))?,
            liveness: optional(given.liveness, profile_of)?.unwrap_or_default(),
            congestion: optional(given.congestion, algorithm_of)?.unwrap_or_default(),
            grace: optional(given.grace, grace_period)?.unwrap_or(Node::SHUTDOWN_GRACE),
            peer_timeout: optional(given.peer_timeout, |text| peer_timeout_of(&text))?,
            log_format: given.log_format.map(Sourced::parse).transpose()?.unwrap_or_default(),
            until_stdin_ends: given.until_stdin_ends,
            id,
        })
    }
}

/// Checks each item of a list.
fn all<T, U>(
    items: Vec<Sourced<T>>,
    check: impl Fn(Sourced<T>) -> Result<U, Failure>,
) -> Result<Vec<U>, Failure> {
    items.into_iter().map(check).collect()
}

/// Checks a value if it was given.
fn optional<T>(
    value: Option<Sourced<String>>,
    check: impl FnOnce(String) -> Result<T, String>,
) -> Result<Option<T>, Failure> {
    value.map(|value| value.and_then(check)).transpose()
}

/// A switch, off by default, that a build without the feature cannot turn on.
fn with_feature(
    switched: Option<Sourced<String>>,
    feature: &str,
    built: bool,
) -> Result<bool, Failure> {
    let Some(switched) = switched else { return Ok(false) };
    switched.and_then(|text| match switch(text)? {
        true if !built => Err(format!(
            "this receptor was built without the feature `{feature}`: build it with --features cli,{feature}"
        )),
        on => Ok(on),
    })
}

/// An address that others can send to.
fn external_addr(text: String) -> Result<SocketAddr, String> {
    let addr = text
        .parse()
        .ok()
        .filter(|addr: &SocketAddr| !addr.ip().is_unspecified() && addr.port() != 0);
    addr.ok_or_else(|| format!("{text:?}: an IP address with the UDP port there: 203.0.113.7:4433"))
}

fn link_cost(text: String) -> Result<LinkCost, String> {
    text.parse().map_err(|why: InvalidLinkCost| why.to_string())
}

fn bytes_per_second(text: String) -> Result<NonZeroU64, String> {
    bytes(&text).ok_or_else(|| format!("{text:?}: bytes per second, from 1, such as 500k or 10M"))
}

/// A grace period: a duration of at most a day.
fn grace_period(text: String) -> Result<Duration, String> {
    let bounded = duration(&text).ok().filter(|grace| *grace <= Duration::from_secs(86_400));
    bounded.ok_or_else(|| format!("{text:?}: a duration from 0 to 24h, such as 500ms, 30s or 2m"))
}

fn profile_of(text: String) -> Result<Liveness, String> {
    match text.as_str() {
        "default" => Ok(Liveness::Default),
        "fast" => Ok(Liveness::Fast),
        "metered" => Ok(Liveness::Metered),
        _ => Err(format!("{text:?}: default, fast or metered")),
    }
}

fn algorithm_of(text: String) -> Result<Congestion, String> {
    match text.as_str() {
        "westwood" => Ok(Congestion::Westwood),
        "cubic" => Ok(Congestion::Cubic),
        _ => Err(format!("{text:?}: westwood or cubic")),
    }
}

fn cost_of_one(text: String) -> Result<(NodeId, Cost), String> {
    let (id, cost) = text.split_once('=').ok_or_else(|| format!("{text:?}: ID=N"))?;
    let id = id.parse::<NodeId>().map_err(|why| why.to_string())?;
    let cost = cost.parse::<u32>().ok().and_then(|cost| Cost::try_from(cost).ok());
    let cost = cost.ok_or_else(|| format!("{text:?}: a whole number from 1 to {}", Cost::MAX))?;
    Ok((id, cost))
}

fn commands(settings: Vec<Sourced<CommandSetting>>) -> Result<Vec<CommandSpec>, Failure> {
    let mut specs = Vec::<CommandSpec>::new();
    for setting in settings {
        let source = setting.source.clone();
        let spec = command_spec(setting)?;
        if specs.iter().any(|other| other.directive == spec.directive) {
            return Err(twice(source, &spec.directive));
        }
        specs.push(spec);
    }
    Ok(specs)
}

fn twice(source: Source, directive: &Directive) -> Failure {
    Sourced::new((), source).bad(format!("{directive} has a command already"))
}

fn command_spec(setting: Sourced<CommandSetting>) -> Result<CommandSpec, Failure> {
    let Sourced { value: setting, source } = setting;
    let run = Sourced::new((setting.directive, setting.run), source.clone());
    let (directive, mut command) =
        run.and_then(|(directive, line)| command_line(&directive, line))?;
    if let Some(max) = setting.max_output {
        let limit = |text: String| {
            bytes(&text)
                .ok_or_else(|| format!("{text:?}: a number of bytes, from 1, such as 500k or 10M"))
        };
        command = command.max_output(max.and_then(limit)?.get());
    }
    if let Some(grace) = setting.grace {
        command = command.kill_grace(
            grace.and_then(|text| duration(&text).map_err(|why| format!("{text:?}: {why}")))?,
        );
    }
    command = match setting.inherit_env {
        None => command,
        Some(InheritSetting::All(true)) => command.inherit_env(InheritEnv::All),
        Some(InheritSetting::All(false)) => command.inherit_env(InheritEnv::Only(Vec::new())),
        Some(InheritSetting::Only(names)) => {
            command.inherit_env(InheritEnv::Only(names.into_iter().map(Into::into).collect()))
        }
    };
    if let Some(dir) = setting.dir {
        command = command.dir(dir);
    }
    if let Some(user) = setting.user {
        let user = user.and_then(|text| {
            runnable_as(User::find(&text)?, rustix::process::geteuid().as_raw())
        })?;
        command = as_user(command, user);
    }
    // After the user's own settings, which take precedence.
    for (name, value) in setting.env {
        let env = Sourced::new((name, value), source.clone()).and_then(env_variable)?;
        command = command.env(env.0, env.1);
    }
    if let Some(stderr) = setting.stderr {
        command = command.stderr(stderr.and_then(stderr_mode)?);
    }
    Ok(CommandSpec { directive, command })
}

fn command_line(directive: &str, line: CommandLine) -> Result<(Directive, work::Command), String> {
    let directive =
        directive.parse::<Directive>().map_err(|why| format!("{directive:?}: {why}"))?;
    let words = match line {
        CommandLine::Text(text) => shlex::split(&text)
            .ok_or_else(|| format!("{text:?}: a quote or an escape is not closed"))?,
        CommandLine::Words(words) => words,
    };
    let mut words = words.into_iter();
    match words.next().filter(|program| !program.is_empty()) {
        Some(program) => Ok((directive, work::Command::new(program).args(words))),
        None => Err(format!("{directive}: the command line is empty")),
    }
}

/// Whether a node of user `own` may run commands as that user.
fn runnable_as(user: User, own: u32) -> Result<User, String> {
    if own == 0 || own == user.uid {
        return Ok(user);
    }
    Err(format!(
        "only a node that runs as root can run commands as user {}; this one runs as user {own}",
        user.uid
    ))
}

fn as_user(command: work::Command, user: User) -> work::Command {
    let command = match user.entry {
        Some((name, home)) => command.env("USER", &name).env("LOGNAME", name).env("HOME", home),
        None => command,
    };
    // A node that is that user already needs no privilege for it.
    if rustix::process::geteuid().as_raw() == user.uid {
        command
    } else {
        command.user(user.uid, user.gid)
    }
}

fn env_variable(variable: (String, String)) -> Result<(String, String), String> {
    let (name, value) = &variable;
    if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
        return Err(format!(
            "env: {name:?} cannot be set: a name has no `=`, and neither it nor its value a zero byte"
        ));
    }
    Ok(variable)
}

fn stderr_mode(text: String) -> Result<CommandStderr, String> {
    match text.as_str() {
        "drop" => Ok(CommandStderr::Drop),
        "log" => Ok(CommandStderr::Log),
        "stream" => Ok(CommandStderr::Stream),
        _ => Err(format!("{text:?}: drop, log or stream")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::process::exit::Exit;

    fn flags() -> NodeArgs {
        NodeArgs {
            id: Some("edge-1".to_owned()),
            certs: Some("certs".into()),
            listen: vec![":4433".to_owned()],
            control: Some("c.sock".into()),
            ..NodeArgs::default()
        }
    }

    fn resolve(args: NodeArgs) -> Result<NodeConfig, Failure> {
        NodeConfig::resolve(args, &Env::default())
    }

    fn error(args: NodeArgs) -> String {
        let failure = resolve(args).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        failure.text
    }

    #[test]
    fn a_liveness_profile_is_one_of_three() {
        for (text, profile) in [
            ("default", Liveness::Default),
            ("fast", Liveness::Fast),
            ("metered", Liveness::Metered),
        ] {
            let args = NodeArgs { liveness: Some(text.to_owned()), ..flags() };
            assert_eq!(resolve(args).unwrap().liveness, profile);
        }
        let text = error(NodeArgs { liveness: Some("faster".to_owned()), ..flags() });
        assert!(text.contains("\"faster\": default, fast or metered"), "{text}");
    }

    #[test]
    fn a_grace_period_has_a_unit_or_is_in_seconds() {
        let grace = |text: &str| resolve(NodeArgs { grace: Some(text.to_owned()), ..flags() });
        let lengths = [
            ("0", 0),
            ("30", 30_000),
            ("0.5", 500),
            ("500ms", 500),
            ("30s", 30_000),
            ("2m", 120_000),
        ];
        for (text, millis) in lengths {
            assert_eq!(grace(text).unwrap().grace, Duration::from_millis(millis), "{text}");
        }
        assert_eq!(resolve(flags()).unwrap().grace, Node::SHUTDOWN_GRACE);
        for bad in ["", "s", "-1s", "2d", "25h", "1 s", "1.2.3s"] {
            assert!(
                error(NodeArgs { grace: Some(bad.to_owned()), ..flags() }).starts_with("--grace: "),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_flag_goes_over_the_environment_and_that_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.toml");
        std::fs::write(
            &path,
            "id = \"file\"\ncost = 3\nlisten = [\"127.0.0.1:3\"]\ncerts = \"certs\"",
        )
        .unwrap();
        let config = path.to_str().unwrap();
        let env = Env::from([
            ("RECEPTOR_ID", "env"),
            ("RECEPTOR_COST", "2"),
            ("RECEPTOR_CONFIG", config),
        ]);
        let config = NodeConfig::resolve(
            NodeArgs { id: Some("flag".to_owned()), ..NodeArgs::default() },
            &env,
        )
        .unwrap();
        assert_eq!(config.id.as_str(), "flag");
        assert_eq!(config.cost, Cost::try_from(2).unwrap().into());
        assert_eq!(config.listen, [ListenAddr::At("127.0.0.1:3".parse().unwrap())]);
        assert_eq!(config.certs, dir.path().join("certs"));
        assert!(!config.transit);
    }

    #[test]
    fn a_node_needs_an_id_certificates_and_a_way_to_neighbours() {
        assert!(error(NodeArgs { id: None, ..flags() }).contains("--id or RECEPTOR_ID"));
        assert!(error(NodeArgs { certs: None, ..flags() }).contains("--certs or RECEPTOR_CERTS"));
        assert!(error(NodeArgs { listen: Vec::new(), ..flags() }).contains("--peer"));
    }

    #[test]
    fn a_bad_value_names_its_flag_and_what_is_allowed() {
        let bad = |args| error(args);
        assert!(
            bad(NodeArgs { id: Some("a/b".to_owned()), ..flags() })
                .starts_with("--id: \"a/b\" is not a node id: ")
        );
        assert!(
            bad(NodeArgs { listen: vec!["4433".to_owned()], ..flags() })
                .starts_with("--listen: \"4433\" is not an address with its UDP port: ")
        );
        assert!(
            bad(NodeArgs { cost: Some("0".to_owned()), ..flags() })
                .contains("1 to 65535, or `round-trip`")
        );
        assert!(
            bad(NodeArgs { cost_to: vec!["b".to_owned()], ..flags() })
                .starts_with("--cost-to: \"b\": ID=N")
        );
        assert!(
            bad(NodeArgs { cost_to: vec!["b=-1".to_owned()], ..flags() }).contains("1 to 65535")
        );
        assert!(
            bad(NodeArgs { peer: vec!["nowhere".to_owned()], ..flags() })
                .starts_with("--peer: \"nowhere\" has no port: ")
        );
        let rate = Some("0M".to_owned());
        assert!(bad(NodeArgs { transit_rate: rate, ..flags() }).contains("such as 500k or 10M"));
        assert!(
            bad(NodeArgs { transit: Some("yes".to_owned()), ..flags() })
                .contains("`true` or `false`")
        );
        assert!(
            bad(NodeArgs { no_direct: Some("yes".to_owned()), ..flags() })
                .starts_with("--no-direct: ")
        );
        for external in ["203.0.113.7", "0.0.0.0:4433", "203.0.113.7:0", "name:1"] {
            let args = NodeArgs { external: vec![external.to_owned()], ..flags() };
            assert!(bad(args).starts_with(&format!("--external: {external:?}: ")));
        }
        assert!(
            bad(NodeArgs { log_format: Some("xml".to_owned()), ..flags() })
                .contains("`text` or `json`")
        );
    }

    #[test]
    fn what_was_not_built_in_is_an_error_only_when_it_is_turned_on() {
        for (name, built) in
            [("mdns", cfg!(feature = "mdns")), ("portmap", cfg!(feature = "portmap"))]
        {
            let with = |text: &str| match name {
                "mdns" => resolve(NodeArgs { lan: Some(text.to_owned()), ..flags() })
                    .map(|config| config.lan),
                _ => resolve(NodeArgs { map_port: Some(text.to_owned()), ..flags() })
                    .map(|config| config.map_port),
            };
            assert!(!with("false").unwrap());
            match with("true") {
                Ok(on) => assert!(on && built),
                Err(error) => {
                    assert!(!built);
                    assert!(
                        error.text.contains(&format!("without the feature `{name}`")),
                        "{}",
                        error.text
                    );
                }
            }
            assert!(with("yes").unwrap_err().text.contains("`true` or `false`"));
        }
        // A node that finds its neighbours by itself needs no other.
        let alone = NodeArgs { listen: Vec::new(), lan: Some("true".to_owned()), ..flags() };
        assert_eq!(resolve(alone).is_ok(), cfg!(feature = "mdns"));
    }

    #[test]
    fn links_cost_a_number_or_their_round_trip_and_one_neighbours_may_cost_its_own() {
        let args = NodeArgs {
            cost: Some("round-trip".to_owned()),
            cost_to: vec!["relay-1=9".to_owned(), "a@b:c=1".to_owned()],
            ..flags()
        };
        let config = resolve(args).unwrap();
        assert_eq!(config.cost, LinkCost::RoundTrip);
        let to: Vec<_> =
            config.cost_to.iter().map(|(id, cost)| (id.as_str(), cost.get())).collect();
        assert_eq!(to, [("relay-1", 9), ("a@b:c", 1)]);
    }

    #[test]
    fn a_rate_is_a_number_with_a_letter_for_its_thousands() {
        let rate = |text: &str| {
            resolve(NodeArgs { transit_rate: Some(text.to_owned()), ..flags() })
                .ok()?
                .transit_rate
                .map(NonZeroU64::get)
        };
        assert_eq!(
            ["7", "500k", "10M", "2G"].map(rate),
            [Some(7), Some(500_000), Some(10_000_000), Some(2_000_000_000)]
        );
        assert_eq!(["", "M", "-1", "1.5M", "99999999999G"].map(rate), [None; 5]);
    }

    #[test]
    fn the_peer_timeout_is_a_duration_within_bounds() {
        let timeout = |text: &str| {
            resolve(NodeArgs { peer_timeout: Some(text.to_owned()), ..flags() })
                .map(|config| config.peer_timeout)
        };
        assert_eq!(timeout("2.5").unwrap(), Some(Duration::from_millis(2_500)));
        assert_eq!(timeout("2m").unwrap(), Some(Duration::from_secs(120)));
        for bad in ["0", "-1", "601", "NaN", "inf", ""] {
            let failure = timeout(bad).unwrap_err();
            assert!(failure.text.contains("--peer-timeout"), "{failure:?}");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.toml");
        for (value, expected) in [("7", 7_000), ("7.5", 7_500), ("\"900ms\"", 900)] {
            std::fs::write(&path, format!("peer-timeout = {value}")).unwrap();
            let config = resolve(NodeArgs { config: Some(path.clone()), ..flags() }).unwrap();
            assert_eq!(config.peer_timeout, Some(Duration::from_millis(expected)));
        }
    }

    #[test]
    fn a_command_line_is_split_as_a_shell_does_it() {
        let commands =
            |command: &str| resolve(NodeArgs { command: vec![command.to_owned()], ..flags() });
        let specs = commands("a:b=grep -e 'two words' x=y").unwrap().commands;
        assert_eq!(specs[0].command, work::Command::new("grep").args(["-e", "two words", "x=y"]));
        assert!(commands("a:b=echo 'open").unwrap_err().text.contains("not closed"));
        assert!(commands("a:b= ").unwrap_err().text.contains("empty"));
        assert!(commands("ab=echo").unwrap_err().text.contains("no colon"));
        assert!(commands("a:b").unwrap_err().text.contains("NS:ACTION=CMDLINE"));
    }

    #[test]
    fn two_commands_for_one_directive_are_an_error() {
        let command = vec!["a:b=cat".to_owned(), "a:b=wc".to_owned()];
        assert!(error(NodeArgs { command, ..flags() }).contains("a:b has a command already"));
    }

    #[test]
    fn a_port_alone_is_every_address_of_the_machine() {
        assert_eq!(resolve(flags()).unwrap().listen, [ListenAddr::Any(4433)]);
    }

    #[test]
    fn a_table_sets_how_a_command_runs() {
        let dir = tempfile::tempdir().unwrap();
        let resolve_file = |table: &str| {
            let path = dir.path().join("r.toml");
            std::fs::write(&path, format!("[command.\"a:b\"]\nrun = \"cat -u\"\n{table}")).unwrap();
            resolve(NodeArgs { config: Some(path), ..flags() }).map(|config| config.commands)
        };
        let commands = resolve_file(
            "max-output = 1_000\ngrace = \"500ms\"\nenv = { A = \"b\" }\ninherit-env = false\ndir = \"w\"\nstderr = \"stream\"\n",
        );
        let expected = work::Command::new("cat")
            .arg("-u")
            .max_output(1_000)
            .kill_grace(Duration::from_millis(500))
            .env("A", "b")
            .inherit_env(InheritEnv::Only(Vec::new()))
            .dir(dir.path().join("w"))
            .stderr(CommandStderr::Stream);
        assert_eq!(commands.unwrap()[0].command, expected);
        let all = resolve_file("inherit-env = true\n").unwrap();
        assert_eq!(
            all[0].command,
            work::Command::new("cat").arg("-u").inherit_env(InheritEnv::All)
        );
        for (bad, allowed) in [
            ("max-output = 0", "such as 500k or 10M"),
            ("grace = -1", "a duration"),
            ("grace = \"1w\"", "such as 500ms"),
            ("env = { \"\" = \"x\" }", "cannot be set"),
            ("user = \"no-such-user\"", "no such user"),
            ("stderr = \"null\"", "drop, log or stream"),
            ("inherit-env = \"all\"", "a list of names"),
        ] {
            let failure = resolve_file(bad).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(
                failure.text.contains("r.toml, line") && failure.text.contains(allowed),
                "{bad}: {failure}"
            );
        }
    }

    #[test]
    fn only_root_may_run_commands_as_another_user() {
        let user = User { uid: 7, gid: 7, entry: None };
        assert!(runnable_as(user.clone(), 0).is_ok() && runnable_as(user.clone(), 7).is_ok());
        assert!(runnable_as(user, 1000).unwrap_err().contains("only a node that runs as root"));
    }

    #[test]
    fn what_differs_between_two_configurations_is_named() {
        let running = resolve(flags()).unwrap();
        assert_eq!(running.differences(&resolve(flags()).unwrap()), [] as [&str; 0]);
        let args = NodeArgs {
            peer: vec!["a:1".to_owned()],
            command: vec!["a:b=cat".to_owned()],
            cost: Some("7".to_owned()),
            ..flags()
        };
        assert_eq!(running.differences(&resolve(args).unwrap()), ["peer", "command", "cost"]);
    }
}
