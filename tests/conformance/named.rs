//! What the peer names of ours before it knows what that has become (rules 2 and 12): by each descriptor that can name
//! it, in results, Resolves and params, and told of before, between and after each message that matters.

use capnp_threads::{Capability, Client, ClientFulfiller, RemotePromise};

use crate::support::*;

/// By what the peer names it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Name {
    /// An export.
    Export,
    /// A capability in an answer that is not there yet.
    Answer,
    /// The same, and its method has said what it will be.
    Ahead,
}

/// In what the peer names it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Carrier {
    /// The results of a call of ours, of which we have called the capability ahead.
    Return,
    /// The Resolve of a promise of the peer's that we have called.
    Resolve,
    /// The params of a call, before which the peer itself has called it.
    Params,
}

/// What our promise becomes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Becomes {
    /// A promise of the peer's, and then an object of ours.
    ThereThenHere,
    /// An object of ours.
    Here,
    /// A capability of the peer's.
    There,
    /// A promise of the peer's, and then a capability of the peer's.
    ThereThenThere,
}

/// What happens, one after the other.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    /// The peer names our promise.
    Named,
    /// The peer sends a call on our promise.
    Sent,
    /// The Disembargo that followed from the name comes back.
    Echo,
}

impl Carrier {
    fn events(self) -> &'static [Event] {
        match self {
            Carrier::Return | Carrier::Resolve => &[Event::Named, Event::Sent, Event::Sent, Event::Echo],
            Carrier::Params => &[Event::Sent, Event::Sent, Event::Named],
        }
    }
}

/// A promise of the peer's, by its ID there, and a capability.
const THEIR_PROMISE: u32 = 20;
const THEIR_OBJECT: u32 = 22;

/// Our side, and a peer that behaves as a vat does: it sends calls on for its promise, and Disembargoes back behind them.
struct Round {
    peer: Peer,
    carrier: Carrier,
    recorder: Recorder,
    /// The peer's reference to the recorder's object.
    object: u32,
    /// How our promise is named, and how calls are addressed to it.
    name: Cap,
    target: Target,
    promise: Option<ClientFulfiller>,
    answer: Option<Held>,
    becomes: Client,
    /// The question whose results bring the name.
    asked: Option<u32>,
    /// Where our calls went before the peer used the name.
    place: Option<Target>,
    /// What is called, and whether the peer has named it.
    client: Option<Client>,
    named: bool,
    /// The tags of the next call of ours, and of the next that the peer sends.
    next: u64,
    next_back: u64,
    sent: Vec<RemotePromise>,
    embargo: Option<u32>,
    /// Where calls on the peer's promise go once it has said so; those that wait.
    leads_to: Option<Target>,
    waiting: Vec<u64>,
    /// The tags of the calls that the peer's own capability got.
    seen: Vec<u64>,
    kept: Vec<Client>,
}

impl Round {
    fn new(name: Name, carrier: Carrier, becomes: Becomes) -> Self {
        let mut peer = Peer::new(Client::null());
        let (recorder, door) = (Recorder::new(), Recorder::new());
        let [object, door_id] = [&recorder, &door].map(|recorder| peer.export_hosted(&recorder.client()));
        let (ours, fulfiller) = Client::promise();
        let id = peer.export_promise(&ours);
        let theirs = peer.introduce(Cap::Promise(THEIR_PROMISE));
        let becomes = match becomes {
            Becomes::ThereThenHere | Becomes::ThereThenThere => theirs.clone(),
            Becomes::Here => recorder.client(),
            Becomes::There => peer.introduce(Cap::Hosted(THEIR_OBJECT)),
        };
        let (mut cap, mut target, mut answer) = (Cap::Yours(id), Target::Import(id), None);
        if name != Name::Export {
            let method = if name == Name::Ahead { AHEAD } else { HOLD };
            let question = peer.call(Target::Import(door_id), method, 50).caps(&[Cap::Yours(id)]).send();
            (cap, target) = (Cap::YourAnswer(question, vec![0]), Target::Answer(question, vec![0]));
            answer = Some(door.held());
        }
        Round {
            peer,
            carrier,
            recorder,
            object,
            name: cap,
            target,
            promise: Some(fulfiller),
            answer,
            becomes,
            asked: None,
            place: None,
            client: None,
            named: false,
            next: 2,
            next_back: 0,
            sent: Vec::new(),
            embargo: None,
            leads_to: None,
            waiting: Vec::new(),
            seen: Vec::new(),
            kept: vec![ours, theirs],
        }
    }

    /// We call what the peer is to name, twice.
    fn begin(&mut self) {
        let client = match self.carrier {
            Carrier::Params => return,
            Carrier::Resolve => self.peer.introduce(Cap::Promise(30)),
            Carrier::Return => {
                let theirs = self.peer.introduce(Cap::Hosted(21));
                let call = send(&theirs, GIVE, 60, &[]);
                self.asked = Some(self.peer.expect_call_of(60).question);
                let client = call.pipeline.field(0).client();
                self.sent.push(call);
                client
            }
        };
        self.sent.extend([0, 1].map(|tag| send(&client, NOTE, tag, &[])));
        let [target, _] = [0, 1].map(|tag| self.peer.expect_call_of(tag).target);
        (self.place, self.client) = (Some(target), Some(client));
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Named => self.name(),
            Event::Sent => {
                self.peer.call(self.target.clone(), NOTE, self.next_back).send();
                self.next_back += 1;
            }
            Event::Echo => {
                let embargo = self.embargo.take().expect("a Disembargo");
                self.peer.echo(self.target.clone(), embargo);
            }
        }
        self.go_on();
    }

    fn name(&mut self) {
        let name = self.name.clone();
        self.named = true;
        match self.carrier {
            Carrier::Return => self.peer.results(self.asked.expect("as begun"), 60, &[name]),
            Carrier::Resolve => self.peer.resolve(30, name),
            Carrier::Params => {
                let door = Recorder::new();
                let id = self.peer.export_hosted(&door.client());
                self.peer.call(Target::Import(id), HOLD, 61).caps(&[name]).send();
                self.client = Some(door.held().caps.remove(0));
            }
        }
    }

    /// Our promise becomes what it is to become, and the peer is told.
    fn tell(&mut self) {
        self.promise.take().expect("once").fulfill(self.becomes.clone());
        self.go_on();
        if let Some(answer) = self.answer.take() {
            answer.answer(50, &self.kept[..1]);
        }
        self.go_on();
    }

    /// The peer says what its promise is.
    fn say(&mut self, becomes: Becomes) {
        let (cap, target) = match becomes {
            Becomes::ThereThenHere => (Cap::Yours(self.object), Target::Import(self.object)),
            Becomes::ThereThenThere => (Cap::Hosted(THEIR_OBJECT), Target::Import(THEIR_OBJECT)),
            Becomes::Here | Becomes::There => return,
        };
        self.peer.resolve(THEIR_PROMISE, cap);
        self.leads_to = Some(target);
        for tag in std::mem::take(&mut self.waiting) {
            self.forward(tag);
        }
        self.go_on();
    }

    /// The peer does what a vat does, until nothing is left to be done; then we call what was named.
    fn go_on(&mut self) {
        self.work_off();
        if let (Some(client), true) = (&self.client, self.named) {
            self.sent.push(send(client, NOTE, self.next, &[]));
            self.next += 1;
        }
        self.work_off();
    }

    fn work_off(&mut self) {
        loop {
            let received = self.peer.take_received();
            if received.is_empty() {
                return;
            }
            received.into_iter().for_each(|message| self.handle(message));
        }
    }

    fn handle(&mut self, message: Msg) {
        match message {
            Msg::Call(Call { target, params, .. }) => {
                assert!(
                    matches!(target, Target::Import(THEIR_PROMISE | THEIR_OBJECT)),
                    "a call to {target:?}"
                );
                match target {
                    Target::Import(THEIR_PROMISE) if self.leads_to.is_none() => self.waiting.push(params.tag),
                    Target::Import(THEIR_PROMISE) => self.forward(params.tag),
                    _ => self.seen.push(params.tag),
                }
            }
            Msg::Disembargo { target, context: Context::Sender(id) }
                if Some(&target) == self.place.as_ref() =>
            {
                assert_eq!(self.embargo.replace(id), None, "one Disembargo for one name");
            }
            Msg::Disembargo { target, context: Context::Sender(id) } => {
                assert_eq!(target, Target::Import(THEIR_PROMISE));
                assert_eq!(
                    self.leads_to,
                    Some(Target::Import(self.object)),
                    "a Disembargo of what leads back"
                );
                self.peer.echo(Target::Import(self.object), id);
            }
            Msg::Return(_) | Msg::Finish { .. } | Msg::Release { .. } | Msg::Resolve { .. } => {}
            other => panic!("{other:?}"),
        }
    }

    fn forward(&mut self, tag: u64) {
        match self.leads_to.clone().expect("said") {
            Target::Import(THEIR_OBJECT) => self.seen.push(tag),
            target => drop(self.peer.call(target, NOTE, tag).send()),
        }
    }

    /// All calls have arrived, in order, and what was named is what it became.
    fn end(mut self, what: &str, becomes: Becomes) {
        self.go_on();
        let expected: Vec<u64> = (0..self.next).collect();
        let client = self.client.take().expect("named");
        match becomes {
            Becomes::ThereThenHere | Becomes::Here => {
                assert_eq!(self.recorder.log(), expected, "{what}");
                assert_eq!(client.resolve().unwrap(), self.recorder.client(), "{what}");
            }
            Becomes::There | Becomes::ThereThenThere => assert_eq!(self.seen, expected, "{what}"),
        }
        assert!(!client.is_promise(), "{what}: {client:?}");
        self.peer.close();
    }
}

/// Calls on what the peer has named of ours arrive behind those that come by that name, and it is settled when the
/// promise is, whatever names it, in whatever it is named, whatever it becomes, and whenever that is told.
/// Rules: 2, 12.
#[test]
fn export_named_by_the_peer_before_its_resolve_keeps_call_order_and_settles() {
    for name in [Name::Export, Name::Answer, Name::Ahead] {
        for carrier in [Carrier::Return, Carrier::Resolve, Carrier::Params] {
            for becomes in [Becomes::ThereThenHere, Becomes::Here, Becomes::There, Becomes::ThereThenThere] {
                let moments = carrier.events().len();
                for told in 0..=moments {
                    let said = match becomes {
                        Becomes::ThereThenHere => told..=moments,
                        Becomes::ThereThenThere => moments..=moments,
                        Becomes::Here | Becomes::There => told..=told,
                    };
                    for said in said {
                        one_round(name, carrier, becomes, told, said);
                    }
                }
            }
        }
    }
}

fn one_round(name: Name, carrier: Carrier, becomes: Becomes, told: usize, said: usize) {
    let what = format!("{name:?} in {carrier:?} becomes {becomes:?}; told {told}, said {said}");
    let mut round = Round::new(name, carrier, becomes);
    round.begin();
    for moment in 0..=carrier.events().len() {
        if moment == told {
            round.tell();
        }
        if moment == said {
            round.say(becomes);
        }
        if let Some(event) = carrier.events().get(moment) {
            round.happens(*event);
        }
    }
    round.end(&what, becomes);
}

/// Rules 7 and 12: promises of the peer's each of which is said to be the next one, by way of what the peer has of ours.
struct Chain {
    peer: Peer,
    held: Vec<Client>,
    /// How the peer names each promise.
    names: Vec<Cap>,
    /// Where it sends on what comes for each promise, once it has said so.
    leads_to: Vec<Option<Target>>,
}

impl Chain {
    fn new(count: u32, by_answers: bool) -> Self {
        let (mut peer, door) = (Peer::new(Client::null()), Recorder::new());
        let id = peer.export_hosted(&door.client());
        let promises: Vec<Cap> = (0..count).map(Cap::Promise).collect();
        peer.call(Target::Import(id), HOLD, 1).caps(&promises).send();
        let held = door.held().caps;
        let mut names = Vec::new();
        for promise in promises {
            if by_answers {
                let question = peer.call(Target::Import(id), GIVE, 2).caps(&[promise]).send();
                peer.expect_results(question);
                names.push(Cap::YourAnswer(question, vec![0]));
            } else {
                let (ours, fulfiller) = Client::promise();
                let export = peer.export_promise(&ours);
                fulfiller.fulfill(held[names.len()].clone());
                peer.expect_resolve(export).unwrap();
                names.push(Cap::Yours(export));
            }
        }
        Chain { peer, held, names, leads_to: vec![None; count as usize] }
    }

    /// The peer says of each promise that it is the one whose number follows.
    fn says(&mut self, promise: u32, next: usize) {
        self.peer.resolve(promise, self.names[next].clone());
        self.leads_to[promise as usize] = Some(match self.names[next].clone() {
            Cap::Yours(id) => Target::Import(id),
            Cap::YourAnswer(question, path) => Target::Answer(question, path),
            other => panic!("{other:?} is not ours"),
        });
    }

    /// The peer sends Disembargoes back, as a vat does, until none comes any more.
    fn settle(&mut self) {
        loop {
            let received = self.peer.take_received();
            let embargoes: Vec<_> = received
                .into_iter()
                .filter_map(|message| match message {
                    Msg::Disembargo { target: Target::Import(promise), context: Context::Sender(id) } => {
                        Some((promise, id))
                    }
                    _ => None,
                })
                .collect();
            if embargoes.is_empty() {
                return;
            }
            for (promise, id) in embargoes {
                let target = self.leads_to[promise as usize].clone().expect("said");
                self.peer.echo(target, id);
            }
        }
    }
}

/// The numbers below this one, in orders in which a chain can be made.
fn orders(count: u32) -> [Vec<u32>; 4] {
    let mixed = (0..count).map(|n| n * 7919 % count).collect();
    let from_both_ends = (0..count).map(|n| if n % 2 == 0 { n / 2 } else { count - 1 - n / 2 }).collect();
    [(0..count).collect(), (0..count).rev().collect(), mixed, from_both_ends]
}

/// A chain of promises through both vats, made in any order, is no circle: all are what the last one is.
/// Rules: 7, 12.
#[test]
fn promise_chain_through_both_vats_settles_in_any_order_of_resolves() {
    const COUNT: u32 = 20;
    for by_answers in [false, true] {
        for order in orders(COUNT) {
            let mut chain = Chain::new(COUNT + 1, by_answers);
            for n in order {
                chain.says(n, n as usize + 1);
            }
            chain.settle();
            assert!(chain.held.iter().all(Client::is_promise));
            chain.peer.resolve(COUNT, Cap::Hosted(1000));
            chain.settle();
            let object = chain.held[COUNT as usize].resolve().unwrap();
            assert!(chain.held.iter().all(|promise| *promise == object), "{:?}", chain.held);
            chain.peer.close();
        }
    }
}

/// A chain of promises through both vats that is closed to a circle is broken, in whatever order it is made.
/// Rules: 7.
#[test]
fn promise_circle_through_both_vats_is_broken_in_any_order_of_resolves() {
    for count in [1, 2, 3, 12] {
        for by_answers in [false, true] {
            for order in orders(count) {
                let mut chain = Chain::new(count, by_answers);
                for n in order {
                    chain.says(n, (n as usize + 1) % count as usize);
                }
                chain.settle();
                for promise in &chain.held {
                    let why =
                        promise.broken_reason().unwrap_or_else(|| panic!("{:?}", chain.held)).to_string();
                    assert!(why.contains("circle") || why.contains("resolved to itself"), "{why}");
                }
                chain.peer.close();
            }
        }
    }
}
