//! The limits on what is queued for sending and in service, and who waits for room.

use crate::limits::Limits;
use crate::state::Departure;
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, Rank};

/// How many times the limits hold what must be read all the same.
const HARD: usize = 4;

/// Counts what a connection holds in memory for its peer.
///
/// ```text
/// Note [Backpressure]
/// ===================
/// Three things are bounded, and each by the thread that can wait without harm:
///
/// - Questions and bytes to send, by callers: a call waits for room on its caller's own thread. Where nothing
///   may wait (callbacks, forwarded calls, answers) messages are queued above the limit; those are bounded by
///   the limits on the calls that cause them.
/// - Calls in service, by the receive thread: it reads on while they are below the limit, so one is always
///   admitted. A call that was handed on over another connection is in service until its Return comes from
///   there (or, if none will, until it is sent).
/// - Answers that the peer does not read, by the receive thread too: the peer gets no more calls in.
///
/// But while questions or Disembargoes of ours are outstanding, or somebody watches a promise of the peer's (a
/// thread, or another connection that has exported it), the receive thread reads on: calls in service may
/// wait for what comes, and a peer that waits for us to read would wait for ever. Then calls
/// above four times the limit are refused as `overloaded` instead, and reading stops at four times the limit
/// of unread answers. A call counts for no more than the limit, however large it is.
/// ```
pub(super) struct Flow {
    state: Mutex<Counts>,
    changed: Condvar,
    call_words: usize,
    send_bytes: usize,
}

#[derive(Default)]
struct Counts {
    /// Words of messages that arrived and are in service.
    serving: usize,
    /// What is queued or being written.
    sending: Sending,
    /// What the peer is still to send that calls in service may wait for.
    awaited: usize,
    closed: bool,
    /// The receive thread waits for room.
    waits: bool,
}

/// Messages, and how many bytes they are.
#[derive(Clone, Copy, Default)]
pub(super) struct Sending {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

impl Sending {
    /// With one message more.
    pub(super) fn and(self, departure: &Departure) -> Self {
        Sending { messages: self.messages + 1, bytes: self.bytes + departure.bytes }
    }
}

impl Flow {
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Flow {
            state: Mutex::new(Rank::Queue, Counts::default()),
            changed: Condvar::new(),
            call_words: limits.call_words.max(1),
            send_bytes: limits.send_bytes,
        })
    }

    /// Waits until the next message may be read, or the connection is closed. See Note [Backpressure].
    pub(super) fn wait_for_room(&self) {
        let mut counts = self.state.lock();
        counts.waits = true;
        while !counts.closed && !self.has_room(&counts) {
            self.changed.wait(&mut counts);
        }
        counts.waits = false;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Whether the next message may be read now.
    pub(super) fn may_read(&self) -> bool {
        self.has_room(&self.state.lock())
    }

    fn has_room(&self, counts: &Counts) -> bool {
        match counts.awaited {
            0 => counts.serving < self.call_words && counts.sending.bytes <= self.send_bytes,
            _ => counts.sending.bytes <= self.send_bytes.saturating_mul(HARD),
        }
    }

    /// Whether no more calls can be taken on, although messages are read.
    pub(super) fn refuses_calls(&self) -> bool {
        self.state.lock().serving >= self.call_words.saturating_mul(HARD)
    }

    /// Counts a message that arrived, until the result is dropped.
    pub(super) fn serve(self: &Arc<Self>, words: usize) -> Share {
        let words = words.min(self.call_words);
        self.state.lock().serving += words;
        Share { flow: self.clone(), words }
    }

    /// A transaction has left so much to be sent, and so much to be awaited.
    pub(super) fn committed(&self, queued: Sending, awaited: usize) {
        let mut counts = self.state.lock();
        counts.sending.messages += queued.messages;
        counts.sending.bytes += queued.bytes;
        let before = std::mem::replace(&mut counts.awaited, awaited);
        if (before == 0) != (awaited == 0) {
            self.changed(counts);
        }
    }

    /// Messages are on their way. True if callers may have waited for that.
    pub(super) fn sent(&self, sent: Sending) -> bool {
        let mut counts = self.state.lock();
        let full = counts.sending.bytes > self.send_bytes;
        counts.sending.messages -= sent.messages;
        counts.sending.bytes -= sent.bytes;
        self.changed(counts);
        full
    }

    /// Whether a caller may queue more.
    pub(super) fn may_send(&self) -> bool {
        self.state.lock().sending.bytes <= self.send_bytes
    }

    /// What is queued or being written.
    pub(super) fn sending(&self) -> Sending {
        self.state.lock().sending
    }

    /// What is queued or being written, and how much the peer is still to send that calls here may wait for.
    pub(super) fn sending_and_awaited(&self) -> (Sending, usize) {
        let counts = self.state.lock();
        (counts.sending, counts.awaited)
    }

    /// Something has changed that the receive thread may wait for.
    fn changed(&self, counts: MutexGuard<'_, Counts>) {
        let waits = counts.waits;
        drop(counts);
        if waits {
            self.changed.notify_all();
        }
    }

    /// Whether calls here wait for something that the peer is to send.
    pub(super) fn awaits(&self) -> bool {
        self.state.lock().awaited > 0
    }

    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }
}

/// A share of what may be in service; given back when dropped.
pub(super) struct Share {
    flow: Arc<Flow>,
    words: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut counts = self.flow.state.lock();
        counts.serving -= self.words;
        self.flow.changed(counts);
    }
}
