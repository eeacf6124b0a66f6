//! Executors that go away in the middle of a call: exit statuses and who is blamed.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};

use rustix::process::Signal;

use crate::harness::{Node, World, until};

/// An executor, and a caller linked to it.
struct Pair {
    world: World,
    executor: Node,
    _caller: Node,
}

impl Pair {
    fn start() -> Self {
        let world = World::of(&["executor", "caller"]);
        let executor = world
            .node("executor", &["--command", "test:wait=sh -c 'echo started; exec sleep 1000'"]);
        let peer = format!("executor@{}", executor.addr());
        let caller = world.node("caller", &["--peer", &peer]);
        let pair = Self { world, executor, _caller: caller };
        let ping = ["ping", "executor", "--count", "1", "--control"];
        let socket = pair.socket();
        until("the executor answers", || {
            (pair.world.run(&[&ping[..], &[&socket]].concat()).code == Some(0)).then_some(())
        });
        pair
    }

    fn socket(&self) -> String {
        self.world.path("run/receptor/caller.sock").display().to_string()
    }

    /// A call that has started.
    fn call(&self) -> Child {
        let socket = self.socket();
        let mut command =
            self.world.command(&["send", "executor", "test:wait", "--control", &socket]);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("the call answers");
        assert_eq!(line, "started\n");
        child
    }
}

/// The exit status of a call, and what it said.
fn ended(mut call: Child) -> (Option<i32>, String) {
    let code = call.wait().expect("the call was started").code();
    let mut said = String::new();
    let mut stderr = call.stderr.take().expect("it is piped");
    stderr.read_to_string(&mut said).expect("it prints text");
    (code, said)
}

#[test]
fn an_executor_that_is_killed_in_mid_call_ends_it_with_3() {
    let mut pair = Pair::start();
    let call = pair.call();
    pair.executor.kill();
    let (code, said) = ended(call);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("unreachable") && said.contains("may have been started"), "{said}");
}

#[test]
fn an_executor_that_restarts_in_mid_call_ends_it_with_3_and_is_blamed() {
    let mut pair = Pair::start();
    let call = pair.call();
    let addr = pair.executor.addr().to_owned();
    pair.executor.kill();
    let args = ["node", "--id", "executor", "--certs", "certs", "--listen", &addr];
    pair.executor = Node::start(pair.world.command(&args));
    let (code, said) = ended(call);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("the other node") && !said.contains("this node"), "{said}");
}

#[test]
fn an_executor_that_shuts_down_in_mid_call_ends_it_with_3_and_has_left() {
    let pair = Pair::start();
    let call = pair.call();
    pair.executor.signal(Signal::TERM);
    let (code, said) = ended(call);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("shutting down"), "{said}");
    let said = until("the caller knows", || {
        let done = pair.world.run(&["explain", "executor", "--control", &pair.socket()]);
        String::from_utf8(done.stdout).unwrap().contains("left the mesh").then_some(done.code)
    });
    assert_eq!(said, Some(3));
}
