//! Moves packets between a carrier's stream and its queues.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::timeout;

use super::IDLE;
use super::counts::count;
use super::decoder::{Decoder, FrameError, encode};
use super::hub::Carried;

/// Bytes after which a batch of frames is written: what fits a TLS record.
const BATCH: usize = 16 * 1024;

/// Why a carrier ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    #[error("the other end closed it")]
    Closed,
    #[error("its link ended")]
    Unused,
    #[error("nothing arrived for {IDLE:?}")]
    Idle,
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Runs until either end closes the carrier, or its link ends.
pub(super) async fn run<S: AsyncRead + AsyncWrite>(stream: S, carried: &Carried) -> Ended {
    let (read, write) = tokio::io::split(stream);
    let ended = tokio::select! {
        biased;
        () = carried.carrier.until_ended() => Ended::Unused,
        ended = receive(read, carried) => ended,
        ended = send(write, carried) => ended.into(),
    };
    match ended {
        Ended::Frame(_) => count(&carried.carriers.counters.bad_frames),
        Ended::Idle => count(&carried.carriers.counters.idle),
        Ended::Closed | Ended::Unused | Ended::Io(_) => {}
    }
    ended
}

async fn receive<S: AsyncRead>(mut read: ReadHalf<S>, carried: &Carried) -> Ended {
    let mut decoder = Decoder::default();
    let mut buf = vec![0; 2 * BATCH];
    loop {
        while carried.carrier.is_full() {
            carried.carrier.room.notified().await;
        }
        let len = match timeout(IDLE, read.read(&mut buf)).await {
            Ok(Ok(0)) => return Ended::Closed,
            Ok(Ok(len)) => len,
            Ok(Err(error)) => return error.into(),
            Err(_) => return Ended::Idle,
        };
        if let Err(error) = decoder.decode(&buf[..len], |packet| carried.deliver(packet)) {
            return error.into();
        }
    }
}

async fn send<S: AsyncWrite>(mut write: WriteHalf<S>, carried: &Carried) -> io::Error {
    let mut batch = Vec::with_capacity(2 * BATCH);
    loop {
        batch.clear();
        while batch.len() < BATCH {
            let Some(packet) = carried.carrier.next(tokio::time::Instant::now().into_std()) else {
                break;
            };
            encode(&packet, &mut batch);
        }
        if batch.is_empty() {
            carried.carrier.sendable.notified().await;
            continue;
        }
        let written = async {
            write.write_all(&batch).await?;
            write.flush().await
        };
        if let Err(error) = written.await {
            return error;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::IoSliceMut;
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::time::Instant;

    use quinn::udp::{RecvMeta, Transmit};

    use super::*;
    use crate::transport::carrier::Carriers;

    fn remote() -> SocketAddr {
        "192.0.2.1:443".parse().unwrap()
    }

    fn send(carriers: &Carriers, to: SocketAddr, packets: &[u8], size: usize, now: Instant) {
        let transmit = Transmit {
            destination: to,
            ecn: None,
            contents: packets,
            segment_size: Some(size),
            src_ip: None,
        };
        carriers.send(&transmit, now).unwrap();
    }

    /// The next packet, and the address that it comes from.
    async fn receive(carriers: &Carriers) -> (SocketAddr, Vec<u8>) {
        let (mut buf, mut meta) = (vec![0; 9_000], [RecvMeta::default()]);
        poll_fn(|cx| carriers.poll_recv(cx, &mut [IoSliceMut::new(&mut buf)], &mut meta)).await;
        buf.truncate(meta[0].len);
        (meta[0].addr, buf)
    }

    #[tokio::test]
    async fn a_batch_arrives_packet_by_packet_from_the_address_of_the_carrier() {
        let (near, far) = (Arc::<Carriers>::default(), Arc::<Carriers>::default());
        let (a, b) = tokio::io::duplex(64);
        let (one, other) = (near.open(remote(), false), far.open(remote(), true));
        let now = tokio::time::Instant::now().into_std();
        send(&near, one.addr(), &[[7; 500], [8; 500], [9; 500]].concat(), 500, now);
        let arrived = async {
            for byte in 7..=9 {
                assert_eq!(receive(&far).await, (other.addr(), vec![byte; 500]));
            }
        };
        tokio::select! {
            () = arrived => {}
            ended = run(a, &one) => panic!("{ended}"),
            ended = run(b, &other) => panic!("{ended}"),
        }
        let addr = one.addr();
        assert_eq!((near.remote(addr), near.is_accepted(addr)), (Some(remote()), false));
        drop(one);
        assert_eq!((near.remote(addr), near.status().open), (None, 0));
    }

    #[tokio::test]
    async fn a_stream_whose_packets_nobody_reads_is_not_read_either() {
        let (carriers, mut frame) = (Arc::<Carriers>::default(), Vec::new());
        encode(&[1; 1_000], &mut frame);
        let (mut sender, b) = tokio::io::duplex(1_000);
        let carried = carriers.open(remote(), true);
        let flooded = async {
            let mut frames = 0;
            // Until nothing is accepted although everything else had its turn.
            while timeout(std::time::Duration::from_secs(1), sender.write_all(&frame)).await.is_ok()
            {
                frames += 1;
            }
            frames
        };
        tokio::time::pause();
        tokio::select! {
            frames = flooded => assert!((240..300).contains(&frames), "{frames}"),
            ended = run(b, &carried) => panic!("{ended}"),
        }
        assert!(carried.carrier.is_full());
    }

    #[tokio::test(start_paused = true)]
    async fn what_ends_a_carrier_is_counted() {
        let carriers = Arc::<Carriers>::default();
        for (bytes, bad_frames, idle) in [(&[0, 0][..], 1, 0), (&[255, 255], 2, 0), (&[0], 2, 1)] {
            let (mut sender, b) = tokio::io::duplex(64);
            let carried = carriers.open(remote(), true);
            sender.write_all(bytes).await.unwrap();
            run(b, &carried).await;
            let status = carriers.status();
            assert_eq!((status.bad_frames, status.idle), (bad_frames, idle), "{bytes:?}");
        }
    }
}
