//! Commands that find no node to ask.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};

use crate::harness::{Node, World, until};

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
    let args = ["node", "--id", "a", "--certs", "certs", "--listen", "127.0.0.1:0", "--control", "c.sock"];
    let said = world.run(&args).failed(2);
    assert!(said.contains("c.sock") && said.contains("a node that runs has it"), "{said}");
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
    for request in ["garbage\n", "{}\n", "{\"do\":\"dance\"}\n", "{\"do\":\"ping\",\"node\":\"a/b\"}\n"] {
        let said = answer(&node, request.as_bytes());
        assert!(said.starts_with("{\"failed\":{\"exit\":\"usage\""), "{request}: {said}");
    }
    assert_eq!(answer(&node, b""), answer(&node, b"{\"do\":"));
    answer(&node, &vec![b'x'; 1024 * 1024]);
    world.run(&["status"]).ok();
}

#[test]
fn one_client_more_than_may_be_is_told_so() {
    let world = World::of(&["a"]);
    let node = world.node("a", &[]);
    let idle: Vec<_> = (0..64).map(|_| UnixStream::connect(node.control()).unwrap()).collect();
    let said = world.run(&["status"]).failed(1);
    assert!(said.contains("as many clients as it may"), "{said}");
    drop(idle);
    until("there is room again", || (world.run(&["status"]).code == Some(0)).then_some(()));
}
