//! The plain object graph that both vats together are compared with: what each reference means, whatever way
//! its calls take.

use std::collections::BTreeSet;

/// What a reference was made from. What it means may be known later only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    Null,
    Object(usize),
    Promise(usize),
    /// A capability in the results of a call.
    Field(usize, usize),
}

/// What a node means by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    Unknown,
    Null,
    Broken,
    Object(usize),
}

impl Meaning {
    /// Whether calls on it fail.
    pub fn fails(self) -> bool {
        matches!(self, Meaning::Null | Meaning::Broken)
    }
}

/// What a promise has become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    None,
    To(Node),
    Broken,
}

/// What a call has been answered, or will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    None,
    Results(Vec<Node>),
    Failed,
    /// What this other call is answered.
    Tail(usize),
}

/// A call, by what it was made on.
#[derive(Clone, Debug)]
pub struct CallNode {
    pub target: Node,
    /// The vat that made it.
    pub caller: usize,
    /// It was sent for pipelining alone: what its results are is not told to the caller.
    pub silent: bool,
    pub arrived: bool,
    pub outcome: Outcome,
}

impl CallNode {
    fn target_object(&self) -> Option<usize> {
        match self.target {
            Node::Object(object) => Some(object),
            _ => None,
        }
    }
}

/// A promise, by the vat that made it.
#[derive(Clone, Copy, Debug)]
pub struct Promised {
    pub vat: usize,
    pub now: Resolution,
}

/// What a node may depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Root {
    Promise(usize),
    Call(usize),
}

#[derive(Default)]
pub struct Graph {
    /// The vat of each object.
    pub places: Vec<usize>,
    pub promises: Vec<Promised>,
    pub calls: Vec<CallNode>,
    /// What was in params or results that went to the peer, by all that is known.
    pub travelled: BTreeSet<Node>,
}

impl Graph {
    pub fn meaning(&self, node: Node) -> Meaning {
        match node {
            Node::Null => Meaning::Null,
            Node::Object(object) => Meaning::Object(object),
            Node::Promise(promise) => match self.promises[promise].now {
                Resolution::None => Meaning::Unknown,
                Resolution::To(node) => self.meaning(node),
                Resolution::Broken => Meaning::Broken,
            },
            Node::Field(call, field) => match &self.calls[call].outcome {
                Outcome::Results(nodes) => nodes.get(field).map_or(Meaning::Null, |node| self.meaning(*node)),
                Outcome::Failed => Meaning::Broken,
                Outcome::Tail(tail) => self.meaning(Node::Field(*tail, field)),
                Outcome::None if self.fails_to_arrive(call) => Meaning::Broken,
                Outcome::None => Meaning::Unknown,
            },
        }
    }

    /// Whether a call can't arrive because there is no object at its target.
    pub fn fails_to_arrive(&self, call: usize) -> bool {
        let call = &self.calls[call];
        !call.arrived && self.meaning(call.target).fails()
    }

    /// Whether a call was made on an object of the caller's own vat.
    pub fn is_to_own(&self, call: usize) -> bool {
        let call = &self.calls[call];
        call.target_object().is_some_and(|object| self.places[object] == call.caller)
    }

    /// The call whose outcome is this call's.
    pub fn answered_by(&self, mut call: usize) -> usize {
        while let Outcome::Tail(tail) = self.calls[call].outcome {
            call = tail;
        }
        call
    }

    /// Whether a vat that holds the node learns what it means. Nobody does if a call on the way was for pipelining
    /// alone. Where a vat sends a call back to its caller, or makes a tail call, the results pass it by. And what comes
    /// back may stay where it is.
    pub fn is_told(&self, node: Node, vat: usize) -> bool {
        if self.may_stay(node) {
            return false;
        }
        match node {
            Node::Null | Node::Object(_) => true,
            Node::Promise(promise) => match self.promises[promise].now {
                Resolution::To(node) => self.is_told_to_all(node),
                Resolution::None | Resolution::Broken => true,
            },
            Node::Field(call, field) => {
                let CallNode { caller, silent, outcome, .. } = &self.calls[call];
                // By any other target it may have come back.
                let went_there = self.calls[call].target_object().is_some_and(|o| self.places[o] == vat);
                let passed_by = matches!(outcome, Outcome::Tail(_)) || !went_there;
                if *silent || (vat != *caller && passed_by) {
                    return false;
                }
                match &self.calls[self.answered_by(call)].outcome {
                    Outcome::Results(nodes) => nodes.get(field).is_none_or(|node| self.is_told_to_all(*node)),
                    _ => self.is_told_to_all(self.calls[call].target),
                }
            }
        }
    }

    fn is_told_to_all(&self, node: Node) -> bool {
        [0, 1].into_iter().all(|vat| self.is_told(node, vat))
    }

    /// Whether a vat may hold the node to the place that it had when the peer named it, for ever (Note [Tribble]):
    /// what one vat promises has become what the other promises, and it travelled, so that the peer may have named
    /// it before it was told. What a call through a promise returns is both; and what is broken is told as a promise,
    /// by either vat.
    fn may_stay(&self, node: Node) -> bool {
        let (chain, fails) = (self.chain(node), self.meaning(node).fails());
        let may_promise = |vat| fails || chain.iter().any(|node| self.may_promise(vat, *node));
        self.travelled.contains(&node) && [0, 1].into_iter().all(may_promise)
    }

    /// The promises that lead from a node to what it means, itself among them.
    fn chain(&self, mut node: Node) -> Vec<Node> {
        let mut chain = Vec::new();
        loop {
            let next = match node {
                Node::Null | Node::Object(_) => return chain,
                Node::Promise(promise) => match self.promises[promise].now {
                    Resolution::To(next) => next,
                    Resolution::None | Resolution::Broken => Node::Null,
                },
                Node::Field(call, field) => match &self.calls[call].outcome {
                    Outcome::Results(nodes) => nodes.get(field).copied().unwrap_or(Node::Null),
                    Outcome::Tail(tail) => Node::Field(*tail, field),
                    Outcome::Failed | Outcome::None => Node::Null,
                },
            };
            chain.push(node);
            node = next;
        }
    }

    fn may_promise(&self, vat: usize, node: Node) -> bool {
        match node {
            Node::Promise(promise) => self.promises[promise].vat == vat,
            Node::Field(call, _) => {
                self.calls[call].target_object().is_none_or(|object| self.places[object] == vat)
            }
            Node::Null | Node::Object(_) => false,
        }
    }

    /// All promises and calls that a node keeps, if it is resolved to something or not. What is among them must not
    /// be resolved to the node: either it would wait for itself, or two answers, one in each vat, would keep each
    /// other's question, which nothing in the protocol can collect.
    pub fn kept(&self, node: Node) -> BTreeSet<Root> {
        let mut kept = BTreeSet::new();
        self.collect(node, &mut kept);
        kept
    }

    fn collect(&self, node: Node, kept: &mut BTreeSet<Root>) {
        match node {
            Node::Promise(promise) if kept.insert(Root::Promise(promise)) => {
                if let Resolution::To(node) = self.promises[promise].now {
                    self.collect(node, kept);
                }
            }
            Node::Field(call, _) if kept.insert(Root::Call(call)) => match &self.calls[call].outcome {
                Outcome::Results(nodes) => nodes.iter().for_each(|node| self.collect(*node, kept)),
                Outcome::Tail(tail) => self.collect(Node::Field(*tail, 0), kept),
                Outcome::None => self.collect(self.calls[call].target, kept),
                Outcome::Failed => {}
            },
            Node::Null | Node::Object(_) | Node::Promise(_) | Node::Field(..) => {}
        }
    }
}
