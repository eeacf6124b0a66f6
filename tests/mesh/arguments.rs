//! Names, directives and addresses given as text.

use receptor_quic::id::{InvalidDirective, InvalidName};
use receptor_quic::mesh::InvalidPeerAddr;
use receptor_quic::testing::mesh;
use receptor_quic::transport::InvalidListenAddr;
use receptor_quic::work::RegisterError;
use receptor_quic::work::unit::SubmitError;
use receptor_quic::{
    Authority, CallError, Cost, ListenAddr, LookupError, Node, NodeBuilder, NodeId, OpenError,
    ServeError, StartError,
};

#[tokio::test(start_paused = true)]
async fn text_is_parsed_wherever_a_name_is_expected() {
    let mesh = mesh(["a-b"]).await;
    let (a, b) = (mesh.node("a"), mesh.node("b"));
    let mut listener = b.serve("s").unwrap();
    let _stream = a.open("b", "s").await.unwrap();
    assert_eq!(listener.accept().await.unwrap().peer, *a.id());
    // What is parsed already is accepted as well, by value and by reference.
    drop(a.open(b.id(), listener.name()).await.unwrap());
    drop(a.open(b.id().clone(), String::from("s")).await.unwrap());
    b.handle("test:ok", async |_, _| Ok(())).unwrap();
    assert_eq!(a.call("b", "test:ok").await.unwrap().collect(1).await, Ok(bytes::Bytes::new()));
    let unknown = a.call("b", "test:unknown").await.unwrap().collect(1).await;
    assert_eq!(unknown, Err(CallError::UnknownDirective));
    a.ping("b").await.unwrap();
    a.routable("b").await.unwrap();
    a.explain("b").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn invalid_text_is_an_error_of_the_operation() {
    let mesh = mesh(["a-b"]).await;
    let a = mesh.node("a");
    let invalid = || "b c".parse::<NodeId>().unwrap_err();
    assert!(
        matches!(invalid(), InvalidName::BadCharacter { kind: "node id", text, .. } if text == "b c")
    );
    assert_eq!(a.open("b c", "s").await.unwrap_err(), OpenError::InvalidName(invalid()));
    let error = a.open("b", "").await.unwrap_err();
    assert_eq!(error, OpenError::InvalidName(InvalidName::Empty { kind: "service name" }));
    assert!(!error.is_transient());
    let no_colon = || InvalidDirective::NoColon { text: "ok".to_owned() };
    let error = a.call("b", "ok").await.unwrap_err();
    assert_eq!(error, OpenError::InvalidDirective(no_colon()));
    let error = a.handle("ok", async |_, _| Ok(())).unwrap_err();
    assert_eq!(error, RegisterError::InvalidDirective(no_colon()));
    assert!(matches!(a.serve("a/b"), Err(ServeError::InvalidName(_))));
    assert_eq!(a.routable("b c").await, Err(LookupError::InvalidName(invalid())));
    assert_eq!(a.explain("b c").await.unwrap_err(), LookupError::InvalidName(invalid()));
    let submitted = a.submit("b c", "test:ok", "").await;
    assert_eq!(submitted.unwrap_err(), SubmitError::InvalidName(invalid()));
}

#[tokio::test]
async fn a_node_does_not_start_with_invalid_text() {
    let ca = Authority::new("ca", 1).unwrap();
    let builder = || Node::builder("n", ca.issue("n", 1).unwrap());
    assert!(ca.issue("n n", 1).is_err());
    let error = async |builder: NodeBuilder| builder.start().await.unwrap_err();
    let other = Node::builder("n n", ca.issue("n", 1).unwrap()).one_shot();
    assert!(matches!(error(other).await, StartError::InvalidId(_)));
    let started = error(builder().peer("relay")).await;
    assert!(matches!(started, StartError::InvalidPeer(InvalidPeerAddr::NoPort(_))));
    let started = error(builder().cost_to("b c", Cost::DEFAULT)).await;
    assert_eq!(
        started.to_string(),
        "invalid argument of NodeBuilder::cost_to: \"b c\" is not a node id: ' ' at byte 1 is not allowed; use ASCII letters, digits and `._-:@`"
    );
    // The first mistake is the one that is reported.
    let started = error(builder().listen("localhost:0").peer("relay")).await;
    assert!(
        matches!(started, StartError::InvalidListen(InvalidListenAddr(text)) if text == "localhost:0")
    );
    builder()
        .listen("127.0.0.1:0")
        .peer("relay@localhost:7400")
        .start()
        .await
        .unwrap()
        .shutdown()
        .await;
}

#[test]
fn a_listen_address_without_an_ip_means_all_interfaces() {
    assert_eq!(":7400".parse(), Ok(ListenAddr::Any(7400)));
    assert_eq!("[::1]:0".parse(), Ok(ListenAddr::At(([0, 0, 0, 0, 0, 0, 0, 1], 0).into())));
    assert!("7400".parse::<ListenAddr>().is_err());
}
