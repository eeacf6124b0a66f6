//! What `fuzz/` runs with any bytes: the kept inputs again, and some made of them.

use std::path::{Path, PathBuf};

use receptor_quic::fuzzing::{TARGETS, Target};

/// Inputs made for each target at each run.
const MADE: usize = 5_000;

#[test]
fn kept_inputs_and_their_kin_break_no_decoder() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    if !fuzz.exists() {
        println!("no inputs to play again: this is not the repository");
        return;
    }
    let mutations =
        std::env::var("RECEPTOR_FUZZ").map_or(MADE, |count| count.parse().expect("a number"));
    for (name, target) in TARGETS {
        let seeds = read(&fuzz.join("corpus").join(name));
        assert!(!seeds.is_empty(), "no inputs of {name}");
        for (file, bytes) in &seeds {
            guarded(name, *target, bytes, &file.display().to_string());
        }
        let mut rng = Rng(0x5eed);
        for number in 0..mutations {
            let bytes = rng.mutated(&seeds);
            guarded(name, *target, &bytes, &format!("number {number}: {bytes:02x?}"));
        }
    }
}

fn read(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("each target has a corpus")
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files.into_iter().map(|file| (file.clone(), std::fs::read(file).unwrap())).collect()
}

/// Names the input if the target panics.
#[expect(clippy::print_stderr, reason = "a failing input must be seen")]
fn guarded(name: &str, target: Target, bytes: &[u8], what: &str) {
    struct Name<'a>(&'a str, &'a str);

    impl Drop for Name<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("{} failed with {}", self.0, self.1);
            }
        }
    }

    let _name = Name(name, what);
    target(bytes);
}

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as usize % bound.max(1)
    }

    /// A seed with a few bytes changed, cut, doubled, or spliced with another.
    fn mutated(&mut self, seeds: &[(PathBuf, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = seeds[self.below(seeds.len())].1.clone();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            match self.below(7) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, self.below(256) as u8),
                2 => bytes.extend_from_within(at..),
                3 => {
                    let other = &seeds[self.below(seeds.len())].1;
                    let from = self.below(other.len() + 1);
                    bytes.splice(at.., other[from..].iter().copied());
                }
                4 => bytes.resize(bytes.len() + self.below(300), 0xff),
                _ if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                _ => bytes.push(self.below(256) as u8),
            }
            bytes.truncate(8_192);
        }
        bytes
    }
}
