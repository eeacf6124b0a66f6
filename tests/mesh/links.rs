//! Duplicates, restarts, twins, refusals.

use std::time::Duration;

use receptor_quic::testing::{LinkQuality, Mesh, Network, mesh};
use receptor_quic::transport::RefusalReason;
use receptor_quic::{Authority, Event, Node, NotLinked};
use tokio::time::Instant;

use crate::support::{id, up_links};

#[tokio::test(start_paused = true)]
async fn two_nodes_that_dial_each_other_keep_one_link() {
    let mesh = mesh(["a-b", "b-a"]).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    for (name, other) in [("a", "b"), ("b", "a")] {
        let status = mesh.node(name).status().await.unwrap();
        assert_eq!(status.links.len(), 1, "{:#?}", status.links);
        assert_eq!(up_links(mesh.node(name)).await, [other]);
    }
    mesh.node("a").ping(&id("b")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_restarted_node_takes_its_place_at_once() {
    for restarted in ["a", "r"] {
        let mut mesh = mesh(["a-r", "b-r"]).await;
        mesh.kill(restarted);
        // The neighbours have not noticed yet when the new process comes.
        let start = Instant::now();
        match restarted {
            "a" => mesh.restart("a", &["r"]).await,
            _ => mesh.restart_in_place("r", &[]).await,
        }
        mesh.converge().await;
        let took = start.elapsed();
        assert!(took < Duration::from_secs(5), "{restarted} took {took:?}");
        mesh.node("a").ping(&id("b")).await.unwrap();
        mesh.node("b").ping(&id("a")).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_live_node_with_the_same_id_is_refused_by_the_neighbour() {
    let mesh = mesh(["a-r", "b-r"]).await;
    let mut events = mesh.node("r").events();
    let twin = mesh.joiner("a", &["r"]).start().await.unwrap();
    let seen = async {
        loop {
            if let Event::DuplicateId { node, keeps, yields, yielded: false } =
                events.recv().await.unwrap()
            {
                return (node, keeps, yields);
            }
        }
    };
    let (node, keeps, yields) = seen.await;
    assert_eq!(node, id("a"));
    assert_eq!(keeps.address, Some(mesh.addr("a").to_string()));
    assert_eq!(yields.address, Some(twin.local_addrs()[0].to_string()));
    assert_ne!(keeps.instance, yields.instance);
    mesh.node("b").ping(&id("a")).await.unwrap();
    assert_eq!(up_links(mesh.node("a")).await, ["r"]);
    assert_eq!(up_links(&twin).await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_stranger_is_refused_and_both_ends_say_why() {
    let mesh = mesh(["r"]).await;
    let mut events = mesh.node("r").events();
    let stranger = Authority::new("another", 1).unwrap().issue(&id("x"), 1).unwrap();
    let builder = mesh.joiner("x", &["r"]);
    drop(builder);
    let node = Node::builder(id("x"), stranger)
        .socket(mesh.network().bind_host())
        .peer(mesh.addr("r"))
        .start()
        .await
        .unwrap();
    let NotLinked::Refused(refusals) = node.linked().await.unwrap_err() else {
        panic!("shut down")
    };
    assert_eq!(refusals[0].1.reason, RefusalReason::UnknownCa);
    // The dialler refuses the relay's certificate first, and tells it so.
    let event = events.recv().await.unwrap();
    assert!(
        matches!(&event, Event::LinkRefused { why, .. } if why.reason == RefusalReason::UnknownCa),
        "{event:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_dialler_that_expects_another_node_refuses_and_names_both() {
    let mesh = mesh(["r"]).await;
    let identity = mesh.authority().issue(&id("x"), 1).unwrap();
    let peer = format!("somebody@{}", mesh.addr("r")).parse::<receptor_quic::PeerAddr>().unwrap();
    let node = Node::builder(id("x"), identity)
        .socket(mesh.network().bind_host())
        .peer(peer)
        .start()
        .await
        .unwrap();
    let NotLinked::Refused(refusals) = node.linked().await.unwrap_err() else {
        panic!("shut down")
    };
    let text = refusals[0].1.to_string();
    assert!(text.contains("somebody") && text.contains('r'), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_node_reloads_its_certificate_without_dropping_links() {
    let mesh = mesh(["a-r", "b-r"]).await;
    let a = mesh.node("a");
    let renewed = mesh.authority().issue(&id("a"), 7).unwrap();
    let fingerprint = renewed.fingerprint().to_string();
    a.reload(renewed).await.unwrap();
    let status = a.status().await.unwrap();
    assert_eq!(status.certificate.fingerprint, fingerprint);
    assert_eq!(up_links(a).await, ["r"]);
    a.ping(&id("b")).await.unwrap();
    let other = mesh.authority().issue(&id("c"), 7).unwrap();
    assert!(a.reload(other).await.is_err(), "another node's certificate");
}

#[tokio::test(start_paused = true)]
async fn a_deny_list_closes_live_links_at_reload() {
    let mesh = mesh(["a-r", "b-r"]).await;
    let r = mesh.node("r");
    let identity = mesh.authority().issue(&id("r"), 1).unwrap();
    let trust = identity.trust().clone().with_denied([id("a")]);
    r.reload(identity.with_trust(trust)).await.unwrap();
    let mut events = r.events();
    while up_links(r).await != ["b"] {
        events.recv().await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(up_links(r).await, ["b"], "and it stays out");
    assert!(mesh.node("b").ping(&id("a")).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_twin_is_told_why_and_the_live_node_keeps_its_link() {
    let mesh = mesh(["a-r", "b-r"]).await;
    let mut events = mesh.node("a").events();
    let twin = mesh.joiner("a", &["r"]).ephemeral(true).start().await.unwrap();
    let NotLinked::Refused(refusals) = twin.linked().await.unwrap_err() else {
        panic!("shut down")
    };
    assert_eq!(refusals[0].1.reason, RefusalReason::DuplicateId);
    let twin = mesh.joiner("a", &["r"]).start().await.unwrap();
    assert!(twin.linked().await.is_err());
    let status = twin.status().await.unwrap();
    let seen = status.duplicate.unwrap();
    let live = mesh.node("a").status().await.unwrap();
    assert_eq!((seen.instance, seen.refused, seen.yielded), (live.instance, true, false));
    assert_eq!(seen.address, Some(mesh.addr("a").to_string()));
    let trouble = status.links[0].last_error.clone().unwrap();
    assert!(trouble.contains("another live node has this id"), "{trouble}");
    tokio::time::sleep(Duration::from_secs(60)).await;
    // The live node keeps its link, and is informed once of each second process.
    let mut reports = Vec::new();
    while let Ok(event) = events.try_recv() {
        let Event::DuplicateId { node, keeps, yielded: false, .. } = event else {
            panic!("{event:?}")
        };
        assert_eq!((&node, &keeps.address), (&id("a"), &Some(mesh.addr("a").to_string())));
        reports.push(keeps);
    }
    assert_eq!(reports.len(), 2, "{reports:?}");
    let seen = mesh.node("a").status().await.unwrap().duplicate.unwrap();
    assert!(seen.address.is_some() && !seen.refused && !seen.yielded, "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_twin_is_back_when_the_other_one_is_gone() {
    let mut mesh = mesh(["a-r", "b-r"]).await;
    let twin = mesh.joiner("a", &["r"]).start().await.unwrap();
    assert!(twin.linked().await.is_err());
    tokio::time::sleep(Duration::from_secs(100)).await;
    mesh.node("a").clone().shutdown().await;
    mesh.kill("a");
    tokio::time::timeout(Duration::from_secs(31), twin.routable(&id("b"))).await.unwrap().unwrap();
    twin.ping(&id("b")).await.unwrap();
    assert_eq!(twin.status().await.unwrap().duplicate, None);
}

#[tokio::test]
async fn a_node_that_does_not_listen_takes_no_links() {
    let authority = Authority::new("dials only", 1).unwrap();
    let start = async |name: &str, peer: Option<&Node>| {
        let mut builder = Node::builder(id(name), authority.issue(&id(name), 1).unwrap());
        if let Some(peer) = peer {
            let port = peer.local_addrs()[0].port();
            builder = builder.peer(std::net::SocketAddr::from(([127, 0, 0, 1], port)));
        }
        builder.start().await.unwrap()
    };
    let quiet = start("quiet", None).await;
    let caller = start("caller", Some(&quiet)).await;
    // Nothing comes back, as from a port where nobody is.
    assert!(tokio::time::timeout(Duration::from_millis(500), caller.linked()).await.is_err());
}

/// Both ends dial, packets are lost and overtake each other: in the end both use the same link, and
/// keep it.
#[tokio::test(start_paused = true)]
async fn two_nodes_that_dial_each_other_over_rough_links_agree_on_one() {
    for seed in 0..40 {
        let network = Network::new(seed);
        network.set_default(LinkQuality {
            latency: Duration::from_millis(20),
            jitter: Duration::from_millis(60),
            reorder: true,
            loss: 0.05,
            ..LinkQuality::default()
        });
        let mesh = Mesh::on(network, ["a-b", "b-a"]).await;
        let mut events = mesh.node("a").events();
        tokio::time::sleep(Duration::from_secs(90)).await;
        for (name, other) in [("a", "b"), ("b", "a")] {
            let links = mesh.node(name).status().await.unwrap().links;
            assert_eq!(links.len(), 1, "seed {seed}: {links:#?}");
            assert_eq!(up_links(mesh.node(name)).await, [other], "seed {seed}");
        }
        while let Ok(event) = events.try_recv() {
            assert!(!matches!(event, Event::LinkDown { .. }), "seed {seed}: {event:?}");
        }
        mesh.node("a").ping(&id("b")).await.unwrap();
    }
}
