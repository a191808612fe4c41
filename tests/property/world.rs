//! Both vats as the test sees them: what each holds, what is under way, and what should come of it.

use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use capnp_threads::testing::record;
use capnp_threads::{
    Call, Capability, Client, ClientFulfiller, Deferred, Error, Pipeline, Pool, Promise, Response, Server,
};

use super::graph::{CallNode, Graph, Meaning, Node, Outcome, Promised, Resolution};

/// A client that a vat holds, and what it stands for.
#[derive(Clone)]
pub struct Held {
    pub client: Client,
    pub node: Node,
    /// Clones share it: calls made on one arrive in the order made.
    pub reference: usize,
}

/// A call that was sent.
pub struct Pending {
    pub call: usize,
    pub promise: Option<Promise<Response>>,
    pub pipeline: Option<Pipeline>,
}

/// A call whose method has returned without an answer.
pub struct Waiting {
    pub call: usize,
    pub deferred: Deferred,
    /// The results that were promised with `set_pipeline`.
    pub promised: Option<Vec<Held>>,
}

/// What the method that a call reaches does.
#[derive(Clone, Copy, Debug)]
pub struct Behaviour {
    pub kind: u8,
    pub picks: u8,
}

/// A call, beside what the graph knows of it.
pub struct CallInfo {
    pub reference: usize,
    pub sequence: u32,
    pub params: Vec<Node>,
    pub behaviour: Behaviour,
    /// Nobody waits for its response any more: it may be canceled.
    pub dropped: bool,
    /// What it waited for has been said.
    pub answered: bool,
    /// The references made for the capabilities in its results.
    pub fields: [Option<usize>; record::FIELDS as usize],
}

/// The calls made on one reference.
#[derive(Default)]
pub struct Reference {
    pub sent: u32,
    /// The next call to arrive has at least this number.
    pub arrived: u32,
}

#[derive(Default)]
pub struct World {
    pub graph: Graph,
    pub calls: Vec<CallInfo>,
    pub references: Vec<Reference>,
    /// The vat of each object, while it lives.
    pub objects: Vec<Option<usize>>,
    pub held: [Vec<Held>; 2],
    pub pending: [Vec<Pending>; 2],
    pub waiting: [Vec<Waiting>; 2],
    pub fulfillers: [Vec<(usize, ClientFulfiller)>; 2],
    /// What went wrong where a panic would be caught.
    pub failures: Vec<String>,
    pub log: Vec<String>,
}

/// The world, shared with its objects. Never locked while anything of the library's is called or dropped.
#[derive(Clone, Default)]
pub struct Shared(Arc<Mutex<World>>);

impl Shared {
    pub fn lock(&self) -> MutexGuard<'_, World> {
        match self.0.try_lock() {
            Ok(world) => world,
            Err(TryLockError::Poisoned(e)) => e.into_inner(),
            Err(TryLockError::WouldBlock) => panic!("the test called the library under its own lock"),
        }
    }

    pub fn log(&self, text: impl FnOnce() -> String) {
        self.lock().log.push(text());
    }

    pub fn new_object(&self, side: usize, pool: &Pool) -> Held {
        let mut world = self.lock();
        let id = world.objects.len();
        world.objects.push(Some(side));
        world.graph.places.push(side);
        let reference = world.new_reference();
        drop(world);
        let client = Client::with_pool(Object { id, side, world: self.clone() }, pool);
        Held { client, node: Node::Object(id), reference }
    }

    /// Adds a reference to those that a vat holds.
    pub fn hold(&self, side: usize, held: Held) {
        self.lock().held[side].push(held);
    }

    /// Some of the references that a vat holds.
    pub fn pick(&self, side: usize, seed: u8) -> Option<Held> {
        let world = self.lock();
        let held = &world.held[side];
        (!held.is_empty()).then(|| held[usize::from(seed) % held.len()].clone())
    }

    /// The reference that a vat got last.
    pub fn last(&self, side: usize) -> Option<Held> {
        self.lock().held[side].last().cloned()
    }

    /// Some of the references that a vat holds to what is in the peer for sure.
    pub fn pick_in_peer(&self, side: usize, seed: u8) -> Option<Held> {
        let world = self.lock();
        let is_there = |held: &&Held| match world.graph.meaning(held.node) {
            Meaning::Object(object) => world.graph.places[object] != side,
            _ => false,
        };
        let there: Vec<_> = world.held[side].iter().filter(is_there).collect();
        (!there.is_empty()).then(|| there[usize::from(seed) % there.len()].clone())
    }

    /// One of the clients that a vat has for a reference.
    pub fn pick_of(&self, side: usize, reference: usize, seed: u8) -> Option<Held> {
        let world = self.lock();
        let of: Vec<_> = world.held[side].iter().filter(|held| held.reference == reference).collect();
        (!of.is_empty()).then(|| of[usize::from(seed) % of.len()].clone())
    }

    /// Up to as many references as a record has fields, out of one number.
    pub fn picks(&self, side: usize, seed: u8) -> Vec<Held> {
        let count = [0, 1, 1, 2, 3][usize::from(seed) % 5];
        (0..count).filter_map(|i| self.pick(side, (seed / 5).wrapping_add(i * 5))).collect()
    }

    /// Enters a call in the graph.
    pub fn new_call(&self, caller: usize, target: &Held, params: &[Held], behaviour: Behaviour) -> usize {
        let mut world = self.lock();
        let call = world.calls.len();
        let reference = &mut world.references[target.reference];
        let sequence = reference.sent;
        reference.sent += 1;
        world.graph.calls.push(CallNode {
            target: target.node,
            caller,
            silent: false,
            arrived: false,
            outcome: Outcome::None,
        });
        world.calls.push(CallInfo {
            reference: target.reference,
            sequence,
            params: params.iter().map(|held| held.node).collect(),
            behaviour,
            dropped: false,
            answered: false,
            fields: [None; record::FIELDS as usize],
        });
        let nodes: Vec<Node> = params.iter().map(|p| p.node).collect();
        if !world.graph.is_to_own(call) {
            world.graph.travelled.extend(&nodes);
        }
        world.log.push(format!(
            "  call {call} on {:?} (reference {}, number {sequence}) with {nodes:?}: {behaviour:?}",
            target.node, target.reference
        ));
        call
    }

    /// Those of `results` that may answer a call: not such as wait for it themselves.
    pub fn without_circles(&self, call: usize, results: Vec<Held>) -> Vec<Held> {
        let world = self.lock();
        let root = super::graph::Root::Call(call);
        results.into_iter().filter(|held| !world.graph.kept(held.node).contains(&root)).collect()
    }

    pub fn set_outcome(&self, call: usize, outcome: Outcome) {
        let mut world = self.lock();
        world.log.push(format!("  call {call} is answered: {outcome:?}"));
        if let Outcome::Results(nodes) = &outcome {
            world.graph.travelled.extend(nodes);
        }
        world.graph.calls[call].outcome = outcome;
    }

    /// Answers a call that waits.
    pub fn answer(&self, side: usize, waiting: Waiting, seed: u8) {
        let Waiting { call, deferred, promised } = waiting;
        self.lock().calls[call].answered = true;
        let results = match promised {
            Some(promised) => promised,
            None if seed % 7 == 6 => {
                self.set_outcome(call, Outcome::Failed);
                return deferred.fail(Error::failed("as told"));
            }
            None => {
                let results = self.without_circles(call, self.picks(side, seed));
                self.set_outcome(call, Outcome::Results(results.iter().map(|r| r.node).collect()));
                results
            }
        };
        let clients: Vec<Client> = results.into_iter().map(|held| held.client).collect();
        deferred.answer(|root| {
            record::write(root, call as u64, &clients);
            Ok(())
        });
    }

    /// Looks at a response, and holds what the seed says of it.
    pub fn check_response(
        &self,
        side: usize,
        call: usize,
        response: capnp_threads::Result<Response>,
        keep: u8,
    ) {
        let by = self.lock().graph.answered_by(call);
        let response = match response {
            Ok(response) => response,
            Err(e) => {
                let mut world = self.lock();
                let failed =
                    world.graph.calls[by].outcome == Outcome::Failed || world.graph.fails_to_arrive(by);
                if !failed {
                    let outcome = world.graph.calls[by].outcome.clone();
                    world.failures.push(format!("call {call} failed, and should not: {e}; {outcome:?}"));
                }
                return;
            }
        };
        let read = response.get().and_then(record::read);
        let (number, caps) = read.expect("what a record was written into");
        let mut world = self.lock();
        world.log.push(format!("  response of call {call}"));
        let Outcome::Results(nodes) = world.graph.calls[by].outcome.clone() else {
            let outcome = world.graph.calls[by].outcome.clone();
            world.failures.push(format!("call {call} has a response, and should not: {outcome:?}"));
            return;
        };
        if number != by as u64 {
            world.failures.push(format!("call {call} got the response of {number}, not of {by}"));
        }
        drop(world);
        self.receive_caps(side, caps, &nodes, keep, |world, field| world.field_reference(call, field));
    }

    /// Compares capabilities that arrived with the graph, and holds some.
    fn receive_caps(
        &self,
        side: usize,
        caps: Vec<Client>,
        nodes: &[Node],
        keep: u8,
        reference: impl Fn(&mut World, usize) -> usize,
    ) {
        for (field, client) in caps.into_iter().enumerate() {
            let null = client.is_null();
            let mut world = self.lock();
            let node = nodes.get(field).copied().unwrap_or(Node::Null);
            if null && world.graph.meaning(node) != Meaning::Null {
                world.failures.push(format!("null arrived for {node:?}"));
            }
            let keep = !null && keep >> field & 1 == 0;
            if keep {
                let reference = reference(&mut world, field);
                world.held[side].push(Held { client, node, reference });
            }
        }
    }

    /// A method hears that its call is canceled.
    fn canceled(&self, call: usize) {
        let mut world = self.lock();
        world.log.push(format!("  call {call} is canceled"));
        if !world.calls[call].dropped {
            world.failures.push(format!("call {call} is canceled, and its response is wanted"));
        }
        if world.calls[call].answered {
            world.failures.push(format!("call {call} is canceled after it was answered"));
        }
    }

    /// A call has reached an object. Gives what it is to do.
    fn arrive(&self, object: usize, number: u64, caps: Vec<Client>) -> (usize, Behaviour) {
        let mut world = self.lock();
        let call = number as usize;
        world.log.push(format!("  call {call} arrives at object {object}"));
        let (reference, sequence) = (world.calls[call].reference, world.calls[call].sequence);
        let target = world.graph.calls[call].target;
        let meaning = world.graph.meaning(target);
        if meaning != Meaning::Object(object) {
            world
                .failures
                .push(format!("call {call} to {target:?} ({meaning:?}) arrived at object {object}"));
        }
        if world.graph.calls[call].arrived {
            world.failures.push(format!("call {call} arrived twice"));
        }
        let next = world.references[reference].arrived;
        if sequence < next {
            world.failures.push(format!(
                "call {call}, number {sequence} of reference {reference}, arrived after number {}",
                next - 1
            ));
        }
        world.references[reference].arrived = sequence + 1;
        world.graph.calls[call].arrived = true;
        let (nodes, behaviour) = (world.calls[call].params.clone(), world.calls[call].behaviour);
        let side = world.objects[object].expect("it was just called");
        drop(world);
        self.receive_caps(side, caps, &nodes, behaviour.picks, |world, _| world.new_reference());
        (call, behaviour)
    }
}

impl World {
    pub fn new_reference(&mut self) -> usize {
        self.references.push(Reference::default());
        self.references.len() - 1
    }

    /// The reference for a capability in the results of a call: the response's and the pipeline's is one.
    pub fn field_reference(&mut self, call: usize, field: usize) -> usize {
        match self.calls[call].fields[field] {
            Some(reference) => reference,
            None => {
                let reference = self.new_reference();
                self.calls[call].fields[field] = Some(reference);
                reference
            }
        }
    }

    pub fn new_promise(&mut self, vat: usize) -> usize {
        self.graph.promises.push(Promised { vat, now: Resolution::None });
        self.graph.promises.len() - 1
    }

    pub fn living(&self) -> usize {
        self.objects.iter().flatten().count()
    }
}

/// What is called.
pub struct Object {
    pub id: usize,
    side: usize,
    world: Shared,
}

impl Drop for Object {
    fn drop(&mut self) {
        self.world.lock().objects[self.id] = None;
    }
}

impl Server for Object {
    fn dispatch(&self, call: &mut Call) -> capnp_threads::Result<()> {
        let (number, caps) = record::read(call.params().get()?)?;
        let (id, behaviour) = self.world.arrive(self.id, number, caps.clone());
        match behaviour.kind {
            0 | 1 => self.give(id, call, behaviour.picks),
            2 | 3 => self.defer(id, call, None),
            4 => self.tail_call(id, call, behaviour.picks),
            5 => {
                let results = self.give_pipeline(id, call, behaviour.picks)?;
                self.defer(id, call, Some(results))
            }
            8 => self.give_back(id, call, &caps),
            6 => {
                self.world.set_outcome(id, Outcome::Failed);
                Err(Error::failed("as told"))
            }
            _ => self.give_pipeline(id, call, behaviour.picks).map(drop),
        }
    }
}

impl Object {
    /// Fills in the results.
    fn write(&self, id: usize, call: &mut Call, seed: u8) -> Vec<Held> {
        let results = self.world.without_circles(id, self.world.picks(self.side, seed));
        self.write_all(id, call, &results);
        results
    }

    fn write_all(&self, id: usize, call: &mut Call, results: &[Held]) {
        let clients: Vec<Client> = results.iter().map(|held| held.client.clone()).collect();
        record::write(call.results(), id as u64, &clients);
        self.world.set_outcome(id, Outcome::Results(results.iter().map(|r| r.node).collect()));
    }

    fn give(&self, id: usize, call: &mut Call, seed: u8) -> capnp_threads::Result<()> {
        self.write(id, call, seed);
        Ok(())
    }

    /// The params are the results.
    fn give_back(&self, id: usize, call: &mut Call, params: &[Client]) -> capnp_threads::Result<()> {
        let nodes = self.world.lock().calls[id].params.clone();
        let held = nodes.into_iter().zip(params).map(|(node, client)| Held {
            client: client.clone(),
            node,
            reference: self.world.lock().new_reference(),
        });
        let results = self.world.without_circles(id, held.collect());
        self.write_all(id, call, &results);
        Ok(())
    }

    fn give_pipeline(&self, id: usize, call: &mut Call, seed: u8) -> capnp_threads::Result<Vec<Held>> {
        let results = self.write(id, call, seed);
        call.set_pipeline()?;
        Ok(results)
    }

    fn defer(&self, id: usize, call: &mut Call, promised: Option<Vec<Held>>) -> capnp_threads::Result<()> {
        let deferred = call.defer()?;
        let world = self.world.clone();
        deferred.cancellation().on_cancel(move || world.canceled(id));
        self.world.lock().waiting[self.side].push(Waiting { call: id, deferred, promised });
        Ok(())
    }

    fn tail_call(&self, id: usize, call: &mut Call, seed: u8) -> capnp_threads::Result<()> {
        let target = self.world.pick(self.side, seed);
        let target = target.and_then(|held| self.world.without_circles(id, vec![held]).pop());
        let Some(target) = target else { return self.give(id, call, seed) };
        let params = self.world.picks(self.side, seed.wrapping_mul(3));
        let kind = [0, 2, 5, 7][usize::from(seed) % 4];
        let tail =
            self.world.new_call(self.side, &target, &params, Behaviour { kind, picks: seed.wrapping_mul(5) });
        self.world.lock().calls[tail].dropped = true;
        self.world.set_outcome(id, Outcome::Tail(tail));
        let clients: Vec<Client> = params.into_iter().map(|held| held.client).collect();
        let mut request = target.client.request(1, 1);
        record::write(request.get(), tail as u64, &clients);
        call.tail_call(request)
    }
}
