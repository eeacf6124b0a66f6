//! The table, as it grows, and the rows as JSON.

use std::path::Path;

use serde_json::{Value, json};

use crate::Result;
use crate::row::{Goal, Row, median};

pub(crate) struct Report {
    measured: bool,
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn new(measured: bool) -> Self {
        if measured {
            println!(
                "{:<20} {:>10} {:>28} {:>28} {:>7} {:>9} {:>16}",
                "case", "unit", "ours", "baseline", "ratio", "goal", "CPU s"
            );
        }
        Self { measured, rows: Vec::new() }
    }

    pub(crate) fn add(&mut self, row: Row) {
        if self.measured {
            let goal = match row.goal {
                Goal::AtLeast(goal) => format!("≥ {goal}"),
                Goal::AtMost(goal) => format!("≤ {goal}"),
                Goal::OursAtLeast(goal) => format!("ours ≥ {goal}"),
                Goal::OursAtMost(goal) => format!("ours ≤ {goal}"),
                Goal::None => "–".to_owned(),
            };
            let mark = if row.met() == Some(false) { "  MISSED" } else { "" };
            println!(
                "{:<20} {:>10} {:>28} {:>28} {:>7.3} {:>9} {:>16}{mark}",
                row.case,
                row.unit,
                spread(&row.ours),
                spread(&row.baseline),
                row.ratio(),
                goal,
                format!(
                    "{} : {}",
                    number(median_of(&row.ours_cpu)),
                    number(median_of(&row.baseline_cpu))
                ),
            );
        } else {
            println!("{}: works", row.case);
        }
        self.rows.push(row);
    }

    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub(crate) fn finish(&self, json: Option<&Path>) -> Result<()> {
        let missed: Vec<_> =
            self.rows.iter().filter(|row| row.met() == Some(false)).map(|row| row.case).collect();
        if self.measured && !missed.is_empty() {
            println!("missed: {}", missed.join(", "));
        }
        if let Some(file) = json {
            let rows: Vec<_> = self.rows.iter().map(as_json).collect();
            std::fs::write(file, serde_json::to_string_pretty(&rows)? + "\n")?;
        }
        Ok(())
    }
}

fn as_json(row: &Row) -> Value {
    json!({
        "case": row.case,
        "unit": row.unit,
        "ours": median_of(&row.ours),
        "baseline": median_of(&row.baseline),
        "ratio": row.ratio(),
        "ours_cpu": median_of(&row.ours_cpu),
        "baseline_cpu": median_of(&row.baseline_cpu),
        "runs": row.ours.len(),
    })
}

fn median_of(values: &[f64]) -> f64 {
    median(values.iter().copied())
}

/// The median, with the smallest and the largest.
fn spread(values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{} ({}–{})", number(median_of(values)), number(least), number(most))
}

fn number(value: f64) -> String {
    match value {
        value if value.is_nan() => "–".to_owned(),
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.3}"),
    }
}
