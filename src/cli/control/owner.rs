//! Whether a control socket belongs to a node that the user may trust with a payload.
//!
//! In `/tmp` anybody can create a directory or a socket before the node does, and would read what a
//! client sends. A client therefore trusts three users: its own, root, and the owner of a directory
//! directly in `/run`, which only root can create there (a unit's `RuntimeDirectory`). It checks
//! the directory and the socket before it connects, and the credentials of the process that listens
//! before it sends anything.

use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use crate::cli::process::users::User;

/// The users that a client trusts.
#[derive(Clone, Debug)]
pub(super) struct Owners {
    uid: u32,
    gid: u32,
    /// Where directories are made for services.
    run: PathBuf,
}

/// The users that may listen on one socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Trusted(Vec<u32>);

/// Why a socket is not asked. Nothing was sent.
#[derive(Debug)]
pub(super) enum Untrusted {
    /// It cannot be looked at, or does not exist.
    Io(io::Error),
    /// Someone else may be behind it: what is wrong and what to do.
    Hostile(String),
}

impl Owners {
    /// Those of the user who runs this process.
    pub(super) fn current() -> Self {
        Self {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            run: PathBuf::from("/run"),
        }
    }

    /// Who may listen on the socket at `path`, as far as the file system shows.
    ///
    /// # Errors
    /// The directory or the socket belongs to someone else or can be changed by others, or it is
    /// not a socket.
    pub(super) fn of_socket(&self, path: &Path) -> Result<Trusted, Untrusted> {
        let dir = match path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        let trusted = self.of_dir(dir)?;
        let found = fs::symlink_metadata(path)?;
        let kind = found.file_type();
        if kind.is_symlink() {
            let why = format!("{} is a symbolic link; name the socket itself", path.display());
            return Err(Untrusted::Hostile(why));
        }
        if !kind.is_socket() {
            return Err(Untrusted::Hostile(format!("{} is not a socket", path.display())));
        }
        trusted.check(&found, path)?;
        if found.mode() & 0o002 != 0 {
            let path = path.display();
            return Err(Untrusted::Hostile(format!(
                "everybody may use {path}; run: chmod 600 {path}"
            )));
        }
        Ok(trusted)
    }

    /// Who may listen on sockets in a directory.
    ///
    /// # Errors
    /// It belongs to someone else, or others can put sockets of theirs in the place of those that
    /// are there.
    pub(super) fn of_dir(&self, dir: &Path) -> Result<Trusted, Untrusted> {
        let mut trusted = Trusted(vec![self.uid, 0]);
        let mut found = fs::symlink_metadata(dir)?;
        if found.file_type().is_symlink() {
            trusted.check(&found, dir)?;
            found = fs::metadata(dir)?;
        }
        if !found.is_dir() {
            return Err(Untrusted::Hostile(format!("{} is not a directory", dir.display())));
        }
        if self.is_made_by_root(dir) {
            trusted.0.push(found.uid());
        }
        trusted.check(&found, dir)?;
        // The sticky bit keeps others from replacing what is there. A group of the user's own is
        // often the user alone.
        let sticky = found.mode() & 0o1000 != 0;
        let by_others =
            found.mode() & 0o002 != 0 || (found.mode() & 0o020 != 0 && found.gid() != self.gid);
        if by_others && !sticky {
            let dir = dir.display();
            return Err(Untrusted::Hostile(format!(
                "others may write to {dir}; run: chmod go-w {dir}"
            )));
        }
        Ok(trusted)
    }

    /// Whether only root can have created the directory, regardless of its present owner.
    fn is_made_by_root(&self, dir: &Path) -> bool {
        dir.parent() == Some(&self.run)
            && fs::symlink_metadata(dir).is_ok_and(|found| found.is_dir())
            && fs::symlink_metadata(&self.run)
                .is_ok_and(|run| run.is_dir() && run.uid() == 0 && run.mode() & 0o022 == 0)
    }
}

impl Trusted {
    /// Whether a process of this user may be the node.
    ///
    /// # Errors
    /// It is someone else's.
    pub(super) fn check_peer(&self, uid: u32, path: &Path) -> Result<(), Untrusted> {
        if self.0.contains(&uid) {
            return Ok(());
        }
        let why =
            format!("a process of {} listens on {}; {}", Named(uid), path.display(), remedy(uid));
        Err(Untrusted::Hostile(why))
    }

    fn check(&self, found: &Metadata, path: &Path) -> Result<(), Untrusted> {
        let uid = found.uid();
        if self.0.contains(&uid) {
            return Ok(());
        }
        Err(Untrusted::Hostile(format!(
            "{} belongs to {}; {}",
            path.display(),
            Named(uid),
            remedy(uid)
        )))
    }
}

fn remedy(uid: u32) -> String {
    format!(
        "if that is the node's user, run this command as it (sudo -u '#{uid}' ...), else remove what is there"
    )
}

/// A user as people know it.
struct Named(u32);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match User::find(&self.0.to_string()) {
            Ok(User { entry: Some((name, _)), .. }) => write!(f, "user {name} (uid {})", self.0),
            _ => write!(f, "uid {}", self.0),
        }
    }
}

impl From<io::Error> for Untrusted {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Hostile(why) => f.write_str(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;

    /// Another user than the one who runs the tests, and not root.
    const OTHER: u32 = 54_321;

    fn as_user(uid: u32) -> Owners {
        Owners { uid, ..Owners::current() }
    }

    fn private() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn hostile(found: Result<Trusted, Untrusted>) -> String {
        match found {
            Err(Untrusted::Hostile(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    /// A socket whose directory and file belong to `OTHER`; `None` if the tests do not run as root.
    fn of_another() -> Option<(tempfile::TempDir, PathBuf)> {
        let dir = private();
        let path = dir.path().join("a.sock");
        drop(UnixListener::bind(&path).unwrap());
        let chowned = [&path, &dir.path().to_owned()]
            .map(|path| std::os::unix::fs::chown(path, Some(OTHER), None));
        chowned.iter().all(Result::is_ok).then_some((dir, path))
    }

    #[test]
    fn a_socket_of_ones_own_is_trusted() {
        let dir = private();
        let path = dir.path().join("a.sock");
        let _socket = UnixListener::bind(&path).unwrap();
        let trusted = Owners::current().of_socket(&path).unwrap();
        trusted.check_peer(0, &path).unwrap();
        trusted.check_peer(Owners::current().uid, &path).unwrap();
        let why = hostile(trusted.check_peer(OTHER, &path).map(|()| trusted.clone()));
        assert!(why.contains("uid 54321") && why.contains("a.sock"), "{why}");
    }

    #[test]
    fn a_directory_of_another_user_is_named_with_its_owner_and_a_remedy() {
        let Some((dir, path)) = of_another() else { return };
        let why = hostile(Owners::current().of_socket(&path));
        let start = format!("{} belongs to uid {OTHER}; ", dir.path().display());
        assert!(why.starts_with(&start) && why.contains("sudo -u '#54321'"), "{why}");
        as_user(OTHER).of_socket(&path).unwrap();
    }

    #[test]
    fn a_socket_of_another_user_in_a_shared_directory_is_refused() {
        let Some((dir, path)) = of_another() else { return };
        std::os::unix::fs::chown(dir.path(), Some(0), None).unwrap();
        mode(dir.path(), 0o1777);
        assert!(
            hostile(Owners::current().of_socket(&path)).contains("a.sock belongs to uid 54321")
        );
    }

    #[test]
    fn a_directory_that_others_can_write_is_refused_unless_it_is_sticky() {
        let dir = private();
        let path = dir.path().join("a.sock");
        let _socket = UnixListener::bind(&path).unwrap();
        for (bits, trusted) in
            [(0o700, true), (0o755, true), (0o777, false), (0o1777, true), (0o702, false)]
        {
            mode(dir.path(), bits);
            assert_eq!(Owners::current().of_socket(&path).is_ok(), trusted, "{bits:o}");
        }
        mode(dir.path(), 0o770);
        let stranger = Owners { gid: OTHER, ..Owners::current() };
        assert!(Owners::current().of_dir(dir.path()).is_ok());
        assert!(hostile(stranger.of_dir(dir.path())).contains("chmod go-w"));
        mode(dir.path(), 0o700);
        mode(&path, 0o666);
        assert!(hostile(Owners::current().of_socket(&path)).contains("chmod 600"));
    }

    #[test]
    fn links_and_other_files_in_the_place_of_the_socket_are_refused() {
        let dir = private();
        let [socket, link, file] =
            ["a.sock", "link.sock", "file.sock"].map(|name| dir.path().join(name));
        let _socket = UnixListener::bind(&socket).unwrap();
        symlink(&socket, &link).unwrap();
        fs::write(&file, "").unwrap();
        assert!(hostile(Owners::current().of_socket(&link)).contains("symbolic link"));
        assert!(hostile(Owners::current().of_socket(&file)).contains("not a socket"));
        let absent = Owners::current().of_socket(&dir.path().join("absent"));
        assert!(
            matches!(absent, Err(Untrusted::Io(error)) if error.kind() == io::ErrorKind::NotFound)
        );
    }

    #[test]
    fn the_owner_of_a_directory_that_root_made_for_a_service_is_trusted() {
        let Some((dir, path)) = of_another() else { return };
        let run = dir.path().parent().unwrap().to_owned();
        // `/tmp` is world-writable, so a directory in it may have been made by any user.
        assert!(Owners { run, ..Owners::current() }.of_socket(&path).is_err());
        let run = private();
        mode(run.path(), 0o755);
        let service = run.path().join("receptor-edge");
        fs::rename(dir.path(), &service).unwrap();
        let owners = Owners { run: run.path().to_owned(), ..Owners::current() };
        let trusted = owners.of_socket(&service.join("a.sock")).unwrap();
        trusted.check_peer(OTHER, &path).unwrap();
        assert!(trusted.check_peer(OTHER + 1, &path).is_err());
    }
}
