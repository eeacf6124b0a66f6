//! What both sides have in common, so that each workload is written once.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use receptor_quic::mesh::{DatagramSender, RecvHalf, SendHalf};
use receptor_quic::{Call, Directive, Node, NodeId, ServiceName};

use crate::Result;

/// The service that counts datagrams.
pub(super) const DATAGRAMS: &str = "count";

/// What the server does with a stream.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Service {
    /// It sends back what comes.
    Echo,
    /// It reads to the end, and answers how much there was.
    Sink,
}

impl Service {
    pub(super) const ALL: [Self; 2] = [Self::Echo, Self::Sink];

    pub(super) fn name(self) -> Result<ServiceName> {
        Ok(match self {
            Self::Echo => "echo",
            Self::Sink => "sink",
        }
        .parse()?)
    }

    /// Serves one stream.
    pub(super) async fn serve(self, mut send: impl Writer, mut recv: impl Reader) -> Result<()> {
        match self {
            Self::Echo => {
                while let Some(chunk) = recv.read().await? {
                    send.write(chunk).await?;
                }
            }
            Self::Sink => {
                let mut total = 0;
                while let Some(chunk) = recv.read().await? {
                    total += chunk.len() as u64;
                }
                send.write(Bytes::copy_from_slice(&total.to_be_bytes())).await?;
            }
        }
        send.finish();
        Ok(())
    }
}

/// A server, as the client sees it.
pub(super) trait Remote: Clone + Send + Sync + 'static {
    type Send: Writer;
    type Recv: Reader;

    fn open(
        &self,
        service: Service,
    ) -> impl Future<Output = Result<(Self::Send, Self::Recv)>> + Send;
}

pub(super) trait Writer: Send + 'static {
    fn write(&mut self, data: Bytes) -> impl Future<Output = Result<()>> + Send;
    fn finish(&mut self);
}

/// Sends datagrams.
pub(super) trait Shooter {
    /// As soon as there is room.
    fn shoot(&self, payload: &'static [u8]) -> impl Future<Output = Result<()>> + Send;
}

impl Shooter for DatagramSender {
    async fn shoot(&self, payload: &'static [u8]) -> Result<()> {
        Ok(self.send_wait(payload).await?)
    }
}

impl Shooter for quinn::Connection {
    async fn shoot(&self, payload: &'static [u8]) -> Result<()> {
        Ok(self.send_datagram_wait(Bytes::from_static(payload)).await?)
    }
}

pub(super) trait Reader: Send + 'static {
    fn read(&mut self) -> impl Future<Output = Result<Option<Bytes>>> + Send;
}

/// A node of the mesh, as another one calls it.
#[derive(Clone)]
pub(super) struct Peer(Arc<Inner>);

struct Inner {
    node: Node,
    id: NodeId,
    echo: ServiceName,
    sink: ServiceName,
}

impl Peer {
    pub(super) fn new(node: &Node, id: &str) -> Result<Self> {
        let (echo, sink) = (Service::Echo.name()?, Service::Sink.name()?);
        Ok(Self(Arc::new(Inner { node: node.clone(), id: id.parse()?, echo, sink })))
    }

    /// Waits until there is a way to it.
    pub(super) async fn routable(&self) {
        self.0.node.routable(&self.0.id).await.expect("the node runs");
    }

    /// Sends datagrams to it.
    pub(super) async fn datagrams(&self) -> Result<DatagramSender> {
        Ok(self.0.node.datagrams(&self.0.id, DATAGRAMS).await?)
    }

    /// Calls a directive of it.
    pub(super) async fn work(&self, directive: Directive) -> Result<Call> {
        Ok(self.0.node.call(&self.0.id, directive).await?)
    }
}

impl Remote for Peer {
    type Send = SendHalf;
    type Recv = RecvHalf;

    async fn open(&self, service: Service) -> Result<(SendHalf, RecvHalf)> {
        let name = match service {
            Service::Echo => &self.0.echo,
            Service::Sink => &self.0.sink,
        };
        Ok(self.0.node.open(&self.0.id, name).await?.split())
    }
}

impl Writer for SendHalf {
    async fn write(&mut self, data: Bytes) -> Result<()> {
        Ok(self.write_chunk(data).await?)
    }

    fn finish(&mut self) {
        Self::finish(self);
    }
}

impl Reader for RecvHalf {
    async fn read(&mut self) -> Result<Option<Bytes>> {
        Ok(self.read_chunk(usize::MAX).await?)
    }
}

impl Remote for quinn::Connection {
    type Send = quinn::SendStream;
    type Recv = quinn::RecvStream;

    /// The other end knows what its streams are for.
    async fn open(&self, _: Service) -> Result<(quinn::SendStream, quinn::RecvStream)> {
        Ok(self.open_bi().await?)
    }
}

impl Writer for quinn::SendStream {
    async fn write(&mut self, data: Bytes) -> Result<()> {
        Ok(self.write_chunk(data).await?)
    }

    fn finish(&mut self) {
        // It fails where it was finished or reset before: nothing is left to do.
        let _ = Self::finish(self);
    }
}

impl Reader for quinn::RecvStream {
    async fn read(&mut self) -> Result<Option<Bytes>> {
        Ok(self.read_chunk(usize::MAX, true).await?.map(|chunk| chunk.bytes))
    }
}
