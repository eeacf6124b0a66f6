//! First packets of QUIC connections, for floods of handshakes that go no further.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, EndpointConfig, UdpPoller};

use crate::member::client_config;

/// First packets of QUIC connections, as many as are wanted.
#[derive(Debug, Default)]
pub(crate) struct Initials(VecDeque<Vec<u8>>);

impl Initials {
    pub(crate) async fn next(&mut self) -> Vec<u8> {
        const BATCH: usize = 50;
        if self.0.is_empty() {
            let socket = Arc::new(Capture::default());
            let runtime = Arc::new(quinn::TokioRuntime);
            let config = EndpointConfig::default();
            let endpoint =
                quinn::Endpoint::new_with_abstract_socket(config, None, socket.clone(), runtime)
                    .unwrap();
            let config = client_config(None);
            let to = SocketAddr::from(([10, 0, 0, 1], 7400));
            let connect = |_| endpoint.connect_with(config.clone(), to, "receptor").unwrap();
            let connecting: Vec<_> = (0..BATCH).map(connect).collect();
            while socket.0.lock().unwrap().len() < BATCH {
                tokio::task::yield_now().await;
            }
            self.0 = std::mem::take(&mut socket.0.lock().unwrap());
            drop(connecting);
        }
        self.0.pop_front().unwrap()
    }
}

/// A socket that keeps what is sent.
#[derive(Debug, Default)]
struct Capture(Mutex<VecDeque<Vec<u8>>>);

#[derive(Debug)]
struct Writable;

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for Capture {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let segment = transmit.segment_size.unwrap_or(transmit.contents.len());
        self.0.lock().unwrap().extend(transmit.contents.chunks(segment).map(<[u8]>::to_vec));
        Ok(())
    }

    fn poll_recv(
        &self,
        _: &mut Context<'_>,
        _: &mut [IoSliceMut<'_>],
        _: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 7400))
    }
}
