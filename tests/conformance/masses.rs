//! What a peer may do again and again while one call goes on: nothing of it is left in our tables.
//!
//! Each test runs in both thread modes.

use capnp_threads::Client;

use crate::support::*;

/// How often. One entry that is left would be seen.
const TIMES: usize = 25;

/// What the peer does with the results of a call that goes on: the call's question, and the ID of the object.
type Use = fn(&mut Peer, &Recorder, u32, u32);

/// The ways to name the results, and to give the name up.
const USES: [(&str, Use); 6] = [
    ("ignored", |peer, _, kept, object| {
        let ignored = peer.call(Target::Import(object), NOTE, 2).caps(&[named(kept)]).send();
        peer.expect_done(ignored, 2);
    }),
    ("named in a call that fails", |peer, recorder, kept, object| {
        let fails = peer.call(Target::Import(object), HOLD, 2).caps(&[named(kept), named(kept)]).send();
        recorder.held().fail("on purpose");
        if !peer.expect_return(fails).no_finish {
            peer.finish(fails);
        }
    }),
    ("given back and released with the results", |peer, _, kept, object| {
        let gives = peer.call(Target::Import(object), GIVE, 2).caps(&[named(kept)]).send();
        peer.expect_results(gives);
        peer.finish(gives);
    }),
    ("given back and released later", |peer, _, kept, object| {
        let gives = peer.call(Target::Import(object), GIVE, 2).caps(&[named(kept)]).send();
        let Cap::Promise(export) = peer.expect_results(gives).caps[0] else { panic!("a promise of ours") };
        peer.finish_keeping(gives);
        peer.release(export, 1);
    }),
    ("held by an object for a while", |peer, recorder, kept, object| {
        let holds = peer.call(Target::Import(object), HOLD, 2).caps(&[named(kept)]).send();
        let holder = recorder.held();
        let (client, caps) = (holder.caps[0].clone(), holder.caps.len());
        assert_eq!(caps, 1);
        holder.answer(2, &[]);
        peer.expect_done(holds, 2);
        drop(client);
    }),
    ("called ahead, and canceled", |peer, _, kept, _| {
        let ahead = peer.call(Target::Answer(kept, vec![0]), NOTE, 2).caps(&[named(kept)]).send();
        peer.finish(ahead);
        peer.expect_canceled(ahead);
    }),
];

fn named(kept: u32) -> Cap {
    Cap::YourAnswer(kept, vec![0])
}

/// The results of a call that goes on are passed on 25 times.
/// Rules: 10.
#[test]
fn results_passed_on_repeatedly_leave_the_tables_as_they_were() {
    for start in [Peer::new, Peer::strict] as [fn(Client) -> Peer; 2] {
        for (what, pass_on) in USES {
            let recorder = Recorder::new();
            let mut peer = start(recorder.client());
            let object = peer.get_bootstrap();
            let kept = peer.call(Target::Import(object), HOLD, 1).send();
            let held = recorder.held();
            peer.settle();
            // What the peer asked for itself may be given back a moment later.
            peer.wait_tables(|now| now.answers() == 1 && now.export_references() == 1);
            let before = peer.vat.snapshot().to_string();
            for _ in 0..TIMES {
                pass_on(&mut peer, &recorder, kept, object);
            }
            peer.settle();
            // The last name may be given up a moment after the last answer was sent.
            peer.wait_tables(|now| now.to_string() == before);
            assert!(!held.is_canceled(), "{what}");
            held.answer(1, &[]);
            peer.expect_done(kept, 1);
            peer.finish_clean();
        }
    }
}
