//! `receptor doctor`: checks for what could keep a node from working.
//!
//! ```text
//! settings ─▶ machine: certificate, key, directories, socket buffers ─▶ findings ─▶ one line each
//!     └─────▶ mesh: peers, path MTU, NAT, clock ───────────────────────────┘
//! ```
//!
//! A running node is queried through its control socket. Otherwise the doctor joins temporarily as
//! an ephemeral node with the node's certificate, and meets the same conditions as the node would.

mod finding;
mod machine;
mod mesh;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::args::{DoctorArgs, NodeArgs};
use super::control::client::Client;
use super::control::listen;
use super::local::Local;
use super::place::Place;
use super::status::StatusView;
use crate::cli::output::text::{Paint, escape_json};
use crate::cli::process::exit::{Exit, Failure};
use crate::cli::setup::config::NodeConfig;
use crate::cli::setup::env::Env;
use crate::cli::setup::settings::{CONFIG, CONTROL, ID};
use crate::id::NodeId;
use crate::mesh::data_dir::datadir::DataDir;
use crate::mesh::{PeerAddr, StatusOptions, clock};
use crate::node::Node;
use crate::transport::Identity;
use finding::{Finding, Verdict};

/// Timeout for the peers to answer.
const PATIENCE: Duration = Duration::from_secs(6);
/// Poll interval for their answers.
const GLANCE: Duration = Duration::from_millis(100);
/// The checks read the links. Those to a few stubs are enough to find what is wrong with the
/// network, and the status of a hub with all of its stubs is megabytes.
const OPTIONS: StatusOptions = StatusOptions { max_stubs: Some(16) };

/// Looks at everything, prints what it found, and fails if something keeps the node from working.
pub(super) async fn run(args: DoctorArgs, env: &Env) -> Result<(), Failure> {
    let findings = match socket_alone(&args.node, env)? {
        Some(socket) => through_socket(socket).await?,
        None => with_settings(&NodeConfig::resolve(args.node, env)?).await,
    };
    print(&findings, args.json)?;
    match findings.iter().filter(|finding| finding.verdict == Verdict::Fail).count() {
        0 => Ok(()),
        // The problem has been printed above.
        1 => Err(Failure::failed("1 check failed")),
        n => Err(Failure::failed(format!("{n} checks failed"))),
    }
}

/// The control socket, if it is all that is given: a running node knows its own settings.
fn socket_alone(args: &NodeArgs, env: &Env) -> Result<Option<PathBuf>, Failure> {
    let settings =
        ID.text(args.id.clone(), env)?.is_some() || CONFIG.path(args.config.clone(), env).is_some();
    let socket = CONTROL.path(args.control.clone(), env);
    Ok(socket.filter(|_| !settings).map(|socket| socket.value))
}

/// Asks the node behind a socket.
async fn through_socket(socket: PathBuf) -> Result<Vec<Finding>, Failure> {
    let client = Client::new(socket.clone());
    let status = answer_in_time(&client, &socket).await?;
    let name = status.name().unwrap_or("the node");
    let mut findings = vec![Finding::ok("node", format!("{name} is running and answers"))];
    findings.extend(machine::socket_buffers());
    findings.extend(look_at_the_mesh(&Place::Remote(client), &[]).await);
    Ok(findings)
}

/// Checks this machine, and queries the node that runs with these settings or joins with them.
async fn with_settings(config: &NodeConfig) -> Vec<Finding> {
    let mut findings = machine::certificate(config, clock::system());
    findings.extend(machine::data_dir(config));
    findings.extend(machine::socket_buffers());
    let socket = config.control.path();
    let running = Client::new(socket.to_owned());
    let place = match answer_in_time(&running, socket).await {
        Ok(_) => {
            findings.push(Finding::ok("node", format!("{} is running and answers", config.id)));
            Some(Place::Remote(running))
        }
        Err(failure) => match running_node(config, &failure) {
            // A second process with this id would disturb the first.
            Some((text, advice)) => {
                findings.push(Finding::fail("node", text, advice));
                None
            }
            None => {
                findings.extend(machine::listening(config));
                join(config, &mut findings).await
            }
        },
    };
    if let Some(place) = place {
        findings.extend(look_at_the_mesh(&place, &config.peers).await);
        if let Place::Local(local) = &place {
            local.leave().await;
        }
    }
    findings
}

async fn answer_in_time(client: &Client, socket: &Path) -> Result<StatusView, Failure> {
    let late = || {
        Failure::busy(format!(
            "the node behind {} did not answer within {PATIENCE:?}",
            socket.display()
        ))
    };
    timeout(PATIENCE, client.status(OPTIONS)).await.unwrap_or_else(|_| Err(late()))
}

/// Why the doctor cannot join with the node's id: the node runs, although it could not be queried.
fn running_node(config: &NodeConfig, failure: &Failure) -> Option<(String, &'static str)> {
    let socket = config.control.path();
    if let Some(holder) = listen::holder(socket) {
        let advice = "retry in a moment; the doctor does not join beside a running node";
        return Some((
            format!("{holder} is this node and could not be queried: {failure}"),
            advice,
        ));
    }
    match failure.exit {
        Exit::Unreachable => {}
        Exit::Refused => {
            return Some((failure.text.clone(), "run the doctor as the node's user, or as root"));
        }
        _ => return Some((failure.text.clone(), "retry in a moment")),
    }
    let held = DataDir::check_held(config.data_dir.as_deref()?)?;
    let text =
        format!("the data directory is {held}, and no node is listening on {}", socket.display());
    Some((text, "pass the control socket of the node that uses the directory with --control"))
}

/// Joins as an ephemeral node, if there is somebody to join.
async fn join(config: &NodeConfig, findings: &mut Vec<Finding>) -> Option<Place> {
    if config.peers.is_empty() {
        let text = "none configured; whether others can reach this node is not known here";
        findings.push(Finding::ok("peers", text));
        return None;
    }
    let identity = Identity::load(&config.certs, &config.id).ok()?;
    let builder = Node::builder(config.id.clone(), identity).one_shot();
    let builder = config.peers.iter().fold(builder, |builder, peer| builder.peer(peer.clone()));
    match builder.start().await {
        Ok(node) => Some(Place::Local(Local::new(node))),
        Err(error) => {
            findings.push(Finding::fail("peers", error.to_string(), "fix this first"));
            None
        }
    }
}

async fn look_at_the_mesh(place: &Place, peers: &[PeerAddr]) -> Vec<Finding> {
    let Some(status) = settled(place, peers.len()).await else {
        let text = "cannot parse the node's status";
        return vec![Finding::fail("node", text, "use the doctor of the node's own version")];
    };
    let mut findings = mesh::peers(&status, peers);
    findings.extend(mesh::holds(&status));
    findings.extend(mesh::mtu(&status));
    findings.extend(mesh::nat(&status, local_ip));
    findings.extend(mesh::port_mapping(&status));
    if let Some(neighbour) = mesh::a_neighbour(&status).and_then(|id| id.parse::<NodeId>().ok())
        && let Ok(reply) = place.ping(&neighbour, PATIENCE).await
    {
        findings.push(mesh::clock(&neighbour, reply.clock_ahead_ms()));
    }
    findings
}

/// The status once every peer is linked or has failed, or after a timeout.
async fn settled(place: &Place, peers: usize) -> Option<StatusView> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let view: StatusView = place.status(OPTIONS).await.ok()?;
        let answered = view.links.iter().filter(|link| mesh::has_answered(link)).count();
        if answered >= peers || Instant::now() >= deadline {
            return Some(view);
        }
        sleep(GLANCE).await;
    }
}

/// The address that packets to `remote` leave from. Nothing is sent for that.
fn local_ip(remote: std::net::SocketAddr) -> Option<std::net::IpAddr> {
    let any: std::net::IpAddr = match remote {
        std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = std::net::UdpSocket::bind((any, 0)).ok()?;
    socket.connect(remote).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

fn print(findings: &[Finding], json: bool) -> Result<(), Failure> {
    let text = match json {
        true => escape_json(&format!("{:#}\n", serde_json::json!(findings))),
        false => finding::render(findings, Paint::for_stdout()),
    };
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Failure::output(&error))
}
