//! Limits of a connection and of a listener, in one struct.

use std::time::Duration;

/// The messages of the protocol have so many words, beside what users put into them.
const LEAST_WORDS: usize = 128;
/// A call that is sent ahead on the bootstrap object counts beside the question for that, and each takes 640 bytes and what
/// its results leave.
const LEAST_ANSWER_BYTES: usize = 2048;
/// The messages of the protocol nest so deep.
const LEAST_NESTING: i32 = 16;
/// Whatever goes along a content (to measure and to copy it, in the `capnp` crate) recurses for each level: where that crate is
/// not optimized it takes up to 5 KB of the stack, so that 413 levels are the most that 2 MiB have room for, which is what
/// threads have by default, those of this crate too. This leaves a third to what else the thread does.
pub(crate) const MOST_NESTING: i32 = 256;
/// What systems take for the time after which TCP asks, in whole seconds.
const MOST_KEEPALIVE: Duration = Duration::from_secs(32_767);

/// How long a caller waits for room by default.
pub(crate) const ROOM_TIMEOUT: Option<Duration> = Some(Duration::from_secs(10));

/// What a connection may use. Every limit has a default that suits a server on the open network.
///
/// What crosses a limit fails with a clear error, and nothing else is lost. "Words" are Cap'n Proto words of
/// eight bytes.
///
/// Each limit is set by the method of its name:
///
/// ```
/// # use std::time::Duration;
/// # use capnp_threads::{Limits, Vat};
/// let limits = Limits::new().questions(100).room_timeout(Duration::from_secs(1)).keepalive(None);
/// assert_eq!(limits.questions, 100);
/// let vat = Vat::new().limits(limits);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// How many questions of ours may be outstanding before a call blocks its caller. Calls made where
    /// nothing may block (callbacks, forwarding) are sent all the same.
    pub questions: usize,
    /// How many methods may run at a time for calls of the peer's, on threads of pools without a limit of their own. More
    /// calls wait in the mailboxes of their objects, or fail as `overloaded`: see [`Pool`](crate::Pool).
    pub methods: usize,
    /// How many of our capabilities the peer may hold. A call or answer that would export more fails as
    /// `overloaded`.
    pub exports: usize,
    /// How many capabilities of the peer's may be held. A call that brings one more fails as `overloaded`.
    pub imports: usize,
    /// How many bytes calls of the peer's may take that it has not finished, besides their params: each counts from when
    /// it comes until its Finish, with 640 bytes and with what its results leave to be kept (a hundred bytes or two for
    /// each capability; of an exception, its text). So does each Disembargo that it has not sent back, with 512 bytes. A call
    /// that comes when it is so much fails as `overloaded`.
    pub answer_bytes: usize,
    /// How many words of incoming calls may be in service, here or in a vat that they were handed on to, before
    /// the connection admits no further call and stops reading at the next one. One call is always admitted, however
    /// large. While questions of ours are outstanding, or a promise of the peer's is waited for, what comes must be read:
    /// then calls above four times the limit fail as `overloaded`.
    ///
    /// A call counts with its message, 88 words for what it takes besides, and 64 words for each capability in its params. The
    /// first one on each place in results that another vat has yet to give counts until those are there.
    pub call_words: usize,
    /// How many bytes may be queued for sending (each message counts with what it takes of memory: 256 bytes, and its
    /// content with at least 704) before a call blocks its caller, and before answers that the peer does not read stop the
    /// connection from reading. Above twice the limit, calls of the peer's that are in by then do not start until it has
    /// read, on objects whose methods have threads; those that calls of others wait behind do. Above four times the limit these fail as
    /// `overloaded`, and so do calls whose results, of more than 1024 bytes, would come on top (answers that are made later,
    /// or by other vats).
    pub send_bytes: usize,
    /// How long a call waits for room: one of ours because of `questions` or `send_bytes`, one of the peer's because of
    /// `call_words`. Then it fails as `overloaded`. So does each call behind it, at once: of the peer's, until there is room; of
    /// ours, while there is none and until half of it is free (a peer that takes a little now and then makes none wait). So does a streaming
    /// call of ours that waits for room in the window of its [`Stream`](crate::Stream). Zero: it fails at once. `None`: it waits for ever.
    pub room_timeout: Option<Duration>,
    /// The size of the largest message, in words, either way. A larger one from the peer ends the connection,
    /// since its bytes can't be skipped safely; a larger one of ours fails its call.
    pub message_words: usize,
    /// How many segments a message may have.
    pub segments: usize,
    /// How many words may be read from one message, counting each time: the defence against amplification.
    pub traversal_words: usize,
    /// How deep pointers may nest. At most 256: a message is measured and copied by recursion, on threads with stacks of 2 MiB.
    pub nesting: i32,
    /// How many connections a listener serves at once. More wait to be accepted. Each takes a file descriptor, of which
    /// the system often gives a process 1024. With [`Threads::Strict`](crate::Threads::Strict) each takes four threads: see
    /// [`set_thread_limit`](crate::set_thread_limit).
    pub connections: usize,
    /// How long a peer that connected to a listener may take to complete its handshake, if it has one
    /// ([`Accepted::pending`](crate::Accepted::pending)), and send its first message. `None`: forever.
    pub first_message: Option<Duration>,
    /// After how much silence TCP asks whether the peer is still there. `None`: never.
    pub keepalive: Option<Duration>,
    /// How long a thread that waits for the peer looks for input over and over, letting others run in between,
    /// before it sleeps. Done only while it pays: where nothing comes in that time, again and again, it is given up, and
    /// tried once in a while. Zero: it sleeps at once, as with [`Threads::Strict`](crate::Threads::Strict).
    pub polling: Duration,
    /// How long to wait for one write of the peer's to be taken while closing. Also the time that an `Abort`
    /// may take to be sent.
    pub linger: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            questions: 4096,
            methods: 1024,
            exports: 65536,
            imports: 65536,
            answer_bytes: 32 << 20,
            call_words: 2 << 20,
            send_bytes: 8 << 20,
            room_timeout: ROOM_TIMEOUT,
            message_words: 4 << 20,
            segments: 512,
            traversal_words: 64 << 20,
            nesting: 64,
            connections: 4096,
            first_message: Some(Duration::from_secs(30)),
            keepalive: Some(Duration::from_secs(60)),
            polling: Duration::from_micros(100),
            linger: Duration::from_secs(1),
        }
    }
}

impl Limits {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`questions`](field@Self::questions).
    #[must_use]
    pub fn questions(mut self, questions: usize) -> Self {
        self.questions = questions;
        self
    }

    /// Sets [`methods`](field@Self::methods).
    #[must_use]
    pub fn methods(mut self, methods: usize) -> Self {
        self.methods = methods;
        self
    }

    /// Sets [`exports`](field@Self::exports).
    #[must_use]
    pub fn exports(mut self, exports: usize) -> Self {
        self.exports = exports;
        self
    }

    /// Sets [`imports`](field@Self::imports).
    #[must_use]
    pub fn imports(mut self, imports: usize) -> Self {
        self.imports = imports;
        self
    }

    /// Sets [`answer_bytes`](field@Self::answer_bytes).
    #[must_use]
    pub fn answer_bytes(mut self, answer_bytes: usize) -> Self {
        self.answer_bytes = answer_bytes;
        self
    }

    /// Sets [`call_words`](field@Self::call_words).
    #[must_use]
    pub fn call_words(mut self, call_words: usize) -> Self {
        self.call_words = call_words;
        self
    }

    /// Sets [`send_bytes`](field@Self::send_bytes).
    #[must_use]
    pub fn send_bytes(mut self, send_bytes: usize) -> Self {
        self.send_bytes = send_bytes;
        self
    }

    /// Sets [`room_timeout`](field@Self::room_timeout).
    #[must_use]
    pub fn room_timeout(mut self, room_timeout: impl Into<Option<Duration>>) -> Self {
        self.room_timeout = room_timeout.into();
        self
    }

    /// Sets [`message_words`](field@Self::message_words).
    #[must_use]
    pub fn message_words(mut self, message_words: usize) -> Self {
        self.message_words = message_words;
        self
    }

    /// Sets [`segments`](field@Self::segments).
    #[must_use]
    pub fn segments(mut self, segments: usize) -> Self {
        self.segments = segments;
        self
    }

    /// Sets [`traversal_words`](field@Self::traversal_words).
    #[must_use]
    pub fn traversal_words(mut self, traversal_words: usize) -> Self {
        self.traversal_words = traversal_words;
        self
    }

    /// Sets [`nesting`](field@Self::nesting).
    #[must_use]
    pub fn nesting(mut self, nesting: i32) -> Self {
        self.nesting = nesting;
        self
    }

    /// Sets [`connections`](field@Self::connections).
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// Sets [`first_message`](field@Self::first_message).
    #[must_use]
    pub fn first_message(mut self, first_message: impl Into<Option<Duration>>) -> Self {
        self.first_message = first_message.into();
        self
    }

    /// Sets [`keepalive`](field@Self::keepalive).
    #[must_use]
    pub fn keepalive(mut self, keepalive: impl Into<Option<Duration>>) -> Self {
        self.keepalive = keepalive.into();
        self
    }

    /// Sets [`polling`](field@Self::polling).
    #[must_use]
    pub fn polling(mut self, polling: Duration) -> Self {
        self.polling = polling;
        self
    }

    /// Sets [`linger`](field@Self::linger).
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// Whether a connection can work with these limits. [`Vat::limits`](crate::Vat::limits) panics if not; a program that
    /// reads them from a file may want to ask before.
    ///
    /// # Errors
    /// If a value can't work: zero for [`questions`](Self::questions), [`methods`](Self::methods),
    /// [`segments`](Self::segments), [`connections`](Self::connections), [`first_message`](Self::first_message) or
    /// [`keepalive`](Self::keepalive); a `keepalive` of more than 32,767 s; less than 2048 for
    /// [`answer_bytes`](Self::answer_bytes), which a call on the bootstrap object may need; less than 128 for
    /// [`message_words`](Self::message_words) or [`traversal_words`](Self::traversal_words), or less than 16 for
    /// [`nesting`](Self::nesting), which the protocol's own messages need; more than 256 for `nesting`, for which a thread's
    /// stack may have no room. The error says which.
    ///
    /// Everything else works: zero for [`call_words`](Self::call_words) and [`send_bytes`](Self::send_bytes) lets one call
    /// through at a time, zero for [`exports`](Self::exports) and [`imports`](Self::imports) none that brings a capability,
    /// and no time or number is too long or too large.
    pub fn check(&self) -> Result<(), InvalidLimits> {
        let Limits {
            questions,
            methods,
            answer_bytes,
            message_words,
            segments,
            traversal_words,
            connections,
            ..
        } = *self;
        let least = [
            ("questions", questions, 1),
            ("methods", methods, 1),
            ("answer_bytes", answer_bytes, LEAST_ANSWER_BYTES),
            ("message_words", message_words, LEAST_WORDS),
            ("segments", segments, 1),
            ("traversal_words", traversal_words, LEAST_WORDS),
            ("connections", connections, 1),
        ];
        for (name, value, least) in least {
            if value < least {
                return Err(wrong(name, value, &format!("at least {least}")));
            }
        }
        if !(LEAST_NESTING..=MOST_NESTING).contains(&self.nesting) {
            return Err(wrong("nesting", self.nesting, &format!("{LEAST_NESTING} to {MOST_NESTING}")));
        }
        if self.first_message.is_some_and(|time| time.is_zero()) {
            return Err(wrong("first_message", "zero", "some time, or `None` for ever"));
        }
        match self.keepalive {
            Some(time) if time.is_zero() => Err(wrong("keepalive", "zero", "some time, or `None` for never")),
            Some(time) if time > MOST_KEEPALIVE => {
                Err(wrong("keepalive", format_args!("{time:?}"), &format!("at most {MOST_KEEPALIVE:?}")))
            }
            _ => Ok(()),
        }
    }
}

fn wrong(name: &str, value: impl std::fmt::Display, wanted: &str) -> InvalidLimits {
    InvalidLimits(format!("the limit `{name}` is {value}, and must be {wanted}"))
}

/// A limit has a value with which no connection can work: which one, and what it must be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidLimits(String);
