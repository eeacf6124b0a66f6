//! Making the control socket, and removing it.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

use super::path::{ControlPath, ensure_private_dir};
use crate::cli::exit::Failure;

/// The longest path that a Unix domain socket can have on every system we know, in bytes.
const MAX_PATH: usize = 103;

/// A control socket that takes connections. Dropped, it removes its file, unless another process has put its own there.
#[derive(Debug)]
pub(in crate::cli) struct ControlSocket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl ControlSocket {
    /// Makes the socket, in the place of a stale one that a killed process left behind.
    ///
    /// It is bound in a new directory that nobody else can enter, gets its mode there, and is then moved to its place: at no
    /// time can others connect.
    ///
    /// # Errors
    /// Another process serves the path; something else is there; the path is too long; the system refuses.
    pub(in crate::cli) fn bind(control: &ControlPath) -> Result<Self, Failure> {
        let path = control.path();
        let fail = |why: String| Failure::usage(format!("control socket {}: {why}", path.display()));
        let parent = match path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => return Err(fail("not a path of a file".to_owned())),
        };
        if let ControlPath::Default(_) = control {
            ensure_private_dir(parent).map_err(|error| fail(error.to_string()))?;
        }
        check_vacant(path).map_err(fail)?;
        let private = tempfile::Builder::new()
            .prefix(".r")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(parent)
            .map_err(|error| fail(error.to_string()))?;
        let bound = private.path().join("s");
        for path in [&bound, path] {
            let len = path.as_os_str().len();
            if len > MAX_PATH {
                return Err(fail(format!(
                    "{} bytes too long for a socket; give a shorter path with --control",
                    len - MAX_PATH
                )));
            }
        }
        let make = || -> io::Result<Self> {
            let listener = UnixListener::bind(&bound)?;
            fs::set_permissions(&bound, fs::Permissions::from_mode(0o600))?;
            let inode = fs::symlink_metadata(&bound)?.ino();
            fs::rename(&bound, path)?;
            Ok(Self { listener, path: path.to_owned(), inode })
        };
        make().map_err(|error| fail(error.to_string()))
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

/// Whether the path is free, or has a socket that nobody serves.
fn check_vacant(path: &Path) -> Result<(), String> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.to_string()),
    };
    if !found.file_type().is_socket() {
        return Err("something that is not a socket is there".to_owned());
    }
    match UnixStream::connect(path) {
        Ok(_) => {
            Err("a node that runs has it; stop that one, or give another path with --control".to_owned())
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(error.to_string()),
    }
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
        assert!(error.text.contains("a node that runs has it"), "{error}");
        UnixStream::connect(&path).unwrap();
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
