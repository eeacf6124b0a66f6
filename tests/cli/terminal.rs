//! What a person at a terminal sees.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::harness::World;

/// Two ends of a pseudoterminal: what a program writes to `tty` is read from `screen`.
struct Terminal {
    screen: File,
    tty: OwnedFd,
}

impl Terminal {
    fn new() -> Self {
        let screen = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&screen).unwrap();
        unlockpt(&screen).unwrap();
        let path = ptsname(&screen, Vec::new()).unwrap();
        let tty = OpenOptions::new().read(true).write(true).open(path.to_str().unwrap()).unwrap();
        Self { screen: screen.into(), tty: tty.into() }
    }

    fn output(&self) -> Stdio {
        self.tty.as_fd().try_clone_to_owned().unwrap().into()
    }

    /// What was written, once all that could write have ended.
    fn shown(mut self) -> String {
        drop(self.tty);
        let mut shown = Vec::new();
        // Linux ends a terminal that nobody has open any more with an error.
        let _ = self.screen.read_to_end(&mut shown);
        String::from_utf8_lossy(&shown).into_owned()
    }
}

#[test]
fn responses_cannot_steer_a_terminal_unless_they_may() {
    let world = World::of(&["a"]);
    let _node = world.node("a", &["--command", "echo:bytes=cat"]);
    let payload = "\x1b]0;title\x07red\n";
    for (flag, expected) in
        [(None, "\\u{1b}]0;title\\u{7}red\r\n"), (Some("--raw"), "\x1b]0;title\x07red\r\n")]
    {
        let terminal = Terminal::new();
        let mut command = world.command(&["send", "a", "echo:bytes", payload]);
        let status =
            command.args(flag).stdout(terminal.output()).stderr(Stdio::null()).status().unwrap();
        drop(command);
        assert!(status.success());
        assert_eq!(terminal.shown(), expected);
    }
    // What is not a terminal gets the bytes as they are.
    assert_eq!(world.run(&["send", "a", "echo:bytes", payload]).stdout, payload.as_bytes());
}

#[test]
fn a_long_call_shows_its_progress_and_leaves_the_line_empty() {
    let world = World::of(&["a"]);
    let _node = world.node("a", &["--command", "test:slow=sh -c 'cat >/dev/null; sleep 2'"]);
    for (flag, shows) in [(None, true), (Some("--quiet"), false)] {
        let terminal = Terminal::new();
        let mut command = world.command(&["send", "a", "test:slow", "hello"]);
        let status =
            command.args(flag).stdout(Stdio::null()).stderr(terminal.output()).status().unwrap();
        drop(command);
        assert!(status.success());
        let shown = terminal.shown();
        assert_eq!(shown.contains("sent 5 B of 5 B, received 0 B"), shows, "{shown:?}");
        assert!(shown.is_empty() || shown.ends_with("\r\x1b[K"), "{shown:?}");
    }
}

#[test]
fn an_error_text_from_a_command_cannot_forge_a_line() {
    let world = World::of(&["a"]);
    let script = "test:forge=sh -c 'printf \"why\\nreceptor: all is well\\n\\033[2J\" >&2; exit 1'";
    let _node = world.node("a", &["--command", script]);
    let said = world.run(&["send", "a", "test:forge"]).failed(1);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.iter().filter(|line| line.starts_with("receptor: ")).count(), 1, "{said}");
    assert!(
        lines[1..].iter().all(|line| line.starts_with("  | ")) && !said.contains('\x1b'),
        "{said}"
    );
}

#[test]
fn a_time_limit_ends_the_work_on_both_sides() {
    let world = World::of(&["a"]);
    let ended = world.fifo("ended");
    world.write("wait.sh", "exec 3>ended; echo started; exec sleep 1000");
    let _node = world.node("a", &["--command", "test:wait=sh wait.sh"]);
    let done = world.run(&["send", "a", "test:wait", "--timeout", "500ms"]);
    let said = done.failed(3);
    assert!(said.contains("deadline"), "{said}");
    ended.recv_timeout(crate::harness::LIMIT).expect("the command has ended");
}
