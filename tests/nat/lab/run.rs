//! Runs the tools that make networks.

use std::io::Write;
use std::process::{Command, Stdio};

/// Runs `ip` with these words, which are separated by spaces.
#[track_caller]
pub(super) fn ip(words: &str) {
    if let Err(why) = run("ip", words, "") {
        panic!("{why}");
    }
}

/// Runs a tool to its end, with this on its standard input, and returns what it says.
pub(super) fn run(tool: &str, words: &str, input: &str) -> Result<String, String> {
    let mut child = Command::new(tool)
        .args(words.split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{tool}: {error}"))?;
    // A tool that does not read its input breaks the pipe: then it says why.
    let _ = child.stdin.take().expect("it is piped").write_all(input.as_bytes());
    let output = child.wait_with_output().map_err(|error| format!("{tool}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("{tool} {words}: {}", said.trim()))
    }
}
