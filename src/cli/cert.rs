//! `receptor cert`: a certificate authority, and certificates for nodes.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::args::CertCommand;
use super::exit::Failure;
use crate::id::NodeId;
use crate::transport::{Authority, Identity};

pub(super) fn run(command: CertCommand) -> Result<(), Failure> {
    let text = match command {
        CertCommand::Init { dir, name, days } => init(&dir, &name, days)?,
        CertCommand::Issue { node, dir, days, role } => issue(&dir, &node, &role, days)?,
    };
    let mut out = io::stdout();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Failure::output(&error))
}

fn init(dir: &Path, name: &str, days: u32) -> Result<String, Failure> {
    let authority = Authority::new(name, days).map_err(Failure::usage)?;
    make_dir(dir)?;
    authority.save(dir).map_err(Failure::failed)?;
    let dir = dir.display();
    Ok(format!(
        "\
made {dir}/ca.crt (every node gets a copy) and {dir}/ca.key (keep it here), valid for {days} days
next: receptor cert issue NODE --dir {dir}
"
    ))
}

fn issue(dir: &Path, node: &NodeId, roles: &[String], days: u32) -> Result<String, Failure> {
    let authority = Authority::load(dir).map_err(Failure::usage)?;
    let roles: Vec<&str> = roles.iter().map(String::as_str).collect();
    let shown =
        if roles.is_empty() { String::new() } else { format!(", with role {}", roles.join(", ")) };
    let identity = authority.issue_with_roles(node, roles, days).map_err(Failure::usage)?;
    identity.save(dir, node).map_err(Failure::failed)?;
    let dir = dir.display();
    let valid = days_of(&identity);
    let cut = if valid < u64::from(days) { ", no longer than the CA itself" } else { "" };
    Ok(format!(
        "\
made {dir}/{node}.crt and {dir}/{node}.key, valid for {valid} days{cut}{shown}
next: bring these two and {dir}/ca.crt to the node; there: receptor node --id {node} --certs DIR --listen ADDR or --peer HOST:PORT
"
    ))
}

/// Validity of the certificate in days, which the authority's expiry may limit.
fn days_of(identity: &Identity) -> u64 {
    let valid = identity.not_after().duration_since(identity.not_before()).unwrap_or_default();
    valid.as_secs() / (24 * 60 * 60)
}

/// Makes the directory, for this user alone, if it is not there.
fn make_dir(dir: &Path) -> Result<(), Failure> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| Failure::failed(format!("cannot make {}: {error}", dir.display())))
}
