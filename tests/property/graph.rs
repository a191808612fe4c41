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
    pub arrived: bool,
    pub outcome: Outcome,
}

/// Something that is not known yet, and that a node's meaning depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Root {
    Promise(usize),
    Call(usize),
}

#[derive(Default)]
pub struct Graph {
    pub promises: Vec<Resolution>,
    pub calls: Vec<CallNode>,
}

impl Graph {
    pub fn meaning(&self, node: Node) -> Meaning {
        match node {
            Node::Null => Meaning::Null,
            Node::Object(object) => Meaning::Object(object),
            Node::Promise(promise) => match self.promises[promise] {
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

    /// The call whose outcome is this call's.
    pub fn answered_by(&self, mut call: usize) -> usize {
        while let Outcome::Tail(tail) = self.calls[call].outcome {
            call = tail;
        }
        call
    }

    /// All that a node's meaning depends on and that is not known yet.
    pub fn roots(&self, node: Node) -> BTreeSet<Root> {
        let mut roots = BTreeSet::new();
        self.collect(node, &mut roots);
        roots
    }

    fn collect(&self, node: Node, roots: &mut BTreeSet<Root>) {
        match node {
            Node::Null | Node::Object(_) => {}
            Node::Promise(promise) => match self.promises[promise] {
                Resolution::None => drop(roots.insert(Root::Promise(promise))),
                Resolution::To(node) => self.collect(node, roots),
                Resolution::Broken => {}
            },
            Node::Field(call, field) => match &self.calls[call].outcome {
                Outcome::Results(nodes) => nodes.get(field).into_iter().for_each(|n| self.collect(*n, roots)),
                Outcome::Failed => {}
                Outcome::Tail(tail) => self.collect(Node::Field(*tail, field), roots),
                Outcome::None => {
                    roots.insert(Root::Call(call));
                    if !self.calls[call].arrived {
                        self.collect(self.calls[call].target, roots);
                    }
                }
            },
        }
    }
}
