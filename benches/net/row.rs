//! One row of the table.

/// What should come out of a comparison.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Goal {
    /// The ratio, ours to the baseline's.
    AtLeast(f64),
    AtMost(f64),
    /// Ours by itself.
    OursAtLeast(f64),
    OursAtMost(f64),
    /// It is only shown.
    None,
}

pub(crate) struct Row {
    pub(crate) case: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) goal: Goal,
    /// One value a run; the runs of both sides are pairs.
    pub(crate) ours: Vec<f64>,
    pub(crate) baseline: Vec<f64>,
    /// CPU-seconds for a unit of work.
    pub(crate) ours_cpu: Vec<f64>,
    pub(crate) baseline_cpu: Vec<f64>,
}

impl Row {
    /// How ours compares with the baseline, run by run.
    pub(crate) fn ratio(&self) -> f64 {
        median(self.ours.iter().zip(&self.baseline).map(|(ours, baseline)| ours / baseline))
    }

    /// Whether the goal is met; `None` where there is none.
    pub(crate) fn met(&self) -> Option<bool> {
        match self.goal {
            Goal::AtLeast(goal) => Some(self.ratio() >= goal),
            Goal::AtMost(goal) => Some(self.ratio() <= goal),
            Goal::OursAtLeast(goal) => Some(median(self.ours.iter().copied()) >= goal),
            Goal::OursAtMost(goal) => Some(median(self.ours.iter().copied()) <= goal),
            Goal::None => None,
        }
    }
}

/// The middle; of two, the mean. Not a number if there is none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => values[len / 2],
        len => f64::midpoint(values[len / 2 - 1], values[len / 2]),
    }
}
