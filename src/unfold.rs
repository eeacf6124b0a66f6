//! A stream of what an asynchronous method returns, call by call.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;

/// A stream of the items of `next`, which takes the state and returns it with the item. Ends with
/// the first `None`.
pub(crate) fn unfold<T, I, F, Fut>(state: T, next: F) -> Unfold<T, F, Fut>
where
    F: Fn(T) -> Fut,
    Fut: Future<Output = (Option<I>, T)>,
{
    Unfold { state: Some(state), next, waiting: None }
}

pub(crate) struct Unfold<T, F, Fut> {
    /// `None` while `waiting` has it, and at the end.
    state: Option<T>,
    next: F,
    waiting: Option<Pin<Box<Fut>>>,
}

impl<T: Unpin, I, F: Fn(T) -> Fut + Unpin, Fut: Future<Output = (Option<I>, T)>> Stream
    for Unfold<T, F, Fut>
{
    type Item = I;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<I>> {
        let this = &mut *self;
        if let Some(state) = this.state.take() {
            this.waiting = Some(Box::pin((this.next)(state)));
        }
        let Some(waiting) = &mut this.waiting else { return Poll::Ready(None) };
        let (item, state) = ready!(waiting.as_mut().poll(cx));
        this.waiting = None;
        this.state = item.is_some().then_some(state);
        Poll::Ready(item)
    }
}
