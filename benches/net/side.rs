//! One side of a comparison: a client, a server, and the relays between them, each a process.

use crate::Result;
use crate::process::Process;

pub(crate) struct Side {
    pub(crate) client: Process,
    pub(crate) relays: Vec<Process>,
    pub(crate) server: Process,
    /// How the client calls the server.
    pub(crate) target: String,
}

/// One run of one side.
pub(crate) struct Run {
    /// What the client answered.
    pub(crate) answer: Vec<f64>,
    /// CPU-seconds of all processes, and of the relays alone.
    pub(crate) cpu: f64,
    pub(crate) relay_cpu: f64,
}

impl Side {
    /// Has the client do something. `{}` in the command stands for the server.
    pub(crate) fn run(&mut self, command: &str) -> Result<Run> {
        let command = command.replace("{}", &self.target);
        let (relays, ends) = self.cpu();
        let answer = self.client.ask(&command)?;
        let (relays_after, ends_after) = self.cpu();
        let relay_cpu = relays_after - relays;
        Ok(Run { answer, cpu: relay_cpu + ends_after - ends, relay_cpu })
    }

    fn cpu(&self) -> (f64, f64) {
        (self.relays.iter().map(Process::cpu).sum(), self.client.cpu() + self.server.cpu())
    }
}

/// Runs the same on both sides in turn, once without counting it.
pub(crate) fn in_turn(
    ours: &mut Side,
    baseline: &mut Side,
    command: &str,
    runs: usize,
) -> Result<[Vec<Run>; 2]> {
    let mut all = [Vec::new(), Vec::new()];
    for nth in 0..=runs {
        for (side, all) in [&mut *ours, &mut *baseline].into_iter().zip(&mut all) {
            let run = side.run(command)?;
            if nth > 0 {
                all.push(run);
            }
        }
    }
    Ok(all)
}
