//! The table that comes out: Markdown, one row a contender.

use std::fmt;

use crate::contender::Contender;
use crate::work::Figures;

#[derive(Default)]
pub struct Table {
    rows: Vec<(Contender, Vec<Figures>)>,
    left_out: Vec<(Contender, String)>,
}

impl Table {
    pub fn add(&mut self, contender: &Contender, figures: Figures) {
        match self.rows.iter_mut().find(|(of, _)| of == contender) {
            Some((_, all)) => all.push(figures),
            None => self.rows.push((*contender, vec![figures])),
        }
    }

    pub fn leave_out(&mut self, contender: &Contender, why: String) {
        if !self.left_out.iter().any(|(of, _)| of == contender) {
            self.left_out.push((*contender, why));
        }
    }
}

/// `median (least–most)`.
fn cell(figures: &[Figures], decimals: usize, of: impl Fn(&Figures) -> f64) -> String {
    let mut values: Vec<f64> = figures.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    let (least, most) = (values[0], values[values.len() - 1]);
    let median = (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0;
    format!("{median:.decimals$} ({least:.decimals$}–{most:.decimals$})")
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| | sealed end to end | bulk, MB/s | CPU-s per GiB | call p50, µs | calls/s, 64 in flight |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|")?;
        for (contender, figures) in &self.rows {
            writeln!(
                f,
                "| {contender} | {} | {} | {} | {} | {} |",
                if contender.sealed { "yes" } else { "no" },
                cell(figures, 0, |figures| figures.bulk),
                cell(figures, 2, |figures| figures.bulk_cpu),
                cell(figures, 0, |figures| figures.call_p50),
                cell(figures, 0, |figures| figures.calls_64),
            )?;
        }
        for (contender, why) in &self.left_out {
            writeln!(f, "\n{contender} was left out: {why}")?;
        }
        Ok(())
    }
}
