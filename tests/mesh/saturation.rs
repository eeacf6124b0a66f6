//! Many streams at once, services that nobody drains, and what still works meanwhile.

use std::time::Duration;

use receptor_quic::mesh::{MAX_STREAMS, MAX_WAITING, RefuseCode, StreamError};
use receptor_quic::testing::{LinkQuality, Mesh, Network, mesh};
use receptor_quic::{CallError, Incoming, Node, OpenError, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::{echo, id, serve_echo, service};

/// Offers `hold`, which sends back one byte and keeps the stream.
fn serve_hold(node: &Node) {
    let mut listener = node.serve(service("hold")).unwrap();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Some(incoming) = listener.accept().await {
            let Incoming { mut stream, .. } = incoming;
            stream.write_all(b"h").await.unwrap();
            kept.push(stream);
        }
    });
}

/// Opens `count` streams to `hold` at once, each of which must be served.
async fn hold(from: &Node, to: &str, count: usize) -> Vec<Stream> {
    let mut opening = JoinSet::new();
    for _ in 0..count {
        let (from, to) = (from.clone(), id(to));
        opening.spawn(async move {
            let mut stream = from.open(&to, &service("hold")).await?;
            stream.read_u8().await.expect("the stream is served");
            Ok::<_, OpenError>(stream)
        });
    }
    opening
        .join_all()
        .await
        .into_iter()
        .map(|opened| opened.expect("the stream is opened"))
        .collect()
}

/// A mesh in which `a` has the neighbour `r` and, behind it, `b`.
async fn with_loss(loss: f64, seed: u64) -> Mesh {
    let network = Network::new(seed);
    let mesh = Mesh::on(network, ["a-r", "b-r"]).await;
    mesh.network().set_default(LinkQuality { loss, ..LinkQuality::default() });
    for name in ["r", "b"] {
        serve_hold(mesh.node(name));
        serve_echo(mesh.node(name));
    }
    mesh
}

/// A ping that was answered.
#[derive(Clone, Copy, Debug)]
struct Pinged {
    /// In milliseconds.
    took: f64,
    /// Datagrams that the network lost meanwhile, of this ping or of anything else.
    lost: u64,
}

impl Pinged {
    /// How long a ping may take, in milliseconds.
    ///
    /// Nothing tells the sender of a lost packet with nothing behind it that it is lost, until a
    /// probe timeout has passed (RFC 9002, section 6.2.1): the smoothed round trip, four times its
    /// variation, and the 25 ms for which the peer may delay acknowledgements. With the round trips
    /// of these tests, 2 and 4 ms, that is 30 to 38 ms, and more while the variation remembers an
    /// earlier loss: up to twice as much. The timeout doubles with each loss in a row, request and
    /// answer taken together.
    fn bound(self) -> f64 {
        match self.lost {
            0 => 50.0,
            1 => 80.0,
            2 => 160.0,
            // Of many at once most are of other streams.
            _ => 350.0,
        }
    }
}

/// Pings every 20 ms until `done`.
async fn pings(mesh: &Mesh, to: &str, mut done: tokio::sync::oneshot::Receiver<()>) -> Vec<Pinged> {
    let mut pings = Vec::new();
    while done.try_recv().is_err() {
        let (start, lost) = (Instant::now(), mesh.network().counters().lost);
        mesh.node("a").ping(&id(to)).await.expect("the ping is answered");
        let took = start.elapsed().as_secs_f64() * 1_000.0;
        pings.push(Pinged { took, lost: mesh.network().counters().lost - lost });
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    pings
}

#[tokio::test(start_paused = true)]
async fn streams_opened_at_once_and_kept_are_all_served() {
    for (round, loss) in [0.0, 0.03, 0.03, 0.03].into_iter().enumerate() {
        for count in [10, 33, 64, 500, MAX_STREAMS] {
            let mesh = with_loss(loss, round as u64).await;
            for name in ["r", "b"] {
                let a = mesh.node("a").clone();
                if loss > 0.0 {
                    // A lost packet of a handshake is sent again after 300 ms: no round trip is
                    // known.
                    a.ping(&id(name)).await.unwrap();
                }
                let (done, until) = tokio::sync::oneshot::channel();
                let ((streams, took), pings) = tokio::join!(
                    async {
                        let start = Instant::now();
                        let streams = hold(&a, name, count).await;
                        let took = start.elapsed();
                        // Pings go on for a while with all of them open.
                        tokio::time::sleep(Duration::from_secs(1)).await;
                        done.send(()).unwrap();
                        (streams, took)
                    },
                    pings(&mesh, name, until),
                );
                let case = format!("{count} to {name}, loss {loss}, seed {round}: {took:?}");
                assert_eq!(streams.len(), count, "{case}");
                assert!(took < Duration::from_secs(1), "{case}");
                for ping in &pings {
                    assert!(ping.took < ping.bound(), "{case}: {ping:?}");
                }
                // A lossy path has to lose something for this to mean anything.
                let hurt = pings.iter().filter(|ping| ping.lost > 0).count();
                assert_eq!(hurt > 0, loss > 0.0, "{case}: {pings:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_stream_too_many_fails_within_a_second() {
    let mesh = with_loss(0.0, 1).await;
    for name in ["r", "b"] {
        let a = mesh.node("a");
        let mut streams = hold(a, name, MAX_STREAMS).await;
        let expected = OpenError::TooManyStreams { node: id(name), max: MAX_STREAMS };
        let start = Instant::now();
        let mut more = JoinSet::new();
        for _ in 0..20 {
            let (a, node) = (a.clone(), id(name));
            more.spawn(async move { a.open(&node, &service("hold")).await.unwrap_err() });
        }
        let status = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            a.status().await.unwrap().peers.into_iter().find(|peer| peer.node == id(name)).unwrap()
        };
        let (errors, status) = tokio::join!(more.join_all(), status);
        assert!(errors.iter().all(|error| *error == expected), "{errors:?}");
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        assert_eq!((status.streams, status.opening), (MAX_STREAMS, 20));
        let explained = a.explain(&id(name)).await.unwrap().streams.unwrap();
        assert_eq!(
            (explained.opened, explained.opening, explained.saturated),
            (MAX_STREAMS, 0, true)
        );

        // With a deadline it waits, and gets the place that becomes free.
        let deadline = Duration::from_secs(3);
        let error = a.open_within(&id(name), &service("hold"), deadline).await.unwrap_err();
        assert_eq!(error, OpenError::Deadline(deadline));
        let free = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            streams.pop();
        };
        let (node, hold) = (id(name), service("hold"));
        let (opened, ()) = tokio::join!(a.open_within(&node, &hold, deadline), free);
        let mut opened = opened.unwrap();
        assert_eq!(opened.read_u8().await.unwrap(), b'h');

        // The built-in directives have places of their own.
        for _ in 0..300 {
            assert!(a.ping(&id(name)).await.unwrap().rtt_ms < 50.0);
        }
        assert_eq!(a.trace(&id(name)).await.unwrap().last().unwrap().node, id(name));
        drop((streams, opened));
        tokio::time::sleep(Duration::from_secs(1)).await;
        echo(a, name).await;
    }
}

#[tokio::test(start_paused = true)]
async fn streams_that_come_and_go_at_the_bound_never_run_out_of_credit() {
    let mesh = with_loss(0.01, 2).await;
    for name in ["r", "b"] {
        let a = mesh.node("a");
        // All but one are kept; the last place is used again and again.
        let _kept = hold(a, name, MAX_STREAMS - 1).await;
        for _ in 0..2_000 {
            echo(a, name).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn streams_that_only_the_opener_keeps_do_not_use_up_what_is_allowed_at_first() {
    let mesh = with_loss(0.0, 3).await;
    for name in ["r", "b"] {
        let a = mesh.node("a");
        // Refused, and kept. One after the other, so that the other end never has many at a time.
        let mut kept = Vec::new();
        for _ in 0..100 {
            let mut stream = a.open(&id(name), &service("nothing")).await.unwrap();
            assert!(matches!(stream.accepted().await, Err(StreamError::Refused(_))));
            kept.push(stream);
        }
        echo(a, name).await;
    }
}

#[tokio::test(start_paused = true)]
async fn forty_long_answers_between_fresh_nodes_all_arrive() {
    const LEN: usize = 1_300_000;
    let mesh = with_loss(0.0, 4).await;
    for name in ["r", "b"] {
        let mut listener = mesh.node(name).serve(service("long")).unwrap();
        tokio::spawn(async move {
            while let Some(mut incoming) = listener.accept().await {
                tokio::spawn(async move {
                    incoming.stream.write_all(&vec![7; LEN]).await.unwrap();
                    incoming.stream.shutdown().await.unwrap();
                });
            }
        });
        let a = mesh.node("a");
        let mut streams = Vec::new();
        for _ in 0..40 {
            streams.push(a.open(&id(name), &service("long")).await.unwrap());
        }
        // None is read before all are open.
        tokio::time::sleep(Duration::from_secs(2)).await;
        echo(a, name).await;
        for mut stream in streams {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            assert_eq!(all.len(), LEN);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_nobody_drains_refuses_and_silences_no_other() {
    let mesh = with_loss(0.0, 5).await;
    for name in ["r", "b"] {
        let _undrained = mesh.node(name).serve(service("undrained")).unwrap();
        let a = mesh.node("a");
        let mut streams = Vec::new();
        // One caller gets three quarters of the places.
        for nth in 0..=MAX_WAITING * 3 / 4 {
            let start = Instant::now();
            let mut stream = a.open(&id(name), &service("undrained")).await.unwrap();
            let accepted = stream.accepted().await;
            if nth < MAX_WAITING * 3 / 4 {
                assert_eq!(accepted, Ok(()));
            } else {
                let Err(StreamError::Refused(why)) = accepted else { panic!("{accepted:?}") };
                assert_eq!(why.code, RefuseCode::CallerLimit);
                assert!(start.elapsed() < Duration::from_millis(200), "{:?}", start.elapsed());
            }
            streams.push(stream);
        }
        // Others have places left.
        let other = if name == "r" { "b" } else { "r" };
        let mut stream = mesh.node(other).open(&id(name), &service("undrained")).await.unwrap();
        assert_eq!(stream.accepted().await, Ok(()));
        streams.push(stream);
        assert!(a.ping(&id(name)).await.unwrap().rtt_ms < 50.0);
        a.trace(&id(name)).await.unwrap();
        echo(a, name).await;
        assert_eq!(mesh.node(name).status().await.unwrap().refused_streams, 1);
    }
}

/// Interval at which `paced` accepts streams.
const PACE: Duration = Duration::from_millis(1);

/// Offers `paced`, which accepts one stream per [`PACE`] and sends back how many it has accepted
/// before.
fn serve_paced(node: &Node) {
    let mut listener = node.serve(service("paced")).unwrap();
    tokio::spawn(async move {
        for nth in 0_u32.. {
            let Some(mut incoming) = listener.accept().await else { break };
            incoming.stream.write_u32(nth).await.unwrap();
            incoming.stream.shutdown().await.unwrap();
            tokio::time::sleep(PACE).await;
        }
    });
}

#[tokio::test(start_paused = true)]
async fn streams_beyond_a_share_are_accepted_in_order() {
    let mesh = with_loss(0.0, 8).await;
    for name in ["r", "b"] {
        serve_paced(mesh.node(name));
        let a = mesh.node("a");
        let mut answers = JoinSet::new();
        // One caller may fill three quarters of the queue. The streams beyond them wait in line, and
        // there is a line for much longer than a stream may wait in it.
        let burst = MAX_WAITING * 3 / 4 + 70;
        let mut most = 0;
        for nth in 0..burst as u32 + 500 {
            let mut stream = a.open(&id(name), &service("paced")).await.unwrap();
            answers.spawn(async move { (nth, stream.read_u32().await) });
            if nth as usize >= burst {
                tokio::time::sleep(PACE).await;
            }
            while let Some(answer) = answers.try_join_next() {
                let (nth, answered) = answer.unwrap();
                assert_eq!(answered.expect("it is accepted"), nth);
            }
            most = most.max(answers.len());
        }
        assert!(most > MAX_WAITING * 3 / 4 + 40, "the share is used up: {most}");
        for (nth, answered) in answers.join_all().await {
            assert_eq!(answered.expect("it is accepted"), nth);
        }
        assert_eq!(mesh.node(name).status().await.unwrap().refused_streams, 0);
    }
}

/// Opens `count` streams to `hold` in tasks of their own, which return the stream and its number.
fn open_at_once(from: &Node, to: &str, count: usize) -> JoinSet<(usize, Stream)> {
    let mut opening = JoinSet::new();
    for nth in 0..count {
        let (from, to) = (from.clone(), id(to));
        opening.spawn(async move {
            let opened = from.open(&to, &service("hold")).await;
            (nth, opened.expect("the stream is opened"))
        });
    }
    opening
}

/// Returns the first streams that are opened, one of which had to wait for credit: the first
/// allowance is 32.
async fn until_credit_arrives(opening: &mut JoinSet<(usize, Stream)>) -> Vec<(usize, Stream)> {
    let mut opened = Vec::new();
    while opened.len() <= 32 {
        opened.push(opening.join_next().await.expect("more are opened").unwrap());
    }
    opened
}

#[tokio::test(start_paused = true)]
async fn an_open_that_finds_credit_overtakes_those_that_wait() {
    let mesh = with_loss(0.0, 9).await;
    for name in ["r", "b"] {
        let a = mesh.node("a");
        a.ping(&id(name)).await.unwrap();
        let mut opening = open_at_once(a, name, 500);
        let _opened = until_credit_arrives(&mut opening).await;
        // The others are woken one after the other.
        assert!(opening.len() > 400, "{name}: {} wait", opening.len());
        let (node, hold) = (id(name), service("hold"));
        tokio::select! {
            biased;
            opened = a.open(&node, &hold) => drop(opened.unwrap()),
            () = std::future::ready(()) => panic!("{name}: it waits in line"),
        }
        opening.join_all().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_that_waited_for_a_place_overtakes_too() {
    let mesh = with_loss(0.0, 10).await;
    for name in ["r", "b"] {
        let a = mesh.node("a");
        a.ping(&id(name)).await.unwrap();
        let mut opening = open_at_once(a, name, MAX_STREAMS + 20);
        let mut opened = until_credit_arrives(&mut opening).await;
        let waiting = opening.len();
        // Their places go to those that wait for one.
        opened.clear();
        while opened.last().is_none_or(|(nth, _)| *nth < MAX_STREAMS) {
            opened.push(opening.join_next().await.expect("all are opened").unwrap());
        }
        assert!(opened.len() < waiting / 2, "{name}: after {} of {waiting}", opened.len());
        opening.join_all().await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_caller_does_not_take_all_places_of_calls() {
    let mesh = mesh(["a-r", "b-r", "c-r"]).await;
    let endless = "test:endless".parse::<receptor_quic::Directive>().unwrap();
    let handler = |_, responder: receptor_quic::Responder| async move {
        responder.send(bytes::Bytes::from_static(b"started")).await?;
        std::future::pending().await
    };
    mesh.node("b").handle(endless.clone(), handler).unwrap();
    let mut calls = JoinSet::new();
    for _ in 0..MAX_STREAMS {
        let (a, directive) = (mesh.node("a").clone(), endless.clone());
        calls.spawn(async move {
            let mut call = a.call(&id("b"), directive).await.unwrap();
            let first = call.next().await;
            (call, first)
        });
    }
    let calls = calls.join_all().await;
    let running = calls.iter().filter(|(_, first)| first.is_ok()).count();
    assert_eq!(running, 768, "three quarters of 1,024");
    let refused =
        |first: &Result<_, CallError>| matches!(first, Ok(_) | Err(CallError::CallerLimit));
    assert!(calls.iter().all(|(_, first)| refused(first)));
    for name in ["a", "c"] {
        assert!(mesh.node(name).ping(&id("b")).await.unwrap().rtt_ms < 50.0);
    }
    let mut call = mesh.node("c").call(&id("b"), endless).await.unwrap();
    assert_eq!(call.next().await.unwrap().unwrap().body, "started");
}

/// Offers `unread`, which keeps its streams and reads none of them.
fn serve_unread(node: &Node) {
    let mut listener = node.serve(service("unread")).unwrap();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Some(incoming) = listener.accept().await {
            kept.push(incoming);
        }
    });
}

/// Opens streams to `unread` and writes to each as much as it takes; returns them, and the bytes
/// written.
async fn fill(from: &Node, to: &str, count: usize) -> (Vec<Stream>, usize) {
    let mut filling = JoinSet::new();
    for _ in 0..count {
        let (from, to) = (from.clone(), id(to));
        filling.spawn(async move {
            // At the limit not even the header of another stream gets through.
            let mut stream =
                from.open_within(&to, &service("unread"), Duration::from_secs(5)).await.ok()?;
            let mut written = 0;
            let piece = [0; 16_384];
            let patience = Duration::from_secs(3);
            while let Ok(Ok(count)) = tokio::time::timeout(patience, stream.write(&piece)).await {
                written += count;
            }
            Some((stream, written))
        });
    }
    let filled: Vec<_> = filling.join_all().await.into_iter().flatten().collect();
    let written = filled.iter().map(|(_, written)| written).sum();
    (filled.into_iter().map(|(stream, _)| stream).collect(), written)
}

#[tokio::test(start_paused = true)]
async fn forty_streams_that_nobody_reads_delay_no_other() {
    let mesh = with_loss(0.0, 6).await;
    for name in ["r", "b"] {
        let (node, a) = (mesh.node(name), mesh.node("a"));
        serve_unread(node);
        // They begin together, before the window has grown.
        let (streams, written) = fill(a, name, 39).await;
        assert_eq!(streams.len(), 39);
        // But for their headers, they are full.
        assert!(written > 39 * 1_249_900, "{written}");
        for _ in 0..20 {
            let start = Instant::now();
            echo(a, name).await;
            assert!(start.elapsed() < Duration::from_millis(100), "{:?}", start.elapsed());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_reads_is_bounded_for_each_peer_and_for_all() {
    const MIB: usize = 1 << 20;
    let names: Vec<_> = (0..8).map(|n| format!("n{n}-r")).collect();
    let mesh =
        Mesh::with(Network::new(7), names.iter().map(String::as_str).chain(["c-r"]), |builder| {
            builder.receive_window(8 << 20).receive_memory(24 << 20)
        })
        .await;
    let node = mesh.node("r");
    serve_unread(node);
    serve_echo(node);
    let mut streams = Vec::new();
    let mut total = 0;
    for n in 0..8 {
        let (filled, written) = fill(mesh.node(&format!("n{n}")), "r", 100).await;
        // The sender keeps up to 10 MB of its own.
        assert!(written <= (8 + 10) * MIB, "{n}: {} MiB", written / MIB);
        total += written;
        streams.push(filled);
    }
    // Beside the first window of each connection and what the senders keep.
    assert!(total <= (24 + 8 * (2 + 10)) * MIB, "{} MiB", total / MIB);
    let windows = node.status().await.unwrap().receive_windows;
    assert!(windows.bytes <= (24 + 9 * 2) << 20 && windows.limited > 0, "{windows:?}");
    // Another peer has a window of its own.
    for _ in 0..20 {
        let start = Instant::now();
        echo(mesh.node("c"), "r").await;
        assert!(start.elapsed() < Duration::from_millis(100), "{:?}", start.elapsed());
    }
}
