//! The one background task: wakes when a datagram reaches a NAT, and lets the NAT decide.

use super::fabric::Fabric;
use std::{
    future::poll_fn,
    pin::pin,
    sync::{Arc, Mutex, Weak},
    task::{Poll, Waker, ready},
};
use tokio::time::{Instant, sleep_until};

/// Starts the task unless it runs.
pub(super) fn start(fabric: &Arc<Mutex<Fabric>>) {
    let pumped =
        std::mem::replace(&mut fabric.lock().expect("no holder of this lock panics").pumped, true);
    if !pumped {
        tokio::spawn(run(Arc::downgrade(fabric)));
    }
}

/// Ends with the network, which wakes it then.
async fn run(fabric: Weak<Mutex<Fabric>>) {
    let mut timer = pin!(sleep_until(Instant::now()));
    let pump = poll_fn(|cx| {
        loop {
            let Some(fabric) = fabric.upgrade() else { return Poll::Ready(()) };
            let (wakers, due, _stale_waker) = {
                let mut fabric = fabric.lock().expect("no holder of this lock panics");
                let wakers = fabric.advance(Instant::now());
                (wakers, fabric.transit.next_due(), fabric.transit.register(cx.waker()))
            };
            drop(fabric);
            wakers.into_iter().for_each(Waker::wake);
            let Some(due) = due else { return Poll::Pending };
            timer.as_mut().reset(due);
            ready!(timer.as_mut().poll(cx));
        }
    });
    pump.await;
}
