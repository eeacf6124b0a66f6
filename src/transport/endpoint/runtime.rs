//! The runtime under quinn: tokio's, with connection drivers that send larger batches.
//!
//! quinn has one task per connection, its driver, which sends what was written. This runtime
//! changes two things about it:
//!
//! **Writers run first.** A write wakes the driver, which is then queued ahead of the tasks that
//! have more to write. The acknowledgement of a new stream leaves alone, and the response of the
//! service a moment later in another packet, with another system call and another wake-up of the
//! peer. So on a runtime of one thread, a driver that is woken goes to the end of the run queue
//! [`ROUNDS`] times before it runs. If no other task is queued, that costs two empty polls.
//!
//! **No batch exceeds what the system accepts.** quinn puts ten packets into a batch regardless of
//! their size, but a send is limited to 64 KiB. The driver remembers the packet length of the last
//! batch.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use quinn::{AsyncTimer, AsyncUdpSocket, TokioRuntime};
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::transport::socket::MAX_SEND;

/// Number of times that a woken driver yields to the rest of the run queue: once for the task that
/// accepts a stream, once for those that it spawns.
const ROUNDS: u8 = 2;

thread_local! {
    /// Maximum packets per batch of the driver running on this thread; `None` if none runs.
    static BATCH: Cell<Option<usize>> = const { Cell::new(None) };
}

/// How many packets the next batch may have.
pub(in crate::transport) fn batch_limit() -> usize {
    BATCH.get().unwrap_or(usize::MAX)
}

/// Says how long the packets of a batch are, headers included.
pub(in crate::transport) fn note_batch(packet: usize) {
    if BATCH.get().is_some() {
        BATCH.set(Some((MAX_SEND / packet.max(1)).max(1)));
    }
}

/// The runtime that quinn runs on: the one that created the endpoint, regardless of the runtime
/// that connects or accepts later. A connection opened from another runtime does not end with that
/// runtime.
#[derive(Debug)]
pub(in crate::transport) struct Runtime {
    handle: Handle,
    /// Whether the endpoint's task was spawned, which comes first, and does not wait for anybody.
    endpoint: AtomicBool,
    rounds: u8,
}

impl Runtime {
    /// On the current tokio runtime.
    ///
    /// # Panics
    /// There is none.
    pub(in crate::transport) fn new() -> Self {
        // With several threads there are several queues, and yielding would wake other threads.
        let handle = Handle::current();
        let rounds = match handle.runtime_flavor() {
            RuntimeFlavor::CurrentThread => ROUNDS,
            _ => 0,
        };
        Self { handle, endpoint: AtomicBool::new(false), rounds }
    }
}

impl quinn::Runtime for Runtime {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        let _entered = self.handle.enter();
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        if self.endpoint.swap(true, Ordering::Relaxed) {
            self.handle.spawn(Driver::new(future, self.rounds));
        } else {
            self.handle.spawn(future);
        }
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let _entered = self.handle.enter();
        TokioRuntime.wrap_udp_socket(socket)
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

/// The task of one connection.
struct Driver {
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// How many packets a batch may have.
    batch: usize,
    /// How often it lets the others go first, each time, and still.
    rounds: u8,
    left: u8,
}

impl Driver {
    fn new(future: Pin<Box<dyn Future<Output = ()> + Send>>, rounds: u8) -> Self {
        Self { future, batch: usize::MAX, rounds, left: rounds }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.left > 0 {
            self.left -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.left = self.rounds;
        let outer = BATCH.replace(Some(self.batch));
        let polled = self.future.as_mut().poll(cx);
        self.batch = BATCH.replace(outer).unwrap_or(usize::MAX);
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::{Wake, Waker};

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_driver_that_is_woken_lets_the_others_go_first_and_asks_to_be_polled_again() {
        let polls = Arc::new(AtomicUsize::new(0));
        let counted = polls.clone();
        let future = std::future::poll_fn(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            Poll::<()>::Pending
        });
        let mut driver = Driver::new(Box::pin(future), ROUNDS);
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(wakes.clone());
        let mut cx = Context::from_waker(&waker);
        for woken in 1..=3 {
            for _ in 0..=ROUNDS {
                assert!(Pin::new(&mut driver).poll(&mut cx).is_pending());
            }
            assert_eq!(polls.load(Ordering::Relaxed), woken);
            assert_eq!(wakes.0.load(Ordering::Relaxed), woken * usize::from(ROUNDS));
        }
    }

    #[test]
    fn each_driver_remembers_how_many_of_its_packets_fit() {
        let driver = |packet: usize, fit: usize| {
            let mut first = true;
            let future = std::future::poll_fn(move |_| {
                assert_eq!(
                    batch_limit(),
                    if std::mem::take(&mut first) { usize::MAX } else { fit }
                );
                note_batch(packet);
                Poll::<()>::Pending
            });
            Driver::new(Box::pin(future), 0)
        };
        let mut drivers = [driver(8_978, 7), driver(1_478, 44)];
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..3 {
            for driver in &mut drivers {
                assert!(Pin::new(driver).poll(&mut cx).is_pending());
            }
        }
        note_batch(8_978);
        assert_eq!(batch_limit(), usize::MAX, "outside of drivers nothing is remembered");
    }
}
