//! The command line.

use std::time::Duration;

use crate::case::ATTACKS;

pub(crate) const HELP: &str = "\
cargo bench --all-features --bench attacks -- [OPTIONS] [ATTACK]...

Attacks a relay and two nodes on loopback, and prints what honest nodes notice and what the victim
uses. ATTACK is the name of an attack, or how names begin; all by default.

  --seconds N   duration of each attack, 30 by default
  --help        this";

pub(crate) enum Parsed {
    Run(Options),
    Help,
}

pub(crate) struct Options {
    /// Whether bars count: not under `cargo test`.
    pub(crate) judged: bool,
    /// Duration of each attack.
    pub(crate) window: Duration,
    attacks: Vec<String>,
}

impl Options {
    pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Parsed, String> {
        let (mut judged, mut seconds, mut attacks, mut unknown) = (false, None, Vec::new(), None);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--bench" => judged = true,
                "--seconds" => {
                    let value = args.next().and_then(|value| value.parse().ok());
                    seconds = Some(
                        value
                            .filter(|n| (1..=3_600).contains(n))
                            .ok_or("--seconds takes 1 to 3600")?,
                    );
                }
                "--help" | "-h" => return Ok(Parsed::Help),
                flag if flag.starts_with('-') => unknown = Some(arg),
                _ => attacks.push(arg),
            }
        }
        // `cargo test` passes the arguments of its test harness to every target.
        if judged {
            if let Some(flag) = unknown {
                return Err(format!("unknown option {flag}; see --help"));
            }
            let known =
                |begin: &String| ATTACKS.iter().any(|case| case.name.starts_with(begin.as_str()));
            if let Some(begin) = attacks.iter().find(|begin| !known(begin)) {
                return Err(format!("no attack is called {begin}"));
            }
        }
        let window = Duration::from_secs(seconds.unwrap_or(if judged { 30 } else { 1 }));
        Ok(Parsed::Run(Self { judged, window, attacks }))
    }

    pub(crate) fn selects(&self, name: &str) -> bool {
        self.attacks.is_empty() || self.attacks.iter().any(|begin| name.starts_with(begin.as_str()))
    }
}
