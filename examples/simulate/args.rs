//! The command line, read by hand: this example needs no crate but the router's own.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use receptor_quic::router::FloodMode;

use crate::scenario::Kind;
use crate::topology::Shape;

pub(crate) const USAGE: &str = "\
Drives many routers in virtual time, makes something happen, and checks that all of them agree afterwards.

usage: simulate [OPTIONS]
  --topology SHAPE    random (default), line, ring, star, full, grid, tree, pods, barbell, scale-free
  --nodes N           1 to 100000 (default 100); memory grows with the square: about 1 GB at 1000
  --degree D          links a node of random, scale-free and pods, children of tree (default 8; tree 2)
  --seed S            any number (default 1); the same seed gives the same run
  --flood MODE        full or tree (default: the library's)
  --signed            records carry proofs as long as those of a true signature by P-256
  --latency MIN..MAX  of a message over a link, in milliseconds (default 5..50)
  --event EVENT       update (default), link-down, crash, restart, partition-heal, join, converge
  --events K          how many, one after the other (default 1)
  --churn RATE        links that go down each second meanwhile, and return 2 s later (default 0)
  --swallow N         loses each message with a chance of 1 in N, which streams never do: shows failing checks
  --json              the result as one JSON object on standard output
  --svg FILE          draws the mesh, coloured by when the news of the first event arrived
  --help              this text

exit codes: 0 all checks hold, 1 a check failed, 2 the arguments are wrong or a file cannot be written";

/// What the command line asks for.
#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) topology: Shape,
    pub(crate) nodes: usize,
    pub(crate) degree: Option<usize>,
    pub(crate) seed: u64,
    pub(crate) flood: FloodMode,
    pub(crate) signed: bool,
    pub(crate) latency: (Duration, Duration),
    pub(crate) event: Kind,
    pub(crate) events: usize,
    /// Links that go down each second; 0: none.
    pub(crate) churn: f64,
    pub(crate) swallow: Option<usize>,
    pub(crate) json: bool,
    pub(crate) svg: Option<PathBuf>,
    pub(crate) help: bool,
}

/// The only place that knows which ways to flood the router has.
fn flood(name: &str) -> Result<FloodMode, String> {
    match name {
        "full" => Ok(FloodMode::Full),
        "tree" => Ok(FloodMode::Tree),
        _ => Err(format!("{name:?} is no way to flood; allowed: full, tree")),
    }
}

pub(crate) fn flood_name(mode: FloodMode) -> &'static str {
    match mode {
        FloodMode::Full => "full",
        FloodMode::Tree => "tree",
        _ => "unknown",
    }
}

impl Args {
    fn new() -> Self {
        Self {
            topology: Shape::Random,
            nodes: 100,
            degree: None,
            seed: 1,
            flood: FloodMode::default(),
            signed: false,
            latency: (Duration::from_millis(5), Duration::from_millis(50)),
            event: Kind::Update,
            events: 1,
            churn: 0.0,
            swallow: None,
            json: false,
            svg: None,
            help: false,
        }
    }

    /// Reads the arguments, the name of the program not among them. An error says what is allowed.
    pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut args = Self::new();
        let mut arguments = arguments.flat_map(split_at_equals);
        while let Some(name) = arguments.next() {
            let mut value =
                || arguments.next().ok_or_else(|| format!("{name}: a value is missing"));
            let named = |error: String| format!("{name}: {error}");
            match name.as_str() {
                "--topology" => args.topology = value()?.parse().map_err(named)?,
                "--nodes" => args.nodes = number(&value()?, 1, 100_000).map_err(named)?,
                "--degree" => args.degree = Some(number(&value()?, 1, 4_000).map_err(named)?),
                "--seed" => args.seed = number(&value()?, 0, u64::MAX).map_err(named)?,
                "--flood" => args.flood = flood(&value()?).map_err(named)?,
                "--signed" => args.signed = true,
                "--latency" => args.latency = range(&value()?).map_err(named)?,
                "--event" => args.event = value()?.parse().map_err(named)?,
                "--events" => args.events = number(&value()?, 1, 1_000_000).map_err(named)?,
                "--churn" => args.churn = number(&value()?, 0.0, 10_000.0).map_err(named)?,
                "--swallow" => {
                    args.swallow = Some(number(&value()?, 1, 1_000_000_000).map_err(named)?)
                }
                "--json" => args.json = true,
                "--svg" => args.svg = Some(value()?.into()),
                "--help" | "-h" => args.help = true,
                _ => return Err(format!("{name} is no option; --help lists them")),
            }
        }
        args.check().map(|()| args)
    }

    fn check(&self) -> Result<(), String> {
        let least = self.event.least_nodes();
        if self.nodes < least {
            return Err(format!("--event {} takes at least {least} nodes", self.event.name()));
        }
        let hubs = [Shape::Full, Shape::Star, Shape::Barbell].contains(&self.topology);
        if hubs && self.nodes.saturating_add(self.events) > 4_097 {
            let shape = self.topology.name();
            return Err(format!(
                "--topology {shape}: --nodes and --events together at most 4097, for a node has at most 4096 links"
            ));
        }
        Ok(())
    }
}

/// `--nodes=5` is `--nodes 5`.
fn split_at_equals(argument: String) -> Vec<String> {
    match argument.split_once('=') {
        Some((name, value)) if name.starts_with("--") => vec![name.to_owned(), value.to_owned()],
        _ => vec![argument],
    }
}

fn number<T: FromStr + PartialOrd + std::fmt::Display>(
    text: &str,
    least: T,
    most: T,
) -> Result<T, String> {
    match text.parse() {
        Ok(number) if number >= least && number <= most => Ok(number),
        _ => Err(format!("{text:?} is no number from {least} to {most}")),
    }
}

fn range(text: &str) -> Result<(Duration, Duration), String> {
    let wrong =
        || format!("{text:?} is no MIN..MAX in milliseconds, such as 5..50 or 20 or 0.5..2");
    let (least, most) = text.split_once("..").unwrap_or((text, text));
    let millis = |text: &str| number(text, 0.0, 60_000.0).map_err(|_| wrong());
    let (least, most) = (millis(least)?, millis(most)?);
    if least > most {
        return Err(wrong());
    }
    Ok((Duration::from_secs_f64(least / 1e3), Duration::from_secs_f64(most / 1e3)))
}
