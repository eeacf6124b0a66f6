use super::*;
use crate::transport::Identity;
use crate::transport::identity::testdata::{chain, identity, text};

#[test]
fn a_chain_survives_the_way_and_what_is_none_is_not_read() {
    for name in ["uri", "chained"] {
        let chain = chain(name);
        assert_eq!(decode(&encode(&chain)).unwrap(), chain, "{name}");
    }
    let many = vec![chain("uri")[0].clone(); Identity::MAX_CHAIN + 1];
    assert!(decode(&encode(&many)).is_none() && decode(&encode(&many[1..])).is_some());
    assert!(decode(&encode(&[])).is_none());
    let bytes = encode(&chain("chained"));
    for len in 0..bytes.len() {
        assert!(decode(&bytes[..len]).is_none(), "{len}");
    }
}

#[test]
fn a_chain_is_looked_at_once_as_long_as_its_validity_stays() {
    let verifier = Verifier::new(identity("uri").trust().clone());
    let at = |seconds: u64| UNIX_EPOCH + Duration::from_secs(seconds);
    let chain = chain("chained");
    let mut found = Vec::new();
    for now in [1_700_000_000, 1_800_000_000, 1_500_000_000, 5_000_000_000] {
        let standing = verifier.standing([1; 16], &chain, at(now));
        let fault = match standing {
            Standing::Genuine { fault, .. } => fault,
            other => panic!("{other:?}"),
        };
        found.push((fault, verifier.known().get(&[1; 16]).unwrap().holds));
    }
    // 2020-01-01 to 2120-01-01.
    let (from, until) = (1_577_836_800, 4_733_510_400);
    assert_eq!(
        found,
        [
            (None, (from, until)),
            (None, (from, until)),
            (Some(Fault::NotYetValid), (0, from - 1)),
            (Some(Fault::Expired), (until + 1, u64::MAX)),
        ]
    );
}

#[test]
fn a_certificate_in_the_chain_that_is_not_needed_and_out_of_its_time_does_no_harm() {
    let verifier = Verifier::new(identity("uri").trust().clone());
    let mut long = chain("chained");
    long.extend(chain("expired"));
    let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    assert!(matches!(
        verifier.standing([1; 16], &long, now),
        Standing::Genuine { fault: None, .. }
    ));
}

#[test]
fn the_chains_that_are_remembered_are_bounded() {
    let verifier = Verifier::new(identity("uri").trust().clone());
    let junk = [CertificateDer::from_slice(b"junk")];
    for nth in 0..Verifier::MAX_KNOWN as u128 + 9 {
        verifier.standing(nth.to_be_bytes(), &junk, UNIX_EPOCH);
    }
    assert_eq!(verifier.known().len(), Verifier::MAX_KNOWN);
}

#[test]
fn a_chain_that_is_too_long_to_travel_makes_no_identity() {
    let names: Vec<String> = (0..50).map(|nth| format!("{nth}.{}", "long.".repeat(34))).collect();
    let long = rcgen::CertificateParams::new(names).unwrap();
    let long = long.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem();
    let identity =
        Identity::from_pem(&(text("uri.crt") + &long), &text("uri.key"), &text("ca.crt"));
    assert!(identity.unwrap_err().to_string().contains("the chain has more than 8192 bytes"));
}
