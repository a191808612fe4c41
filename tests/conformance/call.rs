//! `Call`.

use capnp_threads::{Capability, Client};

use crate::support::*;

/// Calls on one capability arrive in the order sent, and each is answered.
/// Rules: 12.
#[test]
fn calls_on_one_capability_arrive_in_the_order_sent() {
    let recorder = Recorder::new();
    let mut peer = Peer::new(recorder.client());
    let object = peer.get_bootstrap();
    let questions: Vec<u32> =
        (1..=3).map(|tag| peer.call(Target::Import(object), NOTE, tag).send()).collect();
    recorder.expect(&[1, 2, 3]);
    for (tag, question) in (1..).zip(questions) {
        peer.expect_done(question, tag);
    }
    peer.finish_clean();
}

/// A call of ours goes out with its params, and its answer comes back.
/// Rules: none.
#[test]
fn call_of_ours_sends_its_params_and_gets_its_results() {
    let mut peer = Peer::new(Client::null());
    let client = peer.introduce(Cap::Hosted(7));
    let answer = send(&client, NOTE, 1, &[]);
    let call = peer.expect_call_of(1);
    assert_eq!(call.target, Target::Import(7));
    peer.results(call.question, 2, &[]);
    assert_eq!(wait(answer).unwrap(), (2, vec![]));
    drop(client);
    assert_eq!(peer.expect_release(7), 1);
    peer.finish_clean();
}
