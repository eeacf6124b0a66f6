//! The plots, from what was measured; what was not is not drawn.

use std::path::Path;

use crate::Result;
use crate::case::{Distribution, SIZES};
use crate::row::{Row, median};
use crate::svg::{Chart, Scale, Series};

/// Writes the plots that the rows are enough for, and says which.
pub(crate) fn write(dir: &Path, rows: &[Row], distributions: &[Distribution]) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    let plots = [
        ("throughput-by-size.svg", by_size(rows)),
        ("throughput-by-hops.svg", by_hops(rows)),
        ("latency.svg", latency(distributions)),
        ("relay-cpu.svg", relay_cpu(rows)),
    ];
    for (name, chart) in plots {
        if let Some(svg) = chart.draw() {
            std::fs::write(dir.join(name), svg)?;
            println!("wrote {}", dir.join(name).display());
        }
    }
    Ok(())
}

fn by_size(rows: &[Row]) -> Chart {
    let names = SIZES.map(|(_, name, _)| name.trim_start_matches("message-").to_owned());
    let link = SIZES.map(|(_, name, _)| name);
    let relay = SIZES.map(|(_, _, name)| name);
    Chart {
        title: "Throughput by message size, a stream each, 64 at a time",
        x: "size of a message",
        y: "MB/s",
        x_scale: Scale::Names(names.to_vec()),
        series: [
            both(rows, &link, ["ours, link", "quinn, link"]),
            both(rows, &relay, ["ours, relay", "quinn, splice"]),
        ]
        .concat(),
        bars: false,
    }
}

fn by_hops(rows: &[Row]) -> Chart {
    let cases = ["link-stream-1452", "relay-stream", "relay2-stream", "relay3-stream"];
    Chart {
        title: "Throughput of one stream by relays between, datagrams of 1,452 bytes",
        x: "relays",
        y: "MB/s",
        x_scale: Scale::Names(["none", "1", "2", "3"].map(str::to_owned).to_vec()),
        series: both(rows, &cases, ["ours, sealed end to end", "quinn, spliced in the clear"]),
        bars: false,
    }
}

fn relay_cpu(rows: &[Row]) -> Chart {
    Chart {
        title: "CPU of a relay for each GiB",
        x: "datagrams",
        y: "CPU-seconds for a GiB",
        x_scale: Scale::Names(["1,452 bytes", "8,952 bytes"].map(str::to_owned).to_vec()),
        series: both(rows, &["relay-cpu", "relay-cpu-jumbo"], ["ours", "quinn, spliced"]),
        bars: true,
    }
}

fn latency(distributions: &[Distribution]) -> Chart {
    let series = distributions.iter().map(|distribution| {
        // The slowest call of all is chance.
        let points = distribution
            .percentiles
            .iter()
            .copied()
            .zip(0..100)
            .map(|(took, percent)| (took, f64::from(percent)));
        Series { name: distribution.name.clone(), points: points.collect() }
    });
    Chart {
        title: "Calls of 64 bytes, one after the other: how many are done by when",
        x: "microseconds",
        y: "percent",
        x_scale: Scale::Log,
        series: series.collect(),
        bars: false,
    }
}

/// Ours and the baseline's medians of these cases, in their places.
fn both(rows: &[Row], cases: &[&str], names: [&str; 2]) -> Vec<Series> {
    let found = || {
        let place = |row: &Row| cases.iter().position(|case| *case == row.case);
        let mut found: Vec<_> =
            rows.iter().filter_map(|row| Some((place(row)? as f64, row))).collect();
        found.sort_by(|a, b| a.0.total_cmp(&b.0));
        found
    };
    let series = |name: &str, values: fn(&Row) -> &[f64]| Series {
        name: name.to_owned(),
        points: found()
            .into_iter()
            .map(|(place, row)| (place, median(values(row).iter().copied())))
            .collect(),
    };
    vec![series(names[0], |row| &row.ours), series(names[1], |row| &row.baseline)]
        .into_iter()
        .filter(|series| !series.points.is_empty())
        .collect()
}
