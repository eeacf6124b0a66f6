//! How the parts of a running call learn that it is over.

use tokio::sync::watch;

use crate::transport::code::StreamCode;

/// Resolves when a call is over. Cheap to clone.
#[derive(Clone, Debug)]
pub(in crate::work) struct Over(watch::Receiver<Option<StreamCode>>);

/// Ends what holds the [`Over`]s, by a word or by being dropped.
#[derive(Debug)]
pub(in crate::work) struct End(watch::Sender<Option<StreamCode>>);

pub(in crate::work) fn pair() -> (End, Over) {
    let (sender, receiver) = watch::channel(None);
    (End(sender), Over(receiver))
}

impl End {
    pub(in crate::work) fn cut_off(&self, why: StreamCode) {
        self.0.send_replace(Some(why));
    }
}

impl Over {
    /// Why the call was cut off; `None` while it runs, and when it ended by itself.
    pub(in crate::work) fn why(&self) -> Option<StreamCode> {
        *self.0.borrow()
    }

    pub(in crate::work) fn is_over(&self) -> bool {
        self.why().is_some() || self.0.has_changed().is_err()
    }

    /// Waits until the call was cut off or has ended.
    pub(in crate::work) async fn wait(&self) {
        // An error means that the call ended by itself.
        let _ = self.0.clone().wait_for(Option::is_some).await;
    }
}
