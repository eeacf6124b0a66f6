//! Futures that are mostly ready: looked at once, before anything is made for waiting.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

/// What `future` gives, if it is ready; else it is dropped, so it must be one that loses nothing by
/// that.
pub(crate) async fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        Poll::Ready(match future.as_mut().poll(cx) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    })
    .await
}
