//! A connection of raw messages: whatever is written goes out, whether the protocol allows it or not.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use capnp::any_pointer;
use capnp::message::Builder;
use capnp::traits::ImbueMut;
use capnp_threads::generated::rpc_capnp::{cap_descriptor, message, message_target, promised_answer};
use capnp_threads::{Capability, Client};

use crate::generated::bench_capnp::bench::callback_params as fields;
use crate::server::{Method, INTERFACE};
use crate::Result;

/// How much is written at once.
const BATCH: usize = 64 << 10;
/// The question for the bootstrap object, which is never finished.
const BOOTSTRAP: u32 = 0;

/// What a call or Disembargo is addressed to: what stands at a path of pointer fields in the results of a question.
#[derive(Clone, Copy)]
pub(crate) struct To<'a>(pub(crate) u32, pub(crate) &'a [u16]);

/// The server's bootstrap object.
pub(crate) const OBJECT: To<'static> = To(BOOTSTRAP, &[]);
/// The path to the capability in the results of all methods.
pub(crate) const CAP: &[u16] = &[0];

/// A capability in params.
#[derive(Clone, Copy)]
pub(crate) enum Cap<'a> {
    Hosted(u32),
    Promise(u32),
    YourAnswer(u32, &'a [u16]),
}

/// What was sent, and how it ended.
#[derive(Clone, Default)]
pub(crate) struct Sent {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    endings: BTreeMap<&'static str, usize>,
}

impl Sent {
    pub(crate) fn add(&mut self, other: &Sent) {
        self.messages += other.messages;
        self.bytes += other.bytes;
        other.endings.iter().for_each(|(how, n)| *self.endings.entry(how).or_default() += n);
    }

    pub(crate) fn ended(&mut self, how: &'static str) {
        *self.endings.entry(how).or_default() += 1;
    }

    pub(crate) fn endings(&self) -> String {
        let all: Vec<_> = self.endings.iter().map(|(how, n)| format!("{n} {how}")).collect();
        all.join(", ")
    }
}

/// Why an attacker sends no more.
pub(crate) enum Over {
    /// The server does not read.
    Stopped,
    /// The server has ended the connection.
    CutOff,
}

/// A connection of raw messages, which has asked for the bootstrap object.
pub(crate) struct Raw {
    stream: TcpStream,
    batch: Vec<u8>,
    next: u32,
    reader: Option<JoinHandle<()>>,
    pub(crate) sent: Sent,
}

impl Raw {
    /// Connects. Writing gives up when the server has taken nothing for `patience`.
    pub(crate) fn connect(address: SocketAddr, patience: Duration) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_write_timeout(Some(patience))?;
        let mut raw = Raw { stream, batch: Vec::new(), next: BOOTSTRAP, reader: None, sent: Sent::default() };
        raw.bootstrap();
        Ok(raw)
    }

    /// Reads all that comes from now on, and forgets it.
    pub(crate) fn read_all(&mut self) -> Result<()> {
        let mut stream = self.stream.try_clone()?;
        self.reader = Some(std::thread::spawn(move || {
            let mut buffer = vec![0; 256 << 10];
            while stream.read(&mut buffer).is_ok_and(|n| n > 0) {}
        }));
        Ok(())
    }

    fn question(&mut self) -> u32 {
        self.next += 1;
        self.next - 1
    }

    /// Appends a message.
    fn put(&mut self, fill: impl FnOnce(message::Builder<'_>)) {
        let mut builder = Builder::new_default();
        fill(builder.init_root());
        capnp::serialize::write_message(&mut self.batch, &builder).expect("memory can be written to");
        self.sent.messages += 1;
    }

    pub(crate) fn bootstrap(&mut self) -> u32 {
        let question = self.question();
        self.put(|message| message.init_bootstrap().set_question_id(question));
        question
    }

    /// A call; gives its question.
    pub(crate) fn call(&mut self, to: To<'_>, method: Method, data: &[u8], caps: &[Cap<'_>]) -> u32 {
        let question = self.question();
        self.put(|message| {
            let mut call = message.init_call();
            call.set_question_id(question);
            call.set_interface_id(INTERFACE);
            call.set_method_id(method as u16);
            target(to, call.reborrow().init_target());
            let mut params = call.init_params();
            content(params.reborrow().get_content(), data, !caps.is_empty());
            let mut table = params.init_cap_table(caps.len() as u32);
            caps.iter().zip(0..).for_each(|(cap, at)| describe(*cap, table.reborrow().get(at)));
        });
        question
    }

    pub(crate) fn finish(&mut self, question: u32) {
        self.put(|message| {
            let mut finish = message.init_finish();
            finish.set_question_id(question);
            finish.set_release_result_caps(false);
            finish.set_require_early_cancellation_workaround(false);
        });
    }

    pub(crate) fn release(&mut self, id: u32, count: u32) {
        self.put(|message| {
            let mut release = message.init_release();
            release.set_id(id);
            release.set_reference_count(count);
        });
    }

    /// A Disembargo that the server is to send back.
    pub(crate) fn disembargo(&mut self, to: To<'_>, id: u32) {
        self.put(|message| {
            let mut disembargo = message.init_disembargo();
            target(to, disembargo.reborrow().init_target());
            disembargo.get_context().set_sender_loopback(id);
        });
    }

    pub(crate) fn resolve(&mut self, promise: u32, to: Cap<'_>) {
        self.put(|message| {
            let mut resolve = message.init_resolve();
            resolve.set_promise_id(promise);
            describe(to, resolve.init_cap());
        });
    }

    /// A message of level 3, which is sent back as `unimplemented`.
    pub(crate) fn unknown(&mut self) {
        let question = self.next;
        self.put(|message| message.init_provide().set_question_id(question));
    }

    /// The beginning of a message of so many words, as far as `words` reach.
    pub(crate) fn begin(&mut self, claimed: u32, words: usize) {
        self.batch.extend_from_slice(&[0; 4]);
        self.batch.extend_from_slice(&claimed.to_le_bytes());
        self.batch.resize(self.batch.len() + words * 8, 1);
        self.sent.messages += 1;
    }

    /// Sends what has been appended, if that is a batch.
    pub(crate) fn send(&mut self) -> std::result::Result<(), Over> {
        match self.batch.len() >= BATCH {
            true => self.flush(),
            false => Ok(()),
        }
    }

    /// Sends what has been appended.
    pub(crate) fn flush(&mut self) -> std::result::Result<(), Over> {
        let batch = std::mem::take(&mut self.batch);
        let mut rest = &batch[..];
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(n) => {
                    self.sent.bytes += n as u64;
                    rest = &rest[n..];
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Err(Over::Stopped)
                }
                Err(_) => return Err(Over::CutOff),
            }
        }
        self.batch = batch;
        self.batch.clear();
        Ok(())
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // The server may have closed it.
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(reader) = self.reader.take() {
            reader.join().expect("reading does not panic");
        }
    }
}

fn target(To(question, path): To<'_>, builder: message_target::Builder<'_>) {
    answer(question, path, builder.init_promised_answer());
}

fn answer(question: u32, path: &[u16], mut builder: promised_answer::Builder<'_>) {
    builder.set_question_id(question);
    let mut transform = builder.init_transform(path.len() as u32);
    path.iter().zip(0..).for_each(|(field, at)| transform.reborrow().get(at).set_get_pointer_field(*field));
}

fn describe(cap: Cap<'_>, mut builder: cap_descriptor::Builder<'_>) {
    match cap {
        Cap::Hosted(id) => builder.set_sender_hosted(id),
        Cap::Promise(id) => builder.set_sender_promise(id),
        Cap::YourAnswer(question, path) => answer(question, path, builder.init_receiver_answer()),
    }
}

/// The first capability of the table, if there is one, and some data.
fn content(builder: any_pointer::Builder<'_>, data: &[u8], cap: bool) {
    let (mut builder, mut table) = (builder, Vec::new());
    let mut builder = builder.reborrow();
    builder.imbue_mut(&mut table);
    let mut fields: fields::Builder<'_> = builder.init_as();
    if cap {
        // Only its place counts.
        fields.set_target(Client::null().into());
    }
    if !data.is_empty() {
        fields.set_data(data);
    }
}
