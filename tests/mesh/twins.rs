//! Two nodes with the same id and certificate authority that have no neighbour in common.

use std::time::Duration;

use receptor_quic::testing::mesh;
use receptor_quic::{Event, Events, Node, NotLinked, OpenError};

use tokio::time::timeout;

use crate::support::{id, service, up_links};

/// How long a second `node0` at the opposite end of a ring of four may live on.
const LIMIT: Duration = Duration::from_secs(10);

#[tokio::test(start_paused = true)]
async fn a_second_node_at_the_opposite_end_of_a_ring_of_four_yields_and_both_say_so() {
    let mesh = mesh(["x-a", "a-b", "b-c", "c-x"]).await;
    let x = mesh.node("x");
    let mut events = x.events();
    let twin = mesh.joiner("x", &["b"]).start().await.unwrap();
    let mut twins_events = twin.events();
    let here = timeout(LIMIT, duplicate(&mut events)).await.unwrap();
    let there = timeout(LIMIT, duplicate(&mut twins_events)).await.unwrap();
    let Event::DuplicateId { node, keeps, yields, yielded: false } = here else {
        panic!("{here:?}")
    };
    assert_eq!(node, id("x"));
    // Both name both processes and their addresses.
    assert_eq!(
        there,
        Event::DuplicateId { node, keeps: keeps.clone(), yields: yields.clone(), yielded: true }
    );
    assert_eq!(keeps.address, Some(mesh.addr("x").to_string()));
    assert_eq!(yields.address, Some(twin.local_addrs()[0].to_string()));
    let status = x.status().await.unwrap();
    assert_eq!(keeps.instance, status.instance);
    let seen = status.duplicate.unwrap();
    assert_eq!(
        (seen.instance, seen.address, seen.yielded),
        (yields.instance, yields.address, false)
    );
    let status = twin.status().await.unwrap();
    let seen = status.duplicate.unwrap();
    assert_eq!((seen.instance, seen.address, seen.yielded), (keeps.instance, keeps.address, true));

    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(
        twin.status().await.unwrap().links.iter().all(|link| link.up_ms.is_none()),
        "no links, for good"
    );
    assert!(twin.status().await.unwrap().routes.is_empty());
    for node in [mesh.node("b"), x] {
        let mut links = up_links(node).await;
        links.sort();
        assert_eq!(links, ["a", "c"]);
    }
    for name in ["a", "b", "c"] {
        mesh.node(name).ping(&id("x")).await.unwrap();
        x.ping(&id(name)).await.unwrap();
    }
    while let Ok(event) = events.try_recv() {
        assert!(!matches!(event, Event::DuplicateId { .. }), "once is enough: {event:?}");
    }
    let to = mesh.addr("x").to_string();
    let error = twin.open(&id("a"), &service("echo")).await.unwrap_err();
    assert_eq!(error, OpenError::Yielded { to: to.clone() });
    assert_eq!(twin.yielded().await, Some(to.clone()));
    assert_eq!(twin.linked().await, Err(NotLinked::Yielded { to }));
    twin.shutdown().await;
    mesh.node("b").ping(&id("x")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn streams_that_are_being_opened_fail_with_the_reason_when_the_node_yields() {
    let mesh = mesh(["x-a", "a-b", "b-c", "c-x"]).await;
    let twin = mesh.joiner("x", &["b"]).start().await.unwrap();
    let opening = async {
        loop {
            // There is no such node: each attempt waits a second for it.
            match twin.open(&id("nobody"), &service("echo")).await.unwrap_err() {
                OpenError::NoRoute { .. } => {}
                error => return error,
            }
        }
    };
    let error = timeout(LIMIT, opening).await.unwrap();
    assert_eq!(error, OpenError::Yielded { to: mesh.addr("x").to_string() });
    assert!(error.to_string().contains("yielded its id to another live process"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn of_two_that_meet_when_a_partition_heals_the_larger_instance_yields() {
    let mesh = mesh(["x-a", "a-b", "b-c"]).await;
    let x = mesh.node("x");
    let (a, b) = (mesh.addr("a").ip(), mesh.addr("b").ip());
    mesh.network().cut(a, b);
    // Until nothing is left of x on the far side: the twin must not be late.
    tokio::time::sleep(Duration::from_secs(120)).await;
    let twin = mesh.joiner("x", &["c"]).start().await.unwrap();
    twin.linked().await.unwrap();
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(twin.status().await.unwrap().duplicate.is_none());
    let mut events = [x.events(), twin.events()];
    mesh.network().restore(a, b);
    for events in &mut events {
        timeout(Duration::from_secs(60), duplicate(events)).await.unwrap();
    }
    let instance = async |node: &Node| node.status().await.unwrap().instance;
    let twin_yields = instance(&twin).await > instance(x).await;
    for (node, yields) in [(x, !twin_yields), (&twin, twin_yields)] {
        assert_eq!(node.status().await.unwrap().duplicate.unwrap().yielded, yields);
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(up_links(node).await.is_empty(), yields);
    }
    mesh.node("b").ping(&id("x")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_node_that_restarts_again_and_again_never_yields() {
    let mut mesh = mesh(["x-a", "x-b", "a-b"]).await;
    let mut events = mesh.node("a").events();
    for pause in [0, 100, 1_000, 3_000, 10_000] {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        mesh.kill("x");
        mesh.restart("x", &["a", "b"]).await;
    }
    mesh.converge().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(mesh.node("x").status().await.unwrap().duplicate.is_none());
    assert_eq!(up_links(mesh.node("x")).await.len(), 2);
    while let Ok(event) = events.try_recv() {
        assert!(!matches!(event, Event::DuplicateId { .. }), "{event:?}");
    }
}

async fn duplicate(events: &mut Events) -> Event {
    loop {
        let event = events.recv().await.unwrap();
        if matches!(event, Event::DuplicateId { .. }) {
            return event;
        }
    }
}
