//! What `fuzz/` runs with any bytes; and every input that is kept there, played again.
//!
//! The code of these targets is here, where the tests are packaged; `fuzz/` takes it from here. It
//! does not know the rest of the tests.

use std::path::{Path, PathBuf};

mod decode;
mod drained;
mod ops;
mod twins;

use crate::golden;

#[test]
fn kept_inputs_are_read_as_they_should() {
    replay("decode", decode::run);
    for (_, message) in golden::messages() {
        decode::run(&message.encode());
    }
}

#[test]
fn kept_histories_end_in_agreement() {
    replay("ops", ops::run);
    ops::run(b"");
}

#[test]
fn kept_histories_of_twins_end_with_one_of_them() {
    replay("twins", twins::run);
    twins::run(b"");
}

/// Runs the target with every file of its corpus. The package comes without the corpus.
fn replay(target: &str, run: fn(&[u8])) {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    if !fuzz.exists() {
        println!("no inputs of {target} to play again: this is not the repository");
        return;
    }
    let folder = fuzz.join("corpus").join(target);
    let entries =
        std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "no inputs in {}", folder.display());
    for file in files {
        let _file = PrintFile(&file);
        run(&std::fs::read(&file).unwrap());
    }
}

/// Tells which file failed.
struct PrintFile<'a>(&'a Path);

impl Drop for PrintFile<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("failed with {}", self.0.display());
        }
    }
}
