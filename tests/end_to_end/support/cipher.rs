//! A transport that is made outside of the crate: a stream cipher over a TCP socket, in records, as TLS has them. It holds
//! up to 64 KiB of input that the socket no longer reports.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{self, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

use capnp_threads::transport::{
    Arrived, DescriptorEndWatch, DescriptorReadiness, EndWatch, Frame, FrameReader, FrameWriter, MessageSink,
    MessageSource, NonblockingSink, NonblockingSource, Outbound, Readiness, Shutdown, Sink, Source,
    Transport,
};
use capnp_threads::{Limits, Peer, TransportError};
use nix::sys::socket::{recv, send, MsgFlags};

/// How many bytes a record has at most.
const RECORD: usize = 16 << 10;
/// How many bytes are read from the socket at once.
const READ: usize = 64 << 10;

/// A transport over a connected socket, for two ends that know the same key.
pub fn cipher(stream: TcpStream, key: u8, peer: Peer, limits: &Limits) -> Transport {
    let socket = Arc::new(stream);
    let sink = CipherSink { socket: socket.clone(), key, frames: FrameWriter::new(), left: Vec::new() };
    let plain = Plain {
        socket: socket.clone(),
        key,
        received: Vec::new(),
        plain: Vec::new(),
        reads: Reads::Wait,
        emptied: false,
    };
    let source = CipherSource { frames: FrameReader::new(plain, limits), next: None };
    Transport::new(Sink::nonblocking(sink), Source::nonblocking(source), CipherShutdown(socket), peer)
}

/// Ends a socket.
pub struct CipherShutdown(pub Arc<TcpStream>);

impl Shutdown for CipherShutdown {
    fn shutdown(&self) {
        // Fails if the connection is gone, which is what is wanted.
        let _ = self.0.shutdown(net::Shutdown::Both);
    }
}

struct CipherSink {
    socket: Arc<TcpStream>,
    key: u8,
    frames: FrameWriter,
    /// Records that the system has not taken.
    left: Vec<u8>,
}

impl CipherSink {
    fn encrypt(&mut self, batch: &[Outbound]) -> Result<(), TransportError> {
        let mut plain = Vec::new();
        self.frames.write_batch(&mut plain, batch).map_err(|e| TransportError::io("sending", e))?;
        for record in plain.chunks(RECORD) {
            self.left.extend((record.len() as u16).to_le_bytes());
            self.left.extend(record.iter().map(|byte| byte ^ self.key));
        }
        Ok(())
    }
}

impl MessageSink for CipherSink {
    fn send(&mut self, batch: &[Outbound]) -> Result<(), TransportError> {
        self.encrypt(batch)?;
        let left = std::mem::take(&mut self.left);
        (&*self.socket).write_all(&left).map_err(|e| TransportError::io("sending", e))
    }
}

impl NonblockingSink for CipherSink {
    fn send_now(&mut self, batch: &[Outbound]) -> Result<bool, TransportError> {
        self.encrypt(batch)?;
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        while !self.left.is_empty() {
            match send(self.socket.as_raw_fd(), &self.left, flags).map_err(io::Error::from) {
                Ok(sent) => drop(self.left.drain(..sent)),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(TransportError::io("sending", e)),
            }
        }
        Ok(true)
    }
}

impl Drop for CipherSink {
    fn drop(&mut self) {
        // Fails if the connection is gone, which is what is wanted.
        let _ = self.socket.shutdown(net::Shutdown::Write);
    }
}

/// What a read takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reads {
    /// What the socket gives, however long that takes.
    Wait,
    /// What the socket has.
    Now,
    /// What is here already.
    Held,
}

/// The bytes in the records of a socket.
struct Plain {
    socket: Arc<TcpStream>,
    key: u8,
    /// The beginning of a record.
    received: Vec<u8>,
    /// What is decrypted and was not read.
    plain: Vec<u8>,
    reads: Reads,
    /// The last read of the socket has taken all that it had.
    emptied: bool,
}

impl Plain {
    /// Reads the socket once, and decrypts what is whole. Zero: it has ended.
    fn fill(&mut self) -> io::Result<usize> {
        let mut bytes = [0; READ];
        let read = match self.reads {
            Reads::Wait => (&*self.socket).read(&mut bytes),
            Reads::Now => Ok(recv(self.socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT)?),
            Reads::Held => Err(ErrorKind::WouldBlock.into()),
        };
        self.emptied = read.as_ref().is_ok_and(|n| *n < READ);
        let n = read?;
        self.received.extend(&bytes[..n]);
        while let [low, high, rest @ ..] = &self.received[..] {
            let length = usize::from(u16::from_le_bytes([*low, *high]));
            let Some(record) = rest.get(..length) else { break };
            self.plain.extend(record.iter().map(|byte| byte ^ self.key));
            self.received.drain(..2 + length);
        }
        Ok(n)
    }
}

impl Read for Plain {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        while self.plain.is_empty() {
            if self.fill()? == 0 {
                return Ok(0);
            }
        }
        let n = self.plain.len().min(bytes.len());
        bytes[..n].copy_from_slice(&self.plain[..n]);
        self.plain.drain(..n);
        Ok(n)
    }
}

struct CipherSource {
    frames: FrameReader<Plain>,
    /// What was found when it was asked whether it is there.
    next: Option<Result<Arrived, TransportError>>,
}

impl CipherSource {
    fn read(&mut self, reads: Reads) -> Result<Arrived, TransportError> {
        self.frames.stream_mut().reads = reads;
        let arrived = self.frames.frame_now();
        self.frames.stream_mut().reads = Reads::Wait;
        arrived
    }
}

impl MessageSource for CipherSource {
    fn receive(&mut self) -> Result<Option<Frame>, TransportError> {
        match self.next.take() {
            Some(Ok(Arrived::Message(frame))) => Ok(Some(frame)),
            Some(Ok(Arrived::End)) => Ok(None),
            Some(Err(e)) => Err(e),
            Some(Ok(Arrived::Nothing)) | None => self.frames.next_frame(),
        }
    }
}

impl NonblockingSource for CipherSource {
    fn receive_now(&mut self) -> Result<Arrived, TransportError> {
        match self.next.take() {
            Some(next) => next,
            None => self.read(Reads::Now),
        }
    }

    fn is_ready(&mut self) -> bool {
        if self.next.is_none() && !self.frames.is_ready() && !self.frames.stream().plain.is_empty() {
            self.next = match self.read(Reads::Held) {
                Ok(Arrived::Nothing) => None,
                found => Some(found),
            };
        }
        self.next.is_some() || self.frames.is_ready()
    }

    fn is_drained(&self) -> bool {
        let plain = self.frames.stream();
        plain.emptied && plain.plain.is_empty() && self.next.is_none() && !self.frames.is_ready()
    }

    fn readiness(&mut self) -> Option<Arc<dyn Readiness>> {
        let readiness = DescriptorReadiness::new(self.frames.stream().socket.clone()).ok()?;
        Some(Arc::new(readiness))
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.frames.stream().socket.as_fd())
    }

    fn end_watch(&mut self) -> Option<Arc<dyn EndWatch>> {
        Some(Arc::new(DescriptorEndWatch::new(self.frames.stream().socket.clone())))
    }

    fn release_buffers(&mut self) {
        self.frames.release_buffers();
        let plain = self.frames.stream_mut();
        plain.plain.shrink_to_fit();
        plain.received.shrink_to_fit();
    }
}
