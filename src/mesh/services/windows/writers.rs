//! Wakes the writers of a connection that wait for room, a few at a time.
//!
//! When a window opens by a packet, quinn wakes every stream that waits for it: the first one takes
//! the room, and the others wait again. A peer that reads slowly from a thousand streams would so
//! put a thousand tasks into the runtime's queue with each acknowledgement, ahead of what others
//! wait for. Where more than [`AT_ONCE`] streams of a connection have ever waited, their wake-ups
//! pass through a queue of its own:
//!
//! ```text
//!   quinn wakes all ─▶ queue ─▶ follow: AT_ONCE, then whatever else is ready, then the next ─▶ tasks
//! ```
//!
//! Nobody has to give a turn back, so a task that is woken and does not write holds up no other.
//! Each writer is in the queue at most once.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use tokio::sync::Notify;

use crate::sync::lock;

/// Writers that are woken together. Fewer would cost a transfer over some streams a detour, and a
/// few dozen tasks delay others by well below a millisecond.
const AT_ONCE: usize = 16;

/// The writers of a connection that have waited.
#[derive(Debug, Default)]
pub(crate) struct Writers {
    /// How many there are.
    waited: AtomicUsize,
    queue: Mutex<Queue>,
    woken: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    /// Whether something empties it.
    followed: bool,
    tasks: VecDeque<Waker>,
}

impl Writers {
    /// Wakes those in the queue, as long as this is polled; then, all at once.
    pub(in crate::mesh::services) async fn follow(&self) -> Infallible {
        lock(&self.queue).followed = true;
        let _unfollow = Unfollow(self);
        loop {
            self.woken.notified().await;
            loop {
                let tasks: Vec<Waker> = {
                    let mut queue = lock(&self.queue);
                    let some = queue.tasks.len().min(AT_ONCE);
                    queue.tasks.drain(..some).collect()
                };
                if tasks.is_empty() {
                    break;
                }
                tasks.into_iter().for_each(Waker::wake);
                // Behind those tasks, and what the runtime has received meanwhile.
                tokio::task::yield_now().await;
            }
        }
    }

    fn wake(&self, task: Waker) {
        if self.waited.load(Ordering::Relaxed) > AT_ONCE {
            let mut queue = lock(&self.queue);
            if queue.followed {
                queue.tasks.push_back(task);
                drop(queue);
                self.woken.notify_one();
                return;
            }
        }
        task.wake();
    }
}

/// Ends the queue: whoever is in it or comes later is woken at once.
struct Unfollow<'a>(&'a Writers);

impl Drop for Unfollow<'_> {
    fn drop(&mut self) {
        let tasks = {
            let mut queue = lock(&self.0.queue);
            queue.followed = false;
            std::mem::take(&mut queue.tasks)
        };
        tasks.into_iter().for_each(Waker::wake);
    }
}

/// How one stream waits for room. Nothing is made for those that never wait.
#[derive(Debug, Default)]
pub(crate) struct WriteWait(Option<Arc<Waiting>>);

#[derive(Debug)]
struct Waiting {
    writers: Arc<Writers>,
    task: Mutex<Option<Waker>>,
}

impl WriteWait {
    /// Polls a write, which keeps the waker if it has to wait.
    pub(crate) fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        writers: &Arc<Writers>,
        mut write: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let waiting = match &self.0 {
            Some(waiting) => waiting,
            None => match write(cx) {
                Poll::Pending => self.0.insert(Waiting::new(writers)),
                ready => return ready,
            },
        };
        // Before the write, which may be woken at once.
        *lock(&waiting.task) = Some(cx.waker().clone());
        let polled = write(&mut Context::from_waker(&Waker::from(waiting.clone())));
        if polled.is_ready() {
            *lock(&waiting.task) = None;
        }
        polled
    }
}

impl Waiting {
    fn new(writers: &Arc<Writers>) -> Arc<Self> {
        writers.waited.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self { writers: writers.clone(), task: Mutex::default() })
    }
}

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let task = lock(&self.task).take();
        if let Some(task) = task {
            self.writers.wake(task);
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.writers.waited.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    /// A task that counts how often it was woken.
    #[derive(Default)]
    struct Counter(AtomicUsize);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Streams that wait for room, and their task.
    struct Blocked {
        waits: Vec<WriteWait>,
        quinn: Vec<Waker>,
        task: Arc<Counter>,
    }

    impl Blocked {
        fn new(writers: &Arc<Writers>, count: usize) -> Self {
            let task = Arc::<Counter>::default();
            let waker = Waker::from(task.clone());
            let mut quinn = Vec::new();
            let waits = (0..count).map(|_| {
                let (mut wait, mut kept) = (WriteWait::default(), None);
                let polled = wait.poll(&mut Context::from_waker(&waker), writers, |cx| {
                    kept = Some(cx.waker().clone());
                    Poll::<()>::Pending
                });
                assert!(polled.is_pending());
                quinn.extend(kept);
                wait
            });
            Self { waits: waits.collect(), quinn, task }
        }

        fn wake_all(&self) {
            self.quinn.iter().for_each(Waker::wake_by_ref);
        }

        fn woken(&self) -> usize {
            self.task.0.load(Ordering::Relaxed)
        }
    }

    fn poll(follow: std::pin::Pin<&mut impl Future<Output = Infallible>>) {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(follow.poll(&mut cx).is_pending());
    }

    #[tokio::test]
    async fn many_writers_are_woken_a_few_at_a_time_and_each_once() {
        let writers = Arc::<Writers>::default();
        let mut follow = Box::pin(writers.follow());
        poll(follow.as_mut());
        let blocked = Blocked::new(&writers, 5 * AT_ONCE / 2);
        blocked.wake_all();
        blocked.wake_all();
        for woken in [AT_ONCE, 2 * AT_ONCE, 5 * AT_ONCE / 2, 5 * AT_ONCE / 2] {
            poll(follow.as_mut());
            assert_eq!(blocked.woken(), woken);
        }
    }

    #[tokio::test]
    async fn few_writers_are_woken_at_once() {
        let writers = Arc::<Writers>::default();
        let mut follow = pin!(writers.follow());
        poll(follow.as_mut());
        let mut gone = Blocked::new(&writers, 100);
        gone.waits.clear();
        gone.quinn.clear();
        let blocked = Blocked::new(&writers, AT_ONCE);
        blocked.wake_all();
        assert_eq!(blocked.woken(), AT_ONCE, "streams that are gone do not count");
    }

    #[tokio::test]
    async fn nobody_is_left_behind_when_the_connection_ends() {
        let writers = Arc::<Writers>::default();
        let mut follow = Box::pin(writers.follow());
        poll(follow.as_mut());
        let blocked = Blocked::new(&writers, 4 * AT_ONCE);
        blocked.wake_all();
        drop(follow);
        assert_eq!(blocked.woken(), 4 * AT_ONCE);
        let late = Blocked::new(&writers, 4 * AT_ONCE);
        late.wake_all();
        assert_eq!(late.woken(), 4 * AT_ONCE);
    }
}
