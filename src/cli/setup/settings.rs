//! Precedence of settings: flag, environment, file, default. Errors name the source of a value.

use std::fmt;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::env::Env;
use crate::cli::process::exit::Failure;
use crate::transport::PEER_TIMEOUTS;

/// Where a value was set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::cli) enum Source {
    /// A flag of the command line.
    Flag(&'static str),
    /// An environment variable.
    Env(&'static str),
    /// A file, with the line.
    File { path: PathBuf, line: usize },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "--{name}"),
            Self::Env(name) => f.write_str(name),
            Self::File { path, line } => write!(f, "{}, line {line}", path.display()),
        }
    }
}

/// A value, and where it was set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::cli) struct Sourced<T> {
    pub(in crate::cli) value: T,
    pub(in crate::cli) source: Source,
}

impl<T> Sourced<T> {
    pub(in crate::cli) fn new(value: T, source: Source) -> Self {
        Self { value, source }
    }

    /// The error that this value is not what it must be.
    pub(in crate::cli) fn bad(&self, why: impl fmt::Display) -> Failure {
        bad(&self.source, why)
    }

    pub(in crate::cli) fn and_then<U, E: fmt::Display>(
        self,
        check: impl FnOnce(T) -> Result<U, E>,
    ) -> Result<U, Failure> {
        let Self { value, source } = self;
        check(value).map_err(|why| bad(&source, why))
    }
}

impl Sourced<String> {
    /// The value as what it must be. The errors of `T` quote it.
    pub(in crate::cli) fn parse<T: FromStr<Err: fmt::Display>>(self) -> Result<T, Failure> {
        self.and_then(|text| text.parse())
    }
}

fn bad(source: &Source, why: impl fmt::Display) -> Failure {
    Failure::usage(format!("{source}: {why}"))
}

/// The name of a setting: of its flag and of its variable. The file's key is the flag's name.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) struct Name {
    pub(in crate::cli) flag: &'static str,
    pub(in crate::cli) variable: &'static str,
}

pub(in crate::cli) const ID: Name = Name { flag: "id", variable: "RECEPTOR_ID" };
pub(in crate::cli) const CERTS: Name = Name { flag: "certs", variable: "RECEPTOR_CERTS" };
pub(in crate::cli) const LISTEN: Name = Name { flag: "listen", variable: "RECEPTOR_LISTEN" };
pub(in crate::cli) const LISTEN_TCP: Name =
    Name { flag: "listen-tcp", variable: "RECEPTOR_LISTEN_TCP" };
pub(in crate::cli) const PEER: Name = Name { flag: "peer", variable: "RECEPTOR_PEER" };
pub(in crate::cli) const TRANSIT: Name = Name { flag: "transit", variable: "RECEPTOR_TRANSIT" };
pub(in crate::cli) const TRANSIT_RATE: Name =
    Name { flag: "transit-rate", variable: "RECEPTOR_TRANSIT_RATE" };
pub(in crate::cli) const RELAYS: Name = Name { flag: "relays", variable: "RECEPTOR_RELAYS" };
pub(in crate::cli) const CRL: Name = Name { flag: "crl", variable: "RECEPTOR_CRL" };
pub(in crate::cli) const DENY: Name = Name { flag: "deny", variable: "RECEPTOR_DENY" };
pub(in crate::cli) const ALLOW: Name = Name { flag: "allow", variable: "RECEPTOR_ALLOW" };
pub(in crate::cli) const PIN: Name = Name { flag: "pin", variable: "RECEPTOR_PIN" };
pub(in crate::cli) const POLICY: Name = Name { flag: "policy", variable: "RECEPTOR_POLICY" };
pub(in crate::cli) const NO_DIRECT: Name =
    Name { flag: "no-direct", variable: "RECEPTOR_NO_DIRECT" };
pub(in crate::cli) const EXTERNAL: Name = Name { flag: "external", variable: "RECEPTOR_EXTERNAL" };
pub(in crate::cli) const LAN: Name = Name { flag: "lan", variable: "RECEPTOR_LAN" };
pub(in crate::cli) const MAP_PORT: Name = Name { flag: "map-port", variable: "RECEPTOR_MAP_PORT" };
pub(in crate::cli) const COMMAND: Name = Name { flag: "command", variable: "RECEPTOR_COMMAND" };
pub(in crate::cli) const DATA_DIR: Name = Name { flag: "data-dir", variable: "RECEPTOR_DATA_DIR" };
pub(in crate::cli) const UNITS: Name = Name { flag: "units", variable: "RECEPTOR_UNITS" };
pub(in crate::cli) const CONTROL: Name = Name { flag: "control", variable: "RECEPTOR_CONTROL" };
pub(in crate::cli) const COST: Name = Name { flag: "cost", variable: "RECEPTOR_COST" };
pub(in crate::cli) const COST_TO: Name = Name { flag: "cost-to", variable: "RECEPTOR_COST_TO" };
pub(in crate::cli) const PEER_TIMEOUT: Name =
    Name { flag: "peer-timeout", variable: "RECEPTOR_PEER_TIMEOUT" };
pub(in crate::cli) const LIVENESS: Name = Name { flag: "liveness", variable: "RECEPTOR_LIVENESS" };
pub(in crate::cli) const CONGESTION: Name =
    Name { flag: "congestion", variable: "RECEPTOR_CONGESTION" };
pub(in crate::cli) const GRACE: Name = Name { flag: "grace", variable: "RECEPTOR_GRACE" };
pub(in crate::cli) const LOG_FORMAT: Name =
    Name { flag: "log-format", variable: "RECEPTOR_LOG_FORMAT" };
pub(in crate::cli) const CONFIG: Name = Name { flag: "config", variable: "RECEPTOR_CONFIG" };

/// What is wrong with a list of who is accepted that has no entries.
pub(in crate::cli) const EMPTY_RESTRICTION: &str =
    "an empty list; remove the setting to accept every member of the mesh, or name who is accepted";

impl Name {
    /// A text: from the flag, else from the environment.
    pub(in crate::cli) fn text(
        self,
        flag: Option<String>,
        env: &Env,
    ) -> Result<Option<Sourced<String>>, Failure> {
        match flag {
            Some(text) => Ok(Some(Sourced::new(text, Source::Flag(self.flag)))),
            None => self.variable(env),
        }
    }

    /// A path: from the flag, else from the environment.
    pub(in crate::cli) fn path(self, flag: Option<PathBuf>, env: &Env) -> Option<Sourced<PathBuf>> {
        let from_env =
            || Some(Sourced::new(env.get(self.variable)?.into(), Source::Env(self.variable)));
        flag.map(|path| Sourced::new(path, Source::Flag(self.flag))).or_else(from_env)
    }

    /// A list from the flags, or from the environment, where `separator` separates its items. Empty
    /// if unset.
    pub(in crate::cli) fn list(
        self,
        flags: Vec<String>,
        env: &Env,
        separator: char,
    ) -> Result<Vec<Sourced<String>>, Failure> {
        if !flags.is_empty() {
            return Ok(flags
                .into_iter()
                .map(|text| Sourced::new(text, Source::Flag(self.flag)))
                .collect());
        }
        let Some(Sourced { value, source }) = self.variable(env)? else { return Ok(Vec::new()) };
        let items = value.split(separator).map(str::trim).filter(|item| !item.is_empty());
        Ok(items.map(|item| Sourced::new(item.to_owned(), source.clone())).collect())
    }

    /// A list that restricts who is accepted: as [`list`](Self::list), but a variable of nothing
    /// but separators is refused, as it would accept every member.
    pub(in crate::cli) fn restriction(
        self,
        flags: Vec<String>,
        env: &Env,
    ) -> Result<Vec<Sourced<String>>, Failure> {
        let list = self.list(flags, env, ',')?;
        match self.variable(env)? {
            Some(variable) if list.is_empty() => Err(variable.bad(EMPTY_RESTRICTION)),
            _ => Ok(list),
        }
    }

    /// The error for a missing required setting, and how to set it.
    pub(in crate::cli) fn missing(self, what: &str) -> Failure {
        Failure::usage(format!("{what} is not given: use --{} or {}", self.flag, self.variable))
    }

    fn variable(self, env: &Env) -> Result<Option<Sourced<String>>, Failure> {
        let Some(value) = env.get(self.variable) else { return Ok(None) };
        let source = Source::Env(self.variable);
        match value.to_str() {
            Some(text) => Ok(Some(Sourced::new(text.to_owned(), source))),
            None => Err(bad(&source, format!("{value:?} is not UTF-8"))),
        }
    }
}

/// A switch in text: `true` or `false`.
pub(in crate::cli) fn switch(text: String) -> Result<bool, String> {
    match text.as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("{text:?}: `true` or `false`")),
    }
}

/// The longest time that can be set.
const MAX_DURATION: Duration = Duration::from_secs(366 * 86_400);

/// A span of time in text: `90`, `1.5` (seconds), or a number with a unit: `500ms`, `90s`, `15m`,
/// `12h`, `7d`.
pub(in crate::cli) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => f64::NAN,
    };
    let seconds = number.parse::<f64>().unwrap_or(f64::NAN) * unit;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if duration <= MAX_DURATION => Ok(duration),
        _ => {
            Err("a duration up to 366d, such as 500ms, 1.5s, 15m or 12h; a number alone is seconds"
                .to_owned())
        }
    }
}

/// A number of bytes in text, with an optional letter for thousands, millions or thousands of
/// millions: `500k`, `10M`, `2G`.
pub(in crate::cli) fn bytes(text: &str) -> Option<NonZeroU64> {
    let (number, factor) = match text.as_bytes().last()? {
        b'k' => (&text[..text.len() - 1], 1_000),
        b'M' => (&text[..text.len() - 1], 1_000_000),
        b'G' => (&text[..text.len() - 1], 1_000_000_000),
        _ => (text, 1),
    };
    number.parse::<u64>().ok()?.checked_mul(factor).and_then(NonZeroU64::new)
}

/// Parses a peer timeout and checks its bounds.
pub(in crate::cli) fn peer_timeout_of(text: &str) -> Result<Duration, String> {
    let timeout = duration(text)?;
    if PEER_TIMEOUTS.contains(&timeout) {
        return Ok(timeout);
    }
    Err(format!(
        "{text:?}: a duration from {:?} to {:?}",
        PEER_TIMEOUTS.start(),
        PEER_TIMEOUTS.end()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeId;

    #[test]
    fn a_flag_goes_over_the_environment() {
        let env = Env::from([("RECEPTOR_ID", "from-env")]);
        assert_eq!(
            ID.text(Some("from-flag".to_owned()), &env).unwrap(),
            Some(Sourced::new("from-flag".to_owned(), Source::Flag("id")))
        );
        assert_eq!(
            ID.text(None, &env).unwrap(),
            Some(Sourced::new("from-env".to_owned(), Source::Env("RECEPTOR_ID")))
        );
        assert_eq!(ID.text(None, &Env::default()).unwrap(), None);
    }

    #[test]
    fn an_empty_variable_is_an_unset_one() {
        assert_eq!(ID.text(None, &Env::from([("RECEPTOR_ID", "")])).unwrap(), None);
    }

    #[test]
    fn a_list_in_the_environment_is_split_and_a_list_of_flags_is_not() {
        let env = Env::from([("RECEPTOR_LISTEN", "a:1, b:2,")]);
        let values = |list: Vec<Sourced<String>>| {
            list.into_iter().map(|item| item.value).collect::<Vec<_>>()
        };
        assert_eq!(values(LISTEN.list(Vec::new(), &env, ',').unwrap()), ["a:1", "b:2"]);
        assert_eq!(values(LISTEN.list(vec!["c,d".to_owned()], &env, ',').unwrap()), ["c,d"]);
    }

    #[test]
    fn a_restriction_of_separators_is_refused_and_an_empty_variable_is_unset() {
        let of = |value| ALLOW.restriction(Vec::new(), &Env::from([("RECEPTOR_ALLOW", value)]));
        assert_eq!(of("").unwrap(), []);
        assert_eq!(of("a,").unwrap().len(), 1);
        let error = of(" , ").unwrap_err().text;
        assert!(error.starts_with("RECEPTOR_ALLOW: an empty list; "), "{error}");
    }

    #[test]
    fn a_bad_value_is_blamed_on_its_source() {
        let value = |source| Sourced::new("a/b".to_owned(), source);
        let error = |source| value(source).parse::<NodeId>().unwrap_err().text;
        assert!(error(Source::Flag("id")).starts_with("--id: \"a/b\" is not a node id: "));
        assert!(error(Source::Env("RECEPTOR_ID")).starts_with("RECEPTOR_ID: \"a/b\" "));
        let file = Source::File { path: "/etc/r.toml".into(), line: 3 };
        assert!(error(file).starts_with("/etc/r.toml, line 3: \"a/b\" "));
    }

    #[test]
    fn a_duration_is_seconds_or_a_number_with_its_unit() {
        let ms = |text| duration(text).map(|duration| duration.as_millis()).ok();
        assert_eq!(
            ["0", "1.5", "500ms", "90s", "15m", "12h", "1d"].map(ms),
            [0, 1_500, 500, 90_000, 900_000, 43_200_000, 86_400_000].map(Some)
        );
        assert_eq!(
            ["", "s", "-1", "1w", "NaN", "inf", "1e9", "1.2.3", "367d", "1 s"].map(ms),
            [None; 10]
        );
    }
}
