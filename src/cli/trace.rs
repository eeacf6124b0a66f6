//! `receptor trace`: the way to a node.

use std::io::Write;

use serde_json::json;

use super::args::TraceArgs;
use super::local::Hop;
use super::place::Place;
use crate::cli::output::text::{Cell, Paint, Table, millis};
use crate::cli::process::exit::Failure;
use crate::cli::setup::env::Env;

/// Prints the nodes on the way, from the first after this end to the last.
pub(super) async fn run(args: TraceArgs, env: &Env) -> Result<(), Failure> {
    let hops = Place::with(args.place, env, async |place| place.trace(&args.node).await).await?;
    let text =
        if args.json { format!("{}\n", json!(hops)) } else { render(&hops, Paint::for_stdout()) };
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Failure::output(&error))
}

fn render(hops: &[Hop], paint: Paint) -> String {
    let mut table = Table::new(["HOP", "NODE", "ROUND TRIP"]);
    for (at, hop) in hops.iter().enumerate() {
        let rtt = match hop.rtt_ms {
            Some(rtt_ms) => Cell::plain(millis(rtt_ms)),
            None => Cell::plain("-"),
        };
        table.row([Cell::plain((at + 1).to_string()), Cell::plain(hop.node.as_str()), rtt]);
    }
    table.render(paint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hops_are_numbered_from_this_end() {
        let hop = |node: &str, rtt_ms| Hop { node: node.parse().unwrap(), rtt_ms };
        let text = render(&[hop("relay-1", Some(12.34)), hop("b", None)], Paint::off());
        assert_eq!(
            text,
            "  HOP  NODE     ROUND TRIP\n  1    relay-1  12.3 ms\n  2    b        -\n"
        );
    }
}
