//! `receptor doctor`: what could keep a node from working well, looked at one thing after the other.
//!
//! ```text
//! settings ─▶ machine: certificate, key, directories, socket buffers ─▶ findings ─▶ one line each
//!     └─────▶ mesh: peers, path MTU, NAT, clock ───────────────────────────┘
//! ```
//!
//! A node that runs already is asked through its control socket. Else the doctor joins as an ephemeral node with the
//! node's own certificate, and leaves again: what it meets is what the node would meet.

mod finding;
mod machine;
mod mesh;

use std::io::Write;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::args::DoctorArgs;
use super::config::NodeConfig;
use super::control::client::Client;
use super::env::Env;
use super::exit::Failure;
use super::local::Local;
use super::place::Place;
use super::status::StatusView;
use super::text::Paint;
use crate::id::NodeId;
use crate::mesh::clock;
use crate::node::Node;
use crate::transport::Identity;
use finding::{Finding, Verdict};

/// How long the peers have to answer.
const PATIENCE: Duration = Duration::from_secs(6);
/// How often it is looked whether they have.
const GLANCE: Duration = Duration::from_millis(100);

/// Looks at everything, prints what it found, and fails if something keeps the node from working.
pub(super) async fn run(args: DoctorArgs, env: &Env) -> Result<(), Failure> {
    let config = NodeConfig::resolve(args.node, env)?;
    let now = clock::system();
    let mut findings = machine::certificate(&config, now);
    findings.extend(machine::data_dir(&config));
    findings.extend(machine::socket_buffers());
    let running = Client::new(config.control.path().to_owned());
    let place = match running.status().await {
        Ok(_) => {
            findings.push(Finding::ok("node", format!("{} runs, and is asked", config.id)));
            Some(Place::Remote(running))
        }
        // A socket that is there and may not be used: a second process with this id would disturb the first.
        Err(failure) if config.control.path().exists() && failure.exit == super::exit::Exit::Refused => {
            findings.push(Finding::fail(
                "node",
                failure.text,
                "run the doctor as the node's user, or as root",
            ));
            None
        }
        Err(_) => {
            findings.extend(machine::listening(&config));
            join(&config, &mut findings).await
        }
    };
    if let Some(place) = place {
        findings.extend(look_at_the_mesh(&place, &config).await);
        if let Place::Local(local) = &place {
            local.leave().await;
        }
    }
    print(&findings, args.json)?;
    match findings.iter().filter(|finding| finding.verdict == Verdict::Fail).count() {
        0 => Ok(()),
        // What is wrong has been said above.
        1 => Err(Failure::failed("one thing keeps this node from working")),
        n => Err(Failure::failed(format!("{n} things keep this node from working"))),
    }
}

/// Joins as an ephemeral node, if there is somebody to join.
async fn join(config: &NodeConfig, findings: &mut Vec<Finding>) -> Option<Place> {
    if config.peers.is_empty() {
        let text = "it dials nobody, and waits for others to dial it: whether they can, only they can tell";
        findings.push(Finding::ok("peers", text));
        return None;
    }
    let identity = Identity::load(&config.certs, &config.id).ok()?;
    let builder = Node::builder(config.id.clone(), identity).one_shot();
    let builder = config.peers.iter().fold(builder, |builder, peer| builder.peer(peer.clone()));
    match builder.start().await {
        Ok(node) => Some(Place::Local(Local::new(node))),
        Err(error) => {
            findings.push(Finding::fail("peers", error.to_string(), "correct this first"));
            None
        }
    }
}

async fn look_at_the_mesh(place: &Place, config: &NodeConfig) -> Vec<Finding> {
    let Some(status) = settled(place, config.peers.len()).await else {
        let text = "the node's status is not understood";
        return vec![Finding::fail("node", text, "use the doctor of the node's own version")];
    };
    let mut findings = mesh::peers(&status, &config.peers);
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

/// The status once every peer is linked or has said why not, or after a while.
async fn settled(place: &Place, peers: usize) -> Option<StatusView> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = place.status().await.ok()?;
        let view = <StatusView as serde::Deserialize>::deserialize(&status).ok()?;
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
        true => format!("{:#}\n", serde_json::json!(findings)),
        false => finding::render(findings, Paint::for_stdout()),
    };
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| Failure::output(&error))
}
