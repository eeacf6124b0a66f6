//! Typed calls, long replies, and handlers that come and go.

use receptor_quic::testing::mesh;
use receptor_quic::work::{Code, MAX_RESPONSE, MAX_RPC};
use receptor_quic::{CallError, HandlerError, NodeId, RpcError};

#[tokio::test(start_paused = true)]
async fn a_typed_call_returns_what_the_function_returns() {
    let mesh = mesh(["a-r", "b-r"]).await;
    let join = async |caller: NodeId, (words, sep): (Vec<String>, char)| {
        if words.is_empty() {
            return Err(HandlerError::new("no words"));
        }
        Ok((caller, words.join(&sep.to_string())))
    };
    mesh.node("b").serve_rpc("text:join", join).unwrap();
    let a = mesh.node("a");
    let joined: (String, String) = a.rpc("b", "text:join", &(["x", "y"], '-')).await.unwrap();
    assert_eq!(joined, ("a".to_owned(), "x-y".to_owned()));

    let failed = a.rpc::<_, (String, String)>("b", "text:join", &([""; 0], '-')).await.unwrap_err();
    let RpcError::Call(CallError::Failed { code: Code::Failed, error, .. }) = &failed else {
        panic!("{failed:?}")
    };
    assert!(error == "no words" && failed.may_have_started());
    let bad = a.rpc::<_, String>("b", "text:join", "no tuple").await.unwrap_err();
    assert!(bad.to_string().contains("cannot decode the request"), "{bad}");
    let other = a.rpc::<_, u64>("b", "text:join", &(["x"], '-')).await.unwrap_err();
    assert!(matches!(other, RpcError::Decode(_)), "{other:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_too_long_for_a_typed_call_is_not_sent() {
    let mesh = mesh(["a-b"]).await;
    let (a, b) = (mesh.node("a"), mesh.node("b"));
    let fill = async |_: NodeId, len: usize| Ok::<_, HandlerError>("x".repeat(len));
    b.serve_rpc("text:fill", fill).unwrap();
    let long: String = a.rpc("b", "text:fill", &(MAX_RPC - 5)).await.unwrap();
    assert_eq!(long.len(), MAX_RPC - 5);
    let error = a.rpc::<_, String>("b", "text:fill", &MAX_RPC).await.unwrap_err();
    assert!(error.to_string().contains("the maximum is 1048576"), "{error}");
    let error = a.rpc::<_, String>("b", "text:fill", &"x".repeat(MAX_RPC)).await.unwrap_err();
    assert_eq!(error, RpcError::TooLong { len: MAX_RPC + 5 });
    assert!(!error.may_have_started());
}

#[tokio::test(start_paused = true)]
async fn a_reply_may_have_any_length() {
    let mesh = mesh(["a-b"]).await;
    let reply = async |_, responder: receptor_quic::Responder| {
        Ok(responder.reply(vec![7; 3 * MAX_RESPONSE + 1]).await?)
    };
    mesh.node("b").handle("test:long", reply).unwrap();
    let mut call = mesh.node("a").call("b", "test:long").await.unwrap();
    call.payload.finish();
    let mut lengths = Vec::new();
    while let Some(response) = call.next().await.unwrap() {
        lengths.push((response.body.len(), response.last));
    }
    let whole = (MAX_RESPONSE, false);
    assert_eq!(lengths, [whole, whole, whole, (1, true)]);
}

#[tokio::test(start_paused = true)]
async fn a_handler_is_removed_and_may_be_registered_again() {
    let mesh = mesh(["a-b"]).await;
    let (a, b) = (mesh.node("a"), mesh.node("b"));
    for _ in 0..2 {
        b.serve_rpc("test:one", async |_, ()| Ok::<_, HandlerError>(1)).unwrap();
        assert_eq!(a.rpc("b", "test:one", &()).await, Ok(1));
        assert_eq!(b.remove_handler("test:one"), Ok(true));
        let gone = a.rpc::<_, i32>("b", "test:one", &()).await;
        assert_eq!(gone, Err(RpcError::Call(CallError::UnknownDirective)));
    }
    assert_eq!(b.remove_handler("receptor:ping"), Ok(false));
    a.ping("b").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_node_runs_no_more_calls_than_it_is_set_to() {
    let mesh = mesh(["r"]).await;
    let busy = mesh.joiner("busy", &["r"]).max_running_calls(0).start().await.unwrap();
    busy.handle("test:ok", async |_, _| Ok(())).unwrap();
    let r = mesh.node("r");
    r.routable("busy").await.unwrap();
    let refused = r.call("busy", "test:ok").await.unwrap().collect(1).await;
    assert_eq!(refused, Err(CallError::Overloaded));
    r.ping("busy").await.unwrap();
}
