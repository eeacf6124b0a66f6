//! What a node handles, and the calls that run.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::code::Code;
use super::handler::{Handler, HandlerError, Request};
use super::responder::Responder;
use crate::id::{Directive, InvalidDirective, NodeId};
use crate::mesh::report::log::LogLimits;
use crate::mesh::services::fair;
use crate::sync::lock;
use crate::work::commands::command::Command;
use crate::work::running::backlog::ResponseBudget;
use crate::work::running::inflight::{Inflight, Marker, Token, Waiver};

/// The most directives that one node handles: 1024.
pub const MAX_HANDLERS: usize = 1024;

/// How many calls run at the same time by default: 1024.
pub const DEFAULT_MAX_RUNNING: usize = 1024;

/// Built-in directives that are answered at the same time, beside the calls that run. An answer
/// takes no longer than its frames take to travel, unless the caller does not read it.
const MAX_BUILTIN_RUNNING: usize = 256;

/// How long a shutdown waits for what it cut off: last responses to be received, commands to be
/// killed.
const CUT_OFF_WAIT: Duration = Duration::from_secs(5);

/// What a node handles: a handler for each directive, and the calls that run.
///
/// Cloning is cheap; the clones are one registry. A handler that is replaced or removed finishes
/// the calls it has. Dropping the last clone does not end calls that run;
/// [`shutdown`](Self::shutdown) does.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    handlers: RwLock<BTreeMap<Directive, Registered>>,
    max_running: AtomicUsize,
    running: Mutex<Table>,
    counters: Counters,
    phase: watch::Sender<Phase>,
    inflight: Inflight,
    responses: ResponseBudget,
    logs: LogLimits,
}

#[derive(Clone)]
struct Registered {
    handler: Arc<dyn Handler>,
    /// Whether it is one of the built-in directives, which have places of their own.
    built_in: bool,
    /// The command that handles it. `None` for a function.
    command: Option<Command>,
}

/// What runs a unit of work.
pub(super) enum UnitRunner {
    /// A command, which outlives the node.
    Command(Command),
    /// A function.
    Handler,
}

#[derive(Default)]
struct Table {
    /// Call ids come from callers, so they cannot be keys.
    next_key: u64,
    calls: BTreeMap<u64, Entry>,
    /// Those of them that are of built-in directives.
    built_in: Running,
    /// The others.
    ordinary: Running,
}

/// Calls of one kind that run.
#[derive(Default)]
struct Running {
    all: usize,
    /// By caller, without the suffix of its id: as many ephemerals as run with one certificate have
    /// one share.
    callers: BTreeMap<NodeId, usize>,
}

impl Running {
    /// Adds a call of this caller, if it may run beside the others.
    fn enter(&mut self, caller: NodeId, max: usize) -> Result<(), Code> {
        if self.all >= max {
            return Err(Code::Overloaded);
        }
        let own = self.callers.get(&caller).copied().unwrap_or(0);
        if !fair::admits(own, self.all, max) {
            return Err(Code::CallerLimit);
        }
        self.all += 1;
        *self.callers.entry(caller).or_default() += 1;
        Ok(())
    }

    /// Removes a call of this caller.
    fn leave(&mut self, caller: &NodeId) {
        self.all = self.all.saturating_sub(1);
        let Some(own) = self.callers.get_mut(caller) else { return };
        *own -= 1;
        if *own == 0 {
            self.callers.remove(caller);
        }
    }
}

impl Table {
    fn of_kind(&mut self, built_in: bool) -> &mut Running {
        if built_in { &mut self.built_in } else { &mut self.ordinary }
    }
}

struct Entry {
    built_in: bool,
    id: Uuid,
    directive: Directive,
    caller: NodeId,
    since: Instant,
}

/// Where the registry is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// Calls are taken.
    Open,
    /// Calls finish; no new ones are accepted.
    Draining,
    /// What still runs is cut off.
    CuttingOff,
}

impl Registry {
    /// A registry without handlers, which runs [`DEFAULT_MAX_RUNNING`] calls at the same time.
    #[must_use]
    pub fn new() -> Self {
        Self::with_max_running(DEFAULT_MAX_RUNNING)
    }

    /// A registry which runs `max_running` calls at the same time.
    ///
    /// A caller may run another call as long as it runs fewer than three times as many as there are
    /// places left: alone it gets three quarters of them, and those who run many leave room for
    /// those who run none. Ephemerals that share a certificate count as one caller. A call beyond
    /// that is refused with [`Code::CallerLimit`], and a call that finds no place left with
    /// [`Code::Overloaded`], at once, and counted. With 0, all are. The built-in directives have
    /// places of their own: a node that runs as many calls as it may still answers a ping.
    ///
    /// A call that runs costs two tasks and the responses that wait for its caller: up to 256 KiB
    /// while all calls together store less than [`RESPONSE_MEMORY`](super::RESPONSE_MEMORY) and the
    /// caller less than its share, one response otherwise. A caller that reads nothing of many
    /// calls slows these down, and no others.
    #[must_use]
    pub fn with_max_running(max_running: usize) -> Self {
        Self {
            inner: Arc::new(Inner {
                handlers: RwLock::default(),
                max_running: AtomicUsize::new(max_running),
                running: Mutex::default(),
                counters: Counters::default(),
                phase: watch::Sender::new(Phase::Open),
                inflight: Inflight::new(),
                responses: ResponseBudget::new(),
                logs: LogLimits::default(),
            }),
        }
    }

    /// Handles `directive` with `handler`, from the next call on.
    ///
    /// The handler runs as a task of its own for each call. Returning `Ok` is success at the
    /// caller; returning an error, or panicking, is a failure there. When the call is over before
    /// it returns, it is dropped at its next await.
    ///
    /// # Errors
    /// The directive has a handler already, there are too many, or the node is shut down. Nothing
    /// was changed.
    pub fn handle<F, Fut>(
        &self,
        directive: impl TryInto<Directive, Error: Into<InvalidDirective>>,
        handler: F,
    ) -> Result<(), RegisterError>
    where
        F: Fn(Request, Responder) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        self.register(
            directive.try_into().map_err(Into::into)?,
            Registered { handler: Arc::new(handler), built_in: false, command: None },
            false,
        )
    }

    /// As [`handle`](Self::handle), for a built-in directive, which has places of its own.
    pub(super) fn handle_built_in<F, Fut>(
        &self,
        directive: Directive,
        handler: F,
    ) -> Result<(), RegisterError>
    where
        F: Fn(Request, Responder) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        self.register(
            directive,
            Registered { handler: Arc::new(handler), built_in: true, command: None },
            false,
        )
    }

    /// As [`handle`](Self::handle), in the place of the handler that may be there.
    ///
    /// # Errors
    /// There are too many handlers, or the node is shut down. Nothing was changed.
    pub fn replace<F, Fut>(
        &self,
        directive: impl TryInto<Directive, Error: Into<InvalidDirective>>,
        handler: F,
    ) -> Result<(), RegisterError>
    where
        F: Fn(Request, Responder) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        self.register(
            directive.try_into().map_err(Into::into)?,
            Registered { handler: Arc::new(handler), built_in: false, command: None },
            true,
        )
    }

    /// Handles `directive` with an external command, started for each call.
    ///
    /// # Errors
    /// As [`handle`](Self::handle). Whether the command exists is found out when it is called.
    pub fn command(
        &self,
        directive: impl TryInto<Directive, Error: Into<InvalidDirective>>,
        command: Command,
    ) -> Result<(), RegisterError> {
        self.register(directive.try_into().map_err(Into::into)?, self.run_by(command), false)
    }

    /// As [`command`](Self::command), in the place of the handler that may be there.
    ///
    /// # Errors
    /// As [`replace`](Self::replace).
    pub fn replace_command(
        &self,
        directive: impl TryInto<Directive, Error: Into<InvalidDirective>>,
        command: Command,
    ) -> Result<(), RegisterError> {
        self.register(directive.try_into().map_err(Into::into)?, self.run_by(command), true)
    }

    /// What handles calls by running a command.
    fn run_by(&self, command: Command) -> Registered {
        let inflight = self.inner.inflight.clone();
        let run = command.clone();
        let handler =
            move |request, responder| run.clone().run(request, responder, inflight.clone());
        Registered { handler: Arc::new(handler), built_in: false, command: Some(command) }
    }

    /// What runs a unit of this directive. `None` if there is nothing: built-in directives are for
    /// calls.
    pub(super) fn unit_runner(&self, directive: &Directive) -> Option<UnitRunner> {
        let handlers = self.inner.handlers.read().unwrap_or_else(PoisonError::into_inner);
        let registered = handlers.get(directive).filter(|registered| !registered.built_in)?;
        Some(registered.command.clone().map_or(UnitRunner::Handler, UnitRunner::Command))
    }

    /// Takes no calls of `directive` any more. False where there was no handler.
    pub fn remove(&self, directive: &Directive) -> bool {
        self.inner
            .handlers
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(directive)
            .is_some()
    }

    /// Changes how many calls run at the same time. Calls that run go on.
    pub(crate) fn set_max_running(&self, max_running: usize) {
        self.inner.max_running.store(max_running, Ordering::Relaxed);
    }

    /// The directives that have a handler, sorted.
    #[must_use]
    pub fn directives(&self) -> Vec<Directive> {
        self.inner.handlers.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// The calls that run, oldest first.
    #[must_use]
    pub fn running(&self) -> Vec<RunningCall> {
        self.table()
            .calls
            .values()
            .map(|entry| RunningCall {
                id: entry.id,
                directive: entry.directive.clone(),
                caller: entry.caller.clone(),
                age: entry.since.elapsed(),
            })
            .collect()
    }

    /// Responses that wait for callers.
    #[must_use]
    pub fn stored_responses(&self) -> StoredResponses {
        let (bytes, limited) = self.inner.responses.held();
        StoredResponses { bytes, limited }
    }

    /// How many calls there were, by how they ended.
    #[must_use]
    pub fn counts(&self) -> CallCounts {
        self.inner.counters.snapshot()
    }

    /// Takes no new calls, lets those that run finish for `grace`, and cuts off the rest, whose
    /// callers get [`Code::Leaving`].
    ///
    /// Complete when no call and no command is left, at the latest 5 s after `grace`. There is no
    /// way back. Cancel safe: dropped, the registry takes no calls, and those that run go on.
    pub async fn shutdown(&self, grace: Duration) {
        self.drain();
        // Whether or not all have ended: a call whose handler waits for the others is still there.
        let _ = timeout(grace, self.idle()).await;
        self.enter_phase(Phase::CuttingOff);
        if timeout(CUT_OFF_WAIT, self.inner.inflight.all_ended()).await.is_err() {
            tracing::warn!("calls or commands are left after the registry's shutdown");
        }
    }

    /// Takes no new calls. There is no way back.
    pub(crate) fn drain(&self) {
        self.enter_phase(Phase::Draining);
    }

    /// Within a handler of this registry: has [`idle`](Self::idle) not wait for its call until this
    /// is dropped.
    pub(crate) fn waive_own_call(&self) -> Option<Waiver> {
        self.inner.inflight.waive_current()
    }

    /// Counts a call that is being served, for [`idle`](Self::idle).
    pub(super) fn enter(&self) -> Token {
        self.inner.inflight.enter()
    }

    /// What marks the handler of one call as such.
    pub(super) fn marker(&self) -> Marker {
        self.inner.inflight.marker()
    }

    /// Waits until no call and no command is left, except for calls that were waived.
    pub(crate) async fn idle(&self) {
        self.inner.inflight.none().await;
    }

    fn register(
        &self,
        directive: Directive,
        handler: Registered,
        replace: bool,
    ) -> Result<(), RegisterError> {
        if *self.inner.phase.borrow() != Phase::Open {
            return Err(RegisterError::ShutDown);
        }
        let mut handlers = self.inner.handlers.write().unwrap_or_else(PoisonError::into_inner);
        match handlers.get(&directive) {
            Some(old) if old.built_in || !replace => {
                return Err(RegisterError::Taken { directive });
            }
            None if handlers.len() >= MAX_HANDLERS => return Err(RegisterError::TooMany),
            _ => handlers.insert(directive, handler),
        };
        Ok(())
    }

    /// The limits of log lines that callers cause.
    pub(crate) fn log_limits(&self) -> &LogLimits {
        &self.inner.logs
    }

    /// What the responses of all calls may store.
    pub(super) fn responses(&self) -> &ResponseBudget {
        &self.inner.responses
    }

    /// What the phases go through from now on, the current one first.
    pub(super) fn phase(&self) -> watch::Receiver<Phase> {
        self.inner.phase.subscribe()
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.inner.counters
    }

    /// The handler for a call, and its place among those that run; or why it is refused.
    pub(super) fn admit(
        &self,
        caller: &NodeId,
        id: Uuid,
        directive: &Directive,
    ) -> Result<(Arc<dyn Handler>, Place), Code> {
        let registered = {
            let handlers = self.inner.handlers.read().unwrap_or_else(PoisonError::into_inner);
            handlers.get(directive).cloned()
        };
        let Registered { handler, built_in, .. } = registered.ok_or(Code::UnknownDirective)?;
        if *self.inner.phase.borrow() != Phase::Open {
            return Err(Code::Leaving);
        }
        let mut table = self.table();
        let max = if built_in {
            MAX_BUILTIN_RUNNING
        } else {
            self.inner.max_running.load(Ordering::Relaxed)
        };
        table.of_kind(built_in).enter(caller.base(), max)?;
        let key = table.next_key;
        table.next_key += 1;
        let entry = Entry {
            built_in,
            id,
            directive: directive.clone(),
            caller: caller.clone(),
            since: Instant::now(),
        };
        table.calls.insert(key, entry);
        Ok((handler, Place { inner: self.inner.clone(), key }))
    }

    fn enter_phase(&self, phase: Phase) {
        self.inner.phase.send_if_modified(|current| {
            let forward = *current == Phase::Open || phase == Phase::CuttingOff;
            if forward {
                *current = phase;
            }
            forward
        });
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.inner.table()
    }
}

impl Inner {
    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.running)
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("directives", &self.directives())
            .field("running", &self.table().calls.len())
            .finish_non_exhaustive()
    }
}

/// A place among the calls that run. Dropping it frees the place.
pub(super) struct Place {
    inner: Arc<Inner>,
    key: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.inner.table();
        let Some(entry) = table.calls.remove(&self.key) else { return };
        table.of_kind(entry.built_in).leave(&entry.caller.base());
    }
}

/// A call that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunningCall {
    /// The id that the caller gave it.
    pub id: Uuid,
    /// What it asks for.
    pub directive: Directive,
    /// Who calls.
    pub caller: NodeId,
    /// How long it has been running.
    pub age: Duration,
}

/// Responses that wait for callers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredResponses {
    /// Their bytes: at most [`RESPONSE_MEMORY`](super::RESPONSE_MEMORY), and one response for each
    /// call.
    pub bytes: usize,
    /// How often a response found its caller's share used up. The count only grows.
    pub limited: u64,
}

/// Why a handler was not registered. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The directive is not valid: the caller's fault.
    #[error(transparent)]
    InvalidDirective(#[from] InvalidDirective),
    /// The directive has a handler: remove it first, or replace it. Built-in ones, `receptor:…`,
    /// stay.
    #[error("{directive} has a handler already")]
    Taken {
        /// The directive.
        directive: Directive,
    },
    /// There are [`MAX_HANDLERS`] handlers.
    #[error("a node handles at most {max} directives", max = MAX_HANDLERS)]
    TooMany,
    /// The node is shut down, or about to be: no call would reach the handler.
    #[error("this node is shut down")]
    ShutDown,
}

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// How many calls a registry got since it was made, by how they ended.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[non_exhaustive]
        pub struct CallCounts {
            $($(#[$doc])* pub $name: u64,)*
        }

        #[derive(Default)]
        pub(super) struct Counters {
            $(pub(super) $name: AtomicU64,)*
        }

        impl Counters {
            fn snapshot(&self) -> CallCounts {
                CallCounts { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counts! {
    /// The handler returned `Ok`, and the last response was written.
    succeeded,
    /// The handler, or the command, failed.
    failed,
    /// The handler panicked.
    panicked,
    /// The caller cancelled, or went away.
    cancelled,
    /// The deadline passed.
    expired,
    /// Cut off or refused by a shutdown.
    left,
    /// Refused: the directive has no handler.
    unknown,
    /// Refused: as many calls ran as may.
    overloaded,
    /// Refused: the caller ran as many calls as it may beside those of others.
    caller_limit,
    /// Refused or cut off: the policy does not allow it.
    not_allowed,
    /// The stream carried no readable call.
    bad_calls,
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn nothing(_: Request, _: Responder) -> Result<(), HandlerError> {
        Ok(())
    }

    fn directive(text: &str) -> Directive {
        text.parse().unwrap()
    }

    #[test]
    fn a_directive_is_registered_once_replaced_on_purpose_and_removed() {
        let registry = Registry::new();
        registry.handle(directive("a:b"), nothing).unwrap();
        assert_eq!(
            registry.handle(directive("a:b"), nothing),
            Err(RegisterError::Taken { directive: directive("a:b") })
        );
        registry.replace(directive("a:b"), nothing).unwrap();
        registry.command(directive("a:a"), Command::new("true")).unwrap();
        assert_eq!(registry.directives(), [directive("a:a"), directive("a:b")]);
        assert!(registry.remove(&directive("a:b")));
        assert!(!registry.remove(&directive("a:b")));
    }

    #[tokio::test]
    async fn one_caller_has_three_quarters_of_the_places_and_built_ins_their_own() {
        let registry = Registry::with_max_running(8);
        registry.handle(directive("a:b"), nothing).unwrap();
        registry.handle_built_in(directive("receptor:ping"), nothing).unwrap();
        let admit = |caller: &str, name: &str| {
            let admitted = registry.admit(&caller.parse().unwrap(), Uuid::nil(), &directive(name));
            admitted.map(|(_, place)| place)
        };
        let mut places: Vec<_> = (0..6).map(|_| admit("one", "a:b").unwrap()).collect();
        assert_eq!(admit("one", "a:b").err(), Some(Code::CallerLimit));
        // An ephemeral with the same certificate is the same caller.
        assert_eq!(admit("one~1", "a:b").err(), Some(Code::CallerLimit));
        places.push(admit("one", "receptor:ping").unwrap());
        places.extend((0..2).map(|_| admit("two", "a:b").unwrap()));
        assert_eq!(admit("three", "a:b").err(), Some(Code::Overloaded));
        // Answers to pings take no place, and one caller leaves some places for others.
        let mut pings = Vec::new();
        while let Ok(place) = admit("two", "receptor:ping") {
            pings.push(place);
        }
        assert_eq!(pings.len(), MAX_BUILTIN_RUNNING * 3 / 4);
        assert_eq!(admit("two", "receptor:ping").err(), Some(Code::CallerLimit));
        admit("three", "receptor:ping").unwrap();
        places.remove(0);
        admit("three", "a:b").unwrap();
        drop((places, pings));
        assert_eq!(registry.running(), []);
        assert!(registry.table().ordinary.callers.is_empty());
        assert!(registry.table().built_in.callers.is_empty());
    }

    #[test]
    fn the_number_of_handlers_is_bounded() {
        let registry = Registry::new();
        for n in 0..MAX_HANDLERS {
            registry.handle(directive(&format!("a:{n}")), nothing).unwrap();
        }
        assert_eq!(registry.handle(directive("a:more"), nothing), Err(RegisterError::TooMany));
        registry.replace(directive("a:0"), nothing).unwrap();
    }
}
