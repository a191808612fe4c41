//! The raw peer: one end of a transport, driven message by message, with a connection of ours at the other end.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use capnp_threads::transport::{Outbound, Sink, Source, Transport};
use capnp_threads::{Client, Connection, Threads, Vat};
use crossbeam_channel::Receiver;

use super::account::Account;
use super::message::{build, Call, Cap, Context, Msg, Outcome, Payload, Return, Target, INTERFACE};
use super::recorder::{send, wait, NOTE};

/// After how long a test that waits has failed. Never part of what is tested.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The object of the peer's that [`Peer::export`] uses.
const GATE: u32 = 1_000_000;

/// A peer made of raw messages. What it expects must come in order; only Return, Finish and Release, which
/// others may overtake, are put aside until they are asked for.
pub struct Peer {
    /// Our side.
    pub vat: Connection,
    sink: Option<Sink>,
    inbox: Receiver<Msg>,
    aside: VecDeque<Msg>,
    account: Account,
    next_question: u32,
    /// All messages so far, for those who read a failure.
    history: Vec<String>,
    done: bool,
}

impl Peer {
    /// A peer of a vat that offers `bootstrap`.
    pub fn new(bootstrap: Client) -> Self {
        Self::of(&Vat::new().bootstrap(bootstrap))
    }

    /// As [`new`](Self::new); our side's stages are driven by their own threads alone, so that one can be frozen while
    /// the others go on.
    pub fn strict(bootstrap: Client) -> Self {
        Self::of(&Vat::new().bootstrap(bootstrap).threads(Threads::Strict))
    }

    pub fn of(vat: &Vat) -> Self {
        Self::over(vat, |ours| ours)
    }

    /// A peer of a vat whose end of the transport is wrapped.
    pub fn over(vat: &Vat, wrap: impl FnOnce(Transport) -> Transport) -> Self {
        let (ours, theirs) = Transport::in_memory();
        let vat = match std::env::var_os("CONFORMANCE_STRICT") {
            Some(_) => &vat.clone().threads(Threads::Strict),
            None => vat,
        };
        let vat = vat.over(wrap(ours)).unwrap();
        Peer {
            vat,
            sink: Some(theirs.sink),
            inbox: read(theirs.source),
            aside: VecDeque::new(),
            account: Account::default(),
            next_question: 0,
            history: Vec::new(),
            done: false,
        }
    }

    // Sending.

    /// Sends a message, and enters it into the account.
    pub fn send(&mut self, message: Msg) {
        self.account.sent(&message);
        self.send_raw(format!("{message:?}"), message.encode());
    }

    /// Sends a message that no well-behaved peer sends: it stays out of the account.
    pub fn send_wrong(&mut self, message: Msg) {
        self.send_raw(format!("wrong: {message:?}"), message.encode());
    }

    /// Sends a message that was built by hand, and is not entered into the account.
    pub fn send_raw(&mut self, what: impl Into<String>, message: Outbound) {
        self.history.push(format!("-> {}", what.into()));
        let sink = self.sink.as_mut().expect("still open");
        if sink.send(&[message]).is_err() {
            self.fail("our side has closed the transport");
        }
    }

    /// Sends a message that was changed by hand, and enters into the account what it stands for there.
    pub fn send_as(&mut self, entered: &Msg, message: Outbound) {
        self.account.sent(entered);
        self.send_raw(format!("changed by hand: {entered:?}"), message);
    }

    /// A question ID that was not used before.
    pub fn new_question(&mut self) -> u32 {
        self.next_question += 1;
        self.next_question - 1
    }

    pub fn bootstrap(&mut self) -> u32 {
        let question = self.new_question();
        self.send(Msg::Bootstrap(question));
        question
    }

    /// Calls a method; see [`Outgoing`] for what else can be said before it is sent.
    pub fn call(&mut self, target: Target, method: u16, tag: u64) -> Outgoing<'_> {
        let question = self.new_question();
        let call = Call {
            question,
            target,
            interface: INTERFACE,
            method,
            params: Payload::new(tag, &[]),
            yourself: false,
            no_pipelining: false,
            only_pipeline: false,
        };
        Outgoing { peer: self, call }
    }

    /// Answers, giving back what the params held.
    pub fn answer(&mut self, answer: u32, outcome: Outcome) {
        self.send(Msg::Return(Return { answer, release_params: true, no_finish: false, outcome }));
    }

    /// Answers, keeping what the params held.
    pub fn answer_keeping(&mut self, answer: u32, outcome: Outcome) {
        self.send(Msg::Return(Return { answer, release_params: false, no_finish: false, outcome }));
    }

    pub fn results(&mut self, answer: u32, tag: u64, caps: &[Cap]) {
        self.answer(answer, Outcome::Results(Payload::new(tag, caps)));
    }

    pub fn finish(&mut self, question: u32) {
        self.send(Msg::Finish { question, release: true, workaround: false });
    }

    /// Finishes a question, keeping the capabilities in its results.
    pub fn finish_keeping(&mut self, question: u32) {
        self.send(Msg::Finish { question, release: false, workaround: false });
    }

    pub fn release(&mut self, id: u32, count: u32) {
        self.send(Msg::Release { id, count });
    }

    pub fn resolve(&mut self, promise: u32, to: Cap) {
        self.send(Msg::Resolve { promise, to: Ok(to) });
    }

    pub fn disembargo(&mut self, target: Target, id: u32) {
        self.send(Msg::Disembargo { target, context: Context::Sender(id) });
    }

    /// Sends a Disembargo of our side's back.
    pub fn echo(&mut self, target: Target, id: u32) {
        self.send(Msg::Disembargo { target, context: Context::Receiver(id) });
    }

    // Receiving.

    fn receive(&mut self) -> Option<Msg> {
        let message = match self.inbox.recv_timeout(DEADLINE) {
            Ok(message) => message,
            Err(e) if e.is_disconnected() => return None,
            Err(_) => self.fail("nothing came"),
        };
        self.history.push(format!("<- {message:?}"));
        if let Err(why) = self.account.received(&message) {
            self.fail(&format!("our side broke a rule: {why}"));
        }
        Some(message)
    }

    /// The first message that `wanted` takes.
    #[track_caller]
    pub fn expect<T>(&mut self, what: &str, wanted: impl Fn(&Msg) -> Option<T>) -> T {
        for i in 0..self.aside.len() {
            if let Some(found) = wanted(&self.aside[i]) {
                self.aside.remove(i);
                return found;
            }
        }
        loop {
            let Some(message) = self.receive() else { self.fail(&format!("the end came, not {what}")) };
            if let Some(found) = wanted(&message) {
                return found;
            }
            match message {
                Msg::Return(_) | Msg::Finish { .. } | Msg::Release { .. } => self.aside.push_back(message),
                other => self.fail(&format!("{other:?} came, not {what}")),
            }
        }
    }

    #[track_caller]
    pub fn expect_bootstrap(&mut self) -> u32 {
        self.expect("a Bootstrap", |m| match m {
            Msg::Bootstrap(question) => Some(*question),
            _ => None,
        })
    }

    #[track_caller]
    pub fn expect_call(&mut self) -> Call {
        self.expect("a Call", |m| match m {
            Msg::Call(call) => Some(call.clone()),
            _ => None,
        })
    }

    /// The next call; it has this tag.
    #[track_caller]
    pub fn expect_call_of(&mut self, tag: u64) -> Call {
        let call = self.expect_call();
        assert_eq!(call.params.tag, tag, "{call:?}\n{}", self.history());
        call
    }

    #[track_caller]
    pub fn expect_return(&mut self, question: u32) -> Return {
        self.expect(&format!("a Return of {question}"), |m| match m {
            Msg::Return(ret) if ret.answer == question => Some(ret.clone()),
            _ => None,
        })
    }

    #[track_caller]
    pub fn expect_results(&mut self, question: u32) -> Payload {
        match self.expect_return(question).outcome {
            Outcome::Results(results) => results,
            other => self.fail(&format!("{question} returned {other:?}, not results")),
        }
    }

    /// Expects results without capabilities, and finishes the question if that is needed.
    #[track_caller]
    pub fn expect_done(&mut self, question: u32, tag: u64) {
        let ret = self.expect_return(question);
        assert_eq!(ret.outcome, Outcome::Results(Payload::new(tag, &[])), "{}", self.history());
        if !ret.no_finish {
            self.finish(question);
        }
    }

    #[track_caller]
    pub fn expect_exception(&mut self, question: u32, contains: &str) {
        match self.expect_return(question).outcome {
            Outcome::Exception(why) if why.contains(contains) => {}
            other => self.fail(&format!("{question} returned {other:?}, not an exception of {contains:?}")),
        }
    }

    /// Expects the Finish of a question; whether it gives the results' capabilities back.
    #[track_caller]
    pub fn expect_finish(&mut self, question: u32) -> bool {
        let (release, workaround) = self.expect(&format!("a Finish of {question}"), |m| match m {
            Msg::Finish { question: id, release, workaround } if *id == question => {
                Some((*release, *workaround))
            }
            _ => None,
        });
        assert!(!workaround, "our side never asks for the workaround");
        release
    }

    /// Expects a Release; how many references it gives back.
    #[track_caller]
    pub fn expect_release(&mut self, export: u32) -> u32 {
        self.expect(&format!("a Release of {export}"), |m| match m {
            Msg::Release { id, count } if *id == export => Some(*count),
            _ => None,
        })
    }

    #[track_caller]
    pub fn expect_resolve(&mut self, promise: u32) -> Result<Cap, String> {
        self.expect(&format!("a Resolve of {promise}"), |m| match m {
            Msg::Resolve { promise: id, to } if *id == promise => Some(to.clone()),
            _ => None,
        })
    }

    /// Expects a Resolve of any promise.
    #[track_caller]
    pub fn expect_any_resolve(&mut self) -> (u32, Result<Cap, String>) {
        self.expect("a Resolve", |m| match m {
            Msg::Resolve { promise, to } => Some((*promise, to.clone())),
            _ => None,
        })
    }

    /// Expects a Disembargo on its way out: what it is addressed to, and its ID.
    #[track_caller]
    pub fn expect_disembargo(&mut self) -> (Target, u32) {
        self.expect("a Disembargo", |m| match m {
            Msg::Disembargo { target, context: Context::Sender(id) } => Some((target.clone(), *id)),
            _ => None,
        })
    }

    /// Expects a Disembargo of the peer's back.
    #[track_caller]
    pub fn expect_echo(&mut self, embargo: u32) -> Target {
        self.expect(&format!("the echo of Disembargo {embargo}"), |m| match m {
            Msg::Disembargo { target, context: Context::Receiver(id) } if *id == embargo => {
                Some(target.clone())
            }
            _ => None,
        })
    }

    #[track_caller]
    pub fn expect_unimplemented(&mut self) -> Msg {
        self.expect("an unimplemented message", |m| match m {
            Msg::Unimplemented(inner) => Some((**inner).clone()),
            _ => None,
        })
    }

    /// Expects that our side aborts with a reason that contains this, and that its tables are empty then. Ends
    /// the test.
    #[track_caller]
    pub fn expect_abort(&mut self, contains: &str) {
        let reason = self.expect("an Abort", |m| match m {
            Msg::Abort(reason) => Some(reason.clone()),
            _ => None,
        });
        assert!(reason.contains(contains), "aborted with {reason:?}, not {contains:?}\n{}", self.history());
        assert!(self.vat.disconnect_reason().is_some());
        assert!(self.vat.snapshot().is_empty(), "{}", self.vat.snapshot());
        self.close();
    }

    /// Expects that our side ends the connection without an Abort, and that its tables are empty then. Ends
    /// the test.
    #[track_caller]
    pub fn expect_end(&mut self) {
        while let Some(message) = self.receive() {
            if let Msg::Abort(why) = message {
                self.fail(&format!("our side aborted: {why}"));
            }
        }
        assert!(self.vat.disconnect_reason().is_some());
        assert!(self.vat.snapshot().is_empty(), "{}", self.vat.snapshot());
        self.close();
    }

    /// Puts all that our side still sends before its end aside, but an Abort.
    pub fn drain(&mut self) {
        while let Ok(message) = self.inbox.recv_timeout(DEADLINE) {
            let is_abort = matches!(message, Msg::Abort(_));
            self.aside.push_back(message);
            if is_abort {
                return;
            }
        }
    }

    // Waiting.

    /// Waits until our side has handled all that was sent to it. What it has sent by then is put aside.
    #[track_caller]
    pub fn sync(&mut self) {
        self.send_raw(
            "sync",
            Outbound::from(build(|m| {
                m.init_obsolete_save();
            })),
        );
        let marker = Msg::Unimplemented(Box::new(Msg::Other(7)));
        self.receive_until("the answer to sync", |m| *m == marker);
    }

    /// Waits until our side has handled all that was sent to it, and has run the callbacks of that; not until
    /// objects have answered. What it has sent by then is put aside.
    #[track_caller]
    pub fn settle(&mut self) {
        // A call on what can't be a capability goes through the callback queue, and no further. The second one is behind
        // the release of what the bootstrap gave.
        let bootstrap = self.bootstrap();
        let first = self.call(Target::Answer(bootstrap, vec![9]), 0, 0).send();
        self.finish(bootstrap);
        let second = self.call(Target::Answer(first, vec![9]), 0, 0).send();
        let is_end = |m: &Msg| matches!(m, Msg::Return(ret) if ret.answer == second);
        self.receive_until("the answer to settle", is_end);
        self.finish(first);
        self.finish(second);
        let own = [bootstrap, first];
        self.aside.retain(|m| !matches!(m, Msg::Return(ret) if own.contains(&ret.answer)));
        self.sync();
    }

    /// All that our side has sent and nobody has asked for, once it has handled all that was sent to it.
    #[track_caller]
    pub fn take_received(&mut self) -> Vec<Msg> {
        self.settle();
        self.aside.drain(..).collect()
    }

    #[track_caller]
    fn receive_until(&mut self, what: &str, is_end: impl Fn(&Msg) -> bool) {
        loop {
            match self.receive() {
                Some(message) if is_end(&message) => return,
                Some(message) => self.aside.push_back(message),
                None => self.fail(&format!("the end came, not {what}")),
            }
        }
    }

    /// Expects that our side has nothing to say but what was expected, and Finish and Release.
    #[track_caller]
    pub fn expect_quiet(&mut self) {
        self.settle();
        let quiet = |m: &Msg| matches!(m, Msg::Finish { .. } | Msg::Release { .. });
        if let Some(message) = self.aside.iter().find(|m| !quiet(m)) {
            let message = format!("{message:?} came, which nobody expected");
            self.fail(&message);
        }
    }

    // Together.

    /// A client of ours for a capability of the peer's that no call has been made on.
    #[track_caller]
    pub fn introduce(&mut self, cap: Cap) -> Client {
        let client = self.vat.bootstrap::<Client>();
        let question = self.expect_bootstrap();
        self.answer(question, Outcome::Results(Payload::capability(cap)));
        self.receive_until("a Finish", |m| matches!(m, Msg::Finish { question: q, .. } if *q == question));
        client
    }

    /// The ID of our side's bootstrap object, of which the peer holds one reference then.
    #[track_caller]
    pub fn get_bootstrap(&mut self) -> u32 {
        let question = self.bootstrap();
        let results = self.expect_results(question);
        self.finish_keeping(question);
        match &*results.caps {
            [Cap::Hosted(id)] if results.bare => *id,
            _ => self.fail("the bootstrap object is hosted by our side"),
        }
    }

    /// How our side describes a client when it gives it to the peer, which holds a reference then.
    #[track_caller]
    pub fn export(&mut self, client: &Client) -> Cap {
        let gate = self.introduce(Cap::Hosted(GATE));
        let answer = send(&gate, NOTE, 0, std::slice::from_ref(client));
        let call = self.expect_call();
        assert_eq!(call.target, Target::Import(GATE));
        self.answer_keeping(call.question, Outcome::Results(Payload::default()));
        wait(answer).unwrap();
        drop(gate);
        // What is told of the capability meanwhile is put aside.
        let is_finish = |m: &Msg| matches!(m, Msg::Finish { question, .. } if *question == call.question);
        let is_release = |m: &Msg| matches!(m, Msg::Release { id: GATE, .. });
        self.receive_until("a Finish or Release", |m| is_finish(m) || is_release(m));
        self.receive_until("a Finish or Release", |m| is_finish(m) || is_release(m));
        call.params.caps[0].clone()
    }

    /// The ID under which the peer holds an object of ours.
    #[track_caller]
    pub fn export_hosted(&mut self, client: &Client) -> u32 {
        match self.export(client) {
            Cap::Hosted(id) => id,
            other => self.fail(&format!("described as {other:?}, not as hosted")),
        }
    }

    /// The ID under which the peer holds a promise of ours.
    #[track_caller]
    pub fn export_promise(&mut self, client: &Client) -> u32 {
        match self.export(client) {
            Cap::Promise(id) => id,
            other => self.fail(&format!("described as {other:?}, not as a promise")),
        }
    }

    /// How many references our side holds of a capability of the peer's.
    pub fn given(&self, id: u32) -> u32 {
        self.account.given(id)
    }

    /// Finishes all questions that were returned, and gives back all references.
    pub fn release_all(&mut self) {
        for question in self.account.returned() {
            self.finish(question);
        }
        for (id, count) in self.account.held() {
            self.release(id, count);
        }
    }

    /// Ends a test. Gives back all that the peer holds; then all tables of our side must become empty, the
    /// peer's own account must be balanced, and nothing may have come that nobody expected.
    #[track_caller]
    pub fn finish_clean(mut self) {
        self.expect_quiet();
        self.release_all();
        let empty = self.vat.wait_until(Instant::now() + DEADLINE, |tables| tables.is_empty());
        let tables = self.vat.snapshot();
        if !empty || self.vat.disconnect_reason().is_some() {
            let why = self.vat.disconnect_reason();
            self.fail(&format!("the tables do not become empty: {tables}\nconnection: {why:?}"));
        }
        drop(tables);
        self.expect_quiet();
        if let Some(left) = self.account.unbalanced() {
            self.fail(&format!("the peer's account is not balanced: {left}"));
        }
        self.vat.close(Duration::ZERO).unwrap();
        if let Some(message) = self.receive() {
            self.fail(&format!("{message:?} came after all was over"));
        }
        self.close();
    }

    /// Ends the peer's side, without looking at anything.
    pub fn close(&mut self) {
        self.sink = None;
        self.done = true;
    }

    fn history(&self) -> String {
        self.history.join("\n")
    }

    #[track_caller]
    fn fail(&self, why: &str) -> ! {
        panic!("{why}\nput aside: {:?}\n{}", self.aside, self.history());
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        assert!(self.done || std::thread::panicking(), "a test ends with finish_clean or expect_abort");
    }
}

/// A call that the peer is about to send.
#[must_use = "not sent yet"]
pub struct Outgoing<'a> {
    peer: &'a mut Peer,
    call: Call,
}

impl Outgoing<'_> {
    pub fn caps(mut self, caps: &[Cap]) -> Self {
        self.call.params.caps = caps.to_vec();
        self
    }

    /// Has our side keep the results: `sendResultsTo.yourself`.
    pub fn yourself(mut self) -> Self {
        self.call.yourself = true;
        self
    }

    pub fn no_pipelining(mut self) -> Self {
        self.call.no_pipelining = true;
        self
    }

    /// Uses this question ID.
    pub fn question(mut self, question: u32) -> Self {
        self.call.question = question;
        self
    }

    /// Sends the call; its question ID.
    pub fn send(self) -> u32 {
        let question = self.call.question;
        self.peer.send(Msg::Call(self.call));
        question
    }

    /// Asks for the sake of pipelining alone: `onlyPromisePipeline`, with a question ID that says so.
    pub fn send_for_pipeline(mut self) -> u32 {
        self.call.only_pipeline = true;
        self.call.question |= 1 << 31;
        self.send()
    }
}

/// Reads all messages on a thread of its own, so that waiting for one can have a deadline.
fn read(mut source: Source) -> Receiver<Msg> {
    let (to, inbox) = crossbeam_channel::unbounded();
    std::thread::spawn(move || {
        while let Ok(Some(frame)) = source.receive() {
            if to.send(Msg::decode(frame)).is_err() {
                return;
            }
        }
    });
    inbox
}
