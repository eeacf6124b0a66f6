//! Who may do what on a node, while it runs.

use super::Node;
use crate::mesh::{PolicyStatus, ShutDown};
#[cfg(feature = "cli")]
use crate::policy::Action;
use crate::policy::Policy;

impl Node {
    /// Decides by this policy from now on who may do what on this node; `None`: everybody may do
    /// everything.
    ///
    /// What is in use is decided again before this returns: streams and calls that are no longer
    /// allowed end, at both ends, with [`StreamCode::NotAllowed`](crate::transport::code::StreamCode::NotAllowed)
    /// and [`CallError::NotAllowed`](crate::CallError::NotAllowed). All others go on, as do units
    /// of work that were accepted. An application that neither reads nor writes a stream that has
    /// ended so notices it when it does.
    ///
    /// Takes time in proportion to the rules and to the connections.
    ///
    /// # Errors
    /// The node is shut down.
    ///
    /// # Examples
    #[cfg_attr(all(feature = "testing", feature = "policy"), doc = "```")]
    #[cfg_attr(not(all(feature = "testing", feature = "policy")), doc = "```ignore")]
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mesh = receptor_quic::testing::mesh(["alice-bob"]).await;
    /// # let (alice, bob) = (mesh.node("alice"), mesh.node("bob"));
    /// use receptor_quic::policy::Policy;
    /// use receptor_quic::StreamError;
    /// use receptor_quic::mesh::RefuseCode;
    ///
    /// let _listener = bob.serve("log")?;
    /// bob.set_policy(Policy::from_toml("[[allow]]\nfrom = \"carol\"\nto = \"log\"\n")?).await?;
    ///
    /// let error = alice.open("bob", "log").await?.accepted().await.unwrap_err();
    /// assert!(matches!(error, StreamError::Refused(why) if why.code == RefuseCode::NotAllowed));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn set_policy(&self, policy: impl Into<Option<Policy>>) -> Result<(), ShutDown> {
        self.0.mesh.set_policy(policy.into()).await
    }

    /// Whether the user of this machine who asks on the control socket may control the node.
    #[cfg(feature = "cli")]
    pub(crate) fn may_be_controlled(&self) -> bool {
        self.0.mesh.gate().decide_own(&Action::CONTROL).is_allowed()
    }

    /// Notes that a new policy was not accepted and why, so that the status shows it.
    #[cfg(feature = "cli")]
    pub(crate) fn note_rejected_policy(&self, why: String) {
        self.0.mesh.gate().note_rejected(Some(why));
    }

    /// Notes that a reload found the policy valid.
    #[cfg(feature = "cli")]
    pub(crate) fn note_reloaded_policy(&self) {
        self.0.mesh.gate().note_rejected(None);
    }

    /// What the policy is and has done.
    pub(super) fn policy_status(&self) -> PolicyStatus {
        self.0.mesh.gate().status()
    }
}
