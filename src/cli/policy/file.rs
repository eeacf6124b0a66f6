//! The file of a policy.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::cli::process::exit::Failure;
use crate::policy::{MAX_POLICY, Policy, PolicyError};
use crate::transport::open_regular;

/// A policy, and the file that it is from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::cli) struct PolicyFile {
    pub(in crate::cli) path: PathBuf,
    pub(in crate::cli) text: String,
    pub(in crate::cli) policy: Policy,
}

impl PolicyFile {
    /// Reads and checks a policy, and runs its tests.
    pub(in crate::cli) fn load(path: &Path) -> Result<Self, Failure> {
        let text = read(path)?;
        let policy = Policy::from_toml(&text).map_err(|error| fault(path, &error))?;
        Ok(Self { path: path.to_owned(), text, policy })
    }
}

/// Reads the text of a policy.
pub(super) fn read(path: &Path) -> Result<String, Failure> {
    let fail = |why: &dyn std::fmt::Display| Failure::usage(format!("{}: {why}", path.display()));
    let file = open_regular(path).map_err(|error| fail(&error))?;
    let mut text = String::new();
    // One byte more, so that a longer one is noticed.
    let limit = MAX_POLICY as u64 + 1;
    file.take(limit).read_to_string(&mut text).map_err(|error| fail(&error))?;
    if text.len() > MAX_POLICY {
        return Err(fail(&format!("longer than {MAX_POLICY} bytes, which a policy has at most")));
    }
    if !text.is_empty() && !text.ends_with('\n') {
        let line = text.lines().count();
        let why =
            "the last line does not end, so the file may be cut off: end it with a line break";
        return Err(Failure::usage(format!("{}, line {line}: {why}", path.display())));
    }
    Ok(text)
}

/// A mistake in a policy, with the file and the line.
pub(super) fn fault(path: &Path, error: &PolicyError) -> Failure {
    let path = path.display();
    Failure::usage(match error.line() {
        Some(line) => format!("{path}, line {line}: {}", error.message()),
        None => format!("{path}: {}", error.message()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_names_the_file_and_the_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.toml");
        let error = |text: &str| {
            std::fs::write(&path, text).unwrap();
            PolicyFile::load(&path).unwrap_err().text
        };
        let good = "[[allow]]\nfrom = \"a\"\nto = \"echo\"\n";
        let at = path.display().to_string();
        assert!(error(&good.replace("to", "too")).starts_with(&format!("{at}, line 3: unknown")));
        assert!(error(good.trim_end()).starts_with(&format!("{at}, line 3: the last line does")));
        assert!(error("").starts_with(&format!("{at}, line 1: a policy without rules")));
        assert!(error(&"#\n".repeat(MAX_POLICY)).contains(": longer than 1048576 bytes"));
        std::fs::write(&path, good).unwrap();
        assert_eq!(PolicyFile::load(&path).unwrap().policy.rule_count(), 1);
        let missing = PolicyFile::load(&dir.path().join("none")).unwrap_err();
        assert!(missing.text.contains("none: "), "{missing}");
    }
}
