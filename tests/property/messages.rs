//! A vat without threads beside a raw peer, which sends random messages, each of them valid: with small ID spaces, so
//! that IDs are used again at every possible moment. However the messages fall, all tables are empty in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use capnp_threads::testing::{beside, Side, Stage};
use capnp_threads::transport::{Arrived, Frame, Outbound, Transport};
use capnp_threads::{
    Call as Served, Capability, Client, ClientFulfiller, Deferred, Exception, Options, Pool, RemotePromise,
    Server, Threads,
};

use crate::account::Account;
use crate::content;
use crate::message::{build, Call, Cap, Context, Msg, Outcome, Payload, Return, Target, INTERFACE};

/// How many IDs of questions, and how many of exports, the peer uses.
const IDS: u32 = 4;
/// More rounds of steps than any run needs to come to rest.
const MANY_ROUNDS: usize = 10_000;

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    Bootstrap,
    Call,
    Return,
    Finish,
    /// A Finish for a question that is over, or was finished before.
    FinishAgain,
    Resolve,
    Release,
    /// Sends a Disembargo of the vat's back.
    Echo,
    Unknown,
    /// The vat answers a call that it has kept.
    Answer,
    /// The vat drops something that it holds.
    Drop,
    /// The vat fulfills a promise.
    Fulfill,
    /// The vat calls something that it holds.
    Ask,
    /// Runs a method.
    Run,
    Step,
    /// Takes all steps until there are no more.
    Settle,
}

/// An operation, with numbers that choose among what is possible.
#[derive(Clone, Copy)]
pub struct Op(pub Does, pub u8, pub u8, pub u8);

impl fmt::Debug for Op {
    /// One line, whether or not it is to be pretty.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Op(does, a, b, c) = self;
        write!(f, "Op({does:?}, {a}, {b}, {c})")
    }
}

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The peer finishes and releases all that it has, and answers all that it was asked; the vat drops what it holds.
    Quiet,
    /// The peer is gone, while the vat holds what it holds.
    Gone,
}

/// Runs the operations, and checks. Where something is not as it should be, tells what happened.
pub fn run(ops: &[Op], threads: Threads, end: End) -> Result<(), String> {
    let log = Arc::new(Mutex::new(Vec::new()));
    let outcome = catch_unwind(AssertUnwindSafe(|| Run::new(threads, log.clone()).all(ops, end)));
    outcome.map_err(|panic| {
        let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(|s| &**s));
        let log = log.lock().unwrap_or_else(|e| e.into_inner());
        format!("{}\n{}", text.unwrap_or("a panic"), log.join("\n"))
    })
}

/// What the vat's objects have been given, and hold. Never locked while anything of the library's is called or dropped.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Holdings>>);

#[derive(Default)]
struct Holdings {
    clients: Vec<Client>,
    fulfillers: Vec<ClientFulfiller>,
    kept: Vec<(Deferred, Vec<Client>)>,
    promises: Vec<RemotePromise>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Holdings> {
        match self.0.try_lock() {
            Ok(holdings) => holdings,
            Err(TryLockError::Poisoned(e)) => e.into_inner(),
            Err(TryLockError::WouldBlock) => panic!("the test called the library under its own lock"),
        }
    }
}

/// Takes one of the items out, if there are any.
fn take<T>(from: &mut Vec<T>, which: u8) -> Option<T> {
    let count = from.len();
    (count > 0).then(|| from.swap_remove(usize::from(which) % count))
}

struct Object {
    shared: Shared,
    pool: Pool,
}

impl Object {
    fn client(shared: &Shared, pool: &Pool) -> Client {
        Client::with_pool(Object { shared: shared.clone(), pool: pool.clone() }, pool)
    }
}

/// How many methods an object has.
const METHODS: u16 = 9;

impl Server for Object {
    fn dispatch(&self, call: &mut Served) -> capnp_threads::Result<()> {
        let caps = content::caps(call.params().get()?)?;
        match call.method_id() {
            0 => content::fill(call.results(), 0, &caps),
            1 => {
                let kept = (call.defer()?, caps);
                self.shared.lock().kept.push(kept);
            }
            2 => self.shared.lock().clients.extend(caps),
            3 => {
                let (promise, fulfiller) = Client::promise();
                self.shared.lock().fulfillers.push(fulfiller);
                content::fill(call.results(), 0, &[promise]);
            }
            4 => {
                // Calls what it is given, and wants no answer.
                for cap in &caps {
                    drop(ask(cap, 1, &caps));
                }
            }
            5 => match caps.first() {
                Some(to) => {
                    let mut request = to.request(INTERFACE, 1);
                    content::fill(request.get(), 0, &caps);
                    call.tail_call(request)?;
                }
                None => return Err(capnp_threads::Error::failed("as told")),
            },
            6 => {
                content::fill(call.results(), 0, &caps);
                call.set_pipeline()?;
                let kept = (call.defer()?, caps);
                self.shared.lock().kept.push(kept);
            }
            7 => {
                // Waits for the answer of what it calls, and holds a capability in it.
                if let Some(to) = caps.first() {
                    let sent = ask(to, 0, &caps);
                    let promised = sent.pipeline.field(0).client();
                    let mut holdings = self.shared.lock();
                    holdings.promises.push(sent);
                    holdings.clients.push(promised);
                }
            }
            _ => content::fill(call.results(), 0, &[Object::client(&self.shared, &self.pool)]),
        }
        Ok(())
    }
}

fn ask(to: &Client, method: u16, caps: &[Client]) -> RemotePromise {
    let mut request = to.request(INTERFACE, method);
    content::fill(request.get(), 0, caps);
    request.send()
}

/// A question of the vat's, as the peer knows it.
struct Asked {
    /// The results are to stay with the peer.
    yourself: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    Question(u32),
    Promise(u32),
}

struct Run {
    log: Arc<Mutex<Vec<String>>>,
    shared: Shared,
    pool: Pool,
    side: Side,
    /// The raw peer's end.
    transport: Transport,
    account: Account,
    asked: BTreeMap<u32, Asked>,
    /// Disembargoes of the vat's that have not been sent back.
    embargoes: Vec<(Target, u32)>,
    /// Which of the peer's exports are promises; true if they have been resolved.
    promises: BTreeMap<u32, bool>,
    /// Questions of the peer's whose results the vat keeps for it, and that were not taken.
    kept: BTreeSet<u32>,
    /// Questions of the peer's that are Bootstraps.
    bootstraps: BTreeSet<u32>,
    /// The order in which the peer's questions were asked and its promises given.
    times: BTreeMap<Item, usize>,
    /// Exports of the vat's that were described as promises.
    promised: BTreeSet<u32>,
    /// The highest ID of the questions that the peer has asked.
    highest: Option<u32>,
    aborted: Option<String>,
}

impl Run {
    fn new(threads: Threads, log: Arc<Mutex<Vec<String>>>) -> Self {
        let (shared, pool) = (Shared::default(), Pool::manual());
        let options = Options::new().bootstrap(Object::client(&shared, &pool)).threads(threads);
        let (side, transport) = beside(options);
        Run {
            log,
            shared,
            pool,
            side,
            transport,
            account: Account::default(),
            asked: BTreeMap::new(),
            embargoes: Vec::new(),
            promises: BTreeMap::new(),
            kept: BTreeSet::new(),
            bootstraps: BTreeSet::new(),
            times: BTreeMap::new(),
            promised: BTreeSet::new(),
            highest: None,
            aborted: None,
        }
    }

    fn all(mut self, ops: &[Op], end: End) {
        for op in ops {
            self.say(|| format!("{op:?}"));
            self.op(*op);
            self.receive();
            self.check();
        }
        match end {
            End::Quiet => self.end_quietly(),
            End::Gone => self.end_gone(),
        }
    }

    fn say(&self, what: impl FnOnce() -> String) {
        self.log.lock().unwrap_or_else(|e| e.into_inner()).push(what());
    }

    fn check(&self) {
        assert!(self.aborted.is_none(), "the vat aborted: {:?}", self.aborted);
        let why = self.side.connection().disconnect_reason();
        assert!(why.is_none(), "the connection has ended: {}", why.unwrap());
    }

    fn op(&mut self, Op(does, a, b, c): Op) {
        match does {
            Does::Bootstrap => {
                if let Some(question) = self.free_question(a) {
                    self.bootstraps.insert(question);
                    self.send(Msg::Bootstrap(question));
                }
            }
            Does::Call => self.call(a, b, c),
            Does::Return => self.answer(a, b, c),
            Does::Finish => {
                let questions = self.account.unfinished();
                if let Some(question) = pick(&questions, a) {
                    self.finish(question, b % 4 != 0, c % 2 == 0);
                }
            }
            Does::FinishAgain => {
                let question = u32::from(a) % IDS;
                if self.highest >= Some(question) && !self.account.unfinished().contains(&question) {
                    self.send_raw(&Msg::Finish { question, release: b % 2 == 0, workaround: c % 2 == 0 });
                }
            }
            Does::Resolve => self.resolve(a, b, c),
            Does::Release => {
                if let Some((id, count)) = pick(&self.account.held(), a) {
                    self.send(Msg::Release { id, count: 1 + u32::from(b) % count });
                }
            }
            Does::Echo => {
                if let Some((target, id)) = take(&mut self.embargoes, a) {
                    self.send(Msg::Disembargo { target, context: Context::Receiver(id) });
                }
            }
            Does::Unknown => self.send_unknown(),
            Does::Answer => self.answer_kept(a, b),
            Does::Drop => self.drop_held(a, b),
            Does::Fulfill => {
                let fulfiller = take(&mut self.shared.lock().fulfillers, a);
                // A promise could lead to the results of a call that holds it, which would never end.
                let to = pick(&self.shared.lock().clients, b).filter(|client| !client.is_promise());
                match (fulfiller, to) {
                    (Some(fulfiller), Some(to)) => fulfiller.fulfill(to),
                    (fulfiller, _) => drop(fulfiller),
                }
            }
            Does::Ask => {
                let clients = self.shared.lock().clients.clone();
                if let (Some(to), Some(cap)) = (pick(&clients, a), pick(&clients, b)) {
                    let sent = ask(&to, u16::from(c) % METHODS, &[cap]);
                    self.shared.lock().promises.push(sent);
                }
            }
            Does::Run => drop(self.run_method(a)),
            Does::Step => drop(self.side.step(Stage::ALL[usize::from(a) % 4])),
            Does::Settle => self.settle(),
        }
    }

    fn note_time(&mut self, item: Item) {
        let now = self.times.values().max().map_or(0, |last| last + 1);
        self.times.insert(item, now);
    }

    fn free_question(&self, seed: u8) -> Option<u32> {
        let used = self.account.asked();
        let free: Vec<u32> = (0..IDS).filter(|id| !used.contains(id)).collect();
        pick(&free, seed)
    }

    /// Something of the vat's that can be called.
    fn target(&self, seed: u8) -> Option<Target> {
        let held = self.account.held().into_iter().map(|(id, _)| Target::Import(id));
        let answers = self.account.unfinished().into_iter().map(|id| self.in_answer(id));
        let targets: Vec<Target> = held.chain(answers).collect();
        pick(&targets, seed)
    }

    /// The capability in the results of a question of the peer's.
    fn in_answer(&self, question: u32) -> Target {
        let path = if self.bootstraps.contains(&question) { vec![] } else { vec![0] };
        Target::Answer(question, path)
    }

    /// A descriptor that the peer may send.
    fn cap(&mut self, seed: u8) -> Cap {
        let id = u32::from(seed / 8) % IDS;
        let given = self.account.given(id) > 0;
        if !given {
            self.promises.remove(&id);
        }
        match seed % 8 {
            0 | 1 => self.target(seed / 8).map_or(Cap::None, named),
            2..5 => {
                let answer = pick(&self.account.unfinished(), seed / 8);
                answer.map_or(Cap::None, |answer| named(self.in_answer(answer)))
            }
            5 | 6 => match self.promises.get(&id) {
                Some(true) => Cap::None,
                Some(false) => Cap::Promise(id),
                None if given => Cap::Hosted(id),
                None => {
                    self.promises.insert(id, false);
                    self.note_time(Item::Promise(id));
                    Cap::Promise(id)
                }
            },
            _ => match self.promises.get(&id) {
                Some(_) => Cap::None,
                None => Cap::Hosted(id),
            },
        }
    }

    fn caps(&mut self, seed: u8) -> Vec<Cap> {
        let count = [0, 1, 1, 2][usize::from(seed) % 4];
        (0..count).map(|n| self.cap((seed / 4).wrapping_mul(4).wrapping_add(seed / 8 + 37 * n))).collect()
    }

    fn call(&mut self, a: u8, b: u8, c: u8) {
        let (Some(question), Some(target)) = (self.free_question(a), self.target(a / 4)) else { return };
        let yourself = c / u8::try_from(METHODS).expect("few") % 8 == 7;
        self.bootstraps.remove(&question);
        let params = Payload::new(0, &self.caps(b));
        if yourself {
            self.kept.insert(question);
        }
        self.send(Msg::Call(Call {
            question,
            target,
            interface: INTERFACE,
            method: u16::from(c) % METHODS,
            params,
            yourself,
            no_pipelining: false,
            only_pipeline: false,
        }));
    }

    fn answer(&mut self, a: u8, b: u8, c: u8) {
        let asked: Vec<u32> = self.asked.keys().copied().collect();
        let Some(answer) = pick(&asked, a) else { return };
        let yourself = self.asked.remove(&answer).expect("picked from these").yourself;
        let kept = pick(&self.kept.iter().copied().collect::<Vec<_>>(), c);
        let outcome = match (b % 8, yourself, kept) {
            (0, _, _) => Outcome::Exception("as told".into()),
            (1, _, _) => Outcome::Canceled,
            (2, false, Some(kept)) => {
                self.kept.remove(&kept);
                Outcome::Take(kept)
            }
            (_, true, _) => Outcome::Elsewhere,
            (_, false, _) => Outcome::Results(Payload::new(0, &self.caps(c))),
        };
        let release_params = b / 8 % 2 == 0 && self.account.holds_params(answer);
        self.send(Msg::Return(Return { answer, release_params, no_finish: false, outcome }));
    }

    fn finish(&mut self, question: u32, release: bool, workaround: bool) {
        self.kept.remove(&question);
        self.send(Msg::Finish { question, release, workaround });
    }

    fn resolve(&mut self, a: u8, b: u8, c: u8) {
        let unresolved =
            self.promises.iter().filter(|(id, resolved)| !**resolved && self.account.given(**id) > 0);
        let unresolved: Vec<u32> = unresolved.map(|(id, _)| *id).collect();
        let Some(promise) = pick(&unresolved, a) else { return };
        let cap = self.cap(b);
        let given = self.times[&Item::Promise(promise)];
        // A call that holds the promise must not come to hold its own results.
        let earlier = match &cap {
            Cap::YourAnswer(id, _) => self.times[&Item::Question(*id)] < given,
            Cap::Yours(id) => !self.promised.contains(id),
            Cap::Promise(id) => *id != promise && self.times[&Item::Promise(*id)] < given,
            _ => true,
        };
        let to = match c % 8 {
            0 => Err("as told".into()),
            _ => Ok(if earlier { cap } else { Cap::None }),
        };
        self.promises.insert(promise, true);
        self.send(Msg::Resolve { promise, to });
    }

    fn answer_kept(&mut self, a: u8, b: u8) {
        let Some((kept, mut caps)) = take(&mut self.shared.lock().kept, a) else { return };
        caps.extend(pick(&self.shared.lock().clients, b).filter(|client| !client.is_promise()));
        match b % 4 {
            0 => drop(kept),
            1 => match caps.first() {
                Some(to) => {
                    let mut request = to.request(INTERFACE, 1);
                    content::fill(request.get(), 0, &caps);
                    kept.tail_call(request);
                }
                None => drop(kept),
            },
            _ => kept.answer(|results| {
                content::fill(results, 0, &caps);
                Ok(())
            }),
        }
    }

    fn drop_held(&mut self, a: u8, b: u8) {
        let mut holdings = self.shared.lock();
        match b % 3 {
            0 => {
                let client = take(&mut holdings.clients, a);
                drop(holdings);
                drop(client);
            }
            1 => {
                let promise = take(&mut holdings.promises, a);
                drop(holdings);
                drop(promise);
            }
            _ => {
                // Its params are let go of, and it goes on.
                let count = holdings.kept.len().max(1);
                let caps =
                    holdings.kept.get_mut(usize::from(a) % count).map(|(_, caps)| std::mem::take(caps));
                drop(holdings);
                drop(caps);
            }
        }
    }

    fn run_method(&self, which: u8) -> bool {
        let count = self.pool.tasks();
        if count > 0 {
            self.pool.run_task(usize::from(which) % count);
        }
        count > 0
    }

    fn send(&mut self, message: Msg) {
        self.account.sent(&message);
        if let Msg::Bootstrap(question) | Msg::Call(Call { question, .. }) = &message {
            self.highest = self.highest.max(Some(*question));
            self.note_time(Item::Question(*question));
        }
        self.send_raw(&message);
    }

    fn send_raw(&mut self, message: &Msg) {
        self.say(|| format!("  -> {message:?}"));
        self.transport.sink.send(&[message.encode()]).expect("the vat takes all");
    }

    /// Sends a message that the vat does not know, and sends back.
    fn send_unknown(&mut self) {
        let message = Outbound::from(build(|message| {
            message.init_obsolete_save();
        }));
        self.transport.sink.send(&[message]).expect("the vat takes all");
    }

    /// The next message that the vat has sent.
    fn arrived(&mut self) -> Option<Frame> {
        let source = self.transport.source.as_nonblocking().expect("memory makes nobody wait");
        match source.receive_now() {
            Ok(Arrived::Message(frame)) => Some(frame),
            Ok(Arrived::Nothing | Arrived::End) | Err(_) => None,
        }
    }

    /// Reads what the vat has sent.
    fn receive(&mut self) {
        while let Some(frame) = self.arrived() {
            let message = Msg::decode(frame);
            self.say(|| format!("  <- {message:?}"));
            if let Msg::Abort(why) = message {
                self.aborted = Some(why);
                return;
            }
            self.account.received(&message).unwrap_or_else(|why| panic!("the vat broke a rule: {why}"));
            for cap in caps_in(&message) {
                match cap {
                    Cap::Promise(id) => drop(self.promised.insert(*id)),
                    Cap::Hosted(id) => drop(self.promised.remove(id)),
                    _ => {}
                }
            }
            match message {
                Msg::Call(call) => {
                    self.asked.insert(call.question, Asked { yourself: call.yourself });
                }
                Msg::Bootstrap(question) => {
                    self.asked.insert(question, Asked { yourself: false });
                }
                Msg::Disembargo { target, context: Context::Sender(id) } => self.embargoes.push((target, id)),
                _ => {}
            }
        }
    }

    fn settle(&mut self) {
        for _ in 0..MANY_ROUNDS {
            let mut any = false;
            for stage in Stage::ALL {
                while self.side.step(stage) {
                    any = true;
                }
            }
            any |= self.run_method(0);
            self.receive();
            if !any {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    /// Has transactions look at what has been dropped, and what that has dropped.
    fn note_drops(&mut self) {
        for _ in 0..4 {
            self.settle();
            self.send_unknown();
        }
        self.settle();
    }

    /// The vat's objects let go of all that they hold.
    fn drop_all(&mut self) {
        let holdings = std::mem::take(&mut *self.shared.lock());
        drop(holdings);
    }

    fn end_quietly(mut self) {
        for _ in 0..MANY_ROUNDS {
            self.settle();
            self.check();
            self.note_drops();
            if self.side.connection().snapshot().is_empty() {
                let left = self.account.unbalanced();
                assert!(left.is_none(), "the peer's account is not balanced: {}", left.unwrap());
                return;
            }
            let mut any = false;
            for question in self.account.unfinished() {
                self.finish(question, true, question % 2 == 0);
                any = true;
            }
            for (id, count) in self.account.held() {
                self.send(Msg::Release { id, count });
                any = true;
            }
            for (answer, _) in std::mem::take(&mut self.asked) {
                self.send(Msg::Return(Return {
                    answer,
                    release_params: false,
                    no_finish: false,
                    outcome: Outcome::Canceled,
                }));
                any = true;
            }
            for (target, id) in std::mem::take(&mut self.embargoes) {
                self.send(Msg::Disembargo { target, context: Context::Receiver(id) });
                any = true;
            }
            self.settle();
            // A method that keeps its call is done with it only when it is canceled.
            let mut holdings = self.shared.lock();
            let canceled = |(kept, _): &(Deferred, Vec<Client>)| kept.cancellation().is_canceled();
            let (canceled, kept) = std::mem::take(&mut holdings.kept).into_iter().partition(canceled);
            let canceled: Vec<(Deferred, Vec<Client>)> = canceled;
            holdings.kept = kept;
            let Holdings { clients, fulfillers, promises, .. } = &mut *holdings;
            let held =
                (std::mem::take(clients), std::mem::take(fulfillers), std::mem::take(promises), canceled);
            drop(holdings);
            any |= !(held.0.is_empty() && held.1.is_empty() && held.2.is_empty() && held.3.is_empty());
            drop(held);
            self.note_drops();
            let tables = self.side.connection().snapshot();
            assert!(any || tables.is_empty(), "the tables do not become empty: {tables}");
        }
        panic!("it does not come to an end");
    }

    fn end_gone(mut self) {
        self.transport.shutdown.shutdown();
        self.side.connection().abort(Exception::failed("the peer is gone"));
        for stage in Stage::ALL.into_iter().cycle().take(MANY_ROUNDS) {
            self.side.step(stage);
        }
        let tables = self.side.connection().snapshot();
        assert!(tables.is_empty(), "a connection that has ended holds something: {tables}");
        while self.run_method(0) {}
        self.drop_all();
        let holdings = self.shared.lock();
        assert!(holdings.kept.is_empty() && holdings.promises.is_empty(), "nothing came after the end");
    }
}

fn pick<T: Clone>(from: &[T], which: u8) -> Option<T> {
    (!from.is_empty()).then(|| from[usize::from(which) % from.len()].clone())
}

/// What can be called, named in a descriptor.
fn named(target: Target) -> Cap {
    match target {
        Target::Import(id) => Cap::Yours(id),
        Target::Answer(id, path) => Cap::YourAnswer(id, path),
    }
}

fn caps_in(message: &Msg) -> &[Cap] {
    match message {
        Msg::Call(call) => &call.params.caps,
        Msg::Return(Return { outcome: Outcome::Results(results), .. }) => &results.caps,
        Msg::Resolve { to: Ok(cap), .. } => std::slice::from_ref(cap),
        _ => &[],
    }
}
