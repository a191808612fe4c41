//! Who is at the other end of a transport.

use std::any::{type_name, Any};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::sync::Arc;

/// Who is at the other end of a transport: what leads there, and what is known of who it is.
///
/// A transport that is made outside of this crate says so in the same way. What it has found out about the peer, a
/// certificate or a key, is the peer's identity: a value of whatever type it likes.
///
/// ```
/// use capnp_threads::{Peer, PeerAddress};
///
/// struct PublicKey([u8; 32]);
///
/// let peer = Peer::new(PeerAddress::InMemory).with_identity(PublicKey([7; 32]));
/// assert_eq!(peer.identity::<PublicKey>().unwrap().0[0], 7);
/// assert!(peer.identity::<String>().is_none());
/// assert_eq!(peer.to_string(), "in memory");
/// ```
///
/// Cheap to clone, but for addresses that are paths or words: clones share the identity. `Display` shows the address and the
/// credentials.
#[derive(Clone)]
#[non_exhaustive]
pub struct Peer {
    /// What leads to the peer.
    pub address: PeerAddress,
    /// The process at the other end. `None` where the system does not tell.
    pub credentials: Option<PeerCredentials>,
    identity: Option<Identity>,
}

/// What leads to a peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PeerAddress {
    /// A TCP connection.
    Tcp {
        /// The address of our end.
        local: SocketAddr,
        /// The address of the other end.
        remote: SocketAddr,
    },
    /// A Unix socket.
    Unix {
        /// The path of the socket that was connected to, which is the listener's. `None` if it has none.
        path: Option<PathBuf>,
    },
    /// The memory of this process.
    InMemory,
    /// Something else, in words.
    Other(String),
}

/// A value that says who a peer is.
#[derive(Clone)]
struct Identity {
    value: Arc<dyn Any + Send + Sync>,
    type_name: &'static str,
}

impl Peer {
    /// A peer of which no more is known than what leads to it.
    #[must_use]
    pub fn new(address: PeerAddress) -> Self {
        Peer { address, credentials: None, identity: None }
    }

    /// Sets [`credentials`](Self::credentials).
    #[must_use]
    pub fn with_credentials(mut self, credentials: PeerCredentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// Sets the value that says who the peer is, in the place of one that was set before.
    #[must_use]
    pub fn with_identity<T: Send + Sync + 'static>(mut self, identity: T) -> Self {
        self.identity = Some(Identity { value: Arc::new(identity), type_name: type_name::<T>() });
        self
    }

    /// The value that says who the peer is, if the transport has set one of this type.
    pub fn identity<T: 'static>(&self) -> Option<&T> {
        self.identity.as_ref()?.value.downcast_ref()
    }
}

impl From<PeerAddress> for Peer {
    fn from(address: PeerAddress) -> Self {
        Peer::new(address)
    }
}

/// Shows the type of the identity, not its value.
impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("address", &self.address)
            .field("credentials", &self.credentials)
            .field("identity", &self.identity.as_ref().map(|identity| identity.type_name))
            .finish()
    }
}

/// The process at the other end of a Unix socket, at the time of connecting or listening.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PeerCredentials {
    /// The process. `None` if it can't be named here, as it lives in another PID namespace.
    pub pid: Option<i32>,
    /// The user that the process ran as.
    pub uid: u32,
    /// The group that the process ran as.
    pub gid: u32,
}

impl PeerCredentials {
    /// A process that can't be named here, and that ran as this user and group.
    #[must_use]
    pub fn new(uid: u32, gid: u32) -> Self {
        PeerCredentials { pid: None, uid, gid }
    }

    /// Sets [`pid`](Self::pid).
    #[must_use]
    pub fn with_pid(mut self, pid: i32) -> Self {
        self.pid = Some(pid);
        self
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        self.credentials.map_or(Ok(()), |credentials| write!(f, " ({credentials})"))
    }
}

/// Names the other end: `tcp 127.0.0.1:4000`.
impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerAddress::Tcp { remote, .. } => write!(f, "tcp {remote}"),
            PeerAddress::Unix { path: Some(path) } => write!(f, "unix {path:?}"),
            PeerAddress::Unix { path: None } => f.write_str("unix (unnamed)"),
            PeerAddress::InMemory => f.write_str("in memory"),
            PeerAddress::Other(what) => f.write_str(what),
        }
    }
}

impl fmt::Display for PeerCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(pid) = self.pid {
            write!(f, "pid {pid}, ")?;
        }
        write!(f, "uid {}, gid {}", self.uid, self.gid)
    }
}

/// Who is at the other end of a Unix socket.
#[cfg(unix)]
pub(super) fn of_unix(stream: &std::os::unix::net::UnixStream) -> Peer {
    let name = |address: std::io::Result<std::os::unix::net::SocketAddr>| {
        address.ok().and_then(|a| a.as_pathname().map(PathBuf::from))
    };
    let path = name(stream.peer_addr()).or_else(|| name(stream.local_addr()));
    Peer { credentials: credentials(stream), ..Peer::new(PeerAddress::Unix { path }) }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn credentials(stream: &std::os::unix::net::UnixStream) -> Option<PeerCredentials> {
    use nix::sys::socket::{getsockopt, sockopt::PeerCredentials as Query};
    let found = getsockopt(stream, Query).ok()?;
    let pid = Some(found.pid()).filter(|pid| *pid > 0);
    Some(PeerCredentials { pid, ..PeerCredentials::new(found.uid(), found.gid()) })
}

#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
fn credentials(_: &std::os::unix::net::UnixStream) -> Option<PeerCredentials> {
    None
}

#[cfg(all(test, unix, not(any(shuttle, loom))))]
mod tests {
    use super::*;

    #[test]
    fn peer_is_shown_by_its_address_and_credentials() {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let tcp = Peer::new(PeerAddress::Tcp { local: address(1), remote: address(2) });
        assert_eq!(tcp.to_string(), "tcp 127.0.0.1:2");
        let unix = PeerAddress::Unix { path: Some("/run/it".into()) };
        let unix = Peer::new(unix).with_credentials(PeerCredentials::new(8, 9).with_pid(7));
        assert_eq!(unix.to_string(), "unix \"/run/it\" (pid 7, uid 8, gid 9)");
        assert_eq!(Peer::new(PeerAddress::Unix { path: None }).to_string(), "unix (unnamed)");
        assert_eq!(Peer::from(PeerAddress::InMemory).to_string(), "in memory");
        assert_eq!(Peer::new(PeerAddress::Other("a wire".into())).to_string(), "a wire");
    }

    #[test]
    fn identity_is_given_as_its_own_type_alone_and_not_shown() {
        let peer = Peer::new(PeerAddress::InMemory);
        assert_eq!(peer.identity::<u64>(), None);
        let peer = peer.with_identity(0x5ec4e7u64).clone();
        assert_eq!((peer.identity::<u64>(), peer.identity::<i64>()), (Some(&0x5ec4e7), None));
        let shown = format!("{peer:?} {peer}");
        assert!(shown.contains("u64") && !shown.contains(&0x5ec4e7u64.to_string()), "{shown}");
        assert_eq!(peer.with_identity("other").identity::<u64>(), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn socket_pair_has_the_credentials_of_this_process() {
        let (a, _b) = std::os::unix::net::UnixStream::pair().unwrap();
        let peer = of_unix(&a);
        assert_eq!(peer.address, PeerAddress::Unix { path: None });
        assert_eq!(peer.credentials.unwrap().pid, Some(std::process::id() as i32));
    }
}
