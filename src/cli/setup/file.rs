//! The configuration file of a node.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, MapAccess, SeqAccess, Unexpected, Visitor};
use toml::Spanned;

use super::settings::{Source, Sourced};
use crate::cli::process::exit::Failure;
use crate::transport::open_regular;

pub(super) mod units;
mod value;

use units::{RawUnits, UnitsSetting};
use value::{DurationValue, Location, RateValue, UserValue, line_of};

/// The most that a configuration file may have, in bytes: 1 MiB. A longer one is another kind of
/// file.
const MAX_LEN: u64 = 1024 * 1024;

/// The settings of a configuration file. Every value knows its line.
#[derive(Debug, Default)]
pub(in crate::cli) struct File {
    pub(in crate::cli) id: Option<Sourced<String>>,
    pub(in crate::cli) certs: Option<Sourced<PathBuf>>,
    pub(in crate::cli) listen: Vec<Sourced<String>>,
    pub(in crate::cli) listen_tcp: Vec<Sourced<String>>,
    pub(in crate::cli) peer: Vec<Sourced<String>>,
    pub(in crate::cli) transit: Option<Sourced<String>>,
    pub(in crate::cli) transit_rate: Option<Sourced<String>>,
    /// Absolute, or relative to the working directory.
    pub(in crate::cli) crl: Vec<Sourced<String>>,
    pub(in crate::cli) deny: Vec<Sourced<String>>,
    pub(in crate::cli) allow: Vec<Sourced<String>>,
    pub(in crate::cli) pin: Vec<Sourced<String>>,
    /// Absolute, or relative to the working directory.
    pub(in crate::cli) policy: Option<Sourced<PathBuf>>,
    pub(in crate::cli) no_direct: Option<Sourced<String>>,
    pub(in crate::cli) relays: Vec<Sourced<String>>,
    pub(in crate::cli) external: Vec<Sourced<String>>,
    pub(in crate::cli) lan: Option<Sourced<String>>,
    pub(in crate::cli) map_port: Option<Sourced<String>>,
    pub(in crate::cli) command: Vec<Sourced<CommandSetting>>,
    pub(in crate::cli) data_dir: Option<Sourced<PathBuf>>,
    pub(in crate::cli) units: Option<UnitsSetting>,
    pub(in crate::cli) control: Option<Sourced<PathBuf>>,
    pub(in crate::cli) cost: Option<Sourced<String>>,
    /// Each as its flag is written.
    pub(in crate::cli) cost_to: Vec<Sourced<String>>,
    pub(in crate::cli) liveness: Option<Sourced<String>>,
    pub(in crate::cli) congestion: Option<Sourced<String>>,
    pub(in crate::cli) grace: Option<Sourced<String>>,
    pub(in crate::cli) peer_timeout: Option<Sourced<String>>,
    pub(in crate::cli) log_format: Option<Sourced<String>>,
}

/// A command line: one text that is split, or its words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::cli) enum CommandLine {
    Text(String),
    Words(Vec<String>),
}

/// A command as it is configured.
#[derive(Debug)]
pub(in crate::cli) struct CommandSetting {
    pub(in crate::cli) directive: String,
    pub(in crate::cli) run: CommandLine,
    pub(in crate::cli) max_output: Option<Sourced<String>>,
    pub(in crate::cli) grace: Option<Sourced<String>>,
    pub(in crate::cli) env: Vec<(String, String)>,
    pub(in crate::cli) inherit_env: Option<InheritSetting>,
    pub(in crate::cli) dir: Option<PathBuf>,
    pub(in crate::cli) user: Option<Sourced<String>>,
    pub(in crate::cli) stderr: Option<Sourced<String>>,
}

impl CommandSetting {
    /// A command with the default of everything else.
    pub(in crate::cli) fn new(directive: String, run: CommandLine) -> Self {
        Self {
            directive,
            run,
            max_output: None,
            grace: None,
            env: Vec::new(),
            inherit_env: None,
            dir: None,
            user: None,
            stderr: None,
        }
    }
}

/// The environment that a command inherits: all, nothing, or these variables.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(untagged, expecting = "true, false, or a list of names of variables")]
pub(in crate::cli) enum InheritSetting {
    All(bool),
    Only(Vec<String>),
}

impl File {
    /// Reads a file. Relative paths in it start at its directory.
    pub(in crate::cli) fn read(path: &Path) -> Result<Self, Failure> {
        let fail = |why: &dyn fmt::Display| Failure::usage(format!("{}: {why}", path.display()));
        let file = open_regular(path).map_err(|error| fail(&error))?;
        let len = file.metadata().map_err(|error| fail(&error))?.len();
        if len > MAX_LEN {
            return Err(fail(&format!("{len} bytes; a configuration file has at most {MAX_LEN}")));
        }
        let mut text = String::new();
        file.take(MAX_LEN).read_to_string(&mut text).map_err(|error| fail(&error))?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, Failure> {
        let raw: Raw = toml::from_str(text).map_err(|error| bad_file(path, text, &error))?;
        let at = Location { path, text };
        let base = path.parent().unwrap_or_else(|| Path::new(""));
        Ok(Self {
            id: raw.id.map(|id| at.sourced(id)),
            certs: raw.certs.map(|path| at.path(path, base)),
            listen: raw.listen.into_iter().map(|addr| at.sourced(addr)).collect(),
            listen_tcp: raw.listen_tcp.into_iter().map(|addr| at.sourced(addr)).collect(),
            peer: raw.peer.into_iter().map(|peer| at.sourced(peer)).collect(),
            transit: raw.transit.map(|on| at.sourced_as(on, |on| on.to_string())),
            transit_rate: raw.transit_rate.map(|rate| at.sourced_as(rate, |rate| rate.to_string())),
            relays: at.restriction(raw.relays)?,
            crl: raw.crl.into_iter().map(|path| at.path_text(path, base)).collect(),
            deny: raw.deny.into_iter().map(|id| at.sourced(id)).collect(),
            allow: at.restriction(raw.allow)?,
            pin: at.restriction(raw.pin)?,
            policy: raw.policy.map(|path| at.path(path, base)),
            no_direct: raw.no_direct.map(|off| at.sourced_as(off, |off| off.to_string())),
            external: raw.external.into_iter().map(|addr| at.sourced(addr)).collect(),
            lan: raw.lan.map(|lan| at.sourced_as(lan, |lan| lan.to_string())),
            map_port: raw.map_port.map(|map| at.sourced_as(map, |map| map.to_string())),
            command: raw
                .command
                .into_iter()
                .map(|(directive, raw)| command(&at, directive, raw, base))
                .collect(),
            data_dir: raw.data_dir.map(|path| at.path(path, base)),
            units: raw.units.map(|units| units.locate(&at, base)),
            control: raw.control.map(|path| at.path(path, base)),
            cost: raw.cost.map(|cost| at.sourced_as(cost, |cost| cost.to_string())),
            cost_to: raw.cost_to.into_iter().map(|(id, cost)| at.cost_to(id, cost)).collect(),
            liveness: raw.liveness.map(|profile| at.sourced(profile)),
            congestion: raw.congestion.map(|algorithm| at.sourced(algorithm)),
            grace: raw.grace.map(|grace| at.sourced_as(grace, |grace| grace.to_string())),
            peer_timeout: raw
                .peer_timeout
                .map(|seconds| at.sourced_as(seconds, |seconds| seconds.to_string())),
            log_format: raw.log_format.map(|format| at.sourced(format)),
        })
    }
}

/// The file as TOML sees it. Keys are named as the flags are.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Raw {
    id: Option<Spanned<String>>,
    certs: Option<Spanned<PathBuf>>,
    #[serde(default)]
    listen: Vec<Spanned<String>>,
    #[serde(default)]
    listen_tcp: Vec<Spanned<String>>,
    #[serde(default)]
    peer: Vec<Spanned<String>>,
    transit: Option<Spanned<bool>>,
    transit_rate: Option<Spanned<RateValue>>,
    relays: Option<Spanned<Vec<Spanned<String>>>>,
    policy: Option<Spanned<PathBuf>>,
    #[serde(default)]
    crl: Vec<Spanned<String>>,
    #[serde(default)]
    deny: Vec<Spanned<String>>,
    allow: Option<Spanned<Vec<Spanned<String>>>>,
    pin: Option<Spanned<Vec<Spanned<String>>>>,
    no_direct: Option<Spanned<bool>>,
    #[serde(default)]
    external: Vec<Spanned<String>>,
    lan: Option<Spanned<bool>>,
    map_port: Option<Spanned<bool>>,
    #[serde(default)]
    command: BTreeMap<Spanned<String>, RawCommand>,
    data_dir: Option<Spanned<PathBuf>>,
    units: Option<RawUnits>,
    control: Option<Spanned<PathBuf>>,
    cost: Option<Spanned<CostValue>>,
    #[serde(default)]
    cost_to: BTreeMap<Spanned<String>, i64>,
    liveness: Option<Spanned<String>>,
    congestion: Option<Spanned<String>>,
    grace: Option<Spanned<DurationValue>>,
    peer_timeout: Option<Spanned<DurationValue>>,
    log_format: Option<Spanned<String>>,
}

/// A command: its line alone, or a table.
#[derive(Debug)]
enum RawCommand {
    Line(CommandLine),
    Table(Box<RawCommandTable>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawCommandTable {
    run: CommandLine,
    max_output: Option<Spanned<RateValue>>,
    grace: Option<Spanned<DurationValue>>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    inherit_env: Option<InheritSetting>,
    dir: Option<PathBuf>,
    user: Option<Spanned<UserValue>>,
    stderr: Option<Spanned<String>>,
}

impl<'de> Deserialize<'de> for CommandLine {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_any(CommandVisitor { tables: false })? {
            RawCommand::Line(line) => Ok(line),
            RawCommand::Table(_) => unreachable!("tables are not accepted"),
        }
    }
}

impl<'de> Deserialize<'de> for RawCommand {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CommandVisitor { tables: true })
    }
}

/// Not an untagged enum: that would lose where in a table an error is.
struct CommandVisitor {
    tables: bool,
}

impl<'de> Visitor<'de> for CommandVisitor {
    type Value = RawCommand;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a command line, as one string or as a list of words")?;
        if self.tables { f.write_str(", or a table with `run`") } else { Ok(()) }
    }

    fn visit_str<E>(self, text: &str) -> Result<RawCommand, E> {
        Ok(RawCommand::Line(CommandLine::Text(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<RawCommand, A::Error> {
        let words = Vec::deserialize(SeqAccessDeserializer::new(seq))?;
        Ok(RawCommand::Line(CommandLine::Words(words)))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawCommand, A::Error> {
        if !self.tables {
            return Err(serde::de::Error::invalid_type(Unexpected::Map, &self));
        }
        let table = RawCommandTable::deserialize(MapAccessDeserializer::new(map))?;
        Ok(RawCommand::Table(Box::new(table)))
    }
}

/// A number, or `"round-trip"`.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a whole number or \"round-trip\"")]
enum CostValue {
    Number(i64),
    Text(String),
}

impl fmt::Display for CostValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

fn command(
    at: &Location<'_>,
    directive: Spanned<String>,
    raw: RawCommand,
    base: &Path,
) -> Sourced<CommandSetting> {
    at.sourced_as(directive, |directive| match raw {
        RawCommand::Line(run) => CommandSetting::new(directive, run),
        RawCommand::Table(table) => CommandSetting {
            directive,
            run: table.run,
            max_output: table.max_output.map(|max| at.sourced_as(max, |max| max.to_string())),
            grace: table.grace.map(|grace| at.sourced_as(grace, |grace| grace.to_string())),
            env: table.env.into_iter().collect(),
            inherit_env: table.inherit_env,
            dir: table.dir.map(|dir| base.join(dir)),
            user: table.user.map(|user| at.sourced_as(user, |user| user.to_string())),
            stderr: table.stderr.map(|stderr| at.sourced(stderr)),
        },
    })
}

fn bad_file(path: &Path, text: &str, error: &toml::de::Error) -> Failure {
    let line = error.span().map_or(1, |span| line_of(text, span.start));
    let source = Source::File { path: path.to_owned(), line };
    Failure::usage(format!("{source}: {}", error.message()))
}

/// Reads any bytes as a file. What is wrong with it can be shown.
#[cfg(feature = "testing")]
pub(in crate::cli) fn fuzz(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(failure) = File::parse(Path::new("node.toml"), text) {
        assert!(failure.to_string().starts_with("node.toml"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<File, Failure> {
        File::parse(Path::new("/etc/receptor/r.toml"), text)
    }

    fn error(text: &str) -> String {
        parse(text).unwrap_err().text
    }

    #[test]
    fn every_key_is_read_and_knows_its_line() {
        let file = parse(
            r#"
            id = "edge-1"
            certs = "certs"
            listen = ["127.0.0.1:0"]
            peer = [
                "relay-1@r:1",
                "r:2",
            ]
            transit = true
            data-dir = "/var/lib/receptor"
            control = "c.sock"
            cost = 7
            log-format = "json"

            [cost-to]
            relay-1 = 9

            [command]
            "text:upper" = "tr a-z A-Z"
            "text:words" = ["wc", "-w"]
            "#,
        )
        .unwrap();
        let line = |source: &Source| match source {
            Source::File { line, .. } => *line,
            other => panic!("{other}"),
        };
        assert_eq!(file.id.unwrap().value, "edge-1");
        assert_eq!(file.certs.unwrap().value, Path::new("/etc/receptor/certs"));
        assert_eq!(file.data_dir.unwrap().value, Path::new("/var/lib/receptor"));
        assert_eq!(file.peer.iter().map(|peer| line(&peer.source)).collect::<Vec<_>>(), [6, 7]);
        assert_eq!(file.cost.unwrap().value, "7");
        assert_eq!(
            (file.cost_to[0].value.as_str(), line(&file.cost_to[0].source)),
            ("relay-1=9", 16)
        );
        assert_eq!(
            file.command
                .iter()
                .map(|command| (
                    line(&command.source),
                    (&*command.value.directive, &command.value.run)
                ))
                .collect::<Vec<_>>(),
            [
                (19, ("text:upper", &CommandLine::Text("tr a-z A-Z".to_owned()))),
                (20, ("text:words", &CommandLine::Words(vec!["wc".to_owned(), "-w".to_owned()]))),
            ]
        );
    }

    #[test]
    fn an_unknown_key_is_an_error_that_says_where_and_what_is_allowed() {
        let text = error("id = \"a\"\n\nlisten-on = []\n");
        assert!(
            text.starts_with("/etc/receptor/r.toml, line 3: unknown field `listen-on`"),
            "{text}"
        );
        assert!(text.contains("`listen`") && text.contains("`log-format`"), "{text}");
    }

    #[test]
    fn a_value_of_the_wrong_type_is_an_error_that_says_where_and_what_is_allowed() {
        let text = error("id = \"a\"\ntransit = \"yes\"\n");
        assert!(
            text.starts_with("/etc/receptor/r.toml, line 2: ")
                && text.contains("expected a boolean"),
            "{text}"
        );
        let text = error("[command]\n\n\"a:b\" = 7\n");
        assert!(text.contains("line 3: ") && text.contains("list of words"), "{text}");
        let text = error("id = \n");
        assert!(text.starts_with("/etc/receptor/r.toml, line 1: "), "{text}");
    }

    #[test]
    fn a_restriction_without_entries_is_refused_with_its_line() {
        for key in ["relays", "allow", "pin"] {
            let text = error(&format!("id = \"a\"\n{key} = []\n"));
            let start = "/etc/receptor/r.toml, line 2: an empty list; remove the setting ";
            assert!(text.starts_with(start), "{text}");
        }
        assert_eq!(parse("deny = []\n").unwrap().deny, []);
    }

    #[test]
    fn a_command_may_be_a_table() {
        let file = parse(
            r#"
            [command]
            "text:upper" = "tr a-z A-Z"

            [command."db:dump"]
            run = ["pg_dump", "-Fc"]
            max-output = "2G"
            grace = 10
            env = { PGHOST = "db" }
            inherit-env = ["PATH"]
            dir = "dumps"
            user = 1001
            stderr = "log"
            "#,
        )
        .unwrap();
        let dump =
            file.command.iter().find(|command| command.value.directive == "db:dump").unwrap();
        assert!(dump.source.to_string().ends_with("line 5"), "{}", dump.source);
        let dump = &dump.value;
        let text = |setting: &Option<Sourced<String>>| setting.as_ref().unwrap().value.clone();
        assert_eq!(dump.run, CommandLine::Words(vec!["pg_dump".to_owned(), "-Fc".to_owned()]));
        let texts = [&dump.max_output, &dump.grace, &dump.user, &dump.stderr].map(text);
        assert_eq!(texts, ["2G", "10", "1001", "log"]);
        assert!(dump.grace.as_ref().unwrap().source.to_string().ends_with("line 8"));
        assert_eq!(dump.env, [("PGHOST".to_owned(), "db".to_owned())]);
        assert_eq!(dump.inherit_env, Some(InheritSetting::Only(vec!["PATH".to_owned()])));
        assert_eq!(dump.dir.as_deref(), Some(Path::new("/etc/receptor/dumps")));
    }

    #[test]
    fn a_mistake_in_a_command_says_where_and_what_is_allowed() {
        let text = error("id = \"a\"\n\n[command.\"a:b\"]\nrun = \"cat\"\nmax-ouput = 7\n");
        assert!(
            text.starts_with("/etc/receptor/r.toml, line 5: unknown field `max-ouput`"),
            "{text}"
        );
        assert!(text.contains("`max-output`") && text.contains("`inherit-env`"), "{text}");
        let text = error("[command.\"a:b\"]\nstderr = \"log\"\n");
        assert!(text.contains("line 1: missing field `run`"), "{text}");
        let text = error("[command.\"a:b\"]\nrun = { program = \"cat\" }\n");
        assert!(text.contains("line 2: ") && text.contains("a command line"), "{text}");
        let text = error("[command.\"a:b\"]\nrun = \"cat\"\ngrace = [1]\n");
        assert!(text.contains("line 3: ") && text.contains("a duration"), "{text}");
    }
}
