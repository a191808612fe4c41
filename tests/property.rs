//! Two vats, a connection between them without threads, and random operations on both, with every step of the
//! connection's stages taken in random order: compared with a plain graph of objects and promises.
//!
//! Each call made on a reference arrives at the right object, once, in the order made on that reference, with
//! capabilities that mean the right objects, and gets its answer. When all is dropped, all tables are empty.
//!
//! Some runs make calls in bursts on one reference around the moment when it becomes known what it is: so that an
//! embargo that is missing shows.
//!
//! A failure is shown as the shortest list of operations that proptest found, with what happened.

#[path = "property/drive.rs"]
mod drive;
#[path = "property/graph.rs"]
mod graph;
#[path = "property/world.rs"]
mod world;

use drive::{run, End, Op, What};
use proptest::prelude::*;
use proptest::test_runner::Config;

fn what() -> impl Strategy<Value = What> {
    prop_oneof![
        12 => Just(What::Call),
        4 => Just(What::Pipeline),
        3 => Just(What::Response),
        3 => Just(What::DropHeld),
        2 => Just(What::DropResponse),
        2 => Just(What::DropPipeline),
        2 => Just(What::Promise),
        3 => Just(What::Resolve),
        1 => Just(What::ResolveToItself),
        1 => Just(What::Object),
        3 => Just(What::Answer),
        1 => Just(What::Bootstrap),
        1 => Just(What::Clone),
        1 => Just(What::Settle),
        8 => Just(What::Run),
        8 => Just(What::Send),
        16 => Just(What::Receive),
        16 => Just(What::Coordinate),
        16 => Just(What::Callback),
    ]
}

/// The same, and bursts of calls around the moment when it becomes known what they are made on.
fn what_in_bursts() -> impl Strategy<Value = What> {
    prop_oneof![8 => Just(What::Round), 20 => Just(What::Again), 72 => what()]
}

fn op(what: impl Strategy<Value = What>) -> impl Strategy<Value = Op> {
    (what, 0..2usize, any::<u8>(), any::<u8>(), any::<u8>())
        .prop_map(|(w, side, a, b, c)| Op(w, side, a, b, c))
}

fn config(cases: u32) -> Config {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|c| c.parse().ok()).unwrap_or(cases);
    Config { cases, failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() }
}

proptest! {
    #![proptest_config(config(1500))]

    #[test]
    fn calls_arrive_in_order_where_they_should(ops in prop::collection::vec(op(what()), 1..200)) {
        run(&ops, End::Quiet).map_err(TestCaseError::fail)?;
    }
}

proptest! {
    #![proptest_config(config(600))]

    #[test]
    fn bursts_of_calls_arrive_in_order(ops in prop::collection::vec(op(what_in_bursts()), 1..150)) {
        let ops: Vec<Op> = [Op(What::Settle, 0, 0, 0, 0)].into_iter().chain(ops).collect();
        run(&ops, End::Quiet).map_err(TestCaseError::fail)?;
    }
}

proptest! {
    #![proptest_config(config(500))]

    #[test]
    fn an_abort_ends_everything_that_waits(ops in prop::collection::vec(op(what_in_bursts()), 1..120)) {
        run(&ops, End::Abort).map_err(TestCaseError::fail)?;
    }
}
