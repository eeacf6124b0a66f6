//! What a node keeps between its runs: its epoch, and the neighbours it knew.
//!
//! Both are small files, replaced atomically: written beside, synced, renamed. A file that cannot be read is as good as
//! none, and is said so in the log: nothing here is needed for correctness.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use tracing::warn;

use crate::id::NodeId;

/// Known neighbours leave the manifest after this many seconds without a link.
pub(crate) const FORGET_AFTER_SECS: u64 = 24 * 60 * 60;
/// Entries in the manifest, at most; beyond that the ones seen longest ago go first.
pub(crate) const MAX_ENTRIES: usize = 4_096;

/// The neighbours that were linked within a day, with the time they were last seen, in seconds since the Unix epoch.
pub(crate) type Manifest = BTreeMap<NodeId, u64>;

/// A node's directory.
#[derive(Clone, Debug)]
pub(crate) struct DataDir(PathBuf);

impl DataDir {
    /// Opens the directory, making it if need be.
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    /// An epoch greater than that of any earlier start, written down before it is used.
    pub(crate) fn next_epoch(&self, now_ms: u64) -> io::Result<u64> {
        let path = self.0.join("epoch");
        let before = self.read(&path)?.and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0);
        let epoch = now_ms.max(before.saturating_add(1));
        replace(&path, format!("{epoch}\n").as_bytes())?;
        Ok(epoch)
    }

    /// The neighbours seen within a day before `now`, in seconds since the Unix epoch.
    pub(crate) fn manifest(&self, now: u64) -> io::Result<Manifest> {
        let path = self.0.join("manifest");
        let Some(text) = self.read(&path)? else { return Ok(Manifest::new()) };
        let mut manifest = Manifest::new();
        for (line, entry) in text.lines().enumerate() {
            let parsed = entry
                .split_once(' ')
                .and_then(|(seen, id)| Some((NodeId::try_from(id).ok()?, seen.parse::<u64>().ok()?)));
            match parsed {
                Some((id, seen)) => drop(manifest.insert(id, seen)),
                None => warn!(path = %path.display(), line = line + 1, "skipped an unreadable line"),
            }
        }
        forget(&mut manifest, now);
        Ok(manifest)
    }

    /// Replaces the manifest.
    pub(crate) fn save_manifest(&self, manifest: &Manifest) -> io::Result<()> {
        let text: String = manifest.iter().map(|(id, seen)| format!("{seen} {id}\n")).collect();
        replace(&self.0.join("manifest"), text.as_bytes())
    }

    fn read(&self, path: &Path) -> io::Result<Option<String>> {
        match fs::read(path) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Drops the entries that are too old or too many.
pub(crate) fn forget(manifest: &mut Manifest, now: u64) {
    manifest.retain(|_, seen| seen.saturating_add(FORGET_AFTER_SECS) > now);
    while manifest.len() > MAX_ENTRIES {
        let oldest = manifest.iter().min_by_key(|(_, seen)| **seen).map(|(id, _)| id.clone());
        oldest.and_then(|id| manifest.remove(&id));
    }
}

fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    // The rename itself must survive a power cut, too.
    File::open(path.parent().unwrap_or(path))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    #[test]
    fn epochs_grow_whatever_the_clock_says() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path().join("deep/er")).unwrap();
        assert_eq!(data.next_epoch(1_000).unwrap(), 1_000);
        assert_eq!(data.next_epoch(500).unwrap(), 1_001, "the clock was set back");
        assert_eq!(data.next_epoch(5_000).unwrap(), 5_000);
    }

    #[test]
    fn the_manifest_is_kept_and_forgets_after_a_day() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path().to_owned()).unwrap();
        assert_eq!(data.manifest(0).unwrap(), Manifest::new());
        let known = Manifest::from([(id("a"), 1_000), (id("b"), 2_000)]);
        data.save_manifest(&known).unwrap();
        assert_eq!(data.manifest(2_000).unwrap(), known);
        assert_eq!(data.manifest(1_000 + FORGET_AFTER_SECS).unwrap(), Manifest::from([(id("b"), 2_000)]));
    }

    #[test]
    fn a_spoilt_file_costs_only_its_spoilt_lines() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("manifest"), b"10 a\n\xff\xfe garbage\n12 b/c\n11 d\n").unwrap();
        fs::write(dir.path().join("epoch"), b"not a number").unwrap();
        let data = DataDir::open(dir.path().to_owned()).unwrap();
        assert_eq!(data.manifest(12).unwrap(), Manifest::from([(id("a"), 10), (id("d"), 11)]));
        assert_eq!(data.next_epoch(7).unwrap(), 7);
    }
}
