//! The attacks, by name.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::raw::{Cap, Over, Raw, Sent, To, CAP, OBJECT};
use crate::server::Method;
use crate::Result;

/// An attack: what one attacker does over one connection.
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    /// Whether the attacker reads what the server sends.
    reads: bool,
    /// How many steps there are, in a long form and in a short one.
    steps: [u32; 2],
    /// What comes before the first step; gives a question that the steps are about.
    prepare: fn(&mut Raw) -> u32,
    /// One step: mostly a message. Its number counts from 0; the question is what `prepare` gave.
    step: fn(&mut Raw, u32, u32),
}

/// An attacker that has done its worst, and keeps its connection until this is dropped.
pub(crate) struct Attacking {
    pub(crate) sent: Sent,
    _connection: Raw,
}

/// How long the server may take nothing before the attacker gives up sending, and how long it waits at the end until the
/// server has dealt with what it took; in a long form and in a short one.
const PATIENCE: [Duration; 2] = [Duration::from_secs(3), Duration::from_millis(700)];
/// How long one attacker sends at most, in a long form and in a short one.
const LONGEST: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(3)];

impl Attack {
    /// Attacks over one connection.
    pub(crate) fn run_one(&self, address: SocketAddr, quick: bool) -> Result<Attacking> {
        let form = usize::from(quick);
        let mut raw = Raw::connect(address, PATIENCE[form])?;
        if self.reads {
            raw.read_all()?;
        }
        let how = match self.send_all(&mut raw, form) {
            Ok(how) => how,
            Err(Over::Stopped) => "not read",
            Err(Over::CutOff) => "cut off",
        };
        raw.sent.ended(how);
        std::thread::sleep(PATIENCE[form]);
        Ok(Attacking { sent: raw.sent.clone(), _connection: raw })
    }

    fn send_all(&self, raw: &mut Raw, form: usize) -> std::result::Result<&'static str, Over> {
        let end = Instant::now() + LONGEST[form];
        let question = (self.prepare)(raw);
        for n in 0..self.steps[form] {
            (self.step)(raw, question, n);
            raw.send()?;
            if n % 256 == 0 && Instant::now() > end {
                raw.flush()?;
                return Ok("out of time");
            }
        }
        raw.flush()?;
        Ok("all sent")
    }
}

fn nothing(_: &mut Raw) -> u32 {
    0
}

fn in_place(raw: &mut Raw) -> u32 {
    raw.call(OBJECT, Method::InPlace, &[], &[])
}

fn hanging(raw: &mut Raw) -> u32 {
    raw.call(OBJECT, Method::Hang, &[], &[])
}

/// By how many questions a Finish comes later than its call.
const LATE: u32 = 2_000;

/// A path that leads nowhere, as long as one may be.
const DEEP: &[u16] = &[0; 64];

pub(crate) const ATTACKS: &[Attack] = &[
    Attack {
        name: "nobody",
        what: "no attack: the polite connection alone",
        reads: true,
        steps: [0, 0],
        prepare: nothing,
        step: |_, _, _| {},
    },
    Attack {
        name: "large-answers",
        what: "answers of 520 KB with a capability, read and never finished",
        reads: true,
        steps: [2_000, 400],
        prepare: nothing,
        step: |raw, _, _| {
            raw.call(OBJECT, Method::Make, &520_000u32.to_le_bytes(), &[]);
        },
    },
    Attack {
        name: "bootstraps",
        what: "bootstraps, read and never finished",
        reads: true,
        steps: [1_000_000, 300_000],
        prepare: nothing,
        step: |raw, _, _| {
            raw.bootstrap();
        },
    },
    Attack {
        name: "small-answers",
        what: "answers with a new object each, read and never finished",
        reads: true,
        steps: [500_000, 100_000],
        prepare: nothing,
        step: |raw, _, _| {
            raw.call(OBJECT, Method::Make, &[], &[]);
        },
    },
    Attack {
        name: "failures",
        what: "calls that fail with a reason of 1 KB, read and never finished",
        reads: true,
        steps: [500_000, 100_000],
        prepare: nothing,
        step: |raw, _, _| {
            raw.call(OBJECT, Method::Fail, &[b'x'; 1000], &[]);
        },
    },
    Attack {
        name: "queued-calls",
        what: "small calls that wait for an object which is busy",
        reads: true,
        steps: [1_000_000, 300_000],
        prepare: |raw| raw.call(OBJECT, Method::Block, &[], &[]),
        step: |raw, _, _| {
            raw.call(OBJECT, Method::Echo, &[0; 16], &[]);
        },
    },
    Attack {
        name: "hanging-calls",
        what: "calls whose methods return never and keep nothing",
        reads: true,
        steps: [1_000_000, 300_000],
        prepare: nothing,
        step: |raw, _, _| {
            raw.call(OBJECT, Method::Hang, &[], &[]);
        },
    },
    Attack {
        name: "pipelined-calls",
        what: "calls on the results of a call that does not return",
        reads: true,
        steps: [1_000_000, 300_000],
        prepare: hanging,
        step: |raw, question, _| {
            raw.call(To(question, CAP), Method::Echo, &[0; 16], &[]);
        },
    },
    Attack {
        name: "deep-paths",
        what: "the same, by paths of 64 pointer fields",
        reads: true,
        steps: [100_000, 30_000],
        prepare: hanging,
        step: |raw, question, _| {
            raw.call(To(question, DEEP), Method::Echo, &[], &[]);
        },
    },
    Attack {
        name: "pipelined-chain",
        what: "calls on the results of the call before, the first of which does not return",
        reads: true,
        steps: [500_000, 200_000],
        prepare: hanging,
        step: |raw, question, n| {
            raw.call(To(question + n, CAP), Method::Echo, &[], &[]);
        },
    },
    Attack {
        name: "unread-returns",
        what: "small calls whose answers are not read",
        reads: false,
        steps: [1_000_000, 300_000],
        prepare: nothing,
        step: |raw, _, _| {
            raw.call(OBJECT, Method::Echo, &[0; 16], &[]);
        },
    },
    Attack {
        name: "unread-large-returns",
        what: "calls whose answers of 1 MB are not read",
        reads: false,
        steps: [2_000, 500],
        prepare: nothing,
        step: |raw, _, _| {
            raw.call(OBJECT, Method::Make, &1_000_000u32.to_le_bytes(), &[]);
        },
    },
    Attack {
        name: "unread-callbacks",
        what: "calls that have the server call back, which is not read",
        reads: false,
        steps: [1_000_000, 300_000],
        prepare: nothing,
        step: |raw, _, _| {
            raw.call(OBJECT, Method::CallBack, &[0; 16], &[Cap::Hosted(1)]);
        },
    },
    Attack {
        name: "unread-callbacks-in-place",
        what: "the same, by an object whose methods never wait",
        reads: false,
        steps: [1_000_000, 300_000],
        prepare: in_place,
        step: |raw, question, _| {
            raw.call(To(question, CAP), Method::CallBack, &[0; 16], &[Cap::Hosted(1)]);
        },
    },
    Attack {
        name: "unread-callbacks-large",
        what: "the same, with 10 KB each",
        reads: false,
        steps: [100_000, 30_000],
        prepare: in_place,
        step: |raw, question, _| {
            raw.call(To(question, CAP), Method::CallBack, &[0; 10_000], &[Cap::Hosted(1)]);
        },
    },
    Attack {
        name: "unread-echoes",
        what: "Disembargoes whose echoes are not read",
        reads: false,
        steps: [3_000_000, 600_000],
        prepare: |raw| raw.call(OBJECT, Method::Identity, &[], &[Cap::Hosted(1)]),
        step: |raw, question, n| {
            if n == 0 {
                // The answer must be there.
                let _ = raw.flush();
                std::thread::sleep(Duration::from_millis(300));
            }
            raw.disembargo(To(question, CAP), n);
        },
    },
    Attack {
        name: "unread-unimplemented",
        what: "messages of level 3 that are sent back, which is not read",
        reads: false,
        steps: [3_000_000, 600_000],
        prepare: nothing,
        step: |raw, _, _| raw.unknown(),
    },
    Attack {
        name: "imported-promises",
        what: "promises that are kept and never resolved",
        reads: true,
        steps: [500_000, 150_000],
        prepare: nothing,
        step: |raw, _, n| {
            raw.call(OBJECT, Method::Keep, &[], &[Cap::Promise(n)]);
        },
    },
    Attack {
        name: "imported-objects",
        what: "capabilities that are kept",
        reads: true,
        steps: [500_000, 150_000],
        prepare: nothing,
        step: |raw, _, n| {
            raw.call(OBJECT, Method::Keep, &[], &[Cap::Hosted(n)]);
        },
    },
    Attack {
        name: "exported-promises",
        what: "promises of the server's that are resolved and never released",
        reads: true,
        steps: [300_000, 100_000],
        prepare: nothing,
        step: |raw, _, n| {
            let question = raw.call(OBJECT, Method::Promise, &[], &[]);
            // One that has been answered by now: a Finish cancels a call that has not.
            if let Some(answered) = question.checked_sub(LATE) {
                raw.finish(answered);
            }
            if n % 1000 == 999 {
                raw.call(OBJECT, Method::Fulfil, &[], &[]);
            }
        },
    },
    Attack {
        name: "resolves",
        what: "promises that are kept, and resolved to capabilities of the attacker's",
        reads: true,
        steps: [300_000, 100_000],
        prepare: nothing,
        step: |raw, _, n| {
            raw.call(OBJECT, Method::Keep, &[], &[Cap::Promise(2 * n)]);
            raw.resolve(2 * n, Cap::Hosted(2 * n + 1));
        },
    },
    Attack {
        name: "resolves-to-unreleased",
        what: "Resolves of promises that are unknown, each with a new capability",
        reads: false,
        steps: [1_000_000, 300_000],
        prepare: nothing,
        step: |raw, _, n| raw.resolve(5, Cap::Hosted(n + 10)),
    },
    Attack {
        name: "cap-tables",
        what: "calls with 100,000 capabilities each",
        reads: true,
        steps: [40, 10],
        prepare: hanging,
        step: |raw, _, n| {
            let caps: Vec<_> = (0..100_000).map(|i| Cap::Hosted(n * 100_000 + i)).collect();
            raw.call(OBJECT, Method::Hang, &[], &caps);
        },
    },
    Attack {
        name: "cap-tables-of-answers",
        what: "calls with 100,000 names each of results that do not come",
        reads: true,
        steps: [40, 10],
        prepare: hanging,
        step: |raw, question, _| {
            let caps = vec![Cap::YourAnswer(question, CAP); 100_000];
            raw.call(OBJECT, Method::Hang, &[], &caps);
        },
    },
    Attack {
        name: "one-large-message",
        what: "a call of 60 MB, returned as it came, and not read",
        reads: false,
        steps: [3, 3],
        prepare: nothing,
        step: |raw, _, _| {
            raw.call(OBJECT, Method::Echo, &vec![1; 60_000_000], &[]);
        },
    },
    Attack {
        name: "begun-messages",
        what: "the first 15 MB of a message of 16 MB",
        reads: true,
        steps: [1, 1],
        prepare: nothing,
        step: |raw, _, _| raw.begin(2_000_000, 1_875_000),
    },
];
