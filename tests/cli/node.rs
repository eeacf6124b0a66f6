//! `receptor node`: its life.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{LIMIT, Node, World, until};

#[test]
fn a_node_says_in_one_line_who_it_is_and_what_it_listens_on() {
    let world = World::of(&["relay-1"]);
    let node = world.node("relay-1", &["--transit"]);
    assert!(
        node.announced.starts_with("receptor node relay-1, listening on 127.0.0.1:"),
        "{}",
        node.announced
    );
    assert_eq!(node.control(), world.path("run/receptor/relay-1.sock"));
    assert_eq!(fs::metadata(node.control()).unwrap().permissions().mode() & 0o777, 0o600);
    let status = world.run(&["status", "--json"]).json();
    assert_eq!(status["node_id"], "relay-1");
    assert_eq!(status["transit"], true);
    assert_eq!(status["listen"][0], node.addr());
}

#[test]
fn sigterm_and_sigint_end_a_node_in_order_and_its_socket_goes() {
    let world = World::of(&["a"]);
    for signal in [Signal::TERM, Signal::INT] {
        let node = world.node("a", &[]);
        let socket = node.control().to_owned();
        node.signal(signal);
        assert_eq!(node.ended(), Some(0));
        assert!(!socket.exists());
    }
    let left: Vec<_> = fs::read_dir(world.path("run/receptor")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_node_that_leaves_lets_running_work_end() {
    let world = World::of(&["a"]);
    let node =
        world.node("a", &["--command", "test:wait=sh -c 'echo started; read line; echo \"got $line\"'"]);
    let mut send = world.command(&["send", "a", "test:wait", "-"]);
    let mut send = send.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(send.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(said.next().unwrap(), "started");
    node.signal(Signal::TERM);
    let refused = || world.run(&["send", "a", "test:wait"]).code == Some(1);
    until("no new work is taken", || refused().then_some(()));
    send.stdin.take().unwrap().write_all(b"it\n").unwrap();
    assert_eq!(said.next().unwrap(), "got it");
    assert_eq!(send.wait().unwrap().code(), Some(0));
    assert_eq!(node.ended(), Some(0));
}

#[test]
fn a_second_signal_ends_a_node_at_once_and_its_commands_with_it() {
    let world = World::of(&["a"]);
    // A command that takes no notice of SIGTERM makes the node wait. The pipe ends when the command and its child do.
    let alive = world.fifo("alive");
    world.write("wait.sh", "trap '' TERM; exec 3>alive; echo started; while :; do sleep 1000; done");
    let node = world.node("a", &["--command", "test:wait=sh wait.sh"]);
    let mut send = world.command(&["send", "a", "test:wait"]);
    let mut send = send.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(send.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "started\n");
    // Two kinds, because two of one kind may arrive as one.
    node.signal(Signal::TERM);
    node.signal(Signal::INT);
    assert_eq!(node.ended(), Some(1));
    alive.recv_timeout(LIMIT).expect("the command ends");
    assert_eq!(send.wait().unwrap().code(), Some(1));
}

#[test]
fn a_killed_nodes_socket_is_replaced_by_the_next() {
    let world = World::of(&["a"]);
    let mut node = world.node("a", &[]);
    let socket = node.control().to_owned();
    node.kill();
    assert!(socket.exists());
    let node = world.node("a", &[]);
    assert_eq!(node.control(), socket);
    world.run(&["status"]).ok();
}

#[test]
fn settings_come_from_a_file_and_the_environment() {
    let world = World::of(&["edge-1"]);
    world.write(
        "r.toml",
        "id = \"nobody\"\ncerts = \"certs\"\nlisten = [\"127.0.0.1:0\"]\ncontrol = \"c.sock\"\n\
         [command]\n\"text:upper\" = [\"tr\", \"a-z\", \"A-Z\"]\n",
    );
    let mut command = world.command(&["node"]);
    command.env("RECEPTOR_CONFIG", world.path("r.toml")).env("RECEPTOR_ID", "edge-1");
    let node = Node::start(command);
    assert!(node.announced.starts_with("receptor node edge-1, "), "{}", node.announced);
    let answer = world.run(&["send", "edge-1", "text:upper", "abc", "--control", "c.sock"]).ok();
    assert_eq!(answer, "ABC");
}

#[test]
fn sighup_takes_the_new_certificate() {
    let world = World::of(&["a"]);
    let node = world.node("a", &[]);
    let fingerprint = || world.run(&["status", "--json"]).json()["certificate"]["fingerprint"].clone();
    let old = fingerprint();
    assert_ne!(old, Value::Null);
    for file in ["certs/a.crt", "certs/a.key"] {
        fs::remove_file(world.path(file)).unwrap();
    }
    // What cannot be used is not taken.
    node.signal(Signal::HUP);
    assert_eq!(fingerprint(), old);
    world.run(&["cert", "issue", "a", "--dir", "certs"]).ok();
    node.signal(Signal::HUP);
    until("the new certificate is shown", || (fingerprint() != old).then_some(()));
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let world = World::of(&["a"]);
    let _node = world.node("a", &[]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = world.command(&["status"]).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(said, "");
}
