//! The way into a supervisor: a program that runs units executes itself again, with arguments that
//! make the new process a supervisor instead.
//!
//! ```text
//! PROGRAM receptor-supervise-unit UNIT-DIRECTORY ATTEMPT
//! ```

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

/// The first argument of a process that is to become a supervisor.
const ARGUMENT: &str = "receptor-supervise-unit";

/// The image of this process, also after an upgrade has replaced or removed its file.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// Whether this program becomes a supervisor when it is started as one.
static CAN_SUPERVISE: AtomicBool = AtomicBool::new(false);

/// Becomes a supervisor, and does not return, if this process was started as one.
///
/// Commands of [units](crate::work) outlive the node that started them, so each has a process of
/// its own that watches it and records how it ended. A node starts its own program for that, which
/// must call this function **first in `main`**: before it parses arguments, opens files or starts a
/// runtime. In any other process the function returns at once and has no effect besides allowing
/// nodes of this process to use the program as a supervisor.
///
/// ```no_run
/// receptor_quic::work::supervise();
/// // Arguments, a runtime, a node …
/// ```
///
/// A program that cannot do so names another one, such as `receptor`, where it configures the
/// node's units; without either, the node accepts no commands as units. Supervisors exist on Linux
/// only; elsewhere this function does nothing.
///
/// The process needs about 1.4 MiB of memory of its own. It runs on one thread, in a session of its
/// own, and ends with status 0 once the end of the command is on disk. It ends with 1 and a line on
/// standard error if the command could not be supervised.
pub fn supervise() {
    CAN_SUPERVISE.store(true, Ordering::Relaxed);
    #[cfg(target_os = "linux")]
    {
        let mut args = std::env::args_os().skip(1);
        if args.next().as_deref() == Some(OsStr::new(ARGUMENT)) {
            std::process::exit(run(args.next(), args.next()));
        }
    }
}

/// Supervises the attempt that the arguments name. Returns the exit status.
#[cfg(target_os = "linux")]
fn run(unit: Option<std::ffi::OsString>, attempt: Option<std::ffi::OsString>) -> i32 {
    use std::io::Write as _;

    use crate::work::unit::supervisor::{self, NotSupervised};

    let attempt = attempt.and_then(|attempt| attempt.to_str()?.parse().ok());
    let (Some(unit), Some(attempt)) = (unit, attempt) else {
        let _ = writeln!(
            std::io::stderr(),
            "receptor: {ARGUMENT} is for nodes: it takes a unit and an attempt"
        );
        return 2;
    };
    let unit = Path::new(&unit);
    match supervisor::supervise(unit, attempt) {
        Ok(()) | Err(NotSupervised::Taken) => 0,
        Err(NotSupervised::Io(error)) => {
            // There may be no subscriber.
            let _ = writeln!(
                std::io::stderr(),
                "receptor: cannot supervise {}: {error}",
                unit.display()
            );
            1
        }
    }
}

/// Whether this program calls [`supervise`], so that it can be executed as a supervisor.
#[must_use]
pub(crate) fn can_supervise() -> bool {
    cfg!(target_os = "linux") && CAN_SUPERVISE.load(Ordering::Relaxed)
}

/// The command that starts the supervisor of an attempt: `program`, or this program again if it is
/// `None`, which only works if it [can supervise](can_supervise).
///
/// The process inherits the working directory and the environment, and no standard streams.
#[must_use]
pub(crate) fn supervisor_command(program: Option<&Path>, unit: &Path, attempt: u32) -> Command {
    let mut command = Command::new(program.unwrap_or_else(|| Path::new(THIS_PROGRAM)));
    command.arg(ARGUMENT).arg(unit).arg(attempt.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_supervisor_is_named_its_unit_and_attempt() {
        let words = |program: Option<&str>| {
            let command = supervisor_command(program.map(Path::new), Path::new("/units/x"), 2);
            let args = command.get_args().map(OsStr::to_owned);
            std::iter::once(command.get_program().to_owned()).chain(args).collect::<Vec<_>>()
        };
        assert_eq!(words(None), ["/proc/self/exe", "receptor-supervise-unit", "/units/x", "2"]);
        assert_eq!(words(Some("receptor"))[0], "receptor");
    }

    #[test]
    fn a_program_that_does_not_call_it_is_not_executed_again() {
        // Test programs have a `main` of their own.
        assert!(!can_supervise());
    }
}
