//! The arguments of `receptor policy`.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

use crate::cli::socket::SocketArgs;
use crate::id::NodeId;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum PolicyCommand {
    /// Check a policy and run its tests
    Check {
        /// The policy
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Run the tests of a policy and show those that fail
    Test {
        /// The policy
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Explain whether a node may do something: the rule that allows it, or the nearest one and why
    /// it does not match
    ///
    /// Exits with 0 if it is allowed and with 4 if it is not.
    Explain(ExplainArgs),
    /// Show the policy of a running node
    Show(SocketArgs),
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ExplainArgs {
    /// The node that wants to do it
    #[arg(value_name = "FROM")]
    pub(super) from: NodeId,
    /// What it wants: a service, or a directive NS:ACTION; `unit` for its units, `transit`
    #[arg(value_name = "SERVICE|NS:ACTION")]
    pub(super) what: String,
    /// What it wants to do with it [default: call a directive, open a service]
    #[arg(long = "as", value_name = "VERB", value_enum)]
    pub(super) verb: Option<VerbArg>,
    /// The node that decides [default: the running node, or none for --policy]
    #[arg(long, value_name = "NODE")]
    pub(super) on: Option<NodeId>,
    /// Role in the certificate of the node that wants to do it. Repeatable
    #[arg(long, value_name = "NAME")]
    pub(super) role: Vec<String>,
    /// Explain by this policy instead of that of a running node
    #[arg(long, value_name = "FILE")]
    pub(super) policy: Option<PathBuf>,
    #[command(flatten)]
    pub(super) socket: SocketArgs,
}

/// What a node wants to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(in crate::cli) enum VerbArg {
    Open,
    Call,
    Submit,
    Manage,
    Forward,
    Datagram,
    Transit,
}
