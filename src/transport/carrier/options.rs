//! The socket options of carriers.

use socket2::SockRef;
use tokio::net::TcpStream;

/// Bytes that the kernel may hold unsent. More would be latency: see
/// [`queue`](super::queue).
#[cfg(target_os = "linux")]
const NOT_SENT: u32 = 16 * 1024;
/// Milliseconds after which the kernel gives up a connection that acknowledges nothing.
#[cfg(target_os = "linux")]
const GIVE_UP: u32 = 10_000;

/// Sets what the system permits. A system that permits less is slower or later to notice, and that
/// is no error.
pub(super) fn set(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_tcp_nodelay(true);
    #[cfg(target_os = "linux")]
    {
        let _ = SockRef::from(stream).set_tcp_notsent_lowat(NOT_SENT);
        let _ = rustix::net::sockopt::set_tcp_user_timeout(stream, GIVE_UP);
        // Keeps its rate on paths with random loss, where a carrier would be slower than UDP.
        let _ = rustix::net::sockopt::set_tcp_congestion(stream, "bbr");
    }
}
