//! Calls through relays.

use bytes::Bytes;
use receptor_quic::testing::mesh;
use receptor_quic::{CallError, Directive, HandlerError};

use crate::support::id;

fn directive(text: &str) -> Directive {
    text.parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_call_streams_its_payload_and_its_responses_through_relays() {
    let mesh = mesh(["controller-r1", "r1-r2", "edge-r2"]).await;
    let shout = async |mut request: receptor_quic::Request, responder: receptor_quic::Responder| {
        while let Some(chunk) = request.payload.read_chunk(1024).await? {
            responder.send(chunk.to_ascii_uppercase().into()).await?;
        }
        Ok(())
    };
    mesh.node("edge").handle(directive("text:shout"), shout).unwrap();
    let mut call =
        mesh.node("controller").call(&id("edge"), directive("text:shout")).await.unwrap();
    for piece in ["one ", "two ", "three"] {
        call.payload.write_chunk(Bytes::from(piece)).await.unwrap();
    }
    call.payload.finish();
    let mut text = Vec::new();
    let mut serials = Vec::new();
    while let Some(response) = call.next().await.unwrap() {
        text.extend_from_slice(&response.body);
        serials.push((response.serial, response.last));
    }
    assert_eq!(text, b"ONE TWO THREE");
    let expected: Vec<_> =
        (1..=serials.len() as u64).map(|n| (n, n == serials.len() as u64)).collect();
    assert_eq!(serials, expected);
}

#[tokio::test(start_paused = true)]
async fn what_goes_wrong_at_the_other_end_is_an_error_here() {
    let mesh = mesh(["c-r", "e-r"]).await;
    let (c, e) = (mesh.node("c"), mesh.node("e"));
    e.handle(directive("bad:fail"), async |_, _| Err(HandlerError::new("out of paper"))).unwrap();
    e.handle(directive("bad:panic"), async |_, _| panic!("as the test wants it")).unwrap();
    let result = async |name: &str| {
        let call = c.call(&id("e"), directive(name)).await.unwrap();
        call.exchange(Bytes::new(), 1024).await.unwrap_err()
    };
    assert_eq!(result("bad:unknown").await, CallError::UnknownDirective);
    assert_eq!(result("bad:panic").await, CallError::Panicked);
    let CallError::Failed { error, .. } = result("bad:fail").await else { panic!("another error") };
    assert_eq!(error, "out of paper");
}

#[tokio::test(start_paused = true)]
async fn a_ping_names_the_work_that_runs() {
    let mesh = mesh(["c-r", "e-r"]).await;
    let (started, mut begun) = tokio::sync::mpsc::channel(1);
    let wait = move |_, responder: receptor_quic::Responder| {
        let started = started.clone();
        async move {
            let _ = started.send(()).await;
            responder.cancelled().await;
            Ok(())
        }
    };
    mesh.node("e").handle(directive("slow:work"), wait).unwrap();
    let call = mesh.node("c").call(&id("e"), directive("slow:work")).await.unwrap();
    begun.recv().await.unwrap();
    let pong = mesh.node("c").ping(&id("e")).await.unwrap();
    assert_eq!(pong.active_work.len(), 1);
    assert_eq!(pong.active_work[0].sender, id("c"));
    assert_eq!(pong.active_work[0].directive, directive("slow:work"));
    call.cancel();
    while !mesh.node("c").ping(&id("e")).await.unwrap().active_work.is_empty() {}
}

/// The driver is busy with more requests than its queue holds while a directive is registered.
#[tokio::test(start_paused = true)]
async fn a_directive_registered_while_the_node_is_busy_is_advertised() {
    let mesh = mesh(["c-e"]).await;
    let (c, e) = (mesh.node("c"), mesh.node("e"));
    let mut busy = tokio::task::JoinSet::new();
    for _ in 0..1_100 {
        let node = e.clone();
        busy.spawn(async move { node.status().await.is_ok() });
    }
    // The requests are queued in this turn of the runtime, and answered in the next one.
    tokio::task::yield_now().await;
    e.handle(directive("late:work"), async |_, _| Ok(())).unwrap();
    busy.join_all().await;
    mesh.converge().await;
    let advertised = async || {
        let routes = c.status().await.unwrap().routes;
        routes.iter().any(|route| route.directives.iter().any(|directive| directive == "late:work"))
    };
    let waited = async {
        while !advertised().await {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), waited)
        .await
        .expect("it is advertised");
}
