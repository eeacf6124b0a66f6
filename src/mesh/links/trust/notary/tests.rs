use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::Authority;
use crate::transport::testdata::{fixed_signer, identity, stranger, text};
use crate::transport::{Fingerprint, Trust};

/// Every kind of key and of name, and a chain.
const GOOD: [&str; 6] = ["othername", "uri", "dns", "p384", "many", "chained"];

const PAGE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/protocol.md"));

#[test]
fn every_kind_of_key_and_name_is_verified_by_every_other() {
    for signer in GOOD {
        let signed = Signed::by(&identity(signer));
        for verifier in GOOD {
            assert_eq!(
                signed.verified(&identity(verifier)),
                Verdict::Valid,
                "{signer} by {verifier}"
            );
        }
    }
    // Any of the ids in a certificate is one that its node may have, and no other is.
    let signed = Signed::by(&identity("many"));
    for (origin, verdict) in
        [("many@uri", Verdict::Valid), ("many-dns", Verdict::Valid), ("uri", Verdict::Forged)]
    {
        let signed = Signed { origin: origin.parse().unwrap(), ..signed.clone() };
        assert_eq!(signed.verified(&identity("uri")), verdict, "{origin}");
    }
}

#[test]
fn what_an_authority_of_this_crate_issued_is_verified_too() {
    let (authority, now) = (Authority::new_at("test", 9, now()).unwrap(), now());
    let [a, b] = ["a", "b"].map(|id| authority.issue_at(&id.parse().unwrap(), 1, now).unwrap());
    assert_eq!(Signed::by(&a).verified(&b), Verdict::Valid);
    // A certificate of another node of the mesh proves nothing of this one.
    let stolen = Signed { origin: "b".parse().unwrap(), ..Signed::by(&a) };
    assert_eq!(stolen.verified(&b), Verdict::Forged);
}

#[test]
fn without_the_credential_it_is_asked_for_even_if_it_was_seen_before() {
    let (signed, verifier) = (Signed::by(&identity("dns")), notary(&identity("uri")));
    for credential in [None, Some(&signed.credential[..]), None] {
        let expected = if credential.is_some() { Verdict::Valid } else { Verdict::NeedsCredential };
        assert_eq!(verifier.verify(&signed.origin, RECORD, &signed.proof, credential), expected);
    }
}

#[test]
fn what_was_altered_on_the_way_is_forged() {
    for signer in GOOD {
        let signed = Signed::by(&identity(signer));
        let verifier = notary(&identity("uri"));
        let verdict = |record: &[u8], proof: &Proof, credential: &[u8]| {
            verifier.verify(&signed.origin, record, proof, Some(credential))
        };
        assert_eq!(
            verdict(b"another record", &signed.proof, &signed.credential),
            Verdict::Forged,
            "{signer}"
        );
        let cut = Proof { signature: signed.proof.signature.slice(..9), ..signed.proof.clone() };
        assert_eq!(verdict(RECORD, &cut, &signed.credential), Verdict::Forged, "{signer}");
        let other = notary(&identity("revoked")).credential();
        assert_eq!(
            verdict(RECORD, &signed.proof, &other),
            Verdict::Forged,
            "{signer}: another's credential"
        );
        // What nobody can read is of nobody.
        for nothing in [&b""[..], b"no array", b"\x90", b"\x91\xc4\x03abc"] {
            let proof = Proof { credential: CredentialName::of(nothing), ..signed.proof.clone() };
            assert_eq!(verdict(RECORD, &proof, nothing), Verdict::Forged, "{signer}");
        }
        for at in (0..signed.credential.len()).step_by(7) {
            let mut altered = signed.credential.to_vec();
            altered[at] ^= 0x5a;
            let proof = Proof { credential: CredentialName::of(&altered), ..signed.proof.clone() };
            assert_ne!(verdict(RECORD, &proof, &altered), Verdict::Valid, "{signer} {at}");
        }
    }
}

#[test]
fn nobody_can_put_another_credential_of_the_same_key_in_the_place_of_the_one_that_was_signed_with()
{
    let signed = Signed::by(&identity("uri"));
    let root = identity("uri").trust().roots_pem();
    let longer = Identity::from_pem(&(text("uri.crt") + &root), &text("uri.key"), &root).unwrap();
    let credential = notary(&longer).credential();
    let proof = Proof { credential: CredentialName::of(&credential), ..signed.proof };
    let verdict =
        notary(&identity("dns")).verify(&signed.origin, RECORD, &proof, Some(&credential));
    assert_eq!(verdict, Verdict::Forged);
    assert_eq!(Signed::by(&longer).verified(&identity("dns")), Verdict::Valid);
}

#[test]
fn what_is_genuine_and_not_trusted_any_more_says_why() {
    let untrusted =
        |name: &str, verifier: Trust| Signed::by(&identity(name)).verified_with(verifier);
    let trust = || identity("uri").trust().clone();
    let listed = trust().with_crls(&text("crl.pem")).unwrap();
    let uri_key = identity("uri").key_fingerprint();
    let ids = |text: &str| [text.parse::<NodeId>().unwrap()];
    for (name, trust, why) in [
        ("expired", trust(), Distrust::Expired),
        ("expired", trust().with_denied(ids("expired")), Distrust::Expired),
        ("future", trust(), Distrust::NotYetValid),
        ("revoked", listed.clone(), Distrust::Revoked),
        ("dns", trust().with_denied(ids("dns")), Distrust::Denied),
        ("many", trust().with_denied(ids("many@uri")), Distrust::Denied),
        ("dns", trust().with_allowed(ids("uri")), Distrust::Denied),
        ("dns", trust().with_pins([uri_key]), Distrust::Denied),
        ("uri", stranger().trust().clone(), Distrust::UnknownIssuer),
        ("chained", stranger().trust().clone(), Distrust::UnknownIssuer),
        ("expired", stranger().trust().clone(), Distrust::UnknownIssuer),
    ] {
        assert_eq!(untrusted(name, trust), Verdict::Untrusted(why), "{name}");
    }
    for (name, trust) in [
        ("revoked", trust()),
        ("dns", listed),
        ("dns", trust().with_allowed(ids("dns"))),
        ("uri", trust().with_pins([uri_key, Fingerprint([1; 32])])),
        // One that may only dial is a node like any other.
        ("client-only", trust()),
    ] {
        assert_eq!(untrusted(name, trust), Verdict::Valid, "{name}");
    }
}

#[test]
fn distrust_excuses_no_forgery() {
    for (name, trust) in [
        ("expired", identity("uri").trust().clone()),
        ("revoked", identity("uri").trust().clone().with_crls(&text("crl.pem")).unwrap()),
        ("dns", identity("uri").trust().clone().with_allowed([])),
    ] {
        let wrong_name = Signed { origin: "uri".parse().unwrap(), ..Signed::by(&identity(name)) };
        assert_eq!(wrong_name.verified_with(trust.clone()), Verdict::Forged, "{name}");
        let other =
            Signed { proof: Signed::by(&identity("uri")).proof, ..Signed::by(&identity(name)) };
        let proof =
            Proof { credential: CredentialName::of(&other.credential), ..other.proof.clone() };
        assert_eq!(Signed { proof, ..other }.verified_with(trust), Verdict::Forged, "{name}");
    }
}

#[test]
fn a_credential_that_was_found_good_expires_all_the_same() {
    let expired = identity("expired");
    let signed = Signed::by(&expired);
    let verdict = |notary: &CertificateNotary| {
        notary.verify(&signed.origin, RECORD, &signed.proof, Some(&signed.credential))
    };
    // 2020-01-01 to 2020-02-01. The clock is the notary's only news.
    static DAY: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let clock = || {
        let days = DAY.load(std::sync::atomic::Ordering::Relaxed);
        UNIX_EPOCH + Duration::from_secs(1_577_836_800) + Duration::from_secs(days * 86_400)
    };
    let notary = CertificateNotary::new(&identity("uri"), clock);
    for (day, expected) in [
        (0, Verdict::Valid),
        (31, Verdict::Valid),
        (32, Verdict::Untrusted(Distrust::Expired)),
        (3_000, Verdict::Untrusted(Distrust::Expired)),
        (30, Verdict::Valid),
    ] {
        DAY.store(day, std::sync::atomic::Ordering::Relaxed);
        for _ in 0..2 {
            assert_eq!(verdict(&notary), expected, "day {day}");
        }
    }
}

#[test]
fn the_longest_proofs_and_credentials_fit() {
    for name in GOOD {
        let signed = Signed::by(&identity(name));
        assert!(signed.proof.encode().len() <= Proof::MAX, "{name}");
        assert_eq!(Proof::decode(&signed.proof.encode()), Some(signed.proof));
        assert!(signed.credential.len() <= Proof::MAX_CREDENTIAL, "{name}");
    }
}

#[test]
fn the_bytes_signed_and_the_proof_are_as_documented() {
    let (credential, record) = (b"certificates", hex("97a6656467652d310506070390c400"));
    let name = CredentialName::of(credential);
    let message = message(name, &record);
    assert_on_page(&message);
    let signature = fixed_signer().sign(&message).unwrap();
    // As `openssl pkeyutl -sign -rawin` has it.
    assert_on_page(&signature[2..]);
    assert_on_page(&Proof { credential: name, signature }.encode());
    let chain = [&b"one"[..], b"two"].map(rustls::pki_types::CertificateDer::from_slice);
    assert_on_page(&credential::encode(&chain));
}

#[test]
fn debug_shows_no_key() {
    let shown = format!("{:?}", notary(&identity("dns")));
    assert!(shown.contains("Signer(ED25519)"), "{shown}");
    assert!(shown.len() < 500, "nothing long is in it: {shown}");
}

const RECORD: &[u8] = b"a record";

/// A record's proof, and the credential to verify it with.
#[derive(Clone)]
struct Signed {
    origin: NodeId,
    proof: Proof,
    credential: Bytes,
}

impl Signed {
    fn by(identity: &Identity) -> Self {
        let notary = notary(identity);
        let credential = notary.credential();
        let signature = notary.sign(RECORD).unwrap();
        let proof = Proof { credential: CredentialName::of(&credential), signature };
        Self { origin: identity.ids()[0].clone(), proof, credential }
    }

    fn verified(&self, by: &Identity) -> Verdict {
        let notary = notary(by);
        let verdict = || notary.verify(&self.origin, RECORD, &self.proof, Some(&self.credential));
        let first = verdict();
        assert_eq!(verdict(), first, "it is remembered as it was found");
        first
    }

    fn verified_with(&self, trust: Trust) -> Verdict {
        self.verified(&identity("uri").with_trust(trust))
    }
}

fn notary(identity: &Identity) -> CertificateNotary {
    CertificateNotary::new(identity, now)
}

/// 2026-06, give or take.
fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_780_000_000)
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

#[test]
fn an_attachment_is_signed_as_the_protocol_page_shows() {
    let version = Version { epoch: 1, sequence: 2, instance: 3 };
    let [stub, neighbour] = ["a~1", "b"].map(|id| id.parse().unwrap());
    let body = Attachment::body(&stub, &neighbour, version, 1_767_225_600);
    assert_on_page(&body);
    let message = attachment_message(CredentialName::of(b"credential"), &body);
    assert_on_page(&fixed_signer().sign(&message).unwrap());
}

#[test]
fn a_signature_over_a_record_is_none_over_an_attachment() {
    let (dns, neighbour) = ("dns".parse().unwrap(), "uri".parse().unwrap());
    let notary = notary(&identity("dns"));
    let body = Attachment::body(
        &dns,
        &neighbour,
        Version { epoch: 1, sequence: 2, instance: 3 },
        u64::MAX,
    );
    let as_record = notary.sign(&body).unwrap();
    let stolen = Attachment::decode(body, as_record, notary.credential()).unwrap();
    assert_eq!(notary.verify_attachment(&stolen), AttachmentVerdict::Forged);
}

fn assert_on_page(bytes: &[u8]) {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(PAGE.contains(&format!("`{hex}`")), "{hex} is not in docs/protocol.md");
}
