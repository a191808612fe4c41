//! Operations on both vats, steps of the connection between them, and what must hold in the end.

use std::fmt;
use std::panic::{catch_unwind, AssertUnwindSafe};

use capnp_threads::testing::{pair, record, Side, Stage};
use capnp_threads::{Capability, Client, Exception, Options, Pool};

use super::graph::{Meaning, Node, Outcome, Resolution, Root};
use super::world::{Behaviour, Held, Object, Pending, Shared, Waiting};

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Call,
    /// Sends something round: a call to the peer that gives back what it is given, and calls on that at once.
    Round,
    /// Calls again on what was sent round, by the pipeline's client or the response's; first it may take the response,
    /// resolve what was sent, or drop the clients for it.
    Again,
    /// Takes a client out of the pipeline of a call.
    Pipeline,
    /// Takes a response that has come.
    Response,
    DropHeld,
    DropResponse,
    DropPipeline,
    Promise,
    Resolve,
    ResolveToItself,
    Object,
    /// Answers a call that waits.
    Answer,
    Bootstrap,
    Clone,
    /// Takes all steps until there are no more.
    Settle,
    /// Runs a method.
    Run,
    Send,
    Receive,
    Coordinate,
    Callback,
}

/// An operation on one of the two vats, with numbers that choose among what is there.
#[derive(Clone, Copy)]
pub struct Op(pub What, pub usize, pub u8, pub u8, pub u8);

impl fmt::Debug for Op {
    /// One line, whether or not it is to be pretty.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Op(what, side, a, b, c) = self;
        write!(f, "Op({what:?}, {side}, {a}, {b}, {c})")
    }
}

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All that waits is answered, all that is held is called, and all is dropped.
    Quiet,
    /// One side aborts the connection.
    Abort,
}

/// More steps than any run takes.
const MANY_STEPS: usize = 200_000;
/// What a call for probing does: it returns nothing.
const NOTHING: Behaviour = Behaviour { kind: 0, picks: 0 };
/// Among how many of the latest calls that sent something round one is chosen.
const LATEST: usize = 4;
/// The kind of call that gives back what it is given.
const GIVE_BACK: u8 = 8;

/// Runs the operations, and checks. Where something is not as it should be, tells what happened.
pub fn run(ops: &[Op], end: End) -> Result<(), String> {
    let world = Shared::default();
    let outcome = catch_unwind(AssertUnwindSafe(|| Run::new(world.clone()).all(ops, end)));
    outcome.map_err(|panic| {
        let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(|s| &**s));
        format!("{}\n{}", text.unwrap_or("a panic"), world.lock().log.join("\n"))
    })
}

struct Run {
    world: Shared,
    sides: [Side; 2],
    pool: Pool,
    /// For each vat, the calls that sent something round, and the reference to what comes back of each.
    round: [Vec<(usize, usize)>; 2],
}

impl Run {
    fn new(world: Shared) -> Self {
        let pool = Pool::manual();
        let roots = [0, 1].map(|side| world.new_object(side, &pool));
        let options = roots.map(|root| Options::new().bootstrap(root.client));
        let [first, second] = options;
        let log = world.clone();
        let sides = pair(first, second, move |event| log.log(|| format!("  0 {event}")));
        let run = Run { world, sides, pool, round: Default::default() };
        for side in 0..2 {
            run.bootstrap(side);
            run.world.hold(side, run.world.new_object(side, &run.pool));
        }
        run
    }

    fn all(mut self, ops: &[Op], end: End) {
        for op in ops {
            self.world.log(|| format!("{op:?}"));
            self.op(*op);
            self.check();
        }
        match end {
            End::Quiet => self.end_quietly(),
            End::Abort => self.abort(),
        }
    }

    fn check(&self) {
        let world = self.world.lock();
        assert!(world.failures.is_empty(), "{:#?}", world.failures);
        drop(world);
        for side in &self.sides {
            let why = side.connection().disconnect_reason();
            assert!(why.is_none(), "the connection has ended: {}", why.unwrap());
        }
    }

    fn op(&mut self, Op(what, side, a, b, c): Op) {
        match what {
            What::Call => self.call_somebody(side, a, b, c),
            What::Round => self.send_round(side, a, b, c),
            What::Again => self.call_again(side, a, b, c),
            What::Pipeline => self.pipeline(side, a, b),
            What::Response => self.response(side, a, b),
            What::DropHeld => self.drop_held(side, a),
            What::DropResponse => self.drop_response(side, a),
            What::DropPipeline => self.drop_pipeline(side, a),
            What::Promise => self.promise(side),
            What::Resolve => self.resolve(side, a, b),
            What::ResolveToItself => self.resolve_to_itself(side, a),
            What::Object => self.world.hold(side, self.world.new_object(side, &self.pool)),
            What::Answer => self.answer(side, a, b),
            What::Bootstrap => self.bootstrap(side),
            What::Clone => self.clone_held(side, a),
            What::Settle => self.settle(),
            What::Run => drop(self.run_task(a)),
            What::Send => self.steps(side, Stage::Send, a),
            What::Receive => self.steps(side, Stage::Receive, a),
            What::Coordinate => self.steps(side, Stage::Coordinator, a),
            What::Callback => self.steps(side, Stage::Callback, a),
        }
    }

    fn call_somebody(&self, side: usize, target: u8, params: u8, behaviour: u8) {
        let Some(target) = self.world.pick(side, target) else { return };
        let params = self.world.picks(side, params);
        let kind = Behaviour { kind: behaviour % 8, picks: behaviour / 8 * 5 };
        self.call(side, &target, params, kind, behaviour % 16);
    }

    /// What is sent round is anything that the vat holds, or a new promise, which may be resolved at once; to somebody
    /// in the peer.
    fn send_round(&mut self, side: usize, target: u8, what: u8, calls: u8) {
        let Some(target) = self.world.pick_in_peer(side, target) else { return };
        let (new, seed) = (what % 2 == 0, what);
        if new {
            self.promise(side);
        }
        let what = if new { self.world.last(side) } else { self.world.pick(side, what / 2) };
        let Some(what) = what else { return };
        let call = self.call(side, &target, vec![what], Behaviour { kind: GIVE_BACK, picks: 0 }, 0);
        let last = self.world.lock().pending[side].iter().filter(|p| p.pipeline.is_some()).count() - 1;
        self.pipeline(side, last as u8, 0);
        let Some(back) = self.world.last(side) else { return };
        self.round[side].push((call, back.reference));
        self.call_on(side, &back, calls);
        if seed % 4 == 0 {
            self.resolve_round(side, call, seed / 4);
        }
    }

    /// The promise that was sent round is something that the peer has: and the peer may name it as it comes back.
    fn resolve_round(&self, side: usize, call: usize, to: u8) {
        let Some(theirs) = self.world.pick_in_peer(side, to) else { return };
        let mut world = self.world.lock();
        let Some(Node::Promise(sent)) = world.calls[call].params.first().copied() else { return };
        let at = world.fulfillers[side].iter().position(|(promise, _)| *promise == sent);
        let Some((promise, fulfiller)) = at.map(|at| world.fulfillers[side].remove(at)) else { return };
        world.graph.promises[promise].now = Resolution::To(theirs.node);
        world.log.push(format!("  promise {promise} is {:?}", theirs.node));
        drop(world);
        fulfiller.fulfill(theirs.client);
    }

    fn call_again(&self, side: usize, with: u8, resolve: u8, calls: u8) {
        let round = &self.round[side];
        let back = usize::from(calls / 3) % round.len().clamp(1, LATEST);
        let Some((call, reference)) = round.iter().rev().nth(back).copied() else { return };
        match resolve % 8 {
            0..2 => self.resolve_round(side, call, resolve / 8),
            2..6 => self.response_of(side, call),
            6 => self.drop_all_of(side, reference),
            _ => {}
        }
        if let Some(held) = self.world.pick_of(side, reference, with) {
            self.call_on(side, &held, calls);
        }
    }

    /// Takes the response of a call, if it has come, and holds all of it.
    fn response_of(&self, side: usize, call: usize) {
        let ready = |p: &mut Pending| p.promise.take_if(|promise| p.call == call && promise.is_ready());
        if let Some((call, promise)) = self.take(side, 0, ready) {
            let response = promise.try_take().map_err(|why| why.into_failed().expect("it is ready"));
            self.world.check_response(side, call, response, 0);
        }
    }

    /// Drops all clients that a vat has for a reference: it may get new ones from a pipeline or a response.
    fn drop_all_of(&self, side: usize, reference: usize) {
        let mut world = self.world.lock();
        let held = std::mem::take(&mut world.held[side]);
        let (dropped, kept): (Vec<_>, _) = held.into_iter().partition(|held| held.reference == reference);
        world.held[side] = kept;
        drop(world);
        drop(dropped);
    }

    /// One to three calls that do nothing.
    fn call_on(&self, side: usize, target: &Held, calls: u8) {
        for _ in 0..=calls % 3 {
            self.call(side, target, Vec::new(), NOTHING, 0);
        }
    }

    fn call(&self, side: usize, target: &Held, params: Vec<Held>, kind: Behaviour, how: u8) -> usize {
        let call = self.world.new_call(side, target, &params, kind);
        let clients: Vec<Client> = params.into_iter().map(|held| held.client).collect();
        let mut request = target.client.request(1, 1);
        record::write(request.get(), call as u64, &clients);
        let pending = match how {
            15 => Pending { call, promise: None, pipeline: Some(request.send_for_pipeline()) },
            14 => Pending { call, promise: Some(request.no_pipelining().send().promise), pipeline: None },
            _ => {
                let sent = request.send();
                Pending { call, promise: Some(sent.promise), pipeline: Some(sent.pipeline) }
            }
        };
        let mut world = self.world.lock();
        world.calls[call].dropped = pending.promise.is_none();
        world.graph.calls[call].silent = pending.promise.is_none();
        world.pending[side].push(pending);
        call
    }

    fn pipeline(&self, side: usize, which: u8, field: u8) {
        let world = self.world.lock();
        let with: Vec<_> = world.pending[side].iter().filter(|p| p.pipeline.is_some()).collect();
        if with.is_empty() {
            return;
        }
        let pending = with[usize::from(which) % with.len()];
        let (call, pipeline) = (pending.call, pending.pipeline.clone().expect("filtered"));
        drop(world);
        let field = field % record::FIELDS as u8;
        let client = pipeline.field(field.into()).client();
        let mut world = self.world.lock();
        let reference = world.field_reference(call, field.into());
        let node = Node::Field(call, field.into());
        world.held[side].push(Held { client, node, reference });
        world.log.push(format!("  {node:?} is reference {reference}"));
        drop(world);
        drop(pipeline);
    }

    /// Takes something out of one of the calls under way; those of which nothing is left are forgotten.
    fn take<T>(
        &self,
        side: usize,
        which: u8,
        from: impl Fn(&mut Pending) -> Option<T>,
    ) -> Option<(usize, T)> {
        let mut world = self.world.lock();
        let all = &mut world.pending[side];
        let count = all.len();
        for i in 0..count {
            let at = (usize::from(which) + i) % count;
            if let Some(taken) = from(&mut all[at]) {
                let call = all[at].call;
                if all[at].promise.is_none() && all[at].pipeline.is_none() {
                    all.remove(at);
                }
                return Some((call, taken));
            }
        }
        None
    }

    fn response(&self, side: usize, which: u8, keep: u8) {
        let ready = |p: &mut Pending| p.promise.take_if(|promise| promise.is_ready());
        if let Some((call, promise)) = self.take(side, which, ready) {
            let response = promise.try_take().map_err(|why| why.into_failed().expect("it is ready"));
            self.world.check_response(side, call, response, keep);
        }
    }

    fn drop_held(&self, side: usize, which: u8) {
        let mut world = self.world.lock();
        let held = &mut world.held[side];
        if !held.is_empty() {
            let at = usize::from(which) % held.len();
            let held = held.swap_remove(at);
            world.log.push(format!("  {:?} by reference {}", held.node, held.reference));
            drop(world);
            drop(held);
        }
    }

    fn drop_response(&self, side: usize, which: u8) {
        if let Some((call, promise)) = self.take(side, which, |p| p.promise.take()) {
            let mut world = self.world.lock();
            world.calls[call].dropped = true;
            world.log.push(format!("  of call {call}"));
            drop(world);
            drop(promise);
        }
    }

    fn drop_pipeline(&self, side: usize, which: u8) {
        if let Some((call, pipeline)) = self.take(side, which, |p| p.pipeline.take()) {
            self.world.log(|| format!("  of call {call}"));
            drop(pipeline);
        }
    }

    fn promise(&self, side: usize) {
        let (client, fulfiller) = Client::promise();
        let mut world = self.world.lock();
        let promise = world.new_promise(side);
        let reference = world.new_reference();
        world.fulfillers[side].push((promise, fulfiller));
        world.held[side].push(Held { client, node: Node::Promise(promise), reference });
    }

    fn resolve(&self, side: usize, which: u8, to: u8) {
        let to = self.world.pick(side, to);
        let mut world = self.world.lock();
        let count = world.fulfillers[side].len();
        if count == 0 {
            return;
        }
        let (promise, fulfiller) = world.fulfillers[side].remove(usize::from(which) % count);
        let to = to.filter(|held| !world.graph.kept(held.node).contains(&Root::Promise(promise)));
        world.graph.promises[promise].now =
            to.as_ref().map_or(Resolution::Broken, |held| Resolution::To(held.node));
        let now = world.graph.promises[promise].now;
        world.log.push(format!("  promise {promise} is {now:?}"));
        drop(world);
        match to {
            Some(held) => fulfiller.fulfill(held.client),
            None => drop(fulfiller),
        }
    }

    fn resolve_to_itself(&self, side: usize, which: u8) {
        let mut world = self.world.lock();
        let fulfillers = world.fulfillers[side].iter().map(|(promise, _)| *promise);
        let held =
            |promise| world.held[side].iter().find(|held| held.node == Node::Promise(promise)).cloned();
        let own: Vec<_> = fulfillers.enumerate().filter_map(|(at, p)| Some((at, held(p)?))).collect();
        if own.is_empty() {
            return;
        }
        let (at, held) = own[usize::from(which) % own.len()].clone();
        let (promise, fulfiller) = world.fulfillers[side].remove(at);
        world.graph.promises[promise].now = Resolution::Broken;
        drop(world);
        drop(own);
        fulfiller.fulfill(held.client);
    }

    fn answer(&self, side: usize, which: u8, seed: u8) {
        let mut world = self.world.lock();
        let count = world.waiting[side].len();
        if count > 0 {
            let waiting = world.waiting[side].swap_remove(usize::from(which) % count);
            drop(world);
            self.world.answer(side, waiting, seed);
        }
    }

    fn bootstrap(&self, side: usize) {
        let client = self.sides[side].connection().bootstrap::<Client>();
        let reference = self.world.lock().new_reference();
        self.world.hold(side, Held { client, node: Node::Object(1 - side), reference });
    }

    fn clone_held(&self, side: usize, which: u8) {
        if let Some(held) = self.world.pick(side, which) {
            self.world.hold(side, held);
        }
    }

    fn run_task(&self, which: u8) -> bool {
        let count = self.pool.tasks();
        if count > 0 {
            self.pool.run_task(usize::from(which) % count);
        }
        count > 0
    }

    /// One to four steps of a stage: with one each, few calls would come back before the operations end.
    fn steps(&mut self, side: usize, stage: Stage, more: u8) {
        for _ in 0..=more % 4 {
            self.sides[side].step(stage);
        }
    }

    /// Takes steps until there are none to take.
    fn settle(&mut self) {
        for _ in 0..MANY_STEPS {
            let mut moved = self.run_task(0);
            for side in &mut self.sides {
                for stage in Stage::ALL {
                    moved |= side.step(stage);
                }
            }
            if !moved {
                return;
            }
        }
        panic!("steps are taken without end");
    }

    fn end_quietly(mut self) {
        self.settle();
        self.check();
        self.answer_all();
        self.take_responses();
        self.probe();
        self.drop_all();
        self.settle();
        self.check();
        for (number, side) in self.sides.iter().enumerate() {
            let tables = side.connection().snapshot();
            assert!(tables.is_empty(), "the tables of side {number} are not empty:\n{tables}");
        }
        assert_eq!(self.world.lock().living(), 2, "all objects are gone but the bootstrap objects");
    }

    /// Answers all that waits, until nothing does.
    fn answer_all(&mut self) {
        self.world.log(|| "answering all".into());
        for seed in (0..).step_by(5).map(|seed: u64| seed as u8) {
            let mut waited = false;
            for side in 0..2 {
                while !self.world.lock().fulfillers[side].is_empty() {
                    self.resolve(side, seed, seed);
                    waited = true;
                }
                while !self.world.lock().waiting[side].is_empty() {
                    self.answer(side, 0, seed);
                    waited = true;
                }
            }
            self.settle();
            self.check();
            if !waited {
                return;
            }
        }
    }

    /// All calls whose response is wanted have one.
    fn take_responses(&self) {
        for side in 0..2 {
            let pending = std::mem::take(&mut self.world.lock().pending[side]);
            for Pending { call, promise, pipeline: _pipeline } in pending {
                let Some(promise) = promise else { continue };
                let response = promise
                    .try_take()
                    .map_err(|why| why.into_failed().unwrap_or_else(|| panic!("call {call} has no answer")));
                self.world.check_response(side, call, response, 0);
            }
        }
        self.check();
    }

    /// Every reference that is held means what it should, and a call on it gets there.
    fn probe(&mut self) {
        self.world.log(|| "probing".into());
        let mut probes = Vec::new();
        for side in 0..2 {
            let held = self.world.lock().held[side].clone();
            for held in held {
                self.check_settled(side, &held);
                let call = self.world.new_call(side, &held, &[], NOTHING);
                let mut request = held.client.request(1, 1);
                record::write(request.get(), call as u64, &[]);
                probes.push((side, call, request.send()));
            }
        }
        self.settle();
        for (side, call, sent) in probes {
            let promise = sent.promise;
            assert!(promise.is_ready(), "probe {call} has no answer");
            self.world.check_response(
                side,
                call,
                promise.try_take().map_err(|why| why.into_failed().expect("it is ready")),
                255,
            );
            let world = self.world.lock();
            let node = &world.graph.calls[call];
            let arrived = matches!(world.graph.meaning(node.target), Meaning::Object(_));
            assert_eq!(node.arrived, arrived, "probe {call} on {:?}", node.target);
        }
        self.check();
    }

    /// When all is known, promises are as short as they can be.
    fn check_settled(&self, side: usize, held: &Held) {
        let world = self.world.lock();
        if !world.graph.is_told(held.node, side) {
            return;
        }
        let meaning = world.graph.meaning(held.node);
        let object = match meaning {
            Meaning::Object(object) => Some(object).filter(|object| world.objects[*object] == Some(side)),
            _ => None,
        };
        drop(world);
        let local = held.client.try_local_server::<Object>().here().map(|object| object.id);
        let place = format!("{:?} on side {side}, which means {meaning:?}", held.node);
        assert_eq!(local, object, "{place}");
        assert!(!held.client.is_promise(), "a promise is left: {place}");
        // A promise that becomes null is told to be broken: a Resolve can't say null.
        let fails = held.client.is_null() || held.client.broken_reason().is_some();
        assert_eq!(fails, meaning.fails(), "{place}");
    }

    fn drop_all(&self) {
        self.world.log(|| "dropping all".into());
        for side in 0..2 {
            let mut world = self.world.lock();
            let held = std::mem::take(&mut world.held[side]);
            let pending = std::mem::take(&mut world.pending[side]);
            let fulfillers = std::mem::take(&mut world.fulfillers[side]);
            let waiting: Vec<Waiting> = std::mem::take(&mut world.waiting[side]);
            drop(world);
            drop((held, pending, fulfillers, waiting));
        }
    }

    /// One side aborts: whoever waits is told, and nothing is kept.
    fn abort(mut self) {
        self.sides[0].connection().abort(Exception::failed("enough"));
        self.settle();
        for side in &self.sides {
            assert!(!side.connection().is_connected());
            assert!(side.connection().snapshot().is_empty());
        }
        // What waits for something in its own vat waits on.
        self.drop_waiting();
        for pending in self.world.lock().pending.iter().flatten() {
            let ready = pending.promise.as_ref().is_none_or(|promise| promise.is_ready());
            assert!(ready, "call {} has no answer", pending.call);
        }
        self.drop_all();
        self.settle();
        let world = self.world.lock();
        let order: Vec<_> = world.failures.iter().filter(|f| f.contains("arrived")).collect();
        assert!(order.is_empty(), "{order:#?}");
        assert_eq!(world.living(), 0, "all objects are gone");
    }

    /// Drops what was to be answered or resolved, until nothing is.
    fn drop_waiting(&mut self) {
        loop {
            let mut world = self.world.lock();
            let dropped: Vec<_> = world.waiting.iter_mut().flat_map(std::mem::take).collect();
            let resolved: Vec<_> = world.fulfillers.iter_mut().flat_map(std::mem::take).collect();
            for (promise, _) in &resolved {
                world.graph.promises[*promise].now = Resolution::Broken;
            }
            for waiting in dropped.iter().filter(|waiting| waiting.promised.is_none()) {
                world.graph.calls[waiting.call].outcome = Outcome::Failed;
            }
            drop(world);
            let done = dropped.is_empty() && resolved.is_empty();
            drop((dropped, resolved));
            self.settle();
            if done {
                return;
            }
        }
    }
}
