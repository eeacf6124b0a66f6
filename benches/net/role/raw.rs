//! Raw quinn: client or server, with this crate's settings or with quinn's defaults.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{
    AsyncUdpSocket, ClientConfig, Connection, Endpoint, EndpointConfig, ServerConfig, UdpPoller,
};
use receptor_quic::transport::bench;

use super::console::Console;
use super::remote::Service;
use super::workload::{self, Action, Call, Message};
use super::{Settings, many, tls};
use crate::Result;
use crate::certificates::HOST;

pub(super) async fn run(settings: &Settings) -> Result<()> {
    let maker = Arc::new(Maker::new(settings)?);
    let count = settings.parsed("count")?.unwrap_or(1);
    let endpoints = (0..count).map(|_| maker.endpoint()).collect::<Result<Vec<_>>>()?;
    let datagrams = Arc::<AtomicU64>::default();
    if let Ok(service) = settings.get("serve") {
        let named = |known: &Service| format!("{known:?}").eq_ignore_ascii_case(service);
        let service = Service::ALL.into_iter().find(named).ok_or("no such service")?;
        for endpoint in &endpoints {
            tokio::spawn(serve(endpoint.clone(), service, datagrams.clone()));
        }
    }
    let addrs = endpoints.iter().map(|endpoint| Ok(endpoint.local_addr()?.to_string()));
    let mut console = Console::ready(addrs.collect::<Result<Vec<_>>>()?.join(","));
    let connections = BTreeMap::new();
    let mut client = Client { maker, endpoints, connections, idle: Vec::new(), datagrams };
    while let Some(command) = console.next().await {
        console.answer(client.obey(&command).await);
    }
    Ok(())
}

/// Makes endpoints that are all alike.
pub(super) struct Maker {
    server: ServerConfig,
    client: ClientConfig,
    /// The largest UDP payload; `None` for everything as quinn has it by default.
    max_datagram: Option<u16>,
}

impl Maker {
    pub(super) fn new(settings: &Settings) -> Result<Self> {
        let (server, client) = tls::configs(settings)?;
        let mut server = ServerConfig::with_crypto(Arc::new(server));
        let mut client = ClientConfig::new(Arc::new(client));
        if settings.has("defaults") {
            return Ok(Self { server, client, max_datagram: None });
        }
        let max_datagram =
            settings.parsed("max_datagram")?.unwrap_or(bench::MAX_MTU).min(bench::MAX_MTU);
        let streams = settings.parsed("streams")?.unwrap_or(bench::MAX_STREAMS);
        let transport = Arc::new(bench::transport(max_datagram, streams));
        server.transport_config(transport.clone());
        client.transport_config(transport);
        Ok(Self { server, client, max_datagram: Some(max_datagram) })
    }

    /// An endpoint that dials and listens.
    pub(super) fn endpoint(&self) -> Result<Endpoint> {
        let addr: SocketAddr = "127.0.0.1:0".parse()?;
        let mut endpoint = match self.max_datagram {
            None => Endpoint::server(self.server.clone(), addr)?,
            Some(max_datagram) => {
                let mut config = EndpointConfig::default();
                config.grease_quic_bit(false).max_udp_payload_size(bench::MAX_DATAGRAM)?;
                let socket = Capped {
                    io: bench::bind(addr)?,
                    max: (65_507 / usize::from(max_datagram)).max(1),
                };
                let runtime = Arc::new(quinn::TokioRuntime);
                let server = Some(self.server.clone());
                Endpoint::new_with_abstract_socket(config, server, Arc::new(socket), runtime)?
            }
        };
        endpoint.set_default_client_config(self.client.clone());
        Ok(endpoint)
    }
}

async fn serve(endpoint: Endpoint, service: Service, datagrams: Arc<AtomicU64>) {
    while let Some(incoming) = endpoint.accept().await {
        let datagrams = datagrams.clone();
        tokio::spawn(async move {
            let connection = incoming.await?;
            let receiving = connection.clone();
            tokio::spawn(async move {
                while receiving.read_datagram().await.is_ok() {
                    datagrams.fetch_add(1, Ordering::Relaxed);
                }
            });
            while let Ok((send, recv)) = connection.accept_bi().await {
                tokio::spawn(service.serve(send, recv));
            }
            Result::Ok(())
        });
    }
}

struct Client {
    maker: Arc<Maker>,
    endpoints: Vec<Endpoint>,
    connections: BTreeMap<String, Connection>,
    /// What only stays connected.
    idle: Vec<(Endpoint, Connection)>,
    /// Datagrams that came in.
    datagrams: Arc<AtomicU64>,
}

impl Client {
    async fn obey(&mut self, command: &str) -> Result<Vec<f64>> {
        let words: Vec<_> = command.split_whitespace().collect();
        match words.as_slice() {
            ["ready", addr] => {
                self.connection(addr).await?;
                Ok(vec![])
            }
            ["stream", addr, bytes, streams] => {
                workload::stream(self.connection(addr).await?, bytes.parse()?, streams.parse()?)
                    .await
            }
            ["messages", addr, size, at_once, millis] => {
                let action = Message(self.connection(addr).await?.clone(), size.parse()?);
                workload::repeat(action, at_once.parse()?, millis.parse()?).await
            }
            // It has no other kind of call.
            ["calls" | "work", addr, at_once, millis] => {
                let action = Call(self.connection(addr).await?.clone());
                workload::repeat(action, at_once.parse()?, millis.parse()?).await
            }
            ["fan", addr, millis] => {
                for (nth, endpoint) in self.endpoints.iter().enumerate() {
                    if let Entry::Vacant(vacant) = self.connections.entry(format!("{addr} {nth}")) {
                        vacant.insert(endpoint.connect(addr.parse()?, HOST)?.await?);
                    }
                }
                let fan = |(to, connection): (&String, &Connection)| {
                    (to.split_once(' ').map(|(to, _)| to) == Some(*addr))
                        .then(|| connection.clone())
                };
                many::stream(self.connections.iter().filter_map(fan).collect(), millis.parse()?)
                    .await
            }
            ["first", addr, _, count] => {
                let twice = Twice(self.endpoints[0].clone(), addr.parse()?);
                many::one_by_one(&vec![twice; count.parse()?]).await
            }
            ["handshakes", addr, count, at_once] => {
                let (addr, maker) = (addr.parse()?, self.maker.clone());
                let links = (0..count.parse()?).map(|_: usize| link(maker.clone(), addr));
                let (answer, connections) = many::at_once(links, at_once.parse()?).await?;
                self.idle = connections;
                Ok(answer)
            }
            ["hold", addr, count] => {
                for _ in 0..count.parse::<usize>()? {
                    let connection = self.endpoints[0].connect(addr.parse()?, HOST)?.await?;
                    Call(connection.clone()).run().await?;
                    self.idle.push((self.endpoints[0].clone(), connection));
                }
                Ok(vec![])
            }
            ["release"] => {
                self.idle.clear();
                tokio::time::sleep(many::RELEASE).await;
                Ok(vec![])
            }
            ["datagrams", addr, size, millis] => {
                let connection = self.connection(addr).await?.clone();
                workload::datagrams(connection, size.parse()?, millis.parse()?).await
            }
            ["received"] => Ok(vec![self.datagrams.load(Ordering::Relaxed) as f64]),
            _ => Err(format!("unknown command: {command}").into()),
        }
    }

    async fn connection(&mut self, addr: &str) -> Result<&Connection> {
        Ok(match self.connections.entry(addr.to_owned()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(vacant) => {
                vacant.insert(self.endpoints[0].connect(addr.parse()?, HOST)?.await?)
            }
        })
    }
}

/// Two handshakes, one after the other.
#[derive(Clone)]
struct Twice(Endpoint, SocketAddr);

impl Action for Twice {
    async fn run(&self) -> Result<()> {
        for _ in 0..2 {
            self.0.connect(self.1, HOST)?.await?.close(0_u32.into(), b"");
        }
        Ok(())
    }
}

/// A connection from an endpoint of its own, and one call.
async fn link(maker: Arc<Maker>, addr: SocketAddr) -> Result<(Endpoint, Connection)> {
    let endpoint = maker.endpoint()?;
    let connection = endpoint.connect(addr, HOST)?.await?;
    Call(connection.clone()).run().await?;
    Ok((endpoint, connection))
}

/// A socket that sends no more than 64 KiB at once. quinn by itself does not look at that; beyond
/// it the system refuses the batch, and quinn takes it for a lost probe.
struct Capped {
    io: Arc<dyn AsyncUdpSocket>,
    max: usize,
}

impl AsyncUdpSocket for Capped {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.io.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.io.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.io.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.io.max_transmit_segments().min(self.max)
    }

    fn max_receive_segments(&self) -> usize {
        self.io.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.io.may_fragment()
    }
}

impl fmt::Debug for Capped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capped").field("max", &self.max).finish_non_exhaustive()
    }
}
