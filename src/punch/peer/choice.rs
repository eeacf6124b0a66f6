//! Selection among several paths.

use std::time::{Duration, Instant};

use super::path::Watch;
use crate::punch::gather::candidate::CandidateKind;
use crate::punch::wire::probe::CandidatePair;

/// What a path over IPv6, or to an interface of the peer, may be slower and still be as good: no
/// NAT forgets it.
const BONUS: Duration = Duration::from_millis(3);
/// A path takes the place of another only if it is better by this much,
const MARGIN: Duration = Duration::from_millis(5);
/// and by one part in this many.
const SHARE: u32 = 10;
/// How long the path in use may be in doubt while another one answers.
const PATIENCE: Duration = Duration::from_millis(750);

/// The path to use from now on, given the current one. `None` if all are in doubt.
pub(crate) fn choose(
    paths: &[Watch],
    used: Option<CandidatePair>,
    now: Instant,
) -> Option<CandidatePair> {
    let good = || paths.iter().filter(|path| path.doubted.is_none());
    let best = good().min_by_key(|path| score(path));
    let Some(used) = used.and_then(|used| paths.iter().find(|path| path.pair() == used)) else {
        return best.map(Watch::pair);
    };
    let better = match used.doubted {
        None => best.filter(|best| score(best) + MARGIN.max(score(used) / SHARE) <= score(used)),
        Some(since) if now < since + PATIENCE => None,
        Some(since) => {
            good().filter(|path| path.is_good_since(since)).min_by_key(|path| score(path))
        }
    };
    Some(better.unwrap_or(used).pair())
}

/// When the choice may change without input.
pub(crate) fn review_at(paths: &[Watch], used: Option<CandidatePair>) -> Option<Instant> {
    let used = paths.iter().find(|path| Some(path.pair()) == used)?;
    let since = used.doubted?;
    paths.iter().any(|path| path.is_good_since(since)).then_some(since + PATIENCE)
}

/// The smaller, the better.
pub(crate) fn score(path: &Watch) -> Duration {
    let favoured = path.candidate.addr.is_ipv6() || path.candidate.kind == CandidateKind::Host;
    path.rtt.smoothed() + if favoured { Duration::ZERO } else { BONUS }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::punch::gather::candidate::Candidate;
    use crate::punch::testing::{addr, start};

    fn path(to: &str, kind: CandidateKind, ms: u64) -> Watch {
        let candidate = Candidate { addr: addr(to), kind };
        Watch::new(candidate, None, None, Duration::from_millis(ms), start())
    }

    fn pair(to: &str) -> CandidatePair {
        CandidatePair { remote: addr(to), local_port: None }
    }

    #[test]
    fn the_shortest_round_trip_wins_and_ipv6_and_interfaces_have_three_milliseconds_of_grace() {
        use CandidateKind::{Host, Mapped};
        let chosen = |paths: &[Watch]| choose(paths, None, start()).unwrap().remote.to_string();
        assert_eq!(
            chosen(&[path("192.0.2.1:1", Mapped, 20), path("192.0.2.2:1", Mapped, 19)]),
            "192.0.2.2:1"
        );
        assert_eq!(
            chosen(&[path("192.0.2.1:1", Mapped, 20), path("[2001:db8::1]:1", Mapped, 22)]),
            "[2001:db8::1]:1"
        );
        assert_eq!(
            chosen(&[path("192.0.2.1:1", Mapped, 20), path("10.0.0.1:1", Host, 22)]),
            "10.0.0.1:1"
        );
        assert_eq!(
            chosen(&[path("192.0.2.1:1", Mapped, 20), path("10.0.0.1:1", Host, 24)]),
            "192.0.2.1:1"
        );
        assert_eq!(choose(&[], None, start()), None);
    }

    #[test]
    fn a_path_is_left_only_for_one_that_is_better_by_five_milliseconds_and_a_tenth() {
        use CandidateKind::Mapped;
        let used = Some(pair("192.0.2.1:1"));
        let chosen = |used_ms, other_ms| {
            let paths =
                [path("192.0.2.1:1", Mapped, used_ms), path("192.0.2.2:1", Mapped, other_ms)];
            choose(&paths, used, start()).unwrap() != pair("192.0.2.1:1")
        };
        assert!(!chosen(20, 16));
        assert!(chosen(20, 15));
        assert!(!chosen(200, 185));
        assert!(chosen(200, 179));
    }

    #[test]
    fn a_doubtful_path_is_left_for_one_that_answers() {
        use CandidateKind::Mapped;
        let now = start();
        let used = Some(pair("192.0.2.1:1"));
        let mut paths = [path("192.0.2.1:1", Mapped, 10), path("192.0.2.2:1", Mapped, 50)];
        paths[0].doubt(now);
        assert_eq!(choose(&paths, used, now), used, "a little patience");
        assert_eq!(review_at(&paths, used), Some(now + PATIENCE));
        assert_eq!(choose(&paths, used, now + PATIENCE), Some(pair("192.0.2.2:1")));
        paths[1].doubt(now);
        assert_eq!(choose(&paths, used, now + PATIENCE), used, "both are doubtful");
        assert_eq!(choose(&paths, None, now + PATIENCE), None, "and neither comes into use");
    }
}
