//! `receptor node`: its life.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Stdio;
use std::time::{Duration, Instant};

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
    let node = world
        .node("a", &["--command", "test:wait=sh -c 'echo started; read line; echo \"got $line\"'"]);
    let mut send = world.command(&["send", "a", "test:wait", "-"]);
    let mut send = send.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(send.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(said.next().unwrap(), "started");
    // A second signal right behind the first is its echo, as `timeout` sends it.
    node.signal(Signal::TERM);
    node.signal(Signal::INT);
    let refused = || world.run(&["send", "a", "test:wait"]).code == Some(3);
    until("no new work is accepted", || refused().then_some(()));
    send.stdin.take().unwrap().write_all(b"it\n").unwrap();
    assert_eq!(said.next().unwrap(), "got it");
    assert_eq!(send.wait().unwrap().code(), Some(0));
    assert_eq!(node.ended(), Some(0));
}

#[test]
fn a_second_signal_ends_a_node_at_once_and_its_commands_with_it() {
    let world = World::of(&["a"]);
    // A command that takes no notice of SIGTERM makes the node wait. The pipe ends when the command
    // and its child do.
    let alive = world.fifo("alive");
    world
        .write("wait.sh", "trap '' TERM; exec 3>alive; echo started; while :; do sleep 1000; done");
    let node = world.node("a", &["--command", "test:wait=sh wait.sh"]);
    let mut send = world.command(&["send", "a", "test:wait"]);
    let mut send = send.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(send.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "started\n");
    node.signal(Signal::TERM);
    // What follows within a second belongs to the first.
    while !node.ends_within(Duration::from_millis(100)) {
        node.signal(Signal::TERM);
    }
    assert_eq!(node.ended(), Some(1));
    alive.recv_timeout(LIMIT).expect("the command ends");
    assert_eq!(send.wait().unwrap().code(), Some(3));
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
    let fingerprint =
        || world.run(&["status", "--json"]).json()["certificate"]["fingerprint"].clone();
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
fn a_certificate_that_is_replaced_is_noticed() {
    let world = World::of(&["a"]);
    // As Kubernetes mounts a secret: the files are links into a directory that a link names.
    fs::rename(world.path("certs"), world.path("issued")).unwrap();
    fs::create_dir_all(world.path("certs/..first")).unwrap();
    let files = ["ca.crt", "a.crt", "a.key"];
    let fill = |dir: &str| {
        for file in files {
            let to = world.path("certs").join(dir).join(file);
            fs::copy(world.path("issued").join(file), &to).unwrap();
        }
    };
    let link = |to: &str, at: &str| symlink(to, world.path("certs").join(at)).unwrap();
    fill("..first");
    link("..first", "..data");
    files.iter().for_each(|file| link(&format!("..data/{file}"), file));
    let node = world.node("a", &[]);
    let fingerprint =
        || world.run(&["status", "--json"]).json()["certificate"]["fingerprint"].clone();
    let old = fingerprint();
    for file in ["issued/a.crt", "issued/a.key"] {
        fs::remove_file(world.path(file)).unwrap();
    }
    world.run(&["cert", "issue", "a", "--dir", "issued"]).ok();
    fs::create_dir(world.path("certs/..second")).unwrap();
    fill("..second");
    link("..second", "..data_tmp");
    fs::rename(world.path("certs/..data_tmp"), world.path("certs/..data")).unwrap();
    until("the new certificate is shown", || (fingerprint() != old).then_some(()));
    // What cannot be used is not taken.
    let new = fingerprint();
    fs::write(world.path("certs/..second/a.crt"), "nonsense").unwrap();
    link("..second", "..data_tmp");
    fs::rename(world.path("certs/..data_tmp"), world.path("certs/..data")).unwrap();
    let line = node.log_line("certificates have changed and cannot be used");
    assert!(line.contains("a.crt"), "{line}");
    assert_eq!(fingerprint(), new);
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let world = World::of(&["a"]);
    let _node = world.node("a", &[]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child =
        world.command(&["status"]).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(said, "");
}

#[test]
fn a_standard_error_that_nobody_reads_holds_nothing_up() {
    let world = World::of(&["a", "b"]);
    let b = world.node("b", &["--command", "test:echo=cat"]);
    let args =
        ["node", "--id", "a", "--certs", "certs", "--peer", b.addr(), "--command", "test:echo=cat"];
    let mut command = world.command(&args);
    command.env("RUST_LOG", "trace");
    let (a, mut stderr) = Node::start_unread(command);
    let socket = a.control().to_str().unwrap().to_owned();
    let work = || {
        // 2 KiB of log lines each: more than the pipe and the queue hold.
        let pings = ["ping", "b", "--count", "1000", "--interval", "0.001", "--control", &socket];
        world.run(&pings).ok();
        for node in ["a", "b"] {
            let send = ["send", node, "test:echo", "-", "--control", &socket];
            assert_eq!(world.run_with_input(&send, b"hello").ok(), "hello");
        }
    };
    work();
    let mut read = Vec::new();
    let missed = b"log lines dropped";
    while !read.windows(missed.len()).any(|text| text == missed) {
        let begin = read.len().saturating_sub(missed.len());
        read.drain(..begin);
        let mut bytes = [0; 4096];
        let len = stderr.read(&mut bytes).unwrap();
        assert!(len > 0, "it ended without saying what was dropped");
        read.extend_from_slice(&bytes[..len]);
    }
    work();
    a.signal(Signal::TERM);
    assert_eq!(a.ended(), Some(0));
    drop(stderr);
}

#[test]
fn what_is_no_regular_file_is_refused_as_key_and_as_settings() {
    let world = World::of(&["a"]);
    let fifo = |name: &str| {
        let _ = fs::remove_file(world.path(name));
        assert!(
            std::process::Command::new("mkfifo").arg(world.path(name)).status().unwrap().success()
        );
    };
    fifo("r.toml");
    let args = ["node", "--id", "a", "--certs", "certs", "--listen", "127.0.0.1:0"];
    let said = world.run(&[&args[..], &["--config", "r.toml"]].concat()).failed(2);
    assert!(said.contains("r.toml") && said.contains("not a regular file"), "{said}");
    fifo("certs/a.key");
    let said = world.run(&args).failed(2);
    assert!(said.contains("a.key") && said.contains("not a regular file"), "{said}");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "other processes do not run on a clock of ours")]
fn the_grace_period_is_a_setting() {
    let world = World::of(&["a"]);
    world.write("r.toml", "grace = 0");
    let endless = "test:wait=sh -c 'echo started; exec sleep 1000'";
    let node = world.node("a", &["--config", "r.toml", "--command", endless]);
    let mut send = world.command(&["send", "a", "test:wait"]);
    let mut send = send.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(send.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "started\n");
    let start = Instant::now();
    node.signal(Signal::TERM);
    assert_eq!(node.ended(), Some(0));
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "the default would have waited: {:?}",
        start.elapsed()
    );
    assert_eq!(send.wait().unwrap().code(), Some(3));
}
