//! Who is at the other end of a transport, as far as the system knows.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Who is at the other end of a transport.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Peer {
    /// A TCP connection.
    #[non_exhaustive]
    Tcp {
        /// The address of our end.
        local: SocketAddr,
        /// The address of the other end.
        remote: SocketAddr,
    },
    /// A Unix socket.
    #[non_exhaustive]
    Unix {
        /// The path of the socket that was connected to, which is the listener's. `None` if it has none.
        path: Option<PathBuf>,
        /// Who connected to the socket, or listened on it. `None` where the system does not tell.
        credentials: Option<PeerCredentials>,
    },
    /// This process.
    InMemory,
    /// Something else, in words.
    Other(String),
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

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp { remote, .. } => write!(f, "tcp {remote}"),
            Peer::Unix { path, credentials } => {
                f.write_str("unix ")?;
                match path {
                    Some(path) => write!(f, "{path:?}")?,
                    None => f.write_str("(unnamed)")?,
                }
                credentials.map_or(Ok(()), |c| write!(f, " ({c})"))
            }
            Peer::InMemory => f.write_str("in memory"),
            Peer::Other(what) => f.write_str(what),
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
    Peer::Unix { path, credentials: credentials(stream) }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn credentials(stream: &std::os::unix::net::UnixStream) -> Option<PeerCredentials> {
    use nix::sys::socket::{getsockopt, sockopt::PeerCredentials as Query};
    let found = getsockopt(stream, Query).ok()?;
    let pid = Some(found.pid()).filter(|pid| *pid > 0);
    Some(PeerCredentials { pid, uid: found.uid(), gid: found.gid() })
}

#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
fn credentials(_: &std::os::unix::net::UnixStream) -> Option<PeerCredentials> {
    None
}

#[cfg(all(test, unix, not(any(shuttle, loom))))]
mod tests {
    use super::*;

    #[test]
    fn says_who_it_is() {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let tcp = Peer::Tcp { local: address(1), remote: address(2) };
        assert_eq!(tcp.to_string(), "tcp 127.0.0.1:2");
        let credentials = Some(PeerCredentials { pid: Some(7), uid: 8, gid: 9 });
        let unix = Peer::Unix { path: Some("/run/it".into()), credentials };
        assert_eq!(unix.to_string(), "unix \"/run/it\" (pid 7, uid 8, gid 9)");
        let unknown = Peer::Unix { path: None, credentials: None };
        assert_eq!(unknown.to_string(), "unix (unnamed)");
        assert_eq!(Peer::InMemory.to_string(), "in memory");
        assert_eq!(Peer::Other("a wire".into()).to_string(), "a wire");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_socket_pair_is_ours() {
        let (a, _b) = std::os::unix::net::UnixStream::pair().unwrap();
        let Peer::Unix { path: None, credentials: Some(found) } = of_unix(&a) else { panic!() };
        assert_eq!(found.pid, Some(std::process::id() as i32));
    }
}
