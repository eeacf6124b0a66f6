//! Where control sockets are.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::cli::env::Env;
use crate::cli::exit::Failure;
use crate::id::NodeId;

/// Where a node's control socket is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::cli) enum ControlPath {
    /// Where the user said; in a directory that is there.
    Given(PathBuf),
    /// In the default directory, which is made if it is not there.
    Default(PathBuf),
}

impl ControlPath {
    pub(in crate::cli) fn default_of(id: &NodeId, env: &Env) -> Self {
        Self::Default(default_dir(env).join(format!("{id}.{SUFFIX}")))
    }

    pub(in crate::cli) fn path(&self) -> &Path {
        match self {
            Self::Given(path) | Self::Default(path) => path,
        }
    }
}

const SUFFIX: &str = "sock";

fn default_dir(env: &Env) -> PathBuf {
    let uid = rustix::process::geteuid();
    match env.get("XDG_RUNTIME_DIR") {
        Some(dir) => Path::new(dir).join("receptor"),
        None if uid.is_root() => "/run/receptor".into(),
        None => format!("/tmp/receptor-{}", uid.as_raw()).into(),
    }
}

/// The one socket in the default directory behind which a node listens.
///
/// # Errors
/// There is none, or more than one.
pub(in crate::cli) fn the_one_there_is(env: &Env) -> Result<PathBuf, Failure> {
    let dir = default_dir(env);
    let mut live: Vec<PathBuf> = match fs::read_dir(&dir) {
        Ok(entries) => {
            entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| is_live(path)).collect()
        }
        Err(_) => Vec::new(),
    };
    live.sort();
    if live.len() > 1 {
        let list: String = live.iter().map(|path| format!("\n  --control {}", path.display())).collect();
        return Err(Failure::usage(format!("several nodes run here; say which one:{list}")));
    }
    live.pop().ok_or_else(|| {
        Failure::usage(format!(
            "no node runs here that can be asked (there is no control socket in {}): start one with `receptor node`, \
             name its socket with --control or RECEPTOR_CONTROL, or join with --id, --certs and --peer",
            dir.display()
        ))
    })
}

fn is_live(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == SUFFIX)
        && match UnixStream::connect(path) {
            Ok(_) => true,
            Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
        }
}

/// Makes the default directory, for this user alone, or checks that it is that.
pub(super) fn ensure_private_dir(dir: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().recursive(true).mode(0o700).create(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    // Not followed if it is a link: in /tmp, anyone may have put one there.
    let found = fs::symlink_metadata(dir)?;
    let ours =
        found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o077 == 0;
    if ours {
        Ok(())
    } else {
        let why = format!("{} is not a directory of this user's alone (mode 0700)", dir.display());
        Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn env(dir: &Path) -> Env {
        Env::from([("XDG_RUNTIME_DIR", dir.to_str().unwrap())])
    }

    #[test]
    fn the_default_path_is_in_the_users_runtime_directory() {
        let id = "edge-1".parse().unwrap();
        assert_eq!(
            ControlPath::default_of(&id, &env(Path::new("/run/user/7"))).path(),
            Path::new("/run/user/7/receptor/edge-1.sock")
        );
    }

    #[test]
    fn the_one_live_socket_is_found_among_stale_ones() {
        let dir = tempfile::tempdir().unwrap();
        let sockets = dir.path().join("receptor");
        assert!(the_one_there_is(&env(dir.path())).unwrap_err().text.contains("receptor node"));
        ensure_private_dir(&sockets).unwrap();
        drop(UnixListener::bind(sockets.join("stale.sock")).unwrap());
        let _a = UnixListener::bind(sockets.join("a.sock")).unwrap();
        assert_eq!(the_one_there_is(&env(dir.path())), Ok(sockets.join("a.sock")));
        let _b = UnixListener::bind(sockets.join("b.sock")).unwrap();
        let text = the_one_there_is(&env(dir.path())).unwrap_err().text;
        assert!(text.contains("a.sock") && text.contains("b.sock") && !text.contains("stale"), "{text}");
    }

    #[test]
    fn a_directory_that_others_can_enter_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("receptor");
        ensure_private_dir(&open).unwrap();
        assert_eq!(fs::metadata(&open).unwrap().mode() & 0o777, 0o700);
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(ensure_private_dir(&open).is_err());
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        assert!(ensure_private_dir(&link).is_err());
    }
}
