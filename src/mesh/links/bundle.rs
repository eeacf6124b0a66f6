//! Several futures in one task.
//!
//! A link has four parts that wait for different things. As tasks of their own they were four
//! entries in the run queue when a connection ends, which wakes all of them; a hub that loses 4,000
//! links had 16,000 tasks to run before anything else. Here the first part that is woken queues the
//! task, and only the parts that were woken are polled.

use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use crate::sync::lock;

/// One of the futures of a bundle.
pub(crate) type Part = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Completes when all of its parts have. A part is dropped as soon as it completes.
pub(crate) struct Bundle<const N: usize> {
    parts: [Option<Part>; N],
    wakers: [Waker; N],
    /// The part that is polled first. It changes, since what a part uses of the task's budget of
    /// operations is not left for those behind it.
    first: usize,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// A bit for each part that was woken since it was last polled.
    woken: AtomicU8,
    task: Mutex<Waker>,
}

struct PartWaker {
    shared: Arc<Shared>,
    bit: u8,
}

impl Wake for PartWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Setting the first bit wakes the task, which takes all of them.
        if self.shared.woken.fetch_or(self.bit, Ordering::AcqRel) == 0 {
            lock(&self.shared.task).wake_by_ref();
        }
    }
}

impl<const N: usize> Bundle<N> {
    pub(crate) fn new(parts: [Part; N]) -> Self {
        const { assert!(N <= u8::BITS as usize, "a part is a bit") };
        let shared = Arc::new(Shared {
            woken: AtomicU8::new(((1_u16 << N) - 1) as u8),
            task: Mutex::new(Waker::noop().clone()),
        });
        let waker =
            |nth: usize| Arc::new(PartWaker { shared: Arc::clone(&shared), bit: 1 << nth }).into();
        Self { parts: parts.map(Some), wakers: std::array::from_fn(waker), first: 0, shared }
    }
}

impl<const N: usize> Future for Bundle<N> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        // Before the bits are taken: what is woken from then on wakes this waker.
        lock(&this.shared.task).clone_from(cx.waker());
        let woken = this.shared.woken.swap(0, Ordering::AcqRel);
        this.first = (this.first + 1) % N;
        for nth in (this.first..N).chain(0..this.first) {
            if woken & (1 << nth) != 0
                && let Some(part) = &mut this.parts[nth]
                && part.as_mut().poll(&mut Context::from_waker(&this.wakers[nth])).is_ready()
            {
                this.parts[nth] = None;
            }
        }
        if this.parts.iter().all(Option::is_none) { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::{Notify, oneshot};

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A part that counts its polls, and waits for `notify` again and again.
    fn counting(polls: &Arc<AtomicUsize>, notify: &Arc<Notify>) -> Part {
        let (polls, notify) = (Arc::clone(polls), Arc::clone(notify));
        Box::pin(async move {
            loop {
                polls.fetch_add(1, Ordering::Relaxed);
                notify.notified().await;
            }
        })
    }

    #[test]
    fn parts_that_are_woken_together_are_polled_once_in_one_task() {
        let polls: [Arc<AtomicUsize>; 4] = std::array::from_fn(|_| Arc::default());
        let notifies: [Arc<Notify>; 4] = std::array::from_fn(|_| Arc::default());
        let mut bundle = Bundle::new(std::array::from_fn::<_, 4, _>(|nth| {
            counting(&polls[nth], &notifies[nth])
        }));
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut cx = Context::from_waker(&waker);
        let counts = || polls.each_ref().map(|polls| polls.load(Ordering::Relaxed));
        assert!(Pin::new(&mut bundle).poll(&mut cx).is_pending());
        assert_eq!(counts(), [1; 4]);
        for notify in &notifies[1..] {
            notify.notify_one();
        }
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert!(Pin::new(&mut bundle).poll(&mut cx).is_pending());
        assert_eq!(counts(), [1, 2, 2, 2]);
        notifies[0].notify_one();
        assert_eq!(wakes.0.load(Ordering::Relaxed), 2);
        assert!(Pin::new(&mut bundle).poll(&mut cx).is_pending());
        assert_eq!(counts(), [2, 2, 2, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_is_always_busy_does_not_starve_another() {
        let (send, mut receive) = tokio::sync::mpsc::channel::<()>(1);
        let (answer, answered) = oneshot::channel();
        let parts: [Part; 2] = [
            // Endless operations, as those of a neighbour that floods its control stream.
            Box::pin(async {
                loop {
                    tokio::task::coop::consume_budget().await;
                }
            }),
            Box::pin(async move {
                receive.recv().await;
                let _ = answer.send(());
            }),
        ];
        let bundle = tokio::spawn(Bundle::new(parts));
        send.send(()).await.unwrap();
        answered.await.unwrap();
        bundle.abort();
    }

    #[tokio::test]
    async fn a_bundle_ends_with_its_last_part_and_drops_each_when_it_ends() {
        let [(first, begin), (second, end)] = std::array::from_fn(|_| oneshot::channel::<()>());
        let (held, dropped) = oneshot::channel::<()>();
        let parts: [Part; 2] = [
            Box::pin(async move {
                let _held = held;
                let _ = begin.await;
            }),
            Box::pin(async move { drop(end.await) }),
        ];
        let bundle = tokio::spawn(Bundle::new(parts));
        first.send(()).unwrap();
        assert!(dropped.await.is_err());
        assert!(!bundle.is_finished());
        second.send(()).unwrap();
        bundle.await.unwrap();
    }
}
