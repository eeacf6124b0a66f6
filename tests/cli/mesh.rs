//! Three processes and a mesh between them: through control sockets, and as ephemeral nodes.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::{Node, World, until};

/// A controller and an edge on either side of a relay; both dial out only.
struct Mesh {
    world: World,
    relay: Node,
    _edge: Node,
    _controller: Node,
}

impl Mesh {
    fn start() -> Self {
        let world = World::of(&["controller", "relay", "edge", "tool"]);
        let relay = world.node("relay", &["--transit"]);
        let peer = format!("relay@{}", relay.addr());
        let commands = [
            "text:upper=tr a-z A-Z",
            "echo:bytes=cat",
            "test:fail=sh -c 'echo half; echo no such luck >&2; exit 7'",
            "test:absent=/no/such/program",
            "test:wait=sh -c 'echo started; exec sleep 1000'",
        ];
        let commands = commands.iter().flat_map(|command| ["--command", command]);
        let edge: Vec<_> = ["--peer", &peer].into_iter().chain(commands).collect();
        let edge = world.node("edge", &edge);
        // What these tests say of relays holds as long as no direct path is found.
        let controller = world.node("controller", &["--peer", &peer, "--no-direct"]);
        let mesh = Self { world, relay, _edge: edge, _controller: controller };
        until("the controller has a route to the edge", || {
            let status = mesh.status("controller");
            list(&status["routes"]).iter().any(|route| route["node"] == "edge").then_some(())
        });
        mesh
    }

    fn socket(&self, node: &str) -> String {
        self.world.path(&format!("run/receptor/{node}.sock")).display().to_string()
    }

    fn status(&self, node: &str) -> Value {
        self.world.run(&["status", "--json", "--control", &self.socket(node)]).json()
    }

    /// A command with this node's place after it.
    fn on<'a>(&self, args: &[&'a str], place: &'a [String]) -> Vec<&'a str> {
        args.iter().copied().chain(place.iter().map(String::as_str)).collect()
    }

    /// Where commands run: behind the controller's socket, or as an ephemeral node.
    fn places(&self) -> [Vec<String>; 2] {
        let peer = format!("relay@{}", self.relay.addr());
        let place = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect();
        [
            place(&["--control", &self.socket("controller")]),
            place(&["--id", "tool", "--certs", "certs", "--peer", &peer]),
        ]
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("it is a list")
}

#[test]
fn status_ping_trace_and_send_work_through_a_socket_and_as_an_ephemeral_node() {
    let mesh = Mesh::start();
    let run = |args: &[&str], place: &[String]| mesh.world.run(&mesh.on(args, place));
    for place in &mesh.places() {
        let me = if place[0] == "--id" { "tool" } else { "controller" };
        // An ephemeral is called by its certificate's name and a suffix of its own.
        let status = run(&["status", "--json"], place).json();
        assert_eq!(status["node_id"].as_str().unwrap().split('~').next(), Some(me));
        let status = run(&["status"], place).ok();
        assert!(status.contains("relay"), "{status}");
        assert_eq!(status.contains("leaves routing to its neighbours"), me == "tool", "{status}");
        assert!(run(&["explain", "edge"], place).ok().contains("edge"));

        let replies =
            run(&["ping", "edge", "--count", "2", "--interval", "0.01", "--json"], place).ok();
        let replies: Vec<Value> =
            replies.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(replies.iter().map(|reply| reply["serial"].clone()).collect::<Vec<_>>(), [1, 2]);
        assert!(
            replies.iter().all(|reply| reply["node"] == "edge" && reply["rtt_ms"].is_f64()),
            "{replies:?}"
        );

        let hops = run(&["trace", "edge", "--json"], place).json();
        let way: Vec<_> = list(&hops).iter().map(|hop| hop["node"].as_str().unwrap()).collect();
        assert!(way.ends_with(&["relay", "edge"]), "{way:?}");
        assert!(list(&hops).iter().all(|hop| hop.get("rtt_ms").is_some()));

        assert_eq!(run(&["send", "edge", "text:upper", "hello"], place).ok(), "HELLO");
    }
}

#[test]
fn a_status_has_the_fields_that_scripts_rely_on() {
    let mesh = Mesh::start();
    mesh.world.run(&["ping", "edge", "--control", &mesh.socket("controller")]).ok();
    let status = mesh.status("controller");
    let has = |value: &Value, keys: &[&str]| {
        for key in keys {
            assert!(value.get(key).is_some(), "no {key} in {value:#}");
        }
    };
    has(&status, &["node_id", "instance", "links", "routes", "edges", "peers", "switch"]);
    has(&status["links"][0], &["peer", "state", "direction", "address", "rtt_ms", "cost"]);
    has(&status["routes"][0], &["node", "next_hop", "cost", "hops"]);
    has(&status["edges"][0], &["from", "to", "cost", "class"]);
    let edge = list(&status["peers"]).iter().find(|peer| peer["node"] == "edge").unwrap();
    has(edge, &["node", "path", "via", "since_s", "rtt_ms"]);
    assert_eq!((&edge["path"], &edge["via"]), (&"relayed".into(), &"relay".into()));
    has(&status["switch"], &["forwarded", "delivered", "dropped"]);
    let relay = mesh.status("relay");
    assert!(relay["switch"]["forwarded"].as_u64().unwrap() > 0);
    assert!(relay["switch"]["dropped"].is_object());
}

#[test]
fn a_large_payload_comes_back_whole() {
    let mesh = Mesh::start();
    let payload: Vec<u8> =
        (0..8 * 1024 * 1024_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(mesh.world.path("payload"), &payload).unwrap();
    for place in &mesh.places() {
        let args = mesh.on(&["send", "edge", "echo:bytes", "-"], place);
        let done = mesh.world.run_with_input(&args, &payload);
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        assert!(done.stdout == payload);
        let done = mesh.world.run(&mesh.on(&["send", "edge", "echo:bytes", "@payload"], place));
        assert!(done.stdout == payload);
    }
}

#[test]
fn responses_come_while_the_payload_is_still_going_out() {
    let mesh = Mesh::start();
    for place in &mesh.places() {
        let mut command = mesh.world.command(&mesh.on(&["send", "edge", "echo:bytes", "-"], place));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        for _ in 0..3 {
            stdin.write_all(b"to and fro\n").unwrap();
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            assert_eq!(line, "to and fro\n");
        }
        drop(stdin);
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn work_that_fails_says_why_and_ends_with_1() {
    let mesh = Mesh::start();
    let run = |args: &[&str], place: &[String]| mesh.world.run(&mesh.on(args, place));
    for place in &mesh.places() {
        let done = run(&["send", "edge", "test:fail"], place);
        assert_eq!(done.stdout, b"half\n");
        let said = done.failed(1);
        assert!(said.contains("status 7") && said.contains("no such luck"), "{said}");
        let said = run(&["send", "edge", "test:unknown"], place).failed(1);
        assert!(said.contains("does not handle"), "{said}");
        let said = run(&["send", "edge", "test:absent"], place).failed(1);
        assert!(said.contains("not found"), "{said}");
    }
}

#[test]
fn a_node_that_nobody_knows_ends_with_3() {
    let mesh = Mesh::start();
    for place in &mesh.places() {
        for command in ["ping", "trace"] {
            let said = mesh.world.run(&mesh.on(&[command, "nobody"], place)).failed(3);
            assert!(said.contains("nobody"), "{said}");
        }
        let said = mesh.world.run(&mesh.on(&["explain", "nobody"], place)).failed(3);
        assert!(said.contains("nobody"), "{said}");
        let said =
            mesh.world.run(&mesh.on(&["send", "nobody", "text:upper", "x"], place)).failed(3);
        assert!(said.contains("nobody"), "{said}");
    }
}

#[test]
fn a_node_whose_relay_died_ends_with_3_and_is_back_with_the_relay() {
    let mut mesh = Mesh::start();
    let [place, _] = mesh.places();
    let addr = mesh.relay.addr().to_owned();
    mesh.relay.kill();
    mesh.world.run(&mesh.on(&["ping", "edge"], &place)).failed(3);
    mesh.world.run(&mesh.on(&["send", "edge", "text:upper", "x"], &place)).failed(3);
    let args = ["node", "--id", "relay", "--certs", "certs", "--listen", &addr, "--transit"];
    mesh.relay = Node::start(mesh.world.command(&args));
    until("the edge answers", || {
        (mesh.world.run(&mesh.on(&["ping", "edge"], &place)).code == Some(0)).then_some(())
    });
}

#[test]
fn a_call_whose_relay_dies_ends_with_3_and_does_not_hang() {
    let mut mesh = Mesh::start();
    let [place, _] = mesh.places();
    let mut command = mesh.world.command(&mesh.on(&["send", "edge", "test:wait"], &place));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    mesh.relay.kill();
    assert_eq!(child.wait().unwrap().code(), Some(3));
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("unreachable"), "{said}");
}

#[test]
fn a_certificate_of_another_authority_ends_with_4() {
    let mesh = Mesh::start();
    let stranger = World::of(&["tool"]);
    let peer = mesh.relay.addr();
    let said = stranger
        .run(&["ping", "relay", "--id", "tool", "--certs", "certs", "--peer", peer])
        .failed(4);
    assert!(said.contains(peer), "{said}");
}

#[test]
fn another_node_than_the_expected_one_ends_with_4() {
    let mesh = Mesh::start();
    let peer = format!("edge@{}", mesh.relay.addr());
    let said = mesh
        .world
        .run(&["ping", "relay", "--id", "tool", "--certs", "certs", "--peer", &peer])
        .failed(4);
    assert!(said.contains("edge"), "{said}");
}

#[test]
fn an_ephemeral_node_leaves_no_trace() {
    let mesh = Mesh::start();
    let [_, place] = mesh.places();
    for _ in 0..5 {
        mesh.world.run(&mesh.on(&["ping", "edge"], &place)).ok();
    }
    for node in ["relay", "edge", "controller"] {
        until("the ephemeral node is forgotten", || {
            let status = mesh.status(node);
            let text = ["links", "routes", "edges"].map(|key| status[key].to_string()).concat();
            (!text.contains("tool")).then_some(())
        });
    }
    assert!(!mesh.world.path("run/receptor/tool.sock").exists());
}

#[test]
fn a_status_lists_no_more_stubs_than_it_is_asked_for() {
    let mesh = Mesh::start();
    let [_, place] = mesh.places();
    let mut command = mesh.world.command(&mesh.on(&["send", "edge", "test:wait"], &place));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "started\n");

    let socket = mesh.socket("relay");
    let status =
        |args: &[&str]| mesh.world.run(&[&["status", "--control", &socket], args].concat());
    let stubs = |args: &[&str]| {
        let status = status(args).json();
        assert_eq!(status["stubs"]["links"], 1, "{status:#}");
        let is_stub =
            |link: &Value| link["peer"].as_str().is_some_and(|id| id.starts_with("tool~"));
        (list(&status["links"]).iter().any(is_stub), status["stubs"]["max_listed"].clone())
    };
    assert_eq!(stubs(&["--json"]), (true, Value::Null));
    assert_eq!(stubs(&["--json", "--stubs", "all"]), (true, Value::Null));
    assert_eq!(stubs(&["--json", "--stubs", "1"]), (true, 1.into()));
    assert_eq!(stubs(&["--json", "--stubs", "0"]), (false, 0.into()));

    let line = "1 reachable; no stubs are listed (--stubs all shows every stub)";
    let text = status(&["--stubs", "0"]).ok();
    assert!(text.contains(line) && !text.contains("tool~"), "{text}");
    let text = status(&[]).ok();
    assert!(!text.contains("--stubs all") && text.contains("tool~"), "{text}");

    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    child.wait().unwrap();
}

#[test]
fn an_interrupted_command_cancels_its_work() {
    let mesh = Mesh::start();
    for place in &mesh.places() {
        let mut command = mesh.world.command(&mesh.on(&["send", "edge", "test:wait", "-"], place));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "started\n");
        assert_eq!(mesh.status("edge")["running_calls"], 1);
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(1));
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(said.contains("interrupted"), "{said}");
        until("the work is cancelled", || {
            (mesh.status("edge")["running_calls"] == 0).then_some(())
        });
    }
}

#[test]
fn status_waits_until_all_have_the_route() {
    let mesh = Mesh::start();
    for place in mesh.places() {
        let status =
            mesh.world.run(&mesh.on(&["status", "--wait-converged", "--json"], &place)).json();
        assert!(status["node_id"].is_string(), "{status}");
    }
    mesh.relay.signal(Signal::STOP);
    let args =
        ["status", "--wait-converged", "--timeout", "0.2", "--control", &mesh.socket("edge")];
    let done = mesh.world.run(&args);
    mesh.relay.signal(Signal::CONT);
    assert!(String::from_utf8_lossy(&done.stdout).starts_with("edge  "), "{done:?}");
    let said = done.failed(3);
    assert!(said.contains("not converged within 200ms") && said.contains("of 3 nodes"), "{said}");
}

#[test]
fn two_edges_go_direct_and_explain_says_so_and_why_not_where_it_is_switched_off() {
    let world = World::of(&["relay", "left", "right", "stubborn"]);
    let relay = world.node("relay", &["--transit"]);
    let peer = format!("relay@{}", relay.addr());
    let edges = [("left", ""), ("right", ""), ("stubborn", "--no-direct")];
    let _edges = edges.map(|(edge, more)| {
        world.node(
            edge,
            &["--peer", &peer, more].into_iter().filter(|arg| !arg.is_empty()).collect::<Vec<_>>(),
        )
    });
    let run = |words: &str, node: &str| {
        let socket = world.path(&format!("run/receptor/{node}.sock")).display().to_string();
        world.run(&words.split(' ').chain(["--control", &socket]).collect::<Vec<_>>())
    };
    let explained = until("left is direct to right", || {
        run("ping right", "left");
        let explained = run("explain right --json", "left").json();
        (explained["path"]["kind"] == "direct").then_some(explained)
    });
    assert_eq!(explained["attempts"][0]["outcome"], "direct");
    assert_eq!(explained["route"]["way"], serde_json::json!(["left", "relay", "right"]));
    let text = run("explain right", "left").ok();
    assert!(
        text.contains("path         direct to ") && text.contains("a direct path answers probes"),
        "{text}"
    );
    run("ping left", "stubborn").ok();
    let text = run("explain left", "stubborn").ok();
    assert!(
        text.contains("relayed by ") && text.contains("direct paths are off at this node"),
        "{text}"
    );
    run("explain nobody", "left").failed(3);
}

#[test]
fn three_hundred_calls_at_once_all_end_with_their_own_result() {
    let mesh = Mesh::start();
    let [place, _] = mesh.places();
    let calls: Vec<_> = (0..300)
        .map(|n| {
            let text = format!("call {n}");
            let mut command =
                mesh.world.command(&mesh.on(&["send", "edge", "text:upper", &text], &place));
            (n, command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
        })
        .collect();
    mesh.world.run(&mesh.on(&["status"], &place)).ok();
    for (n, call) in calls {
        let done = call.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(0), "call {n}: {said}");
        assert_eq!(String::from_utf8_lossy(&done.stdout), format!("CALL {n}"));
    }
}
