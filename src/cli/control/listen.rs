//! Creating the control socket, and removing it.
//!
//! Beside the socket is a lock file, `PATH.lock`, which its node holds as long as it runs. Of two
//! nodes that start at once one gets the lock; the other leaves everything as it is. A socket
//! without a holder is stale and is replaced.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

use super::path::{ControlPath, ensure_private_dir};
use crate::cli::process::exit::Failure;
use crate::mesh::data_dir::pid_lock;
use crate::mesh::data_dir::pid_lock::{LockError, PidLock};

/// The longest path that a Unix domain socket can have on every system we know, in bytes.
const MAX_PATH: usize = 103;

/// Connections that wait for the node to accept them; the system may allow fewer. Clients that find
/// it full retry.
const BACKLOG: i32 = 1_024;

/// A control socket that accepts connections. Dropped, it removes its file, unless another process
/// has put its own there, and then releases the lock.
#[derive(Debug)]
pub(in crate::cli) struct ControlSocket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    inode: u64,
    _lock: PidLock,
}

impl ControlSocket {
    /// Creates the socket, in the place of a stale one that a killed process left behind. Of the
    /// default places, the first that can be used is taken.
    ///
    /// # Errors
    /// Another process has the lock or serves the path; something else is there; the path is too
    /// long; the system refuses.
    pub(in crate::cli) fn bind(control: &ControlPath) -> Result<Self, Failure> {
        let fail = |path: &Path, why: &str| {
            Failure::usage(format!("control socket {}: {why}", path.display()))
        };
        let paths = match control {
            ControlPath::Given(path) => {
                return Self::bind_at(path).map_err(|error| fail(path, &error.to_string()));
            }
            ControlPath::Default(paths) => paths,
        };
        let mut unusable: Vec<(&PathBuf, String)> = Vec::new();
        for path in paths {
            let dir = path.parent().unwrap_or(path);
            let bound =
                ensure_private_dir(dir).map_err(BindError::from).and_then(|()| Self::bind_at(path));
            match bound {
                Ok(socket) => {
                    for (path, error) in &unusable {
                        tracing::warn!(
                            path = %path.display(),
                            %error,
                            instead = %socket.path.display(),
                            "cannot use the default control socket",
                        );
                    }
                    return Ok(socket);
                }
                Err(error @ BindError::InUse(_)) => return Err(fail(path, &error.to_string())),
                Err(error) => unusable.push((path, error.to_string())),
            }
        }
        let all: Vec<_> =
            unusable.iter().map(|(path, error)| format!("{}: {error}", path.display())).collect();
        Err(Failure::usage(format!(
            "no place for the control socket: {}; give one with --control",
            all.join("; ")
        )))
    }

    /// The socket is bound in a new directory with mode 0700, gets its mode there, and
    /// is then moved to its place: at no time can others connect.
    fn bind_at(path: &Path) -> Result<Self, BindError> {
        let parent = match path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => return Err(BindError::Unusable("not a path of a file".to_owned())),
        };
        check_len(path)?;
        let lock = PidLock::acquire(&lock_file(path)).map_err(|error| match error {
            LockError::Held { pid } => BindError::InUse(in_use(&pid_lock::holder(pid))),
            LockError::Io(error) => {
                BindError::Unusable(format!("cannot lock {}: {error}", lock_file(path).display()))
            }
        })?;
        // Nodes of development versions before 0.1.0 have no lock.
        check_vacant(path)?;
        let private = tempfile::Builder::new()
            .prefix(".r")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(parent)?;
        let bound = private.path().join("s");
        check_len(&bound)?;
        let listener = UnixListener::bind(&bound)?;
        rustix::net::listen(&listener, BACKLOG).map_err(io::Error::from)?;
        fs::set_permissions(&bound, fs::Permissions::from_mode(0o600))?;
        let inode = fs::symlink_metadata(&bound)?.ino();
        fs::rename(&bound, path)?;
        Ok(Self { listener, path: path.to_owned(), inode, _lock: lock })
    }

    pub(in crate::cli) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The lock file of a socket.
fn lock_file(socket: &Path) -> PathBuf {
    let mut file = socket.as_os_str().to_owned();
    file.push(".lock");
    file.into()
}

/// The process that has the socket, if one does.
pub(in crate::cli) fn holder(socket: &Path) -> Option<String> {
    match PidLock::check_held(&lock_file(socket))? {
        LockError::Held { pid } => Some(pid_lock::holder(pid)),
        LockError::Io(_) => None,
    }
}

fn in_use(holder: &str) -> String {
    format!("{holder} runs a node behind it; stop that node or give another path with --control")
}

fn check_len(path: &Path) -> Result<(), BindError> {
    let len = path.as_os_str().len();
    if len <= MAX_PATH {
        return Ok(());
    }
    let over = len - MAX_PATH;
    Err(BindError::Unusable(format!(
        "{over} bytes too long for a socket; give a shorter path with --control"
    )))
}

/// Whether the path is free, or has a socket that no process serves.
fn check_vacant(path: &Path) -> Result<(), BindError> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if !found.file_type().is_socket() {
        return Err(BindError::InUse("something that is not a socket is there".to_owned()));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(BindError::InUse(in_use("another process"))),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Why a socket was not created. Nothing was changed.
#[derive(Debug, thiserror::Error)]
enum BindError {
    /// The place belongs to something else. Another place would only hide that.
    #[error("{0}")]
    InUse(String),
    /// The place cannot have a socket. Another may.
    #[error("{0}")]
    Unusable(String),
    /// The system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(path: &Path) -> ControlPath {
        ControlPath::Given(path.to_owned())
    }

    #[tokio::test]
    async fn the_socket_is_for_its_user_alone_and_goes_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.sock");
        let socket = ControlSocket::bind(&given(&path)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        drop(socket);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left");
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let _socket = ControlSocket::bind(&given(&path)).unwrap();
        let error = ControlSocket::bind(&given(&path)).unwrap_err();
        assert!(
            error.text.contains(&format!("process {} runs a node", std::process::id())),
            "{error}"
        );
        UnixStream::connect(&path).unwrap();
    }

    #[tokio::test]
    async fn of_two_nodes_that_start_at_once_one_has_the_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.sock");
        // The state of a first starter between its lock and its bind.
        let lock = PidLock::acquire(&lock_file(&path)).unwrap();
        assert!(ControlSocket::bind(&given(&path)).unwrap_err().text.contains("runs a node"));
        assert!(!path.exists());
        assert!(holder(&path).is_some());
        drop(lock);
        assert!(holder(&path).is_none());
        ControlSocket::bind(&given(&path)).unwrap();
    }

    #[tokio::test]
    async fn a_socket_that_another_program_serves_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.sock");
        let _served = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(ControlSocket::bind(&given(&path)).unwrap_err().text.contains("another process"));
        UnixStream::connect(&path).unwrap();
    }

    #[tokio::test]
    async fn a_default_place_that_cannot_be_used_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let (bad, good) = (file.join("receptor/a.sock"), dir.path().join("receptor/a.sock"));
        let control = ControlPath::Default(vec![bad.clone(), good.clone()]);
        let socket = ControlSocket::bind(&control).unwrap();
        assert_eq!(socket.path(), good);
        assert_eq!(control.path(), good);
        // A place that another node has is not passed over.
        let taken = ControlPath::Default(vec![good, dir.path().join("other/a.sock")]);
        assert!(ControlSocket::bind(&taken).unwrap_err().text.contains("runs a node"));
        let error = ControlSocket::bind(&ControlPath::Default(vec![bad])).unwrap_err();
        assert!(error.text.contains("give one with --control"), "{error}");
    }

    #[tokio::test]
    async fn what_is_not_a_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.sock");
        fs::write(&path, "precious").unwrap();
        assert!(ControlSocket::bind(&given(&path)).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_path_that_is_too_long_says_by_how_much() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x".repeat(MAX_PATH));
        let error = ControlSocket::bind(&given(&path)).unwrap_err();
        assert!(error.text.contains("bytes too long"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left");
    }
}
