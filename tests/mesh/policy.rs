//! Who may do what: every way into a node asks its policy.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use receptor_quic::mesh::{EndReason, EndedBy, RefuseCode};
use receptor_quic::policy::{Policy, PolicySpec, RuleSpec, TransitDefault, Verb};
use receptor_quic::testing::{Mesh, mesh};
use receptor_quic::transport::code::StreamCode;
use receptor_quic::work::PingError;
use receptor_quic::work::unit::{Outcome, ResultsError, ResultsOptions, UnitRefusal, UnitsConfig};
use receptor_quic::{CallError, Node, StreamError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use crate::support::{echo, id, serve_echo};

const LONG: Duration = Duration::from_secs(60);
/// How long what is no longer allowed may go on.
const SOON: Duration = Duration::from_secs(1);

/// A rule from `from` to `to`, with the field that it needs.
fn rule(from: &str, to: &str) -> RuleSpec {
    let all = || Some(vec!["*".to_owned()]);
    let rule =
        RuleSpec { from: vec![from.to_owned()], to: vec![to.to_owned()], ..RuleSpec::default() };
    match to {
        "work" => RuleSpec { directives: all(), ..rule },
        "node" => RuleSpec { verbs: all(), ..rule },
        "unit" => RuleSpec {
            directives: all(),
            verbs: Some(vec!["submit".to_owned(), "manage".to_owned()]),
            ..rule
        },
        _ => rule,
    }
}

fn policy(rules: &[(&str, &str)]) -> Policy {
    let allow = rules.iter().map(|(from, to)| rule(from, to)).collect();
    Policy::new(&PolicySpec { allow, ..PolicySpec::default() }).unwrap()
}

/// What everybody may do on `b`, besides what `a` may.
fn for_a(to: &str) -> Policy {
    policy(&[("a", to), ("nobody", "*")])
}

async fn may_open(from: &Node) -> bool {
    let opened = from.open("b", "echo").await.unwrap().accepted().await;
    match opened {
        Ok(()) => true,
        Err(StreamError::Refused(why)) => {
            assert_eq!((why.code, why.text.as_str()), (RefuseCode::NotAllowed, ""));
            false
        }
        Err(other) => unreachable!("{other}"),
    }
}

async fn may_call(from: &Node) -> bool {
    let called = from.call("b", "text:shout").await.unwrap().exchange("x".into(), 100).await;
    match called {
        Ok(answer) => answer == "X",
        Err(CallError::NotAllowed { may_have_started: false }) => false,
        Err(other) => unreachable!("{other}"),
    }
}

async fn may_ping(from: &Node) -> bool {
    match from.ping("b").await {
        Ok(_) => true,
        Err(PingError::Call { error: CallError::NotAllowed { .. }, .. }) => false,
        Err(other) => unreachable!("{other}"),
    }
}

async fn may_submit(from: &Node) -> bool {
    let unit = from.submit("b", "text:shout", "x").await.unwrap();
    match timeout(LONG, unit.wait()).await.unwrap().unwrap() {
        Outcome::Succeeded => true,
        Outcome::Refused(UnitRefusal::NotAllowed) => false,
        other => unreachable!("{other:?}"),
    }
}

/// Offers everything that a node can offer.
async fn everything() -> (Mesh, Node, Node, [tempfile::TempDir; 2]) {
    let mesh = mesh(["r-s"]).await;
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let start = async |name: &str, dir: &tempfile::TempDir| {
        let builder = mesh.joiner(name, &["r"]).data_dir(dir.path()).units(UnitsConfig::default());
        let builder = builder.handle("text:shout", |mut request, responder| async move {
            let text = request.payload.collect(100).await?;
            Ok(responder.send(text.to_ascii_uppercase().into()).await?)
        });
        let builder = builder.unwrap().handle("text:wait", |_, responder| async move {
            responder.send("ready".into()).await?;
            std::future::pending().await
        });
        builder.unwrap().start().await.unwrap()
    };
    let (a, b) = (start("a", &dirs[0]).await, start("b", &dirs[1]).await);
    serve_echo(&b);
    a.routable("b").await.unwrap();
    b.routable("a").await.unwrap();
    (mesh, a, b, dirs)
}

#[tokio::test(start_paused = true)]
async fn every_way_into_a_node_asks_its_policy() {
    let (_mesh, a, b, _dirs) = everything().await;
    let mut datagrams = b.serve_datagrams("position").unwrap();
    let sender = a.datagrams("b", "position").await.unwrap();
    let mut received = async |expected: bool| {
        sender.send(b"here").unwrap();
        let came = timeout(SOON, datagrams.recv()).await.is_ok();
        assert_eq!(came, expected, "a datagram");
    };
    // A verb that is new has to be tried here, too.
    let tried = BTreeSet::from([
        Verb::Open,
        Verb::Call,
        Verb::BuiltIn,
        Verb::Submit,
        Verb::Follow,
        Verb::Manage,
        Verb::Datagram,
        // Below, and in tests of the control socket.
        Verb::Transit,
        Verb::Control,
    ]);
    let none_yet = Verb::Forward;
    assert!(Verb::ALL.iter().all(|verb| tried.contains(verb) || *verb == none_yet));

    assert!(may_open(&a).await && may_call(&a).await && may_ping(&a).await && may_submit(&a).await);
    received(true).await;
    for (to, allowed) in [("echo", 0), ("work", 1), ("node", 2), ("unit", 3), ("datagram:p*", 4)] {
        b.set_policy(for_a(to)).await.unwrap();
        assert_eq!(may_open(&a).await, allowed == 0, "{to}");
        assert_eq!(may_call(&a).await, allowed == 1, "{to}");
        assert_eq!(may_ping(&a).await, allowed == 2, "{to}");
        assert_eq!(may_submit(&a).await, allowed == 3, "{to}");
        received(allowed == 4).await;
    }
    let status = b.status().await.unwrap();
    assert!(status.datagrams.not_allowed >= 4 && status.policy.denied >= 16);
    b.set_policy(None).await.unwrap();
    assert!(may_open(&a).await && may_call(&a).await && may_ping(&a).await && may_submit(&a).await);
    received(true).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_may_do_everything_on_itself() {
    let (_mesh, _a, b, _dirs) = everything().await;
    b.set_policy(policy(&[("nobody", "echo")])).await.unwrap();
    assert!(may_open(&b).await && may_call(&b).await && may_ping(&b).await && may_submit(&b).await);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_longer_allowed_ends_and_the_rest_goes_on() {
    let (_mesh, a, b, _dirs) = everything().await;
    let mut idle = a.open("b", "echo").await.unwrap();
    let mut busy = a.open("b", "echo").await.unwrap();
    for stream in [&mut idle, &mut busy] {
        stream.write_all(b"x").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'x');
    }
    let mut call = a.call("b", "text:wait").await.unwrap();
    assert_eq!(call.next().await.unwrap().unwrap().body, "ready");

    b.set_policy(policy(&[("a", "node"), ("a", "other")])).await.unwrap();
    let begin = Instant::now();
    let error = idle.recv.read_chunk(10).await.unwrap_err();
    assert!(matches!(error, StreamError::Reset { code: StreamCode::NotAllowed, .. }), "{error:?}");
    let error = async {
        loop {
            if let Err(error) = busy.send.write_all(&[0; 1000]).await {
                break error;
            }
        }
    };
    let error = timeout(SOON, error).await.unwrap();
    assert!(
        matches!(error, StreamError::Stopped { code: StreamCode::NotAllowed, .. }),
        "{error:?}"
    );
    let error = call.next().await.unwrap_err();
    assert_eq!(error, CallError::NotAllowed { may_have_started: true });
    assert!(begin.elapsed() < SOON);
    assert!(may_ping(&a).await, "the connection stays");
}

#[tokio::test(start_paused = true)]
async fn the_application_learns_that_a_stream_is_no_longer_allowed() {
    let mesh = mesh(["a-b"]).await;
    let (a, b) = (mesh.node("a"), mesh.node("b"));
    let mut listener = b.serve("sink").unwrap();
    let mut opened = a.open("b", "sink").await.unwrap();
    opened.write_all(b"x").await.unwrap();
    let mut incoming = listener.accept().await.unwrap();
    assert_eq!(incoming.stream.read_u8().await.unwrap(), b'x');
    let reading = tokio::spawn(async move { (incoming.stream.recv.read_chunk(1).await, incoming) });
    tokio::task::yield_now().await;
    b.set_policy(policy(&[("a", "node")])).await.unwrap();
    let (error, incoming) = timeout(SOON, reading).await.unwrap().unwrap();
    let ending = error.unwrap_err().ending().unwrap();
    assert_eq!((ending.by, ending.why), (EndedBy::This, EndReason::NotAllowed));
    drop(incoming);
    let error = opened.recv.read_chunk(1).await.unwrap_err();
    assert!(matches!(error, StreamError::Reset { code: StreamCode::NotAllowed, .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn no_allowed_call_fails_while_policies_are_replaced() {
    let (_mesh, a, b, _dirs) = everything().await;
    let replacing = async {
        for nth in 0..100 {
            let other = format!("other-{nth}");
            b.set_policy(policy(&[("a", "work"), ("a", &other)])).await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let calling = async {
        for _ in 0..1_000 {
            assert!(may_call(&a).await);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let mut stream = a.open("b", "echo").await.unwrap();
    stream.accepted().await.unwrap();
    tokio::join!(replacing, calling);
    assert_eq!(b.status().await.unwrap().policy.denied, 0);
}

#[tokio::test(start_paused = true)]
async fn a_role_in_the_certificate_allows_and_its_renewal_takes_it_back() {
    let mesh = mesh(["r-b"]).await;
    let b = mesh.node("b");
    serve_echo(b);
    b.set_policy(policy(&[("role:operator", "echo")])).await.unwrap();
    let with_role = mesh.authority().issue_with_roles("a", ["operator"], 1).unwrap();
    let a = mesh.joiner("a", &["r"]).start().await.unwrap();
    a.routable("b").await.unwrap();
    assert!(!may_open(&a).await);
    a.reload(with_role).await.unwrap();
    let allowed = async {
        while !may_open(&a).await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(LONG, allowed).await.expect("the role counts");
    let mut stream = a.open("b", "echo").await.unwrap();
    stream.write_all(b"x").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'x');
    a.reload(mesh.authority().issue("a", 1).unwrap()).await.unwrap();
    let error = timeout(LONG, stream.recv.read_chunk(1)).await.unwrap().unwrap_err();
    assert!(matches!(error, StreamError::Reset { code: StreamCode::NotAllowed, .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn results_of_units_are_not_read_without_leave() {
    let (_mesh, a, b, _dirs) = everything().await;
    let unit = a.submit("b", "text:shout", "x").await.unwrap();
    unit.wait().await.unwrap();
    let spec = PolicySpec {
        allow: vec![RuleSpec { verbs: Some(vec!["submit".to_owned()]), ..rule("a", "unit") }],
        ..PolicySpec::default()
    };
    b.set_policy(Policy::new(&spec).unwrap()).await.unwrap();
    let error = unit.results(ResultsOptions::default()).next().await.unwrap_err();
    assert_eq!(error, ResultsError::NotAllowed);
    b.set_policy(for_a("unit")).await.unwrap();
    let text = unit.results(ResultsOptions::default()).next().await.unwrap();
    assert_eq!(text.as_deref(), Some(&b"X"[..]));
}

#[tokio::test(start_paused = true)]
async fn only_those_carry_packets_whom_the_policy_permits() {
    let mesh = mesh(["a-r", "r-b", "a-s", "s-t", "t-b"]).await;
    let a = mesh.node("a");
    let via = async |relay: &str| {
        let reached = async {
            while a.trace("b").await.map_or(true, |hops| hops[0].node != id(relay)) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(LONG, reached).await.unwrap_or_else(|_| panic!("not through {relay}"));
    };
    via("r").await;
    let spec = PolicySpec {
        transit: TransitDefault::Deny,
        allow: vec![rule("s", "transit"), rule("t", "transit"), rule("*", "*")],
        ..PolicySpec::default()
    };
    for node in mesh.nodes() {
        node.set_policy(Policy::new(&spec).unwrap()).await.unwrap();
    }
    via("s").await;
    for node in mesh.nodes() {
        node.set_policy(None).await.unwrap();
    }
    via("r").await;
}

#[tokio::test(start_paused = true)]
async fn a_node_starts_with_its_policy() {
    let mesh = mesh(["r-s"]).await;
    let b = mesh.joiner("b", &["r"]).policy(policy(&[("a", "echo")])).start().await.unwrap();
    serve_echo(&b);
    let a = mesh.joiner("a", &["r"]).start().await.unwrap();
    a.routable("b").await.unwrap();
    mesh.node("r").routable("b").await.unwrap();
    echo(&a, "b").await;
    assert!(!may_open(mesh.node("r")).await);
}

/// The Rust files of the crate, without their unit tests.
fn sources(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap().to_owned();
            let code: Vec<_> =
                code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            found.push((path, code.join("\n")));
        }
    }
}

/// Whatever takes something from a peer is in this table with the call that decides. A new way in
/// has to be added here, and cannot be without its decision.
#[test]
fn no_way_into_the_node_bypasses_the_decision() {
    // What takes something in, the file, and the decision in the same file, or why there is none.
    const WAYS: [(&str, &str, &str); 12] = [
        (".accept_bi()", "mesh/services/opening/accept.rs", "access"),
        // The control stream of a link, which carries routing; the router judges transit.
        (".accept_bi()", "transport/handshake.rs", "fn accept"),
        // Path messages: how this peer is reached.
        (".accept_uni()", "mesh/peers/path_messages.rs", "fn serve"),
        (
            ".read_datagram()",
            "mesh/services/datagrams/datagram.rs",
            "access.allow(&Action::datagram(",
        ),
        ("Incoming {", "mesh/services.rs", "access.allow(&Action::open("),
        // Certificates are proven before anything can be allowed.
        ("Admission::Own", "mesh/handle/spawn.rs", "certificate::service()"),
        ("Admission::Own", "mesh/handle.rs", "fn serve_calls"),
        ("Admission::Own", "mesh/services.rs", "access.allow(&Action::open("),
        ("Admission::Own", "work/unit/service/engine.rs", "mesh.serve(service(), Admission::Own)"),
        (
            "incoming.access",
            "work/unit/service/streams/serving.rs",
            "access.allow(&Action::submit(",
        ),
        ("registry.admit(", "work/serve.rs", "access.allow(&Action::call("),
        (".peer_cred()", "cli/control/server.rs", "may_be_controlled()"),
    ];
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let takes: BTreeSet<_> = WAYS.iter().map(|(takes, ..)| *takes).collect();
    for (path, code) in &files {
        let path = path.strip_prefix(&src).unwrap().to_str().unwrap();
        if path.contains("tests") || path.starts_with("testing") || path.contains("loopback") {
            continue;
        }
        for takes in &takes {
            let listed = WAYS.iter().find(|(way, file, _)| way == takes && *file == path);
            match listed {
                Some((.., decision)) => {
                    assert!(code.contains(takes), "{path} no longer has {takes}: remove it here");
                    assert!(code.contains(decision), "{path}: {takes} without {decision}");
                }
                None => assert!(
                    !code.contains(takes) || is_no_way_in(takes, path),
                    "{path} takes something in by {takes}: ask the policy, and list it here"
                ),
            }
        }
    }
}

/// What looks like a way in and is none.
fn is_no_way_in(takes: &str, path: &str) -> bool {
    matches!(
        (takes, path),
        // Taken apart; units have a type of the same name.
        ("Incoming {", "mesh/driver/proofs/renewal.rs" | "work/serve.rs")
            | ("Incoming {", "work/unit/service/executor/incoming.rs" | "mesh/access/connection.rs")
            // The client checks who listens.
            | (".peer_cred()", "cli/control/client.rs")
    )
}
