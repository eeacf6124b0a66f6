//! The table.

use std::process::ExitCode;

/// What a figure has to be.
#[derive(Clone, Copy)]
pub(crate) enum Bar {
    AtLeast(f64),
    AtMost(f64),
}

pub(crate) struct Report {
    measured: bool,
    missed: Vec<String>,
}

impl Report {
    pub(crate) fn new(measured: bool) -> Self {
        if measured {
            println!(
                "{:<32} {:>5} {:>10} {:>10}  {:<12} {:>7} {:>9}",
                "case", "unit", "ours", "baseline", "", "ratio", "bar"
            );
        }
        Self { measured, missed: Vec::new() }
    }

    /// Adds a row: our figure, and what the machine takes for the same without units.
    pub(crate) fn row(
        &mut self,
        case: &str,
        unit: &str,
        ours: f64,
        base: f64,
        base_name: &str,
        bar: Bar,
    ) {
        if !self.measured {
            return println!("{case}: works");
        }
        let (met, text) = match bar {
            Bar::AtLeast(least) => (ours >= least, format!("≥ {least}")),
            Bar::AtMost(most) => (ours <= most, format!("≤ {most}")),
        };
        let mark = if met { "" } else { "  MISSED" };
        let ratio = ours / base;
        println!(
            "{case:<32} {unit:>5} {:>10} {:>10}  {base_name:<12} {ratio:>7.3} {text:>9}{mark}",
            number(ours),
            number(base)
        );
        if !met {
            self.missed.push(case.to_owned());
        }
    }

    /// Prints the bars that were missed. Fails if there are any.
    pub(crate) fn finish(&self) -> ExitCode {
        if self.missed.is_empty() {
            return ExitCode::SUCCESS;
        }
        println!("missed: {}", self.missed.join("; "));
        ExitCode::FAILURE
    }
}

fn number(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.3}"),
    }
}
