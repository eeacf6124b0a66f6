//! The mesh under attack, and what its honest members can still do.

use std::net::SocketAddr;
use std::time::Duration;

use receptor_quic::testing::Mesh;
use tokio::task::JoinSet;

use crate::member::{Member, id};

/// How long an honest call may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// A mesh, and a member of it that runs nothing but the test's own code.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) mesh: Mesh,
    pub(crate) mallory: Member,
}

impl Scene {
    /// `mallory` has a certificate of this mesh, and a host.
    pub(crate) fn of(mesh: Mesh) -> Self {
        Self::with_attacker(mesh, "mallory")
    }

    pub(crate) fn with_attacker(mesh: Mesh, name: &str) -> Self {
        let identity = mesh.authority().issue(&id(name), 1).unwrap();
        let mallory = Member::new(mesh.network().bind_host(), id(name), identity);
        Self { mesh, mallory }
    }

    pub(crate) fn addr(&self, name: &str) -> SocketAddr {
        self.mesh.addr(name)
    }

    /// How many of `count` new ephemeral nodes, 300 ms apart, join at `at` and reach `to`.
    pub(crate) async fn newcomers(&self, count: usize, at: &str, to: &str) -> usize {
        let mut calls = JoinSet::new();
        for number in 0..count {
            let newcomer = self.mesh.joiner(&format!("newcomer-{number}"), &[at]).ephemeral(true);
            let to = id(to);
            calls.spawn(async move {
                let attempt = async {
                    let node = newcomer.start().await.ok()?;
                    node.linked().await.ok()?;
                    node.ping(&to).await.ok()?;
                    node.shutdown().await;
                    Some(())
                };
                tokio::time::timeout(PATIENCE, attempt).await.ok().flatten().is_some()
            });
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        calls.join_all().await.into_iter().filter(|reached| *reached).count()
    }

    /// How many of `count` pings succeed, 300 ms apart, over connections that may be there already.
    pub(crate) async fn pings(&self, count: usize, from: &str, to: &str) -> usize {
        let mut answered = 0;
        let (from, to) = (self.mesh.node(from), id(to));
        for _ in 0..count {
            let ping = tokio::time::timeout(PATIENCE, from.ping(&to));
            answered += usize::from(matches!(ping.await, Ok(Ok(_))));
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        answered
    }
}
