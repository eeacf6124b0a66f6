//! Applies what has changed to a running node.

use std::collections::BTreeSet;

use tracing::{debug, error, info, warn};

use super::report::Reloaded;
use super::watch::Watch;
use crate::cli::policy::running::RunningPolicy;
use crate::cli::process::exit::Failure;
use crate::cli::setup::config::{CommandSpec, NodeConfig};
use crate::cli::setup::identity;
use crate::cli::setup::settings::{
    ALLOW, CERTS, COMMAND, CRL, DENY, GRACE, Name, PEER, PIN, POLICY, RELAYS,
};
use crate::node::Node;
use crate::work::{Directive, MAX_HANDLERS};

/// The configuration that a node runs with, and how it is read again.
pub(in crate::cli) struct Reloader<'a> {
    node: &'a Node,
    running: NodeConfig,
    policy: RunningPolicy,
    again: &'a dyn Fn() -> Result<NodeConfig, Failure>,
    /// Reports that certificates may have changed. `None` if the system does not.
    watch: Option<Watch>,
    /// The digest of the certificates that were read last, or tried. `None` before the first time.
    seen: Option<[u8; 32]>,
}

impl<'a> Reloader<'a> {
    pub(in crate::cli) fn new(
        node: &'a Node,
        running: NodeConfig,
        policy: RunningPolicy,
        again: &'a dyn Fn() -> Result<NodeConfig, Failure>,
    ) -> Self {
        let watch = watch(&running);
        policy.set(running.policy.as_ref());
        Self { node, running, policy, again, watch, seen: None }
    }

    /// Waits until the files of certificates or revocation lists may have changed. Cancel safe.
    pub(in crate::cli) async fn certificates_changed(&self) {
        let changed = match &self.watch {
            Some(watch) => watch.changed().await,
            None => std::future::pending().await,
        };
        if let Err(error) = changed {
            warn!(%error, "changes of certificates are no longer noticed; reload by command or signal");
            std::future::pending().await
        }
    }

    /// Reads the certificates and revocation lists from disk if they have changed. It was not
    /// requested, so the configuration is not read again.
    pub(in crate::cli) async fn renew(&mut self) {
        let NodeConfig { certs, trust, .. } = &self.running;
        let found = identity::digest(certs, self.node.id(), trust).await;
        if self.seen.replace(found) == Some(found) {
            return;
        }
        let renewed = match identity::load(certs, self.node.id(), trust).await {
            Ok(identity) => self.node.reload(identity).await.map_err(Failure::failed),
            Err(error) => Err(error),
        };
        match renewed {
            Ok(()) => info!("certificates have changed and were reloaded"),
            Err(error) => {
                error!(%error, "certificates have changed and cannot be used; the former ones stay in use");
            }
        }
    }

    /// The configuration as it is in effect.
    pub(in crate::cli) fn running(&self) -> &NodeConfig {
        &self.running
    }

    /// Reloads, and logs what came of it.
    pub(in crate::cli) async fn reload(&mut self) -> Result<Reloaded, Failure> {
        let reloaded = self.try_reload().await;
        match &reloaded {
            Ok(Reloaded { applied, needs_restart }) => {
                info!("certificates reloaded");
                if !applied.is_empty() {
                    info!(applied = applied.join(", "), "configuration reloaded");
                }
                if !needs_restart.is_empty() {
                    let changed = needs_restart.join(", ");
                    warn!(changed, "the configuration has changed; these settings need a restart");
                }
            }
            Err(error) => {
                // Where the policy is shown: it is the former one.
                self.node.note_rejected_policy(error.to_string());
                error!(%error, "not reloaded; the former certificates and settings stay in use");
            }
        }
        reloaded
    }

    async fn try_reload(&mut self) -> Result<Reloaded, Failure> {
        // First what can fail.
        let next = (self.again)()?;
        let built_in = |directive: &Directive| directive.namespace() == "receptor";
        let built_in = self.node.directives().into_iter().filter(built_in).count();
        if next.commands.len() + built_in > MAX_HANDLERS {
            let max = MAX_HANDLERS - built_in;
            return Err(Failure::usage(format!("a node has at most {max} commands")));
        }
        // Before they are read: what is replaced meanwhile counts as changed.
        let found = identity::digest(&next.certs, self.node.id(), &next.trust).await;
        let identity = identity::load(&next.certs, self.node.id(), &next.trust).await?;
        self.node.reload(identity).await.map_err(Failure::failed)?;

        let changed = self.running.differences(&next);
        if next.peers != self.running.peers {
            self.node.set_peers(next.peers.iter().cloned()).await.map_err(Failure::failed)?;
        }
        if next.policy != self.running.policy {
            let policy = next.policy.as_ref().map(|file| file.policy.clone());
            self.node.set_policy(policy).await.map_err(Failure::failed)?;
            self.policy.set(next.policy.as_ref());
        }
        self.node.note_reloaded_policy();
        self.replace_commands(&next.commands)?;
        self.running.take_live(next);
        self.seen = Some(found);
        self.watch = watch(&self.running);

        let (applied, needs_restart) = changed
            .into_iter()
            .map(str::to_owned)
            .partition(|name| LIVE.iter().any(|live| live.flag == name));
        Ok(Reloaded { applied, needs_restart })
    }

    /// Calls that run go on, and no call meets a directive without a handler that has one before
    /// and after.
    fn replace_commands(&self, next: &[CommandSpec]) -> Result<(), Failure> {
        let kept: BTreeSet<_> = next.iter().map(|spec| &spec.directive).collect();
        for CommandSpec { directive, .. } in &self.running.commands {
            if !kept.contains(directive) {
                self.node.remove_handler(directive.clone()).map_err(Failure::failed)?;
            }
        }
        for spec in next {
            if !self.running.commands.contains(spec) {
                self.node
                    .replace_command(spec.directive.clone(), spec.command.clone())
                    .map_err(Failure::failed)?;
            }
        }
        Ok(())
    }
}

/// Watches the directories of the certificates and revocation lists.
fn watch(config: &NodeConfig) -> Option<Watch> {
    let dirs = identity::directories(&config.certs, &config.trust);
    Watch::of(&dirs)
        .inspect_err(|error| debug!(%error, "changes of certificates are not noticed"))
        .ok()
}

/// The settings that a reload applies.
const LIVE: [Name; 10] = [CERTS, PEER, RELAYS, CRL, DENY, ALLOW, PIN, POLICY, COMMAND, GRACE];

impl NodeConfig {
    /// Takes over what a reload applies.
    fn take_live(&mut self, next: Self) {
        self.certs = next.certs;
        self.peers = next.peers;
        self.trust = next.trust;
        self.policy = next.policy;
        self.commands = next.commands;
        self.grace = next.grace;
    }
}
