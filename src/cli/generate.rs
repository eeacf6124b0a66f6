//! `receptor completions` and `receptor man`: files generated from the definition of the command
//! line.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::args::Args;
use crate::cli::process::exit::Failure;

/// Prints the completion script of a shell to standard output.
pub(super) fn completions(shell: Shell) -> Result<(), Failure> {
    // Rendered to memory first: clap_complete panics when it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "receptor", &mut script);
    let mut out = io::stdout();
    out.write_all(&script).and_then(|()| out.flush()).map_err(|error| Failure::output(&error))
}

/// Writes `receptor.1` and a page for each subcommand, for example `receptor-node.1`. Existing
/// pages are replaced.
pub(super) fn man(dir: &Path) -> Result<(), Failure> {
    fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(Args::command(), dir)).map_err(
        |error| Failure::failed(format!("cannot write manual pages to {}: {error}", dir.display())),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_manual_page() {
        let dir = tempfile::tempdir().unwrap();
        man(&dir.path().join("made/here")).unwrap();
        let pages: Vec<_> = ["", "-node", "-cert", "-cert-issue", "-send", "-man"]
            .into_iter()
            .map(|command| {
                fs::read_to_string(dir.path().join(format!("made/here/receptor{command}.1")))
                    .unwrap()
            })
            .collect();
        assert!(pages.iter().all(|page| page.contains(".TH receptor")), "{}", pages[0]);
        assert!(pages[1].contains("RECEPTOR_LISTEN"));
        assert!(
            man(&dir.path().join("made/here/receptor.1")).is_err(),
            "a file is not a directory"
        );
    }
}
