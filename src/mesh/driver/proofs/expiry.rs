//! Warns of the certificate's end: 30, 7 and 1 days ahead, and when it has come.

use std::time::{Duration, SystemTime};

use tracing::{error, warn};

use crate::transport::Identity;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How near the end is. Later ones are worse.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Stage {
    Far,
    Month,
    Week,
    Day,
    Expired,
}

/// Remembers of what was warned already.
#[derive(Debug)]
pub(crate) struct ExpiryWatch {
    warned: Stage,
}

impl ExpiryWatch {
    pub(crate) fn new() -> Self {
        Self { warned: Stage::Far }
    }

    /// To be called periodically. Warns once per stage; a renewed certificate starts over.
    pub(crate) fn look(&mut self, identity: &Identity, now: SystemTime) {
        let stage = stage(identity.not_before(), identity.not_after(), now);
        if stage > self.warned {
            let hours =
                identity.not_after().duration_since(now).unwrap_or_default().as_secs() / 3_600;
            match stage {
                Stage::Expired => error!(
                    "the certificate has expired: no new link or peer will accept it, nor the mesh what this node says of its links"
                ),
                _ => {
                    warn!(hours_left = hours, "the certificate expires soon: renew it, and reload")
                }
            }
        }
        self.warned = stage;
    }
}

fn stage(not_before: SystemTime, not_after: SystemTime, now: SystemTime) -> Stage {
    let Ok(left) = not_after.duration_since(now) else { return Stage::Expired };
    // A certificate that is made for a month, or a day, is not to be warned of from its first hour
    // on.
    let third = not_after.duration_since(not_before).unwrap_or_default() / 3;
    let within = |days| left <= (DAY * days).min(third);
    match () {
        () if within(1) => Stage::Day,
        () if within(7) => Stage::Week,
        () if within(30) => Stage::Month,
        () => Stage::Far,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stages_are_a_month_a_week_and_a_day_ahead() {
        let start = SystemTime::UNIX_EPOCH;
        let year = start + DAY * 365;
        let at = |days_left: u32| stage(start, year, year - DAY * days_left);
        assert_eq!([at(31), at(30), at(8), at(7), at(2), at(1)], {
            use Stage::{Day, Far, Month, Week};
            [Far, Month, Month, Week, Week, Day]
        });
        assert_eq!(stage(start, year, year + DAY), Stage::Expired);
    }

    #[test]
    fn a_short_certificate_is_warned_of_in_its_last_third() {
        let start = SystemTime::UNIX_EPOCH;
        let end = start + DAY;
        assert_eq!(stage(start, end, start + DAY / 2), Stage::Far);
        assert_eq!(stage(start, end, start + DAY * 3 / 4), Stage::Day);
    }
}
