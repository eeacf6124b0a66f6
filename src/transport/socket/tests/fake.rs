//! A UDP socket whose network is the test.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use quinn::udp::{EcnCodepoint, RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

#[derive(Debug)]
pub(super) struct FakeUdp {
    addr: SocketAddr,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    arrived: VecDeque<(RecvMeta, Vec<u8>)>,
    sent: Vec<Sent>,
    /// Sends that are taken before the socket is full.
    room: usize,
    segments: usize,
    fails: bool,
    refusals: usize,
    reader: Option<Waker>,
    writers: Vec<Waker>,
}

/// One send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) to: SocketAddr,
    pub(super) contents: Vec<u8>,
    pub(super) segment_size: Option<usize>,
    pub(super) ecn: Option<EcnCodepoint>,
    pub(super) src_ip: Option<IpAddr>,
}

impl Sent {
    pub(super) fn packets(&self) -> Vec<Vec<u8>> {
        let size = self.segment_size.unwrap_or(self.contents.len()).max(1);
        self.contents.chunks(size).map(<[u8]>::to_vec).collect()
    }
}

impl FakeUdp {
    pub(super) fn new(addr: &str) -> Arc<Self> {
        let state = State {
            arrived: VecDeque::new(),
            sent: Vec::new(),
            room: usize::MAX,
            segments: 64,
            fails: false,
            refusals: 0,
            reader: None,
            writers: Vec::new(),
        };
        Arc::new(Self { addr: addr.parse().unwrap(), state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Packets arrive in one buffer, as GRO makes it: all of the first one's length, but for a
    /// shorter last one.
    pub(super) fn arrive(&self, from: SocketAddr, packets: &[Vec<u8>]) {
        self.arrive_at(from, self.addr.ip(), packets);
    }

    /// The same, to one of the addresses that the socket is bound to.
    pub(super) fn arrive_at(&self, from: SocketAddr, to: IpAddr, packets: &[Vec<u8>]) {
        let stride = packets[0].len();
        let (last, rest) = packets.split_last().unwrap();
        assert!(rest.iter().all(|packet| packet.len() == stride) && last.len() <= stride);
        let contents = packets.concat();
        let meta = RecvMeta {
            addr: from,
            len: contents.len(),
            stride,
            ecn: Some(EcnCodepoint::Ce),
            dst_ip: Some(to),
        };
        let mut state = self.state();
        state.arrived.push_back((meta, contents));
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }

    /// What was sent since this was asked last.
    pub(super) fn sent(&self) -> Vec<Sent> {
        std::mem::take(&mut self.state().sent)
    }

    /// Takes this many sends from now on, then is full.
    pub(super) fn set_room(&self, room: usize) {
        let mut state = self.state();
        state.room = room;
        if room > 0 {
            state.writers.drain(..).for_each(Waker::wake);
        }
    }

    pub(super) fn set_segments(&self, segments: usize) {
        self.state().segments = segments;
    }

    /// Refuses every send from now on.
    pub(super) fn break_down(&self) {
        self.state().fails = true;
    }

    /// How often it was asked to send while it was full.
    pub(super) fn refusals(&self) -> usize {
        self.state().refusals
    }
}

impl AsyncUdpSocket for FakeUdp {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable(self))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let mut state = self.state();
        if state.fails {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        if state.room == 0 {
            state.refusals += 1;
            // Nobody who waits for room asks so often without having been told of any.
            assert!(state.refusals < 10_000, "busy waiting for room");
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.room = state.room.saturating_sub(usize::from(state.room != usize::MAX));
        let segment_size = transmit.segment_size;
        let packets = transmit.contents.len().div_ceil(segment_size.unwrap_or(usize::MAX));
        assert!(
            packets <= state.segments,
            "{packets} packets at once; the socket takes {}",
            state.segments
        );
        state.sent.push(Sent {
            to: transmit.destination,
            contents: transmit.contents.to_vec(),
            segment_size,
            ecn: transmit.ecn,
            src_ip: transmit.src_ip,
        });
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.state();
        let mut received = 0;
        for (buf, meta) in bufs.iter_mut().zip(meta) {
            let Some((arrived, contents)) = state.arrived.pop_front() else { break };
            buf[..contents.len()].copy_from_slice(&contents);
            *meta = arrived;
            received += 1;
        }
        if received > 0 {
            return Poll::Ready(Ok(received));
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }

    fn max_transmit_segments(&self) -> usize {
        self.state().segments
    }

    fn max_receive_segments(&self) -> usize {
        64
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

#[derive(Debug)]
struct Writable(Arc<FakeUdp>);

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.state();
        if state.room > 0 {
            return Poll::Ready(Ok(()));
        }
        state.writers.push(cx.waker().clone());
        Poll::Pending
    }
}
