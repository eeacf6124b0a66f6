//! When the system says that something about the network has changed.

pub(crate) use system::Wakes;

#[cfg(any(target_os = "linux", target_os = "android"))]
mod system {
    use std::io;
    use std::os::unix::net::UnixDatagram as StdDatagram;

    use rustix::io::Errno;
    use rustix::net::netlink::SocketAddrNetlink;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
    use tokio::net::UnixDatagram;

    /// The groups of `linux/rtnetlink.h`: links, addresses and routes, of IPv4 and IPv6.
    const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;
    /// Messages that are taken at a time.
    const AT_A_TIME: usize = 64;

    /// The kernel's routing messages. What they say is not looked at.
    ///
    /// It is no Unix socket, but a datagram socket, and that is all that waiting and reading need.
    #[derive(Debug)]
    pub(crate) struct Wakes(UnixDatagram);

    impl Wakes {
        /// Fails where the system does not let programs listen, as Android does not.
        pub(crate) fn open() -> io::Result<Self> {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            // Without a protocol it is NETLINK_ROUTE.
            let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
            bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
            UnixDatagram::from_std(StdDatagram::from(socket)).map(Self)
        }

        /// Waits for the next change, and takes with it what is there already. Cancel safe.
        pub(crate) async fn next(&self) -> io::Result<()> {
            // A message that does not fit is cut off, and is a change all the same.
            let mut ignored = [0_u8; 1];
            happened(self.0.recv(&mut ignored).await)?;
            for _ in 0..AT_A_TIME {
                match self.0.try_recv(&mut ignored) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    received => happened(received)?,
                }
            }
            Ok(())
        }
    }

    fn happened(received: io::Result<usize>) -> io::Result<()> {
        match received {
            // The kernel has dropped some: then there were changes.
            Err(error) if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => Ok(()),
            received => received.map(drop),
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod system {
    use std::io;

    /// Nothing: the addresses are looked at every other second instead.
    #[derive(Debug)]
    pub(crate) struct Wakes;

    impl Wakes {
        pub(crate) fn open() -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(crate) async fn next(&self) -> io::Result<()> {
            std::future::pending().await
        }
    }
}
