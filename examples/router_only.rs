//! Three routers joined by hand: no async, no sockets, no TLS.
//!
//! `cargo run --no-default-features --example router_only`

use std::error::Error;
use std::time::{Duration, Instant};

use receptor_quic::NodeId;
use receptor_quic::id::Cost;
use receptor_quic::router::{Config, Message, NeighbourKind, Router, SessionUp};

fn main() -> Result<(), Box<dyn Error>> {
    // A router never looks at a clock. Whoever drives it does, or makes the time up.
    #[expect(clippy::disallowed_methods, reason = "the driver reads the clock")]
    let mut now = Instant::now();
    let mut routers = Vec::new();
    for (number, name) in (1..).zip(["controller", "relay", "edge"]) {
        // Epoch, instance and seed come from outside too: a program draws them at random.
        routers.push(Router::new(Config::new(NodeId::try_from(name)?, 1, number, number), now));
    }

    // The controller and the relay have a link, and so have the relay and the edge.
    for (a, b, cost) in [(0, 1, 1), (1, 2, 4)] {
        for (me, other) in [(a, b), (b, a)] {
            let (neighbour, instance) =
                (routers[other].id().clone(), routers[other].version().instance);
            let up = SessionUp {
                neighbour,
                instance,
                cost: Cost::try_from(cost)?,
                kind: NeighbourKind::Full,
            };
            routers[me].handle_session_up(up, now)?;
        }
    }

    // The whole of a driver: drain, deliver, sleep until the next deadline. Here, for a second of
    // made-up time.
    let end = now + Duration::from_secs(1);
    while now < end {
        let mut mail = Vec::new();
        for router in &mut routers {
            let from = router.id().clone();
            while let Some(transmit) = router.poll_transmit() {
                // Messages are bytes on a real link.
                mail.push((from.clone(), transmit.to.clone(), transmit.message.encode()));
                router.handle_writable(&transmit.to, now);
            }
            while router.poll_event().is_some() {}
        }
        for (from, to, frame) in &mail {
            let router =
                routers.iter_mut().find(|router| router.id() == to).ok_or("no such router")?;
            if let Some(message) = Message::decode(frame)? {
                router.handle_message(from, message, now)?;
            }
        }
        if mail.is_empty() {
            let deadlines = routers.iter().filter_map(Router::poll_timeout);
            now = deadlines.map(|deadline| deadline.at).min().unwrap_or(end).max(now);
            routers.iter_mut().for_each(|router| router.handle_timeout(now));
        }
    }

    for router in &routers {
        print(router);
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "this is what the example is for")]
fn print(router: &Router) {
    println!("{}, version {}", router.id(), router.version());
    for route in router.table().iter() {
        println!("    {:12} cost {} over {:?}", route.id, route.cost, route.next_hops);
    }
}
