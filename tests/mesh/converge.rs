//! A node waits until all others have its route.

use std::time::Duration;

use receptor_quic::testing::{Mesh, mesh};
use receptor_quic::{Convergence, Node};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::support::id;

const WITHIN: Duration = Duration::from_secs(10);

async fn row_of_four() -> Mesh {
    mesh(["n1-n2", "n2-n3", "n3-n4"]).await
}

#[tokio::test(start_paused = true)]
async fn the_last_joiner_of_a_row_hears_when_all_have_its_route() {
    let mesh = row_of_four().await;
    let start = Instant::now();
    let last = mesh.joiner("n5", &["n4"]).start().await.unwrap();
    last.linked().await.unwrap();
    assert_eq!(last.converged(WITHIN).await, Ok(Convergence::Converged { count: 5 }));
    for node in mesh.nodes() {
        assert!(
            node.status().await.unwrap().routes.iter().any(|route| route.node == id("n5")),
            "{node:?}"
        );
    }
    assert!(start.elapsed() < WITHIN, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn start_waits_if_it_is_told_to() {
    let mesh = row_of_four().await;
    let last = mesh.joiner("n5", &["n4"]).wait_converged(WITHIN).start().await.unwrap();
    for node in mesh.nodes() {
        assert!(
            node.status().await.unwrap().routes.iter().any(|route| route.node == id("n5")),
            "{node:?}"
        );
    }
    last.ping(&id("n1")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn start_does_not_fail_for_want_of_a_mesh() {
    let mesh = row_of_four().await;
    mesh.network().isolate(mesh.addr("n4").ip());
    let start = Instant::now();
    let node =
        mesh.joiner("n5", &["n4"]).wait_converged(Duration::from_secs(2)).start().await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 2);
    assert_eq!(
        node.converged(WITHIN).await,
        Ok(Convergence::Converged { count: 1 }),
        "it is all of its mesh"
    );
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_nobody_has_noticed_yet_is_waited_for_to_the_end() {
    let mesh = row_of_four().await;
    mesh.network().isolate(mesh.addr("n4").ip());
    let start = Instant::now();
    let verdict = mesh.node("n1").converged(Duration::from_secs(1)).await;
    assert_eq!(start.elapsed().as_secs(), 1);
    assert!(
        matches!(verdict, Ok(Convergence::Partial { count: 1..=3, expected: 4 })),
        "{verdict:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stub_has_its_neighbour_ask() {
    let mesh = row_of_four().await;
    let stub = mesh.joiner("stub", &["n1"]).ephemeral(true).start().await.unwrap();
    let (early, other) = tokio::join!(stub.converged(WITHIN), stub.converged(WITHIN));
    assert_eq!(early, Ok(Convergence::Converged { count: 4 }), "it waits for the link, too");
    assert_eq!(other, early);
    for node in mesh.nodes() {
        let start = Instant::now();
        node.ping(&id("stub")).await.unwrap();
        assert!(start.elapsed() < Duration::from_millis(100), "{node:?}: {:?}", start.elapsed());
    }
    mesh.network().isolate(mesh.addr("n4").ip());
    let verdict = stub.converged(Duration::from_secs(1)).await;
    assert!(
        matches!(verdict, Ok(Convergence::Partial { count: 1..=3, expected: 4 })),
        "{verdict:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_short_wait_of_a_stub_does_not_end_a_long_one() {
    for short_first in [true, false] {
        let mesh = row_of_four().await;
        let stub = mesh.joiner("stub", &["n1"]).ephemeral(true).start().await.unwrap();
        stub.linked().await.unwrap();
        mesh.network().isolate(mesh.addr("n4").ip());
        let wait = async |short: bool| {
            if short != short_first {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            let start = Instant::now();
            let within = if short { Duration::from_secs(1) } else { Duration::from_secs(60) };
            (stub.converged(within).await.unwrap(), start.elapsed())
        };
        let ((short, took), (long, _)) = tokio::join!(wait(true), wait(false));
        assert!(matches!(short, Convergence::Partial { .. }), "{short:?}");
        assert!(took < Duration::from_secs(3), "{took:?}");
        // The loss of n4 is noticed within seconds, and then all that are left have the route.
        assert_eq!(long, Convergence::Converged { count: 3 }, "short first: {short_first}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stub_whose_neighbour_is_gone_is_told_at_the_end() {
    let mesh = row_of_four().await;
    let stub = mesh.joiner("stub", &["n1"]).ephemeral(true).start().await.unwrap();
    stub.linked().await.unwrap();
    mesh.network().isolate(mesh.addr("n1").ip());
    let verdict = stub.converged(Duration::from_secs(1)).await;
    assert!(matches!(verdict, Ok(Convergence::Partial { count: 0, .. })), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_nobody_waits_for_any_more_makes_room() {
    let mesh = row_of_four().await;
    mesh.network().isolate(mesh.addr("n4").ip());
    let node = mesh.node("n1");
    for _ in 0..1_100 {
        let gone = timeout(Duration::from_micros(1), node.converged(WITHIN)).await;
        assert!(gone.is_err());
    }
    let verdict = node.converged(Duration::from_secs(1)).await;
    assert!(matches!(verdict, Ok(Convergence::Partial { .. })), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_shut_down_does_not_ask() {
    let mesh = mesh(["n"]).await;
    mesh.node("n").shutdown().await;
    assert!(mesh.node("n").converged(WITHIN).await.is_err());
}

/// A hub with so many ephemerals that it publishes its routes every few milliseconds at most.
async fn hub_with_stubs() -> (Mesh, Vec<Node>) {
    let mesh = mesh(["b-hub", "c-hub", "d-b"]).await;
    let mut starting = JoinSet::new();
    for nth in 0..160 {
        let stub = mesh.joiner(&format!("s{nth}"), &["hub"]).ephemeral(true).direct(false);
        starting.spawn(async move { stub.start().await.unwrap() });
    }
    let stubs = starting.join_all().await;
    for stub in &stubs {
        stub.linked().await.unwrap();
    }
    (mesh, stubs)
}

/// Whether `node` has the route to `to` in use at this moment.
async fn routes(node: &Node, to: &str) -> bool {
    // It is polled before the timer, and virtual time stands still meanwhile.
    timeout(Duration::ZERO, node.routable(&id(to))).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn a_route_that_a_node_vouches_for_is_in_use_there() {
    let (mesh, _stubs) = hub_with_stubs().await;
    let mut joining = JoinSet::new();
    for nth in 0..24_u64 {
        let name = format!("n{nth}");
        let builder = mesh.joiner(&name, &[["b", "c", "d"][nth as usize % 3]]).direct(false);
        let others = ["hub", "b", "c", "d"].map(|other| mesh.node(other).clone());
        joining.spawn(async move {
            // Joins come faster than the hub publishes.
            tokio::time::sleep(Duration::from_millis(100) + Duration::from_micros(nth * 700)).await;
            let node = builder.start().await.unwrap();
            node.linked().await.unwrap();
            let verdict = node.converged(WITHIN).await.unwrap();
            let heard = matches!(verdict, Convergence::Converged { count } if count >= 5);
            assert!(heard, "{name}: {verdict:?}");
            for other in &others {
                assert!(routes(other, &name).await, "{} has no route to {name}", other.id());
            }
            node
        });
    }
    joining.join_all().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_hears_a_verdict_uses_the_routes_that_it_counts() {
    let (mesh, _stubs) = hub_with_stubs().await;
    let names: Vec<_> = (0..24).map(|nth| format!("n{nth}")).collect();
    let mut joining = JoinSet::new();
    for (nth, name) in (0..).zip(&names) {
        let builder = mesh.joiner(name, &[["b", "c", "d"][nth as usize % 3]]).direct(false);
        joining.spawn(async move {
            tokio::time::sleep(Duration::from_millis(100) + Duration::from_micros(nth * 700)).await;
            builder.start().await.unwrap()
        });
    }
    let hub = mesh.node("hub");
    let mut all = 0;
    while all < names.len() as u64 + 4 {
        let Ok(Convergence::Converged { count }) = hub.converged(WITHIN).await else {
            continue;
        };
        let mut in_use = 1;
        for name in names.iter().map(String::as_str).chain(["b", "c", "d"]) {
            in_use += u64::from(routes(hub, name).await);
        }
        assert!(in_use >= count, "{count} nodes have the route, and {in_use} have one from here");
        all = count;
    }
    joining.join_all().await;
}
