//! Streams that the application accepts or refuses, and codes of its own.

use std::future::poll_fn;
use std::pin::Pin;

use futures_core::Stream;
use receptor_quic::mesh::{EndReason, RefuseCode, RefusedOpen};
use receptor_quic::testing::mesh;
use receptor_quic::transport::code::StreamCode;
use receptor_quic::{OpenRequests, StreamError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    poll_fn(|cx| Pin::new(&mut *stream).poll_next(cx)).await
}

fn refusal(error: StreamError) -> RefusedOpen {
    match error.ending().expect("the stream has ended").why {
        EndReason::Refused(why) => why,
        other => unreachable!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_is_accepted_or_refused_with_a_code_and_a_text() {
    // Over a relay, as well as between neighbours.
    for names in [&["a-b"][..], &["a-r", "b-r"]] {
        let mesh = mesh(names.iter().copied()).await;
        let mut requests = mesh.node("b").serve_requests("upload").unwrap();
        let mut opened = mesh.node("a").open("b", "upload").await.unwrap();
        opened.write_all(b"sent before the answer").await.unwrap();
        opened.shutdown().await.unwrap();
        let request = requests.next().await.unwrap();
        assert_eq!((request.peer().as_str(), request.service().as_str()), ("a", "upload"));
        // Not accepted before the application says so.
        let early = tokio::time::timeout(std::time::Duration::from_secs(2), opened.accepted());
        early.await.unwrap_err();
        let mut accepted = request.accept().await.unwrap();
        opened.accepted().await.unwrap();
        let mut text = String::new();
        accepted.stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "sent before the answer");

        let mut opened = mesh.node("a").open("b", "upload").await.unwrap();
        let refused = RefusedOpen::new(RefuseCode::Application(7)).with_text("1 GiB a day");
        next(&mut requests).await.unwrap().refuse(refused.clone()).await;
        assert_eq!(refusal(opened.accepted().await.unwrap_err()), refused);
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_request_resets_the_stream() {
    let mesh = mesh(["a-b"]).await;
    let mut requests: OpenRequests = mesh.node("b").serve_requests("upload").unwrap();
    let mut opened = mesh.node("a").open("b", "upload").await.unwrap();
    drop(requests.next().await.unwrap());
    let error = opened.accepted().await.unwrap_err();
    assert!(matches!(error, StreamError::Reset { code: StreamCode::Dropped, .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_service_admits_callers_by_a_function() {
    let mesh = mesh(["a-b", "c-b"]).await;
    let mut listener = mesh
        .node("b")
        .serve_if("logs", |caller| match caller.as_str() {
            "a" => Ok(()),
            _ => Err(RefusedOpen::new(RefuseCode::NotAllowed).with_text("ask an operator")),
        })
        .unwrap();
    // Repeated: from the second stream on, the header is recognised without parsing it.
    for _ in 0..3 {
        let mut admitted = mesh.node("a").open("b", "logs").await.unwrap();
        admitted.accepted().await.unwrap();
        let mut refused = mesh.node("c").open("b", "logs").await.unwrap();
        let why = refusal(refused.accepted().await.unwrap_err());
        assert_eq!((why.code, &*why.text), (RefuseCode::NotAllowed, "ask an operator"));
        assert_eq!(next(&mut listener).await.unwrap().peer.as_str(), "a");
    }
}

#[tokio::test(start_paused = true)]
async fn an_application_resets_and_stops_with_codes_of_its_own() {
    let mesh = mesh(["a-b"]).await;
    let mut listener = mesh.node("b").serve("s").unwrap();
    let mut opened = mesh.node("a").open("b", "s").await.unwrap();
    let mut incoming = listener.accept().await.unwrap();
    opened.accepted().await.unwrap();
    incoming.stream.send.reset(StreamCode::Application(u32::MAX));
    incoming.stream.recv.stop(StreamCode::Application(5));
    let error = opened.recv.read_chunk(1).await.unwrap_err();
    let code = StreamCode::Application(u32::MAX);
    assert!(matches!(error, StreamError::Reset { code: seen, .. } if seen == code), "{error:?}");
    assert_eq!(opened.send.stopped().await.unwrap(), Some(StreamCode::Application(5)));
}

#[tokio::test(start_paused = true)]
async fn responses_and_events_are_streams() {
    let mesh = mesh(["a-b"]).await;
    let (a, b) = (mesh.node("a"), mesh.node("b"));
    b.handle("text:count", async |_, responder| {
        for n in 0..3_u8 {
            responder.send(vec![n].into()).await?;
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
        Ok(())
    })
    .unwrap();
    let mut events = a.events();
    let mut call = a.call("b", "text:count").await.unwrap();
    call.payload.finish();
    let mut bodies = Vec::new();
    while let Some(response) = next(&mut call).await {
        bodies.extend_from_slice(&response.unwrap().body);
    }
    assert_eq!(bodies, [0, 1, 2]);

    b.shutdown().await;
    let mut seen = 0;
    while let Some(event) = next(&mut events).await {
        event.unwrap();
        seen += 1;
        if seen == 1 {
            a.shutdown().await;
        }
    }
    assert!(seen > 0);
    assert!(next(&mut events).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_responses_ends_with_the_error_of_the_call() {
    let mesh = mesh(["a-b"]).await;
    mesh.node("b").handle("text:hang", async |_, _| std::future::pending().await).unwrap();
    let options = receptor_quic::CallOptions {
        deadline: Some(std::time::Duration::from_secs(3)),
        ..receptor_quic::CallOptions::default()
    };
    let mut call = mesh.node("a").call_with("b", "text:hang", options).await.unwrap();
    call.payload.finish();
    let error = next(&mut call).await.unwrap().unwrap_err();
    assert_eq!(error, receptor_quic::CallError::Deadline);
    assert!(next(&mut call).await.is_none());
    assert_eq!(call.next().await, Err(receptor_quic::CallError::Deadline));
}
