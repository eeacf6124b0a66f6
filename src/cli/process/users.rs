//! Users of this machine, as `/etc/passwd` has them.

use std::path::PathBuf;

/// The user that a command runs as.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::cli) struct User {
    pub(in crate::cli) uid: u32,
    pub(in crate::cli) gid: u32,
    /// The login name and the home directory, if the user has an entry.
    pub(in crate::cli) entry: Option<(String, PathBuf)>,
}

impl User {
    /// Finds a user by name or uid, or accepts `UID:GID` verbatim.
    ///
    /// Only `/etc/passwd` is read: users of a directory service are given as `UID:GID`.
    pub(in crate::cli) fn find(text: &str) -> Result<Self, String> {
        let passwd = std::fs::read_to_string("/etc/passwd")
            .map_err(|error| format!("/etc/passwd: {error}"))?;
        Self::find_in(text, &passwd)
    }

    fn find_in(text: &str, passwd: &str) -> Result<Self, String> {
        if let Some((uid, gid)) = text.split_once(':') {
            let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse()) else {
                return Err(format!("{text:?}: a user name, a uid, or UID:GID"));
            };
            let entry = entries(passwd).find(|user| user.uid == uid).and_then(|user| user.entry);
            return Ok(Self { uid, gid, entry });
        }
        let uid = text.parse::<u32>().ok();
        let matches = |user: &Self| match (uid, &user.entry) {
            (Some(uid), _) => user.uid == uid,
            (None, Some((name, _))) => name == text,
            (None, None) => false,
        };
        entries(passwd).find(matches).ok_or_else(|| {
            format!("{text:?}: no such user in /etc/passwd; give UID:GID for one that is elsewhere")
        })
    }
}

/// The lines `name:password:uid:gid:comment:home:shell`.
fn entries(passwd: &str) -> impl Iterator<Item = User> {
    passwd.lines().filter_map(|line| {
        let fields: Vec<_> = line.split(':').collect();
        let &[name, _, uid, gid, _, home, ..] = fields.as_slice() else { return None };
        let entry = Some((name.to_owned(), PathBuf::from(home)));
        Some(User { uid: uid.parse().ok()?, gid: gid.parse().ok()?, entry })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\n# comment\nwork:x:1001:1002::/srv/work:/bin/false\n";

    #[test]
    fn a_user_is_found_by_name_by_uid_or_given_in_numbers() {
        let work =
            User { uid: 1001, gid: 1002, entry: Some(("work".to_owned(), "/srv/work".into())) };
        assert_eq!(User::find_in("work", PASSWD), Ok(work.clone()));
        assert_eq!(User::find_in("1001", PASSWD), Ok(work.clone()));
        assert_eq!(User::find_in("1001:7", PASSWD), Ok(User { gid: 7, ..work }));
        assert_eq!(User::find_in("9:8", PASSWD), Ok(User { uid: 9, gid: 8, entry: None }));
    }

    #[test]
    fn an_unknown_user_is_an_error_that_says_what_to_do() {
        for unknown in ["nobody-here", "77", "", "# comment"] {
            assert!(User::find_in(unknown, PASSWD).unwrap_err().contains("UID:GID"), "{unknown}");
        }
        assert!(
            User::find_in("a:b", PASSWD).unwrap_err().contains("a user name, a uid, or UID:GID")
        );
    }
}
