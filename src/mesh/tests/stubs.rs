//! Stubs that prove nothing, and claims to be the neighbour of others' stubs.

use std::time::Duration;

use super::attacker::{LONG, Scene, close_code, hello, id, mallory};
use crate::mesh::clock;
use crate::mesh::driver::stubs::attaching::attach;
use crate::transport::code::CloseCode;
use crate::transport::frame::Hello;

#[tokio::test(start_paused = true)]
async fn a_stub_that_proves_nothing_is_not_listed_and_is_closed() {
    let scene = Scene::new().await;
    let stub = Hello { stub: true, transit: false, ..hello() };
    let start = clock::now();
    let member = scene.member_saying(stub).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let explained = scene.mesh.node("honest").explain(&mallory()).await.unwrap();
    assert!(explained.next_hops.is_empty(), "{explained:?}");
    assert_eq!(close_code(&member.link.connection).await, CloseCode::Unproven);
    let took = clock::now() - start;
    assert!((Duration::from_secs(10)..Duration::from_secs(11)).contains(&took), "{took:?}");
    scene.assert_unharmed("a stub without a proof").await;
}

#[tokio::test(start_paused = true)]
async fn a_proof_of_another_attachment_closes_the_link() {
    let scene = Scene::new().await;
    for (stub, neighbour) in [("mallory", "honest"), ("honest", "victim"), ("mallory~x", "victim")]
    {
        let stub_hello = Hello { stub: true, transit: false, ..hello() };
        let mut member = scene.member_saying(stub_hello).await;
        let proof = scene.attachment(&id(stub), &id(neighbour));
        member.link.control.write_all(&attach(&proof).encode()).await.unwrap();
        assert_eq!(
            close_code(&member.link.connection).await,
            CloseCode::Unproven,
            "{stub} {neighbour}"
        );
        scene.assert_unharmed(stub).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stub_that_proves_itself_without_end_loses_the_link() {
    let scene = Scene::new().await;
    let mut member = scene.member().await;
    let proof = attach(&scene.attachment(&mallory(), &id("victim"))).encode();
    for _ in 0..64 {
        if member.link.control.write_all(&proof).await.is_err() {
            break;
        }
    }
    let code = tokio::time::timeout(LONG, close_code(&member.link.connection)).await.unwrap();
    assert_eq!(code, CloseCode::Overloaded);
    scene.assert_unharmed("proofs without end").await;
}
