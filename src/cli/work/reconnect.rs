//! Commands that wait survive a restart of the node behind the control socket.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::cli::process::exit::{Exit, Failure};

/// How long a node may be away before a command that waits gives up.
const AWAY: Duration = Duration::from_secs(60);

/// Retry interval meanwhile. A new socket is not announced.
const RETRY: Duration = Duration::from_millis(100);

/// Repeats `attempt` while the node is away or busy. A connection that is lost after more than
/// [`RETRY`] had reached the node, so the time starts again. A node that is busy may need longer
/// than that to say so.
pub(super) async fn persist<T>(
    mut attempt: impl AsyncFnMut() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut away_since: Option<Instant> = None;
    loop {
        let began = Instant::now();
        let failure = match attempt().await {
            Err(failure) if matches!(failure.exit, Exit::Unreachable | Exit::Busy) => failure,
            result => return result,
        };
        if failure.exit == Exit::Unreachable && began.elapsed() > RETRY {
            away_since = None;
        }
        if away_since.get_or_insert_with(Instant::now).elapsed() >= AWAY {
            return Err(failure);
        }
        sleep(RETRY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_node_that_comes_back_is_asked_again() {
        let mut attempts = 0;
        let result = persist(async || {
            attempts += 1;
            if attempts < 5 { Err(Failure::unreachable("away")) } else { Ok(attempts) }
        });
        assert_eq!(result.await, Ok(5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_stays_away_is_given_up_after_a_minute() {
        let began = Instant::now();
        let result: Result<(), _> = persist(async || Err(Failure::unreachable("away"))).await;
        assert_eq!(result.unwrap_err().text, "away");
        assert!((AWAY..AWAY + RETRY * 2).contains(&began.elapsed()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_stays_busy_is_given_up_after_a_minute() {
        let began = Instant::now();
        let mut attempts = 0;
        let result: Result<(), _> = persist(async || {
            attempts += 1;
            sleep(RETRY * 5).await;
            Err(Failure::busy("busy"))
        })
        .await;
        assert_eq!(result.unwrap_err().exit, Exit::Busy);
        assert!(attempts > 1 && began.elapsed() < AWAY + RETRY * 10, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn other_failures_are_final() {
        let result: Result<(), _> = persist(async || Err(Failure::usage("no"))).await;
        assert_eq!(result.unwrap_err().exit, Exit::Usage);
    }
}
