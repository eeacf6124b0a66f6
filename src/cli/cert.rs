//! `receptor cert`: a certificate authority, and certificates for nodes.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::args::CertCommand;
use crate::cli::process::exit::Failure;
use crate::id::NodeId;
use crate::transport::{Authority, CertificateRequest, RequestError};

pub(super) fn run(command: CertCommand) -> Result<(), Failure> {
    let text = match command {
        CertCommand::Init { dir, name, days } => init(&dir, &name, days)?,
        CertCommand::Issue { node, dir, days, role } => issue(&dir, &node, &role, days)?,
        CertCommand::Request { node, dir } => request(&dir, &node)?,
        CertCommand::Sign { node, dir, request, days, role } => {
            let request = request.unwrap_or_else(|| dir.join(format!("{}.csr", node.base())));
            sign(&dir, &node, &request, &role, days)?
        }
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
    let shown = shown_roles(&roles);
    let identity = authority.issue_with_roles(node, roles, days).map_err(Failure::usage)?;
    identity.save(dir, node).map_err(Failure::failed)?;
    let dir = dir.display();
    let valid = shown_days(identity.not_before(), identity.not_after(), days);
    Ok(format!(
        "\
made {dir}/{node}.crt and {dir}/{node}.key, valid for {valid}{shown}
next: bring these two and {dir}/ca.crt to the node; there: receptor node --id {node} --certs DIR --listen ADDR or --peer HOST:PORT
"
    ))
}

fn request(dir: &Path, node: &NodeId) -> Result<String, Failure> {
    make_dir(dir)?;
    let path: PathBuf = CertificateRequest::create(dir, node).map_err(|error| match error {
        RequestError::Identity(_) => Failure::usage(error),
        _ => Failure::failed(error),
    })?;
    let (path, dir) = (path.display(), dir.display());
    let node = node.base();
    Ok(format!(
        "\
made {path} for the key {dir}/{node}.key, which stays here
next: bring the request to the issuing machine; there: receptor cert sign {node} --dir DIR --request {node}.csr
"
    ))
}

fn sign(
    dir: &Path,
    node: &NodeId,
    request: &Path,
    roles: &[String],
    days: u32,
) -> Result<String, Failure> {
    let authority = Authority::load(dir).map_err(Failure::usage)?;
    let request = CertificateRequest::read(request).map_err(Failure::usage)?;
    let roles: Vec<&str> = roles.iter().map(String::as_str).collect();
    let shown = shown_roles(&roles);
    let signed = authority.sign(&request, node, roles, days).map_err(Failure::usage)?;
    let path = signed.save(dir, node).map_err(Failure::failed)?;
    let valid = shown_days(signed.not_before(), signed.not_after(), days);
    let (path, dir, node) = (path.display(), dir.display(), node.base());
    Ok(format!(
        "\
made {path}, valid for {valid}{shown}
next: bring it and {dir}/ca.crt to the node, beside its {node}.key; there: receptor node --id {node} --certs DIR --listen ADDR or --peer HOST:PORT
"
    ))
}

fn shown_roles(roles: &[&str]) -> String {
    if roles.is_empty() { String::new() } else { format!(", with role {}", roles.join(", ")) }
}

/// Validity of a certificate in days, which the authority's expiry may limit.
fn shown_days(from: SystemTime, until: SystemTime, asked: u32) -> String {
    let days = until.duration_since(from).unwrap_or_default().as_secs() / (24 * 60 * 60);
    let cut = if days < u64::from(asked) { ", no longer than the CA itself" } else { "" };
    format!("{days} days{cut}")
}

/// Makes the directory, for this user alone, if it is not there.
fn make_dir(dir: &Path) -> Result<(), Failure> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| Failure::failed(format!("cannot make {}: {error}", dir.display())))
}
