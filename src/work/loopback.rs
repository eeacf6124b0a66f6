//! Two quinn endpoints on loopback, for tests: real streams without a mesh.

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};

use super::call::{Call, CallOptions, call};
use super::registry::Registry;
use crate::id::NodeId;
use crate::mesh::access::connection::Access;
use crate::mesh::services::connection::FirstCause;
use crate::mesh::{Incoming, Stream};

/// A caller and an executor, connected.
pub(super) struct Pair {
    pub(super) caller: quinn::Connection,
    pub(super) executor: quinn::Connection,
    pub(super) registry: Registry,
    _endpoints: [quinn::Endpoint; 2],
}

/// A stream of the caller, who may do everything.
pub(super) fn incoming(stream: Stream) -> Incoming {
    let (peer, access) = (node("caller"), Access::of_test("caller"));
    Incoming { peer, deadline: None, stream, access }
}

/// How much one stream holds on its way: small, so that backpressure shows.
pub(super) const STREAM_WINDOW: u32 = 128 * 1024;

impl Pair {
    pub(super) async fn new(registry: Registry) -> Self {
        let name = "executor".to_owned();
        let made = rcgen::generate_simple_self_signed([name.clone()]).unwrap();
        let cert = made.cert.der().clone();
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(cert.clone()).unwrap();

        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert], key)
            .unwrap();
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();

        let mut transport = quinn::TransportConfig::default();
        transport.stream_receive_window(STREAM_WINDOW.into()).send_window(STREAM_WINDOW.into());
        let transport = Arc::new(transport);
        let mut server =
            quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server).unwrap()));
        server.transport_config(transport.clone());
        let mut client =
            quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(client).unwrap()));
        client.transport_config(transport);

        let loopback = (Ipv6Addr::LOCALHOST, 0).into();
        let executor_endpoint = quinn::Endpoint::server(server, loopback).unwrap();
        let caller_endpoint = quinn::Endpoint::client(loopback).unwrap();
        let connecting = caller_endpoint
            .connect_with(client, executor_endpoint.local_addr().unwrap(), &name)
            .unwrap();
        let accepting = async { executor_endpoint.accept().await.unwrap().await.unwrap() };
        let (caller, executor) = tokio::join!(async { connecting.await.unwrap() }, accepting);
        Self { caller, executor, registry, _endpoints: [caller_endpoint, executor_endpoint] }
    }

    /// A stream, as the mesh hands out both ends after its own header.
    pub(super) async fn stream(&self) -> (Stream, Stream) {
        let (send, recv) = self.caller.open_bi().await.unwrap();
        let first = FirstCause::default();
        let mut calling = Stream::new(send, recv, &first);
        calling.send.write_all(b"h").await.unwrap();
        let (send, recv) = self.executor.accept_bi().await.unwrap();
        let mut served = Stream::new(send, recv, &FirstCause::default());
        assert_eq!(served.recv.read_chunk(1).await.unwrap().unwrap(), "h");
        (calling, served)
    }

    /// A stream whose other end the registry serves.
    pub(super) async fn served(&self) -> Stream {
        let (calling, served) = self.stream().await;
        let registry = self.registry.clone();
        tokio::spawn(async move { registry.serve(incoming(served)).await });
        calling
    }

    pub(super) async fn call(&self, directive: &str, options: CallOptions) -> Call {
        call(self.served().await, directive.parse().unwrap(), new_id(), options).await.unwrap()
    }
}

pub(super) fn node(id: &str) -> NodeId {
    id.parse().unwrap()
}

/// An id that no other call of the test run has.
pub(super) fn new_id() -> uuid::Uuid {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    uuid::Uuid::from_u64_pair(0, NEXT.fetch_add(1, Ordering::Relaxed))
}
