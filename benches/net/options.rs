//! The command line.

use std::path::PathBuf;

use crate::Result;

pub(crate) const HELP: &str = "\
cargo bench --bench net -- [OPTIONS] [CASE]...

Measures links, peer connections and relays against raw quinn. CASE is the name of a case, or how names begin; all by default.

  --runs N      runs of each side, 5 by default
  --quick       small sizes and few runs, to see that it works
  --json FILE   writes the rows to FILE as JSON
  --svg DIR     writes plots into DIR
  --help        this";

/// What to do.
pub(crate) enum Parsed {
    Run(Options),
    Help,
}

pub(crate) struct Options {
    /// Whether times matter: not under `cargo test`.
    pub(crate) measured: bool,
    pub(crate) quick: bool,
    pub(crate) runs: usize,
    pub(crate) json: Option<PathBuf>,
    pub(crate) svg: Option<PathBuf>,
    cases: Vec<String>,
}

impl Options {
    pub(crate) fn parse(args: impl Iterator<Item = String>) -> Result<Parsed> {
        let mut options = Self {
            measured: false,
            quick: false,
            runs: 0,
            json: None,
            svg: None,
            cases: Vec::new(),
        };
        let mut unknown = None;
        let mut args = args;
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--bench" => options.measured = true,
                "--quick" => options.quick = true,
                "--runs" => options.runs = value()?.parse()?,
                "--json" => options.json = Some(value()?.into()),
                "--svg" => options.svg = Some(value()?.into()),
                "--help" | "-h" => return Ok(Parsed::Help),
                flag if flag.starts_with('-') => unknown = Some(arg),
                _ => options.cases.push(arg),
            }
        }
        // `cargo test` hands every target what is meant for the test harness.
        if let Some(flag) = unknown.filter(|_| options.measured) {
            return Err(format!("unknown option {flag}; see --help").into());
        }
        if options.runs == 0 {
            options.runs = match (options.measured, options.quick) {
                (false, _) => 1,
                (true, true) => 3,
                (true, false) => 5,
            };
        }
        let known = |case: &String| {
            crate::case::CASES
                .iter()
                .flat_map(|known| known.rows)
                .any(|row| row.starts_with(case.as_str()))
        };
        if let Some(case) = options.cases.iter().find(|case| options.measured && !known(case)) {
            return Err(format!("no case is called {case}").into());
        }
        Ok(Parsed::Run(options))
    }

    pub(crate) fn selects(&self, row: &str) -> bool {
        self.cases.is_empty() || self.cases.iter().any(|case| row.starts_with(case.as_str()))
    }

    pub(crate) fn selects_any(&self, rows: &[&str]) -> bool {
        rows.iter().any(|row| self.selects(row))
    }
}
