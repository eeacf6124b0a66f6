//! Where control sockets are.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::owner::{Owners, Untrusted};
use crate::cli::process::exit::Failure;
use crate::cli::setup::env::Env;
use crate::id::NodeId;

/// Where a node's control socket is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::cli) enum ControlPath {
    /// Where the user said; in a directory that exists.
    Given(PathBuf),
    /// In the first of these directories that can be used, which is created if it does not exist.
    /// Never empty.
    Default(Vec<PathBuf>),
}

impl ControlPath {
    pub(in crate::cli) fn default_of(id: &NodeId, env: &Env) -> Self {
        Self::Default(
            default_dirs(env).into_iter().map(|dir| dir.join(format!("{id}.{SUFFIX}"))).collect(),
        )
    }

    /// Where the socket is, or would be.
    pub(in crate::cli) fn path(&self) -> &Path {
        match self {
            Self::Given(path) => path,
            Self::Default(paths) => paths
                .iter()
                .find(|path| path.exists())
                .unwrap_or_else(|| paths.first().expect("never empty")),
        }
    }
}

const SUFFIX: &str = "sock";

/// Where nodes of this user put their sockets, the best place first.
fn default_dirs(env: &Env) -> Vec<PathBuf> {
    let uid = rustix::process::geteuid();
    // The XDG specification has relative paths ignored.
    let runtime = env.get("XDG_RUNTIME_DIR").map(Path::new).filter(|dir| dir.is_absolute());
    let shared = if uid.is_root() {
        "/run/receptor".into()
    } else {
        format!("/tmp/receptor-{}", uid.as_raw())
    };
    runtime.map(|dir| dir.join("receptor")).into_iter().chain([shared.into()]).collect()
}

/// Where sockets may be: a node may have been started with another environment, by a service
/// manager or in a container.
fn places(env: &Env) -> Vec<PathBuf> {
    let uid = rustix::process::geteuid().as_raw();
    let mut dirs = default_dirs(env);
    dirs.push(format!("/run/user/{uid}/receptor").into());
    dirs.push("/run/receptor".into());
    dirs.push(format!("/tmp/receptor-{uid}").into());
    // The runtime directories of units, such as those in `deploy/`.
    let units = fs::read_dir("/run").into_iter().flatten().flatten().map(|entry| entry.path());
    let mut units: Vec<_> =
        units.filter(|path| path.to_string_lossy().starts_with("/run/receptor-")).collect();
    units.sort();
    dirs.extend(units);
    let mut seen = std::collections::BTreeSet::new();
    dirs.retain(|dir| seen.insert(dir.clone()));
    dirs
}

/// The one socket behind which a node listens, in the first of the places that has any.
///
/// # Errors
/// There is none, or that place has more than one.
pub(in crate::cli) fn the_one_there_is(env: &Env) -> Result<PathBuf, Failure> {
    the_one_in(&places(env), &Owners::current())
}

fn the_one_in(dirs: &[PathBuf], owners: &Owners) -> Result<PathBuf, Failure> {
    // What is not trusted is passed over: it may be meant to hide the node that the user looks for.
    let mut ignored = Vec::new();
    let mut live = |dir: &PathBuf| {
        if let Err(Untrusted::Hostile(why)) = owners.of_dir(dir) {
            ignored.push(why);
            return Vec::new();
        }
        let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut live = Vec::new();
        for path in
            entries.filter(|path| path.extension().is_some_and(|extension| extension == SUFFIX))
        {
            match owners.of_socket(&path) {
                Ok(_) if is_live(&path) => live.push(path),
                Err(Untrusted::Hostile(why)) => ignored.push(why),
                Ok(_) | Err(Untrusted::Io(_)) => {}
            }
        }
        live.sort();
        live
    };
    let found = dirs.iter().map(&mut live).find(|live| !live.is_empty());
    match found.as_deref() {
        Some([one]) => Ok(one.clone()),
        Some(several) => {
            let list: String =
                several.iter().map(|path| format!("\n--control {}", path.display())).collect();
            Err(Failure::usage(format!("several nodes run here; select one:{list}")))
        }
        None => {
            let dirs: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
            let ignored: String = ignored.iter().map(|why| format!("\nignored: {why}")).collect();
            Err(Failure::usage(format!(
                "no node is running here that can be asked: no control socket in {}; start one with `receptor node`, name \
                 its socket with --control or RECEPTOR_CONTROL, or join with --id, --certs and --peer{ignored}",
                dirs.join(", ")
            )))
        }
    }
}

fn is_live(path: &Path) -> bool {
    match UnixStream::connect(path) {
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
    let ours = found.is_dir()
        && found.uid() == rustix::process::geteuid().as_raw()
        && found.mode() & 0o077 == 0;
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
        let relative = ControlPath::default_of(&id, &env(Path::new("run")));
        assert!(relative.path().is_absolute());
    }

    #[test]
    fn the_one_live_socket_is_found_among_stale_ones() {
        let dir = tempfile::tempdir().unwrap();
        let sockets = dir.path().join("receptor");
        let dirs = [dir.path().join("none"), sockets.clone()];
        let text = the_one_in(&dirs, &Owners::current()).unwrap_err().text;
        assert!(text.contains("receptor node"), "{text}");
        assert!(dirs.iter().all(|dir| text.contains(&dir.display().to_string())), "{text}");
        ensure_private_dir(&sockets).unwrap();
        drop(UnixListener::bind(sockets.join("stale.sock")).unwrap());
        let _a = UnixListener::bind(sockets.join("a.sock")).unwrap();
        assert_eq!(the_one_in(&dirs, &Owners::current()), Ok(sockets.join("a.sock")));
        let _b = UnixListener::bind(sockets.join("b.sock")).unwrap();
        let text = the_one_in(&dirs, &Owners::current()).unwrap_err().text;
        assert!(
            text.contains("a.sock") && text.contains("b.sock") && !text.contains("stale"),
            "{text}"
        );
    }

    #[test]
    fn a_socket_where_others_can_write_is_not_asked() {
        let dir = tempfile::tempdir().unwrap();
        let sockets = dir.path().join("receptor");
        ensure_private_dir(&sockets).unwrap();
        let _socket = UnixListener::bind(sockets.join("a.sock")).unwrap();
        let dirs = [sockets.clone()];
        assert!(the_one_in(&dirs, &Owners::current()).is_ok());
        fs::set_permissions(&sockets, fs::Permissions::from_mode(0o777)).unwrap();
        let text = the_one_in(&dirs, &Owners::current()).unwrap_err().text;
        assert!(text.contains("ignored: others may write to"), "{text}");
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
