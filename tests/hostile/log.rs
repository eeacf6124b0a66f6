//! Counts what nodes log.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Lines of level INFO and above that this thread has logged since the log was opened.
#[derive(Debug)]
pub(crate) struct Log {
    lines: Arc<AtomicUsize>,
    _guard: tracing::subscriber::DefaultGuard,
}

impl Log {
    /// Counts from now on, for this thread. All nodes of a virtual network run on one.
    pub(crate) fn open() -> Self {
        let lines = Arc::new(AtomicUsize::new(0));
        let guard = tracing::subscriber::set_default(Counting(lines.clone()));
        Self { lines, _guard: guard }
    }

    /// The lines so far; the count starts again.
    pub(crate) fn take(&self) -> usize {
        self.lines.swap(0, Ordering::Relaxed)
    }
}

struct Counting(Arc<AtomicUsize>);

impl Subscriber for Counting {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO && metadata.target().starts_with("receptor_quic")
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::INFO)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        if event.metadata().is_event() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
