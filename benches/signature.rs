//! What signed records cost: one signature for each that a node speaks, one verification for each
//! that it takes.
//!
//! `cargo bench --bench signature`.

use std::hint::black_box;
use std::path::Path;
use std::time::SystemTime;

use criterion::{Criterion, criterion_group, criterion_main};
use receptor_quic::id::Version;
use receptor_quic::mesh::CertificateNotary;
use receptor_quic::router::{CredentialName, Draft, Link, LinkClass, Notary, Proof, Verdict};
use receptor_quic::{Authority, Cost, Identity, NodeId};

fn signatures(criterion: &mut Criterion) {
    let node: NodeId = "node-000001.mesh.test".parse().expect("it is a name");
    let issued =
        Authority::new("bench", 1).and_then(|ca| ca.issue(&node, 1)).expect("it can be made");
    let identities =
        [("P-256", issued), ("Ed25519", fixture("dns")), ("RSA", fixture("othername"))];
    let mut group = criterion.benchmark_group("signature");
    for (name, identity) in identities {
        let notary = CertificateNotary::new(&identity, clock);
        let origin = identity.ids()[0].clone();
        let record = record(&origin);
        let credential = notary.credential();
        group
            .bench_function(format!("sign/{name}"), |b| b.iter(|| notary.sign(black_box(&record))));
        let signature = notary.sign(&record).expect("the key can sign");
        let proof = Proof { credential: CredentialName::of(&credential), signature };
        group.bench_function(format!("verify/{name}"), |b| {
            b.iter(|| {
                let verdict = notary.verify(&origin, black_box(&record), &proof, Some(&credential));
                assert_eq!(verdict, Verdict::Valid);
            });
        });
        // Once for each node of the mesh: its chain is verified, too.
        group.bench_function(format!("verify the first/{name}"), |b| {
            b.iter_with_setup(
                || CertificateNotary::new(&identity, clock),
                |notary| notary.verify(&origin, black_box(&record), &proof, Some(&credential)),
            );
        });
    }
    group.finish();
}

fn record(origin: &NodeId) -> Vec<u8> {
    let mut draft = Draft::new(origin.clone(), Version { epoch: 1, sequence: 1, instance: 1 });
    let peers =
        (0..8).map(|n| NodeId::try_from(format!("peer-{n:06}.mesh.test")).expect("it is a name"));
    draft.links =
        peers.map(|peer| Link { peer, class: LinkClass::Active, cost: Cost::DEFAULT }).collect();
    draft.seal().expect("it keeps the rules").advertisement().bytes().to_vec()
}

fn fixture(name: &str) -> Identity {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("certs/fixtures");
    let read =
        |file: String| std::fs::read_to_string(dir.join(file)).expect("the fixture is there");
    Identity::from_pem(
        &read(format!("{name}.crt")),
        &read(format!("{name}.key")),
        &read("ca.crt".into()),
    )
    .expect("the fixture is an identity")
}

#[expect(clippy::disallowed_methods, reason = "certificates are valid at some time")]
fn clock() -> SystemTime {
    SystemTime::now()
}

criterion_group!(benches, signatures);
criterion_main!(benches);
