//! Two vats, a connection between them without threads, and random operations on both, with every step of the
//! connection's stages taken in random order: compared with a plain graph of objects and promises.
//!
//! Each call made on a reference arrives at the right object, once, in the order made on that reference, with
//! capabilities that mean the right objects, and gets its answer. When all is dropped, all tables are empty.
//!
//! Some runs make calls in bursts on one reference around the moment when it becomes known what it is: so that an
//! embargo that is missing shows.
//!
//! A failure is shown as the shortest list of operations that proptest found, with what happened; what such a list
//! has taught is kept as a replay.

#[path = "conformance/support/account.rs"]
#[allow(dead_code, reason = "conformance tests use more of it")]
mod account;
#[path = "property/chains.rs"]
mod chains;
#[path = "conformance/support/content.rs"]
mod content;
#[path = "property/drive.rs"]
mod drive;
#[path = "property/graph.rs"]
mod graph;
#[path = "conformance/support/message.rs"]
#[allow(dead_code, reason = "conformance tests use more of it")]
mod message;
#[path = "property/messages.rs"]
mod messages;
#[path = "property/world.rs"]
mod world;

use capnp_threads::Threads;
use drive::{run, End, Op, What};
use messages::Does;
use proptest::prelude::*;
use proptest::test_runner::Config;

/// How often each operation is done. The first is the simplest, for shrinking.
const WHAT: [(usize, What); 19] = [
    (12, What::Call),
    (4, What::Pipeline),
    (3, What::Response),
    (3, What::DropHeld),
    (2, What::DropResponse),
    (2, What::DropPipeline),
    (2, What::Promise),
    (3, What::Resolve),
    (1, What::ResolveToItself),
    (1, What::Object),
    (3, What::Answer),
    (1, What::Bootstrap),
    (1, What::Clone),
    (1, What::Settle),
    (8, What::Run),
    (8, What::Send),
    (16, What::Receive),
    (16, What::Coordinate),
    (16, What::Callback),
];
/// Bursts of calls around the moment when it becomes known what they are made on: added to the others. There are
/// more steps, so that calls come back while more are made.
const BURSTS: [(usize, What); 4] = [(8, What::Round), (40, What::Again), (16, What::Run), (16, What::Send)];

/// An operation. (A union of strategies would seed a generator for each of its parts, which takes longer than to
/// do what it gives.)
fn op(what: &[(usize, What)]) -> impl Strategy<Value = Op> {
    let what: Vec<What> = what.iter().flat_map(|(weight, what)| vec![*what; *weight]).collect();
    (0..what.len(), 0..2usize, any::<u8>(), any::<u8>(), any::<u8>())
        .prop_map(move |(at, side, a, b, c)| Op(what[at], side, a, b, c))
}

/// How often a message of each kind is sent, and the vat does something. The first is the simplest, for shrinking.
const DOES: [(usize, Does); 16] = [
    (12, Does::Settle),
    (12, Does::Call),
    (8, Does::Finish),
    (4, Does::Release),
    (4, Does::Return),
    (3, Does::Resolve),
    (3, Does::Echo),
    (2, Does::Bootstrap),
    (1, Does::FinishAgain),
    (1, Does::Unknown),
    (4, Does::Answer),
    (4, Does::Drop),
    (2, Does::Fulfill),
    (3, Does::Ask),
    (8, Does::Run),
    (32, Does::Step),
];

fn message() -> impl Strategy<Value = messages::Op> {
    let does: Vec<Does> = DOES.iter().flat_map(|(weight, does)| vec![*does; *weight]).collect();
    (0..does.len(), any::<u8>(), any::<u8>(), any::<u8>())
        .prop_map(move |(at, a, b, c)| messages::Op(does[at], a, b, c))
}

fn config(cases: u32) -> Config {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|c| c.parse().ok()).unwrap_or(cases);
    Config { cases, failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() }
}

proptest! {
    #![proptest_config(config(1500))]

    #[test]
    fn calls_on_one_reference_arrive_in_order(ops in prop::collection::vec(op(&WHAT), 1..200)) {
        run(&ops, End::Quiet).map_err(TestCaseError::fail)?;
    }
}

proptest! {
    #![proptest_config(config(1500))]

    #[test]
    fn bursts_of_calls_arrive_in_order(ops in prop::collection::vec(op(&[&BURSTS[..], &WHAT].concat()), 1..150)) {
        let ops: Vec<Op> = [Op(What::Settle, 0, 0, 0, 0)].into_iter().chain(ops).collect();
        run(&ops, End::Quiet).map_err(TestCaseError::fail)?;
    }
}

proptest! {
    #![proptest_config(config(500))]

    #[test]
    fn abort_ends_every_wait(ops in prop::collection::vec(op(&[&BURSTS[..], &WHAT].concat()), 1..120)) {
        run(&ops, End::Abort).map_err(TestCaseError::fail)?;
    }
}

proptest! {
    #![proptest_config(config(1000))]

    #[test]
    fn valid_messages_leave_the_tables_empty(
        ops in prop::collection::vec(message(), 1..150),
        strict in any::<bool>(),
        quiet in prop::bool::weighted(0.8),
    ) {
        let threads = if strict { Threads::Strict } else { Threads::Lending };
        let end = if quiet { messages::End::Quiet } else { messages::End::Gone };
        messages::run(&ops, threads, end).map_err(TestCaseError::fail)?;
    }
}

/// A promise that is resolved to a promise of the peer's comes back to its vat, named by the peer before it has
/// seen the Resolve: it stays at that place for ever.
#[test]
fn replay_a_promise_that_comes_back_stays_in_its_place() {
    use What::*;
    let ops = [
        Op(Call, 1, 223, 229, 144),
        Op(DropResponse, 0, 0, 0, 0),
        Op(Settle, 0, 0, 0, 0),
        Op(Call, 0, 216, 5, 186),
        Op(Object, 0, 0, 0, 0),
        Op(Pipeline, 0, 0, 48, 0),
        Op(Promise, 1, 0, 0, 0),
        Op(Call, 0, 9, 28, 72),
        Op(Object, 1, 0, 0, 0),
        Op(Promise, 0, 0, 0, 0),
        Op(Response, 1, 0, 0, 0),
        Op(Call, 1, 127, 0, 188),
        Op(Pipeline, 0, 0, 0, 0),
        Op(Settle, 0, 0, 0, 0),
        Op(Pipeline, 0, 0, 0, 0),
        Op(Response, 1, 0, 146, 0),
        Op(Promise, 1, 0, 0, 0),
        Op(DropHeld, 0, 0, 0, 0),
        Op(Promise, 0, 0, 0, 0),
        Op(Bootstrap, 1, 0, 0, 0),
        Op(Object, 0, 0, 0, 0),
        Op(Call, 1, 8, 154, 148),
        Op(Pipeline, 0, 0, 0, 0),
        Op(Call, 1, 42, 136, 196),
        Op(DropHeld, 0, 29, 0, 0),
        Op(DropHeld, 0, 9, 0, 0),
        Op(Settle, 0, 0, 0, 0),
        Op(Call, 0, 0, 0, 0),
        Op(DropHeld, 0, 4, 0, 0),
        Op(DropHeld, 1, 174, 0, 0),
        Op(Answer, 1, 0, 121, 0),
        Op(Resolve, 0, 0, 45, 0),
    ];
    replay(&ops);
}

/// The same with a capability in the results of a call through a promise: what the vat promises has become an
/// answer of the peer's, which is null in the end.
#[test]
fn replay_a_promised_result_that_comes_back_stays_in_its_place() {
    use What::*;
    let ops = [
        Op(Settle, 0, 0, 0, 0),
        Op(DropHeld, 1, 74, 0, 0),
        Op(Promise, 0, 0, 0, 0),
        Op(Call, 0, 233, 0, 5),
        Op(Pipeline, 0, 0, 0, 0),
        Op(Round, 0, 0, 23, 0),
        Op(Again, 0, 0, 24, 0),
    ];
    replay(&ops);
}

/// What is known to be broken is told as a promise, which is told to be broken right after: by then the peer may have
/// sent it back, and named it, so that it stays at that place.
#[test]
fn replay_what_is_broken_and_comes_back_stays_in_its_place() {
    use What::*;
    let ops = [
        Op(Settle, 0, 0, 0, 0),
        Op(Call, 1, 103, 81, 236),
        Op(Call, 1, 103, 211, 16),
        Op(Call, 1, 30, 0, 150),
        Op(Settle, 0, 0, 0, 0),
        Op(Call, 1, 0, 0, 0),
        Op(Pipeline, 1, 6, 0, 0),
        Op(Round, 1, 0, 159, 0),
        Op(Call, 1, 14, 63, 0),
    ];
    replay(&ops);
}

/// A promise comes back as a place in the results of a question that ends with `noFinishNeeded`, and is sent when that
/// question's ID has another use.
#[test]
fn replay_a_place_is_not_named_when_its_question_is_over() {
    use What::*;
    let ops = [
        Op(Settle, 0, 0, 0, 0),
        Op(Round, 1, 0, 186, 82),
        Op(Round, 1, 0, 30, 234),
        Op(Pipeline, 1, 0, 0, 0),
        Op(Again, 1, 0, 26, 68),
        Op(Again, 1, 0, 126, 12),
        Op(Round, 1, 0, 28, 170),
        Op(DropHeld, 1, 4, 0, 0),
        Op(Call, 0, 0, 13, 24),
        Op(Round, 1, 0, 91, 0),
        Op(Pipeline, 0, 0, 0, 0),
        Op(Resolve, 1, 20, 119, 0),
        Op(Round, 1, 0, 190, 0),
        Op(DropHeld, 0, 0, 0, 0),
        Op(Settle, 0, 0, 0, 0),
        Op(Pipeline, 1, 0, 0, 0),
        Op(Again, 1, 0, 24, 141),
        Op(Round, 1, 0, 6, 44),
        Op(Run, 0, 0, 0, 0),
        Op(Round, 0, 0, 0, 0),
        Op(Round, 1, 0, 100, 0),
        Op(Call, 0, 24, 61, 64),
    ];
    replay(&ops);
}

/// How many rounds of chains are run, and the number of the first: `CHAIN_ROUNDS` and `CHAIN_SEED` set them. A single round
/// is repeated by its number.
fn rounds(count: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|number| number.parse().ok());
    let first = number("CHAIN_SEED").unwrap_or(0);
    first..first + number("CHAIN_ROUNDS").unwrap_or(count)
}

#[test]
fn chains_of_promises_keep_order_in_every_order_of_steps() {
    for seed in rounds(300) {
        chains::stepped(seed).unwrap_or_else(|why| panic!("CHAIN_SEED={seed} CHAIN_ROUNDS=1: {why}"));
    }
}

#[test]
fn chains_of_promises_keep_order_with_threads() {
    for seed in rounds(50) {
        for threads in [Threads::Strict, Threads::Lending] {
            chains::threaded(seed, threads)
                .unwrap_or_else(|why| panic!("CHAIN_SEED={seed}, {threads:?}: {why}"));
        }
    }
}

fn replay(ops: &[Op]) {
    run(ops, End::Quiet).unwrap_or_else(|why| panic!("{why}"));
}
