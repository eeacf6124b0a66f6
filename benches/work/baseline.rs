//! What the machine takes without units.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// The median time of an append and an `fdatasync`, in seconds.
pub(crate) fn sync(dir: &Path, count: usize) -> f64 {
    let mut file = OpenOptions::new().create(true).append(true).open(dir.join("baseline")).unwrap();
    let mut times = Vec::new();
    for _ in 0..count {
        let started = Instant::now();
        file.write_all(&[7; 100]).unwrap();
        file.sync_data().unwrap();
        times.push(started.elapsed());
    }
    median(&mut times).as_secs_f64()
}

/// The median time of two processes one after the other, in seconds: of this program, as a
/// supervisor without work, and of /bin/true.
pub(crate) fn two_processes(count: usize) -> f64 {
    let mut times = Vec::new();
    for _ in 0..count {
        let started = Instant::now();
        spawn_two();
        times.push(started.elapsed());
    }
    median(&mut times).as_secs_f64()
}

/// How many such pairs end in a second, so many at a time.
pub(crate) fn two_processes_at_a_time(count: usize, at_a_time: usize) -> f64 {
    let each = count.div_ceil(at_a_time);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..at_a_time {
            scope.spawn(|| (0..each).for_each(|_| spawn_two()));
        }
    });
    (each * at_a_time) as f64 / started.elapsed().as_secs_f64()
}

fn spawn_two() {
    let quiet = |command: &mut Command| {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    };
    // Without a unit, the supervisor ends at once.
    quiet(Command::new("/proc/self/exe").arg("receptor-supervise-unit"));
    quiet(&mut Command::new("/bin/true"));
}
