//! What somebody wants to do.

use std::fmt;

use crate::id::{Directive, ServiceName};

/// The namespace of the built-in directives.
const BUILT_IN: &str = "receptor";

/// The kinds of action. What an [`Action`] of the kind is about is its name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum Verb {
    /// Open a stream to a service of the application.
    Open,
    /// Call a directive.
    Call,
    /// Call a built-in directive, `receptor:…`.
    BuiltIn,
    /// Submit a unit of work with a directive.
    Submit,
    /// Learn how own units of work fare, as everybody does who may submit or manage them.
    Follow,
    /// Read, cancel, release and list own units of work.
    Manage,
    /// Connect to a target through a forward.
    Forward,
    /// Send datagrams to a service.
    Datagram,
    /// Carry packets of other nodes.
    Transit,
    /// Control the node.
    Control,
}

impl Verb {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Open,
        Self::Call,
        Self::BuiltIn,
        Self::Submit,
        Self::Follow,
        Self::Manage,
        Self::Forward,
        Self::Datagram,
        Self::Transit,
        Self::Control,
    ];
}

/// What somebody wants to do on a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Action<'a> {
    verb: Verb,
    name: &'a str,
}

impl<'a> Action<'a> {
    /// Learn how own units of work fare.
    pub const FOLLOW: Action<'static> = Action { verb: Verb::Follow, name: "" };
    /// Read, cancel, release and list own units of work.
    pub const MANAGE: Action<'static> = Action { verb: Verb::Manage, name: "" };
    /// Carry packets of other nodes.
    pub const TRANSIT: Action<'static> = Action { verb: Verb::Transit, name: "" };
    /// Control the node.
    pub const CONTROL: Action<'static> = Action { verb: Verb::Control, name: "" };

    /// Open a stream to a service.
    #[must_use]
    pub fn open(service: &'a ServiceName) -> Self {
        Self { verb: Verb::Open, name: service.as_str() }
    }

    /// Call a directive. Those of the namespace `receptor` are built in, and have verbs of their
    /// own.
    #[must_use]
    pub fn call(directive: &'a Directive) -> Self {
        match directive.namespace() {
            BUILT_IN => Self { verb: Verb::BuiltIn, name: directive.action() },
            _ => Self { verb: Verb::Call, name: directive.as_str() },
        }
    }

    /// Submit a unit of work.
    #[must_use]
    pub fn submit(directive: &'a Directive) -> Self {
        Self { verb: Verb::Submit, name: directive.as_str() }
    }

    /// Connect to a target through a forward, such as `tcp:127.0.0.1:22`.
    #[must_use]
    pub fn forward(target: &'a str) -> Self {
        Self { verb: Verb::Forward, name: target }
    }

    /// Send datagrams to a service.
    #[must_use]
    pub fn datagram(service: &'a ServiceName) -> Self {
        Self { verb: Verb::Datagram, name: service.as_str() }
    }

    /// The action of this kind and name, as they come from [`verb`](Self::verb) and
    /// [`name`](Self::name).
    pub(crate) fn of(verb: Verb, name: &'a str) -> Self {
        Self { verb, name }
    }

    /// The kind.
    #[must_use]
    pub fn verb(&self) -> Verb {
        self.verb
    }

    /// The service, directive, built-in action or target that it is about; empty if it is about the
    /// node.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.name
    }
}

/// As in a log: `call ansible:run`.
impl fmt::Display for Action<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verb, name } = self;
        match verb {
            Verb::Open => write!(f, "open {name}"),
            Verb::Call => write!(f, "call {name}"),
            Verb::BuiltIn => write!(f, "call {BUILT_IN}:{name}"),
            Verb::Submit => write!(f, "submit {name}"),
            Verb::Follow => f.write_str("follow units"),
            Verb::Manage => f.write_str("manage units"),
            Verb::Forward => write!(f, "forward to {name}"),
            Verb::Datagram => write!(f, "send datagrams to {name}"),
            Verb::Transit => f.write_str("carry packets of others"),
            Verb::Control => f.write_str("control the node"),
        }
    }
}
