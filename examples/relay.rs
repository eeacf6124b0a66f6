//! A relay from the library alone: `cargo run --example relay -- --id relay-1 --certs DIR --listen
//! 0.0.0.0:7400 [--peer [ID@]HOST:PORT]...`
//!
//! It carries other nodes' packets, and offers nothing itself. SIGUSR1 prints its status as JSON;
//! SIGTERM and Ctrl-C end it in order.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example shows what it does")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use receptor_quic::{Identity, Node, NodeId, PeerAddr};
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str = "usage: relay --id ID --certs DIR [--listen ADDR:PORT]... [--peer [ID@]HOST:PORT]... [--data-dir DIR]";

struct Settings {
    id: NodeId,
    certs: PathBuf,
    listen: Vec<SocketAddr>,
    peers: Vec<PeerAddr>,
    data_dir: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let settings = match parse(std::env::args().skip(1)) {
        Ok(settings) => settings,
        Err(problem) => {
            eprintln!("relay: {problem}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("relay: {problem}");
            ExitCode::FAILURE
        }
    }
}

async fn run(settings: Settings) -> Result<(), Box<dyn std::error::Error>> {
    let identity = Identity::load(&settings.certs, &settings.id)?;
    let mut builder = Node::builder(settings.id, identity).transit(true);
    for addr in settings.listen {
        builder = builder.listen(addr);
    }
    for peer in settings.peers {
        builder = builder.peer(peer);
    }
    if let Some(dir) = settings.data_dir {
        builder = builder.data_dir(dir);
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut show = signal(SignalKind::user_defined1())?;
    let node = builder.start().await?;
    println!("{} listens on {:?}", node.id(), node.local_addrs());
    let mut events = node.events();
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = tokio::signal::ctrl_c() => break,
            _ = show.recv() => {
                if let Ok(status) = node.status().await {
                    println!("{}", serde_json::to_string_pretty(&status)?);
                }
            }
            // A listener that falls behind is told so, and goes on.
            event = events.recv() => {
                if let Ok(event) = event {
                    println!("{}", serde_json::to_string(&event)?);
                }
            }
        }
    }
    node.shutdown().await;
    Ok(())
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Settings, String> {
    let (mut id, mut certs, mut data_dir) = (None, None, None);
    let (mut listen, mut peers) = (Vec::new(), Vec::new());
    while let Some(flag) = args.next() {
        let value = args.next().ok_or_else(|| format!("{flag} needs a value"))?;
        let bad = |problem: &dyn std::fmt::Display| format!("{flag} {value}: {problem}");
        match flag.as_str() {
            "--id" => id = Some(value.parse::<NodeId>().map_err(|problem| bad(&problem))?),
            "--certs" => certs = Some(PathBuf::from(&value)),
            "--listen" => {
                listen.push(value.parse::<SocketAddr>().map_err(|problem| bad(&problem))?)
            }
            "--peer" => peers.push(value.parse::<PeerAddr>().map_err(|problem| bad(&problem))?),
            "--data-dir" => data_dir = Some(PathBuf::from(&value)),
            _ => return Err(format!("unknown flag {flag}")),
        }
    }
    Ok(Settings {
        id: id.ok_or("--id is missing")?,
        certs: certs.ok_or("--certs is missing")?,
        listen,
        peers,
        data_dir,
    })
}
