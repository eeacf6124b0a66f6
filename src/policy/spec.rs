//! A policy as it is written.

/// A policy as it is written: texts that are not checked yet. [`Policy::new`](super::Policy::new)
/// checks them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PolicySpec {
    /// What is decided where no rule matches. Default: deny.
    pub default: DefaultDecision,
    /// Whether a node may carry packets of others where no rule says so. Default: it may, so that a
    /// policy about what a node serves does not change how the mesh routes.
    pub transit: TransitDefault,
    /// Groups, each with a name of its own.
    pub groups: Vec<GroupSpec>,
    /// What is allowed, in any order.
    pub allow: Vec<RuleSpec>,
    /// What must hold.
    pub tests: Vec<TestSpec>,
}

/// What is decided where no rule matches.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DefaultDecision {
    /// It is not allowed.
    #[default]
    Deny,
    /// It is allowed.
    Allow,
}

/// Whether nodes may carry packets of others where no rule says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TransitDefault {
    /// They may. Then there are no rules about transit.
    #[default]
    Allow,
    /// Only those may that a rule names.
    Deny,
}

/// A group of nodes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GroupSpec {
    /// Its line in the file. `None` if it is from elsewhere.
    pub line: Option<usize>,
    /// The name: 1 to 64 ASCII letters, digits and `._-`.
    pub name: String,
    /// Patterns of node ids, or `role:NAME`. At least one.
    pub members: Vec<String>,
}

/// A rule as it is written. All fields have to match, and of a field any value.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RuleSpec {
    /// Its line in the file. `None` if it is from elsewhere.
    pub line: Option<usize>,
    /// Who: patterns of node ids, `role:NAME` or `group:NAME`. At least one.
    pub from: Vec<String>,
    /// On which nodes: patterns of node ids. Empty: on all.
    pub on: Vec<String>,
    /// To what: patterns of services; `datagram:PATTERN`; `work`, `unit`, `node` or `forward` with
    /// the field that says what of it; `transit`; or `*` for all but transit. At least one.
    pub to: Vec<String>,
    /// Patterns of directives, for `work` and `unit`. `None` if not given.
    pub directives: Option<Vec<String>>,
    /// For `unit`: `submit`, `manage`. For `node`: `ping`, `route`. `None` if not given.
    pub verbs: Option<Vec<String>>,
    /// Patterns of targets, for `forward`. `None` if not given.
    pub targets: Option<Vec<String>>,
}

/// What must hold for a policy to be accepted. Exactly one of the fields from `open` to `transit`
/// says what is tried.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TestSpec {
    /// Its line in the file. `None` if it is from elsewhere.
    pub line: Option<usize>,
    /// The id of the node that tries it.
    pub from: String,
    /// The roles in its certificate.
    pub roles: Vec<String>,
    /// The node that decides. Required where a rule has [`RuleSpec::on`].
    pub on: Option<String>,
    /// Opens a stream to this service.
    pub open: Option<String>,
    /// Calls this directive.
    pub call: Option<String>,
    /// Submits a unit with this directive.
    pub submit: Option<String>,
    /// Manages its units.
    pub manage: bool,
    /// Connects to this target.
    pub forward: Option<String>,
    /// Sends datagrams to this service.
    pub datagram: Option<String>,
    /// Carries packets of others.
    pub transit: bool,
    /// Whether it is to be allowed.
    pub expect_allow: bool,
}
