//! The steps of the demo.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};

use super::screen::Screen;
use super::stage::{NODES, Stage, node_id};
use super::transfer;
use crate::cli::output::text::{Cell, Paint, Table, millis};
use crate::cli::process::exit::Failure;
use crate::mesh::Status;
use crate::node::Node;
use crate::work::{Directive, HandlerError, Request, Responder};

/// The links by dialling node.
const LINKS: [(&str, &str); 6] = [
    ("controller", "relay-1"),
    ("controller", "relay-2"),
    ("edge-1", "relay-1"),
    ("edge-1", "relay-2"),
    ("edge-2", "relay-1"),
    ("edge-2", "relay-2"),
];

/// [`LINKS`] as a picture.
const PICTURE: &str = "
                          ┌────────────┐
                          │ controller │
                          └─┬────────┬─┘
                   ┌────────┘        └────────┐
              ┌────┴────┐                ┌────┴────┐
              │ relay-1 │                │ relay-2 │
              └─┬─────┬─┘                └─┬─────┬─┘
                │     └────────┐  ┌────────┘     │
                │     ┌────────┼──┘              │
                │     │        └───────────┐     │
              ┌─┴─────┴─┐                ┌─┴─────┴─┐
              │ edge-1  │                │ edge-2  │
              └─────────┘                └─────────┘
";

/// Timeout for the mesh to converge, initially and after the loss of a relay.
const MESH_LIMIT: Duration = Duration::from_secs(15);
/// Timeout for one call, including the loss of a relay.
const WORK_LIMIT: Duration = Duration::from_secs(30);
/// Poll interval for changes of the mesh.
const LOOK: Duration = Duration::from_millis(10);

/// Plays every step; fails at the first that does not happen.
pub(super) async fn play(stage: &mut Stage, screen: &Screen) -> Result<(), Failure> {
    let paint = screen.paint;
    screen.step(
        "identities",
        &format!("a CA and {} certificates, in {}", NODES.len(), stage.dir()),
    )?;
    let controller = start_nodes(stage, screen).await?;
    links_up(&controller, screen).await?;
    screen.print(PICTURE)?;
    screen.print("\n")?;
    routes(&controller, screen, paint).await?;
    command_on_edge_1(&controller, screen).await?;
    handler_on_edge_2(&controller, screen).await?;
    transfer_past_a_dead_relay(stage, &controller, screen).await
}

async fn start_nodes(stage: &mut Stage, screen: &Screen) -> Result<Node, Failure> {
    let args = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>();
    let mut relays = Vec::new();
    for id in ["relay-1", "relay-2"] {
        let relay =
            stage.start_process(id, &args(&["--listen", "127.0.0.1:0", "--transit"])).await?;
        relays.push(relay.peer_addr());
        screen.step(
            "started",
            &format!("{id:<10}  process {}, listens on {}, carries traffic", relay.pid, relay.addr),
        )?;
    }
    let mut edge = args(&["--command", "text:upper=tr a-z A-Z", "--command", "echo:bytes=cat"]);
    edge.extend(relays.iter().flat_map(|relay| ["--peer".to_owned(), relay.to_string()]));
    let edge = stage.start_process("edge-1", &edge).await?;
    screen.step(
        "started",
        &format!("edge-1      process {}, dials out only, offers `tr` and `cat`", edge.pid),
    )?;
    let edge = stage.start_here("edge-2", &relays).await?;
    edge.handle(directive("text:count"), count_words).map_err(Failure::failed)?;
    screen.step(
        "started",
        "edge-2      in this process, dials out only, offers a handler written in Rust",
    )?;
    let controller = stage.start_here("controller", &relays).await?;
    screen.step("started", "controller  in this process, dials out only")?;
    Ok(controller)
}

/// Waits until the controller knows every link from both its ends, and a route to every node.
async fn links_up(controller: &Node, screen: &Screen) -> Result<(), Failure> {
    let expected: BTreeSet<_> = LINKS.iter().flat_map(|(a, b)| [(*a, *b), (*b, *a)]).collect();
    let start = Instant::now();
    let mut seen = 0;
    loop {
        let status = status(controller).await?;
        let edges = status.edges.iter().filter(|edge| edge.class == "active");
        let edges: BTreeSet<_> = edges.map(|edge| (edge.from.as_str(), edge.to.as_str())).collect();
        let up = LINKS
            .iter()
            .filter(|(a, b)| edges.contains(&(a, b)) && edges.contains(&(b, a)))
            .count();
        if up > seen {
            seen = up;
            let elapsed = millis(start.elapsed().as_secs_f64() * 1000.0);
            screen.step("links", &format!("{up} of {} up, after {elapsed}", LINKS.len()))?;
        }
        if edges == expected && status.routes.len() == NODES.len() - 1 {
            return Ok(());
        }
        if start.elapsed() > MESH_LIMIT {
            return Err(Failure::failed(format!(
                "after {MESH_LIMIT:?} the mesh is {edges:?}, not {expected:?}"
            )));
        }
        sleep(LOOK).await;
    }
}

/// Shows the way and the round trip to each node.
async fn routes(controller: &Node, screen: &Screen, paint: Paint) -> Result<(), Failure> {
    let mut table = Table::new(["TO", "ROUTE", "ROUND TRIP"]);
    for id in &NODES[1..] {
        let node = node_id(id);
        // The first ping establishes the connection; the second one measures the path.
        controller.ping(&node).await.map_err(Failure::failed)?;
        let pong = controller.ping(&node).await.map_err(Failure::failed)?;
        let hops = controller.trace(&node).await.map_err(Failure::failed)?;
        let way: Vec<_> = hops.iter().map(|hop| hop.node.as_str()).collect();
        if way.last() != Some(id) {
            return Err(Failure::failed(format!("the way to {id} is {way:?}")));
        }
        let rtt = millis(pong.rtt_ms);
        table.row([Cell::plain(*id), Cell::plain(way.join(" → ")), Cell::plain(rtt)]);
    }
    screen.print(&table.render(paint))?;
    screen.print("\n")
}

async fn command_on_edge_1(controller: &Node, screen: &Screen) -> Result<(), Failure> {
    const SAID: &str = "work for an edge that nobody can reach directly";
    let answer = ask(controller, "edge-1", "text:upper", SAID).await?;
    check(answer == SAID.to_uppercase(), || format!("edge-1 answered {answer:?}"))?;
    screen.step("work", "edge-1 runs `tr a-z A-Z` on a stream from the controller:")?;
    screen.detail(&format!("{SAID}\n            {answer}"))
}

async fn handler_on_edge_2(controller: &Node, screen: &Screen) -> Result<(), Failure> {
    const WORDS: usize = 200_000;
    let answer = ask(controller, "edge-2", "text:count", &"mesh ".repeat(WORDS)).await?;
    check(answer == WORDS.to_string(), || format!("edge-2 counted {answer:?} words, not {WORDS}"))?;
    screen.step(
        "work",
        &format!("edge-2 runs a Rust handler on a stream of {WORDS} words: it counted {answer}"),
    )
}

/// Counts the words of the payload while it arrives.
async fn count_words(mut request: Request, responder: Responder) -> Result<(), HandlerError> {
    let (mut words, mut within) = (0_u64, false);
    while let Some(piece) = request.payload.read_chunk(64 * 1024).await? {
        for byte in piece {
            let letter = !byte.is_ascii_whitespace();
            words += u64::from(letter && !within);
            within = letter;
        }
    }
    Ok(responder.set_last(words.to_string().into())?)
}

async fn transfer_past_a_dead_relay(
    stage: &mut Stage,
    controller: &Node,
    screen: &Screen,
) -> Result<(), Failure> {
    let edge = node_id("edge-1");
    let relay = next_hop(controller, "edge-1").await?;
    let mib = transfer::LEN / (1024 * 1024);
    screen.step("transfer", &format!("{mib} MiB to edge-1 and back, over {relay}"))?;
    let call = controller.call(&edge, directive("echo:bytes")).await.map_err(Failure::failed)?;
    let trouble = || {
        stage.kill(&relay)?;
        screen.step("killed", &format!("{relay}, with SIGKILL, in the middle of the transfer"))
    };
    let report = timeout(WORK_LIMIT, transfer::run(call, trouble)).await;
    let report = report
        .map_err(|_| Failure::failed(format!("the transfer took more than {WORK_LIMIT:?}")))??;
    check(report.received_len == transfer::LEN && report.received == report.sent, || {
        format!(
            "{} bytes came back, with checksum {} and not {}",
            report.received_len, report.received, report.sent
        )
    })?;
    let other = next_hop(controller, "edge-1").await?;
    check(other != relay, || format!("the route still goes over {relay}"))?;
    let (took, stall) = (report.took.as_secs_f64() * 1000.0, report.stall.as_secs_f64() * 1000.0);
    screen.step("went on", &format!("over {other}, after standing still for {}", millis(stall)))?;
    screen.step(
        "complete",
        &format!("{mib} MiB there and back in {}, checksum agrees:", millis(took)),
    )?;
    screen.detail(&format!("sha256 {}", report.received))
}

async fn status(node: &Node) -> Result<Status, Failure> {
    node.status().await.map_err(Failure::failed)
}

/// The neighbour that packets for a node go to.
async fn next_hop(controller: &Node, node: &str) -> Result<String, Failure> {
    let status = status(controller).await?;
    let route = status.routes.iter().find(|route| route.node.as_str() == node);
    let route = route.ok_or_else(|| Failure::failed(format!("there is no route to {node}")))?;
    Ok(route.next_hop.to_string())
}

/// A call whose payload and answer are short.
async fn ask(
    controller: &Node,
    node: &str,
    action: &str,
    payload: &str,
) -> Result<String, Failure> {
    /// More than any answer has.
    const LIMIT: usize = 64 * 1024;
    let work = async {
        let call =
            controller.call(&node_id(node), directive(action)).await.map_err(Failure::failed)?;
        call.exchange(Bytes::copy_from_slice(payload.as_bytes()), LIMIT)
            .await
            .map_err(Failure::failed)
    };
    let answer = timeout(WORK_LIMIT, work).await;
    let answer = answer
        .map_err(|_| Failure::failed(format!("{node} did not answer within {WORK_LIMIT:?}")))??;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn check(happened: bool, otherwise: impl FnOnce() -> String) -> Result<(), Failure> {
    if happened { Ok(()) } else { Err(Failure::failed(otherwise())) }
}

fn directive(text: &str) -> Directive {
    Directive::try_from(text).expect("the demo's directives are directives")
}
