//! Commands that find no node to ask.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::process::Signal;

use crate::harness::{Node, World};

#[test]
fn without_a_node_on_this_machine_the_command_says_what_can_be_done() {
    let said = World::empty().run(&["status"]).failed(2);
    assert!(said.contains("--control") && said.contains("--peer"), "{said}");
}

#[test]
fn a_socket_behind_which_nobody_is_is_unreachable() {
    let world = World::empty();
    let said = world.run(&["ping", "a", "--control", "absent.sock"]).failed(3);
    assert!(said.contains("absent.sock"), "{said}");
    drop(UnixListener::bind(world.path("stale.sock")).unwrap());
    let said = world.run(&["status", "--control", "stale.sock"]).failed(3);
    assert!(said.contains("stale.sock"), "{said}");
}

#[test]
fn a_node_does_not_replace_a_socket_that_is_served() {
    let world = World::of(&["a"]);
    let _served = UnixListener::bind(world.path("c.sock")).unwrap();
    let args =
        ["node", "--id", "a", "--certs", "certs", "--listen", "127.0.0.1:0", "--control", "c.sock"];
    let said = world.run(&args).failed(2);
    assert!(said.contains("c.sock") && said.contains("runs a node behind it"), "{said}");
}

#[test]
fn an_ephemeral_node_names_the_setting_that_it_lacks() {
    let world = World::of(&["a"]);
    let said = world.run(&["ping", "b", "--id", "a"]).failed(2);
    assert!(said.contains("--certs"), "{said}");
    let said = world.run(&["ping", "b", "--id", "a", "--certs", "certs"]).failed(2);
    assert!(said.contains("--peer"), "{said}");
}

/// What the node answers to these bytes, up to its end of the connection.
fn answer(node: &Node, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(node.control()).expect("the node serves its socket");
    // The node may close before it has read all.
    let _ = stream.write_all(request);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).expect("answers are text")
}

#[test]
fn what_is_no_request_is_answered_and_harms_nobody() {
    let world = World::of(&["a"]);
    let node = world.node("a", &[]);
    for request in
        ["garbage\n", "{}\n", "{\"do\":\"dance\"}\n", "{\"do\":\"ping\",\"node\":\"a/b\"}\n"]
    {
        let said = answer(&node, request.as_bytes());
        assert!(said.starts_with("{\"failed\":{\"exit\":\"usage\""), "{request}: {said}");
    }
    assert_eq!(answer(&node, b""), answer(&node, b"{\"do\":"));
    answer(&node, &vec![b'x'; 1024 * 1024]);
    world.run(&["status"]).ok();
}

#[test]
fn idle_clients_do_not_keep_a_status_from_being_shown() {
    let world = World::of(&["a"]);
    let node = world.node("a", &[]);
    let idle: Vec<_> = (0..300).map(|_| UnixStream::connect(node.control()).unwrap()).collect();
    world.run(&["status"]).ok();
    world.run(&["doctor", "--control", &node.control().display().to_string()]).ok();
    drop(idle);
}

#[test]
fn a_node_whose_socket_another_starter_locked_does_not_start() {
    let world = World::of(&["a", "b"]);
    let first = world.node("a", &["--data-dir", "data"]);
    let control = first.control().display().to_string();
    let args =
        |id: &'static str| ["node", "--id", id, "--certs", "certs", "--listen", "127.0.0.1:0"];
    let pid = first.pid();
    let said = world.run(&[&args("b")[..], &["--control", &control]].concat()).failed(2);
    assert!(said.contains(&format!("process {pid} runs a node")), "{said}");
    let said = world.run(&[&args("b")[..], &["--data-dir", "data"]].concat()).failed(2);
    assert!(
        said.contains("data directory data is used by") && said.contains(&pid.to_string()),
        "{said}"
    );
    world.run(&["status"]).ok();
}

#[test]
fn a_killed_node_leaves_no_lock_behind() {
    let world = World::of(&["a"]);
    let mut first = world.node("a", &["--data-dir", "data"]);
    first.kill();
    let _second = world.node("a", &["--data-dir", "data"]);
    world.run(&["status"]).ok();
}

#[test]
fn a_doctor_does_not_join_beside_a_node_that_does_not_answer() {
    let world = World::of(&["a", "relay"]);
    let relay = world.node("relay", &["--transit"]);
    let peer = format!("relay@{}", relay.addr());
    let node = world.node("a", &["--peer", &peer]);
    node.signal(Signal::STOP);
    let said = world.run(&["doctor", "--id", "a", "--certs", "certs", "--peer", &peer]);
    node.signal(Signal::CONT);
    assert_eq!(said.code, Some(1));
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains(&format!("process {} is this node", node.pid())), "{said}");
    let status = world
        .run(&["status", "--json", "--control", &relay.control().display().to_string()])
        .json();
    assert!(status["duplicate"].is_null());
}

/// A user that is neither root nor the one who runs the tests.
const OTHER: u32 = 54_321;

/// Whether files can be given to another user.
#[expect(clippy::print_stderr, reason = "a test that is left out must be seen")]
fn can_chown(world: &World) -> bool {
    let probe = world.path("probe");
    std::fs::write(&probe, "").expect("the world's directory can be written");
    let can = std::os::unix::fs::chown(&probe, Some(OTHER), None).is_ok();
    if !can {
        eprintln!("left out: only root can make a socket of another user");
    }
    can
}

#[test]
fn a_client_sends_nothing_to_a_socket_of_another_user() {
    let world = World::empty();
    if !can_chown(&world) {
        return;
    }
    let dir = world.path("theirs");
    std::fs::create_dir(&dir).unwrap();
    let socket = dir.join("a.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    listener.set_nonblocking(true).unwrap();
    for path in [&socket, &dir] {
        std::os::unix::fs::chown(path, Some(OTHER), None).unwrap();
    }
    for args in [&["status"][..], &["send", "b", "text:upper", "secret"]] {
        let control = socket.display().to_string();
        let said = world.run(&[args, &["--control", &control]].concat()).failed(4);
        for part in [&dir.display().to_string(), "uid 54321", "sudo -u", "nothing was sent"] {
            assert!(said.contains(part), "{said}");
        }
        assert!(listener.accept().is_err(), "nobody even connects");
    }
}

#[test]
fn a_client_sends_nothing_to_a_process_of_another_user() {
    let world = World::empty();
    if !can_chown(&world) {
        return;
    }
    // The other user must be able to enter the directory above.
    let above = tempfile::tempdir().unwrap();
    std::fs::set_permissions(above.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    let dir = above.path().join("shared");
    std::fs::create_dir(&dir).unwrap();
    std::os::unix::fs::chown(&dir, Some(OTHER), None).unwrap();
    let socket = dir.join("a.sock");
    let (path, runner) = (socket.clone(), rustix::process::geteuid());
    let bind = move || {
        // Of this thread alone; the listener keeps the credentials of who began to listen.
        let other = rustix::process::Uid::from_raw(OTHER);
        rustix::thread::set_thread_res_uid(None, other, None).unwrap();
        UnixListener::bind(path).unwrap()
    };
    let listener = std::thread::spawn(bind).join().unwrap();
    for path in [&socket, &dir] {
        std::os::unix::fs::chown(path, Some(runner.as_raw()), None).unwrap();
    }
    let control = socket.display().to_string();
    let said = world.run(&["status", "--control", &control]).failed(4);
    assert!(said.contains("a process of uid 54321 listens on"), "{said}");
    let (mut stream, _) = listener.accept().unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    assert_eq!(received, b"");
}
